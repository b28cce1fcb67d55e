#include <torch_headers.h>

#include "device_storage.h"

#include <ATen/core/TensorBase.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>

#include <cstring>
#include <memory>

#include "../runtime/memory.h"
#include "../runtime/stream.h"
#include "fault_effects.h"
#include "graph.h"
#include "launch.h"

namespace gaudi {
namespace {

// Who uses memory made now; null unless the order is checked.
std::unique_ptr<runtime::Uses> new_uses(int card) {
  if (!runtime::checking_order()) return nullptr;
  auto uses = std::make_unique<runtime::Uses>();
  uses->home = runtime::stream_number(card, runtime::current_stream(card));
  return uses;
}

// Bytes from runtime::allocate_host, accounted to a card.
struct OwnBytes {
  void* data;
  size_t bytes;
  int card;
  runtime::Reservation reservation;
  std::unique_ptr<runtime::Uses> uses;
};

void free_own(void* ctx) {
  auto* own = static_cast<OwnBytes*>(ctx);
  if (own->uses) runtime::check_freed(*own->uses);
  runtime::free_host(own->data);
  runtime::release(own->card, own->bytes, own->reservation);
  delete own;
}

// Bytes a CPU kernel allocated for its result, now accounted to a card.
struct AdoptedBytes {
  c10::DataPtr bytes_owner;
  size_t bytes;
  int card;
  runtime::Reservation reservation;
  std::unique_ptr<runtime::Uses> uses;
};

void free_adopted(void* ctx) {
  auto* adopted = static_cast<AdoptedBytes*>(ctx);
  if (adopted->uses) runtime::check_freed(*adopted->uses);
  runtime::release(adopted->card, adopted->bytes, adopted->reservation);
  delete adopted;
}

void free_block(void* ctx) { delete static_cast<Block*>(ctx); }

runtime::Reservation reserve_or_throw(int card, size_t bytes) {
  fault_at(runtime::Site::kAllocate, card);
  // Intermediate tensors of a capture live in the graph's workspace, which is planned and reserved
  // at its end.
  if (Graph::capturing() != nullptr) return runtime::note(card, bytes);
  try {
    return runtime::reserve(card, bytes);
  } catch (const runtime::OutOfMemory& e) {
    TORCH_CHECK_WITH(OutOfMemoryError, false, e.what());
  }
}

bool is_accounted(const c10::DataPtr& p) {
  return p.get_deleter() == &free_own || p.get_deleter() == &free_adopted;
}

// Account the bytes of a CPU storage to the card, once.
void account(c10::StorageImpl* host, int card) {
  if (is_accounted(host->data_ptr()) || host->data() == nullptr) return;
  const size_t bytes = host->nbytes();
  const auto reservation = reserve_or_throw(card, bytes);
  void* data = host->mutable_data();
  auto owner = host->set_data_ptr(c10::DataPtr(nullptr, c10::Device(c10::kCPU)));
  auto* adopted = new AdoptedBytes{std::move(owner), bytes, card, reservation, new_uses(card)};
  host->set_data_ptr_noswap(c10::DataPtr(data, adopted, &free_adopted, c10::Device(c10::kCPU)));
}

c10::DataPtr device_pointer(c10::intrusive_ptr<c10::StorageImpl> host, int card) {
  void* data = host->mutable_data();
  return {data, new Block{std::move(host)}, &free_block,
          c10::Device(kHPU, static_cast<c10::DeviceIndex>(card))};
}

c10::intrusive_ptr<c10::StorageImpl> new_host_storage(size_t bytes, int card, bool zeroed) {
  const auto reservation = reserve_or_throw(card, bytes);
  void* data = nullptr;
  try {
    data = runtime::allocate_host(bytes, zeroed);
  } catch (const runtime::OutOfMemory& e) {
    runtime::release(card, bytes, reservation);
    TORCH_CHECK_WITH(OutOfMemoryError, false, e.what());
  }
  if (!zeroed && runtime::poison_enabled()) runtime::poison(data, bytes);
  auto* own = new OwnBytes{data, bytes, card, reservation, new_uses(card)};
  auto host = c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), static_cast<int64_t>(bytes),
      c10::DataPtr(data, own, &free_own, c10::Device(c10::kCPU)), c10::GetCPUAllocator(),
      /*resizable=*/true);
  if (auto* capture = Graph::capturing()) capture->note_allocation(host);
  return host;
}

