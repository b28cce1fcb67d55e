// What does a PyTorch that is built for CUDA see of it? Nothing: it refuses to have two accelerators
// ("Cannot have both HPU and cuda"), with or without a GPU, and PyPI's PyTorch is built for CUDA.
#include <torch_headers.h>

#include <ATen/detail/CUDAHooksInterface.h>

#include <new>

namespace gaudi {
namespace {

using Hooks = at::CUDAHooksInterface;
static_assert(sizeof(Hooks) == sizeof(void*), "hooks with members cannot be exchanged in place");

// PyTorch has made its hooks while it was imported, and keeps them; so those of a build without CUDA,
// which are the base class, take their place in memory.
[[maybe_unused]] const bool hidden = [] {
  const Hooks& hooks = at::detail::getCUDAHooks();
  if (hooks.isBuilt()) new (const_cast<Hooks*>(&hooks)) Hooks();
  return true;
}();

}  // namespace
}  // namespace gaudi
