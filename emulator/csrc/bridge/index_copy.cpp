#include <torch_headers.h>

// index_copy_ whose source may lie in the tensor it writes. PyTorch's CPU kernel refuses that; the
// card reads all of the source before it writes (lazy/test_inplace_output_handling.py of the
// bridge's suite copies rows of a KV cache within the cache).

namespace gaudi::bridge {
namespace {

at::Tensor& index_copy_(at::Tensor& self, int64_t dim, const at::Tensor& index,
                        const at::Tensor& source) {
  const auto& read = source.is_alias_of(self) ? source.clone() : source;
  return self.index_copy_(dim, index, read);
}

// The schema is ATen's: the device runs it in the place of aten::index_copy_.
TORCH_LIBRARY_FRAGMENT(gaudi_kernel, m) {
  m.def(
      "index_copy_(Tensor(a!) self, int dim, Tensor index, Tensor source) -> Tensor(a!)");
}
TORCH_LIBRARY_IMPL(gaudi_kernel, CPU, m) { m.impl("index_copy_", &index_copy_); }

}  // namespace
}  // namespace gaudi::bridge
