#include <torch_headers.h>

#include "host_kernel.h"

#include <ATen/core/List.h>
#include <c10/util/SmallVector.h>

#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "card_indices.h"
#include "integers.h"
#include "kernel_time.h"

namespace gaudi {
namespace {

constexpr c10::DispatchKeySet kHostKeys(c10::DispatchKey::CPU);

bool is_narrow(c10::ScalarType type) {
  return c10::isReducedFloatingType(type) || c10::isFloat8Type(type);
}

bool lacks_type(const c10::Error& error) {
  const std::string_view text = error.msg();
  return text.find("not implemented for '") != std::string_view::npos ||
         text.find("Unsupported datatype") != std::string_view::npos;
}

// Operators that the card has for integers and booleans, computed in float32, and the CPU has not:
// tests/pytest_working/any_mode of HabanaAI/gaudi-pytorch-bridge.
bool takes_integers(const c10::FunctionSchema& schema) {
  static const std::unordered_set<std::string> names{"aten::lerp", "aten::trunc"};
  return names.count(schema.name()) != 0 ||
         (schema.name().back() == '_' &&
          names.count(schema.name().substr(0, schema.name().size() - 1)) != 0);
}

// A call's arguments in float32 instead of a narrow type, and the way back.
class Widened {
 public:
  explicit Widened(const c10::FunctionSchema& schema)
      : schema_(schema), integers_(takes_integers(schema)) {}

  c10::IValue argument(const c10::IValue& value, size_t index) {
    if (value.isTensor() && value.toTensor().defined()) return widened(value.toTensor());
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorList()) list.push_back(widened(tensor));
      return list;
    }
    if (value.isInt() && names_type(index)) {
      const auto type = static_cast<c10::ScalarType>(value.toInt());
      asked_ = type;
      if (is_narrow(type)) return c10::IValue(static_cast<int64_t>(c10::ScalarType::Float));
    }
    return value;
  }

  // Written arguments receive their new values, fresh results their type.
  void result(c10::IValue& value) {
    if (value.isTensor() && value.toTensor().defined()) {
      value = narrowed(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorList()) list.push_back(narrowed(tensor));
      value = std::move(list);
    }
  }

  void write_back() {
    if (!schema_.is_mutable()) return;
    for (auto& [narrow, wide] : pairs_) narrow.copy_(wide);
  }

 private:
  bool names_type(size_t index) const {
    auto type = schema_.arguments()[index].real_type();
    if (type->kind() == c10::TypeKind::OptionalType) {
      type = type->expectRef<c10::OptionalType>().getElementType();
    }
    return type->kind() == c10::TypeKind::ScalarTypeType;
  }

  at::Tensor widened(const at::Tensor& tensor) {
    const auto type = tensor.scalar_type();
    if (!is_narrow(type) && !(integers_ && c10::isIntegralType(type, /*includeBool=*/true))) {
      if (c10::isFloatingType(type) && tensor.dim() > 0) wide_input_ = true;
      return tensor;
    }
    narrow_ = narrow_ && *narrow_ != type ? c10::promoteTypes(*narrow_, type) : type;
    pairs_.emplace_back(tensor, tensor.to(c10::ScalarType::Float));
    return pairs_.back().second;
  }

  at::Tensor narrowed(const at::Tensor& tensor) const {
    for (const auto& [narrow, wide] : pairs_) {
      if (wide.is_same(tensor)) return narrow;
    }
    if (tensor.scalar_type() != c10::ScalarType::Float) return tensor;
    if (asked_) return tensor.to(*asked_);
    return narrow_ && !wide_input_ ? tensor.to(*narrow_) : tensor;
  }

  const c10::FunctionSchema& schema_;
  const bool integers_;
  c10::SmallVector<std::pair<at::Tensor, at::Tensor>, 4> pairs_;
  std::optional<c10::ScalarType> narrow_;
  std::optional<c10::ScalarType> asked_;
  bool wide_input_ = false;
};

template <typename Test>
bool has_tensor(c10::ArrayRef<c10::IValue> arguments, const Test& test) {
  for (const auto& value : arguments) {
    if (value.isTensor()) {
      if (value.toTensor().defined() && test(value.toTensor().scalar_type())) return true;
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorList()) {
        if (tensor.defined() && test(tensor.scalar_type())) return true;
      }
    }
  }
  return false;
}

bool may_lack_type(c10::ArrayRef<c10::IValue> arguments, const c10::FunctionSchema& schema) {
  const auto is_integer = [](c10::ScalarType type) { return c10::isIntegralType(type, true); };
  return has_tensor(arguments, is_narrow) ||
         (has_tensor(arguments, is_integer) && takes_integers(schema));
}

void call_with_its_types(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto begin = stack->size() - op.schema().arguments().size();
  const auto arguments = c10::ArrayRef<c10::IValue>(*stack).slice(begin);
  if (!may_lack_type(arguments, op.schema())) {
    op.redispatchBoxed(kHostKeys, stack);
    return;
  }
  // A kernel that fails may have taken its arguments from the stack already.
  const c10::SmallVector<c10::IValue, 8> kept(arguments.begin(), arguments.end());
  try {
    op.redispatchBoxed(kHostKeys, stack);
    return;
  } catch (const c10::Error& error) {
    if (!lacks_type(error)) throw;
  }
  Widened call(op.schema());
  stack->resize(begin);
  for (size_t i = 0; i < kept.size(); ++i) stack->push_back(call.argument(kept[i], i));
  op.redispatchBoxed(kHostKeys, stack);
  call.write_back();
  for (auto i = stack->size() - op.schema().returns().size(); i < stack->size(); ++i) {
    call.result((*stack)[i]);
  }
}

void call_kernel(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  if (card_indices() &&
      run_with_card_indices(op, stack, [&] { call_with_its_types(op, stack); })) {
    return;
  }
  call_with_its_types(op, stack);
}

}  // namespace

void call_host_kernel(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const KernelTimer timer(op);
  if (native_int64()) [[likely]] {
    call_kernel(op, stack);
    return;
  }
  const auto written = written_int64(op.schema(), *stack);
  call_kernel(op, stack);
  for (const auto& tensor : written) keep_card_integers(tensor);
  keep_32_bits_of_results(op.schema(), *stack);
}

}  // namespace gaudi
