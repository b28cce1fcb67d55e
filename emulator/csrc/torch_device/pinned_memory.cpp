#include <torch_headers.h>

#include "pinned_memory.h"

#include <ATen/EmptyTensor.h>
#include <c10/core/CPUAllocator.h>

#include <cstring>
#include <map>
#include <mutex>

namespace gaudi {
namespace {

struct Registry {
  std::mutex mutex;
  std::map<uintptr_t, size_t> ranges;  // first byte -> length
};

Registry& registry() {
  static auto* instance = new Registry;  // outlives tensors destroyed at exit
  return *instance;
}

struct Pinned {
  c10::DataPtr bytes;
  runtime::Uses uses;  // by the cards; the host's own cannot be seen
};

void unpin(void* ctx) {
  auto* pinned = static_cast<Pinned*>(ctx);
  {
    auto& r = registry();
    const std::lock_guard<std::mutex> lock(r.mutex);
    r.ranges.erase(reinterpret_cast<uintptr_t>(pinned->bytes.get()));
  }
  delete pinned;
}

class PinnedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    auto* pinned = new Pinned{c10::GetCPUAllocator()->allocate(bytes), {}};
    void* data = pinned->bytes.get();
    if (data != nullptr) {
      auto& r = registry();
      const std::lock_guard<std::mutex> lock(r.mutex);
      r.ranges[reinterpret_cast<uintptr_t>(data)] = bytes;
    }
    return {data, pinned, &unpin, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* dest, const void* src, std::size_t count) const override {
    std::memcpy(dest, src, count);
  }
};

bool wants_hpu(std::optional<c10::Device> device) {
  return !device || device->type() == c10::DeviceType::HPU;
}

// PyTorch's own kernels ask "the accelerator" for its pinned memory and do not count HPU among the
// accelerators, so CPU tensors get kernels that ask here.
bool tensor_is_pinned(const at::Tensor& self, std::optional<c10::Device> device) {
  return wants_hpu(device) && is_pinned(self.storage().data());
}

at::Tensor pin(const at::Tensor& self, std::optional<c10::Device> device) {
  TORCH_CHECK(wants_hpu(device), "cannot pin memory for ", *device, ": the accelerator is hpu");
  const auto bytes = at::detail::computeStorageNbytes(self.sizes(), self.strides(),
                                                      self.dtype().itemsize());
  c10::Storage storage(c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), static_cast<int64_t>(bytes), pinned_allocator(),
      /*resizable=*/false));
  auto out = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU), self.dtype());
  out.unsafeGetTensorImpl()->set_sizes_and_strides(self.sizes(), self.strides());
  out.copy_(self);
  return out;
}

TORCH_LIBRARY_IMPL(aten, CPU, m) {
  m.impl("is_pinned", &tensor_is_pinned);
  m.impl("_pin_memory", &pin);
}

}  // namespace

c10::Allocator* pinned_allocator() {
  static PinnedAllocator instance;
  return &instance;
}

runtime::Uses* pinned_uses(const c10::StorageImpl& host) {
  auto* pinned = host.data_ptr().cast_context<Pinned>(&unpin);
  return pinned == nullptr ? nullptr : &pinned->uses;
}

bool is_pinned(const void* data) {
  if (data == nullptr) return false;
  const auto address = reinterpret_cast<uintptr_t>(data);
  auto& r = registry();
  const std::lock_guard<std::mutex> lock(r.mutex);
  auto after = r.ranges.upper_bound(address);
  if (after == r.ranges.begin()) return false;
  --after;
  return address < after->first + after->second;
}

}  // namespace gaudi
