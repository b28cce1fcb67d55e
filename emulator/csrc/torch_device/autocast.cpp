// Operators do not notice torch.autocast("hpu") unless the bridge lists them (_autocast.py there).
#include <torch_headers.h>

#include <torch/library.h>

TORCH_LIBRARY_IMPL(_, AutocastHPU, m) { m.fallback(torch::CppFunction::makeFallthrough()); }
