// How does an `hpu` storage relate to the host bytes behind it?
//
// Every hpu StorageImpl has one companion: a CPU StorageImpl over the same bytes, which owns them and
// their accounting. Making a host tensor over device bytes costs one TensorImpl, and a companion can
// be recognised by its address when an operator hands it back.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/core/StorageImpl.h>

#include "../runtime/order.h"

namespace gaudi {

constexpr auto kHPU = c10::DeviceType::HPU;

// Context of the DataPtr of every hpu storage.
struct Block {
  c10::intrusive_ptr<c10::StorageImpl> host;
};

c10::Allocator* device_allocator();

// The storage of a tensor that has one, of a host or of a card, without taking a reference.
inline c10::StorageImpl* storage_of(const at::Tensor& tensor) {
  return tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
}

// Never null. A storage whose bytes were set from outside gets its companion here.
c10::StorageImpl* companion(const c10::Storage& device_storage);

// CPU tensor over the bytes of an hpu tensor, with its sizes, strides, conjugate and negative bits.
at::Tensor host_alias(const at::Tensor& device_tensor);

// Whether the bytes of a CPU storage are a card's: the companion of an hpu storage.
bool is_device_memory(const c10::StorageImpl& host);

// Who used the bytes of such a companion; null for any other storage.
runtime::Uses* uses_of(const c10::StorageImpl& host);

// hpu tensor over the bytes of a CPU tensor; the bytes are accounted to the card until they are
// freed. Throws c10::OutOfMemoryError when the card is full.
at::Tensor adopt(const at::Tensor& host_tensor, int card);

// hpu tensor of the geometry of `host_view`, a view of the companion of `base`.
at::Tensor adopt_view(const at::Tensor& host_view, const at::Tensor& base);

// After a kernel wrote through `host`, an alias of `device_tensor`: follow a resize of either the
// storage or the geometry.
void follow_alias(const at::Tensor& device_tensor, const at::Tensor& host);

// New zeroed or uninitialised (possibly poisoned) hpu storage on a card.
c10::Storage new_device_storage(size_t bytes, int card, bool zeroed);

// Number of bytes the elements of a tensor span, views counted once.
int64_t payload_bytes(const at::Tensor& tensor);

}  // namespace gaudi