c10::Storage device_storage_over(c10::intrusive_ptr<c10::StorageImpl> host, int card) {
  const auto bytes = static_cast<int64_t>(host->nbytes());
  return c10::Storage(c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), bytes, device_pointer(std::move(host), card),
      device_allocator(), /*resizable=*/true));
}

// torch.accelerator's memory functions ask this class, all but get_memory_info: on a card it is not
// implemented either, and torch.hpu.mem_get_info answers instead.
class DeviceAllocator final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const int card = runtime::current_card();
    return device_pointer(new_host_storage(bytes, card, /*zeroed=*/false), card);
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* dest, const void* src, std::size_t count) const override {
    come_after_current_stream(runtime::current_card());
    std::memcpy(dest, src, count);
  }

  bool initialized() override { return runtime::card_count() > 0; }
  void emptyCache(c10::MempoolId_t) override {}  // freed memory is given back at once
  void recordStream(const c10::DataPtr& pointer, c10::Stream stream) override {
    auto* block = pointer.cast_context<Block>(&free_block);
    auto* uses = block == nullptr ? nullptr : uses_of(*block->host);
    if (uses != nullptr) runtime::record_stream_use(*uses, stream.device_index(), stream.id());
  }
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex card) override {
    const auto s = runtime::memory_stats(card);
    c10::CachingDeviceAllocator::DeviceStats out;
    for (auto* bytes : {&out.allocated_bytes[0], &out.reserved_bytes[0], &out.active_bytes[0],
                        &out.requested_bytes[0]}) {
      bytes->current = s.in_use_bytes;
      bytes->peak = s.peak_bytes;
      bytes->allocated = s.allocated_bytes_total;
      bytes->freed = s.allocated_bytes_total - s.in_use_bytes;
    }
    out.allocation[0].current = s.allocations - s.frees;
    out.allocation[0].allocated = s.allocations;
    out.allocation[0].freed = s.frees;
    out.num_ooms = s.out_of_memory_errors;
    return out;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {
    TORCH_CHECK_NOT_IMPLEMENTED(false, "the HPU device keeps its accumulated memory statistics");
  }
  void resetPeakStats(c10::DeviceIndex card) override { runtime::reset_peak(card); }
};

void copy_geometry(c10::TensorImpl* to, const c10::TensorImpl* from) {
  to->set_sizes_and_strides(from->sizes(), from->strides(), from->storage_offset());
}

void copy_lazy_bits(const at::Tensor& to, const at::Tensor& from) {
  if (from.is_conj()) to._set_conj(true);
  if (from.is_neg()) to._set_neg(true);
}

}  // namespace

c10::Allocator* device_allocator() {
  static DeviceAllocator instance;
  return &instance;
}

c10::StorageImpl* companion(const c10::Storage& device_storage) {
  auto* impl = device_storage.unsafeGetStorageImpl();
  const auto& pointer = impl->data_ptr();
  if (auto* block = pointer.cast_context<Block>(&free_block)) return block->host.get();
  // Bytes of another owner (or none): keep that owner alive through the companion.
  const auto card = impl->device().index();
  auto owner = impl->set_data_ptr(c10::DataPtr(nullptr, impl->device()));
  void* data = owner.get();
  auto* adopted = new AdoptedBytes{std::move(owner), 0, card, {}, new_uses(card)};
  auto host = c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), static_cast<int64_t>(impl->nbytes()),
      c10::DataPtr(data, adopted, &free_adopted, c10::Device(c10::kCPU)), c10::GetCPUAllocator(),
      /*resizable=*/true);
  impl->set_data_ptr_noswap(device_pointer(std::move(host), card));
  return impl->data_ptr().cast_context<Block>(&free_block)->host.get();
}

