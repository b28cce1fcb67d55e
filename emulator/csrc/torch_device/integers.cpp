#include <torch_headers.h>

#include "integers.h"

#include <ATen/ops/_to_copy.h>

namespace gaudi {
namespace {

bool is_int64(const at::Tensor& t) {
  return t.defined() && t.scalar_type() == c10::ScalarType::Long && t.numel() > 0;
}

template <typename F>
void for_each_int64(const c10::IValue& value, F&& f) {
  if (value.isTensor()) {
    if (is_int64(value.toTensor())) f(value.toTensor());
  } else if (value.isTensorList()) {
    for (const at::Tensor& t : value.toTensorList()) {
      if (is_int64(t)) f(t);
    }
  }
}

}  // namespace

std::atomic<bool> detail::native_int64{true};

void detail::keep_32_bits(const at::Tensor& host) {
  if (!is_int64(host)) return;
  if (!host.is_non_overlapping_and_dense()) {
    host.copy_(host.to(c10::ScalarType::Int));
    return;
  }
  auto* values = host.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < host.numel(); ++i) values[i] = static_cast<int32_t>(values[i]);
}

std::vector<at::Tensor> written_int64(const c10::FunctionSchema& schema,
                                      const torch::jit::Stack& stack) {
  std::vector<at::Tensor> written;
  const auto& arguments = schema.arguments();
  const auto begin = stack.size() - arguments.size();
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto* alias = arguments[i].alias_info();
    if (alias == nullptr || !alias->isWrite()) continue;
    for_each_int64(stack[begin + i], [&](const at::Tensor& t) { written.push_back(t); });
  }
  return written;
}

void keep_32_bits_of_results(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  const auto& returns = schema.returns();
  const auto begin = stack.size() - returns.size();
  for (size_t i = 0; i < returns.size(); ++i) {
    if (returns[i].alias_info() != nullptr) continue;  // written in place, or a view
    for_each_int64(stack[begin + i], [](const at::Tensor& t) { detail::keep_32_bits(t); });
  }
}

}  // namespace gaudi
