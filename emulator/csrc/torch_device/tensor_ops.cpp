// Operators on the hpu tensor itself rather than its values: making, viewing, resizing, reading one.
#include <torch_headers.h>

#include <ATen/EmptyTensor.h>
#include <ATen/ops/_local_scalar_dense_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/DeviceGuard.h>

#include "../runtime/memory.h"
#include "../runtime/stream.h"
#include "device_storage.h"
#include "fallback.h"
#include "graph.h"
#include "launch.h"
#include "lazy_graph.h"

namespace gaudi {
namespace {

constexpr c10::DispatchKeySet kHpuKeys(c10::DispatchKey::HPU);

// The current card is `device`'s for as long as this lives.
class OnCard {
 public:
  explicit OnCard(std::optional<c10::Device> device) : before_(runtime::current_card()) {
    const int card = device && device->has_index() ? device->index() : before_;
    TORCH_CHECK(card < runtime::card_count(), "invalid device hpu:", card, ": ",
                runtime::card_count(),
                " card(s) are visible to this process (HABANA_VISIBLE_MODULES, "
                "GAUDI_EMULATOR_CARDS)");
    if (card != before_) runtime::set_current_card(card);
  }
  ~OnCard() {
    if (runtime::current_card() != before_) runtime::set_current_card(before_);
  }
  OnCard(const OnCard&) = delete;
  OnCard& operator=(const OnCard&) = delete;

 private:
  int before_;
};

void check_options(std::optional<c10::Layout> layout, std::optional<bool> pin_memory) {
  TORCH_CHECK_NOT_IMPLEMENTED(!layout || *layout == c10::kStrided,
                              "the HPU device has dense strided tensors only, got layout ",
                              *layout);
  TORCH_CHECK(!pin_memory.value_or(false),
              "only host tensors can be pinned, and this one is on the HPU device");
}

at::Tensor empty(c10::IntArrayRef size, std::optional<c10::ScalarType> dtype,
                 std::optional<c10::Layout> layout, std::optional<c10::Device> device,
                 std::optional<bool> pin_memory, std::optional<c10::MemoryFormat> format) {
  check_options(layout, pin_memory);
  const OnCard on(device);
  return at::detail::empty_generic(size, device_allocator(), kHpuKeys,
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride,
                         std::optional<c10::ScalarType> dtype, std::optional<c10::Layout> layout,
                         std::optional<c10::Device> device, std::optional<bool> pin_memory) {
  check_options(layout, pin_memory);
  const OnCard on(device);
  return at::detail::empty_strided_generic(size, stride, device_allocator(), kHpuKeys,
                                           c10::dtype_or_default(dtype));
}

// Large zeroed tensors (a KV cache) are mapped, not written: host pages appear when touched.
at::Tensor zeros(c10::IntArrayRef size, std::optional<c10::ScalarType> dtype,
                 std::optional<c10::Layout> layout, std::optional<c10::Device> device,
                 std::optional<bool> pin_memory) {
  if (Graph::capturing() != nullptr) {
    auto out = empty(size, dtype, layout, device, pin_memory, std::nullopt);
    out.zero_();
    return out;
  }
  check_options(layout, pin_memory);
  const OnCard on(device);
  const auto type = c10::scalarTypeToTypeMeta(c10::dtype_or_default(dtype));
  const size_t bytes = at::detail::computeStorageNbytesContiguous(size, type.itemsize());
  auto out = at::detail::make_tensor<c10::TensorImpl>(
      new_device_storage(bytes, runtime::current_card(), /*zeroed=*/true), kHpuKeys, type);
  out.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  return out;
}

void refuse_resize_in_capture(const at::Tensor& self, const char* name) {
  if (self.storage().nbytes() != 0) {
    refuse_in_capture(name, "a resize would move memory that the graph points to");
  }
}

const at::Tensor& resize_(const at::Tensor& self, c10::IntArrayRef size,
                          std::optional<c10::MemoryFormat> format) {
  const auto needed =
      at::detail::computeStorageNbytesContiguous(size, self.dtype().itemsize(),
                                                 self.storage_offset());
  if (needed > self.storage().nbytes()) refuse_resize_in_capture(self, "aten::resize_");
  const OnCard on(self.device());
  come_after_current_stream(self.device().index());  // moves values
  return at::native::resize_(self, size, format);
}

const at::Tensor& resize_output_(const at::Tensor& self, c10::IntArrayRef size,
                                 c10::Device device) {
  TORCH_CHECK(self.device() == device, "expected an out= tensor on ", device, ", got one on ",
              self.device());
  return resize_(self, size, std::nullopt);
}

at::Tensor& set_storage_at(at::Tensor& self, c10::Storage source, int64_t offset,
                           c10::IntArrayRef size, c10::IntArrayRef stride) {
  const OnCard on(self.device());
  return at::native::set_storage_cpu_(self, std::move(source), offset, size, stride);
}

at::Tensor& set_storage(at::Tensor& self, c10::Storage source) {
  const auto elements =
      static_cast<int64_t>(source.nbytes() / self.dtype().itemsize());
  return set_storage_at(self, std::move(source), 0, elements, {});
}

at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& source) {
  if (self.is_same(source)) return self;
  return set_storage_at(self, source.storage(), source.storage_offset(), source.sizes(),
                        source.strides());
}

at::Tensor& set_nothing(at::Tensor& self) {
  return set_storage_at(self, new_device_storage(0, self.device().index(), false), 0, {0}, {});
}

at::Scalar local_scalar_dense(const at::Tensor& self) {
  static const std::string name = "aten::_local_scalar_dense (item)";
  cut_lazy_graphs();
  host_read(name.c_str());
  const auto host = host_alias(self);
  const int card = self.device().index();
  StreamLaunch(card, name).reads(host);
  wait_for_current_stream(card);
  return at::native::_local_scalar_dense_cpu(host);
}

// Memory that queued work holds is freed by that work; only the check of the order needs to know.
void record_stream(at::Tensor& self, c10::Stream stream) {
  TORCH_CHECK(stream.device_type() == kHPU, "record_stream on an hpu tensor needs an hpu stream, ",
              "got one of ", stream.device());
  TORCH_CHECK(runtime::stream_exists(stream.device_index(), stream.id()), "no such stream: ",
              stream);
  if (auto* uses = uses_of(*companion(self.storage()))) {
    runtime::record_stream_use(*uses, stream.device_index(), stream.id());
  }
}

TORCH_LIBRARY_IMPL(aten, HPU, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("zeros", &zeros);
  m.impl("resize_", &resize_);
  m.impl("_resize_output_", &resize_output_);
  m.impl("set_.source_Storage_storage_offset", &set_storage_at);
  m.impl("set_.source_Storage", &set_storage);
  m.impl("set_.source_Tensor", &set_tensor);
  m.impl("set_", &set_nothing);
  m.impl("view", &at::native::view);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("unfold", &at::native::unfold);
  m.impl("view_as_real", &at::native::view_as_real);
  m.impl("view_as_complex", &at::native::view_as_complex);
  m.impl("_local_scalar_dense", &local_scalar_dense);
  m.impl("record_stream", &record_stream);
}

}  // namespace
}  // namespace gaudi