bool is_device_memory(const c10::StorageImpl& host) { return is_accounted(host.data_ptr()); }

runtime::Uses* uses_of(const c10::StorageImpl& host) {
  const auto& pointer = host.data_ptr();
  if (pointer.get_deleter() == &free_own) {
    return static_cast<OwnBytes*>(pointer.get_context())->uses.get();
  }
  if (pointer.get_deleter() == &free_adopted) {
    return static_cast<AdoptedBytes*>(pointer.get_context())->uses.get();
  }
  return nullptr;
}

at::Tensor host_alias(const at::Tensor& device_tensor) {
  const auto* impl = device_tensor.unsafeGetTensorImpl();
  TORCH_CHECK_NOT_IMPLEMENTED(impl->has_storage() && device_tensor.layout() == c10::kStrided,
                              "the HPU device has dense strided tensors only, got layout ",
                              device_tensor.layout());
  auto host = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(
          companion(impl->unsafe_storage()))),
      c10::DispatchKeySet(c10::DispatchKey::CPU), impl->dtype());
  copy_geometry(host.unsafeGetTensorImpl(), impl);
  copy_lazy_bits(host, device_tensor);
  return host;
}

at::Tensor adopt(const at::Tensor& host_tensor, int card) {
  const auto* impl = host_tensor.unsafeGetTensorImpl();
  TORCH_CHECK_NOT_IMPLEMENTED(impl->has_storage() && host_tensor.layout() == c10::kStrided,
                              "the HPU device has dense strided tensors only, got layout ",
                              host_tensor.layout());
  auto host = c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(
      impl->unsafe_storage().unsafeGetStorageImpl());
  account(host.get(), card);
  auto out = at::detail::make_tensor<c10::TensorImpl>(
      device_storage_over(std::move(host), card), c10::DispatchKeySet(c10::DispatchKey::HPU),
      impl->dtype());
  copy_geometry(out.unsafeGetTensorImpl(), impl);
  copy_lazy_bits(out, host_tensor);
  return out;
}

at::Tensor adopt_view(const at::Tensor& host_view, const at::Tensor& base) {
  const auto* impl = host_view.unsafeGetTensorImpl();
  auto storage = base.storage();
  // The key set of the base and the VIEW tag: an inference tensor's view must be one too.
  auto out = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, std::move(storage),
                                                      base.key_set(), impl->dtype());
  copy_geometry(out.unsafeGetTensorImpl(), impl);
  if (out.is_conj() != host_view.is_conj()) out._set_conj(host_view.is_conj());
  if (out.is_neg() != host_view.is_neg()) out._set_neg(host_view.is_neg());
  return out;
}

void follow_alias(const at::Tensor& device_tensor, const at::Tensor& host) {
  auto* device_impl = device_tensor.unsafeGetTensorImpl();
  const auto* host_impl = host.unsafeGetTensorImpl();
  auto* device_storage = device_impl->unsafe_storage().unsafeGetStorageImpl();
  auto* host_storage = host_impl->unsafe_storage().unsafeGetStorageImpl();
  if (host_storage->data() != device_storage->data() ||
      host_storage->nbytes() != device_storage->nbytes()) {
    const auto card = device_storage->device().index();
    account(host_storage, card);
    auto keep = c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(host_storage);
    device_storage->set_data_ptr_noswap(device_pointer(std::move(keep), card));
    device_storage->set_nbytes(host_storage->nbytes());
  }
  if (device_impl->sizes() != host_impl->sizes() || device_impl->strides() != host_impl->strides() ||
      device_impl->storage_offset() != host_impl->storage_offset()) {
    copy_geometry(device_impl, host_impl);
  }
}

c10::Storage new_device_storage(size_t bytes, int card, bool zeroed) {
  return device_storage_over(new_host_storage(bytes, card, zeroed), card);
}

int64_t payload_bytes(const at::Tensor& tensor) {
  return tensor.numel() * static_cast<int64_t>(tensor.element_size());
}

}  // namespace gaudi
