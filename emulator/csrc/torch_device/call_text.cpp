#include <torch_headers.h>

#include "call_text.h"

#include <cstdio>

#include "device_storage.h"

namespace gaudi {
namespace {

void append_numbers(std::string& text, at::IntArrayRef numbers) {
  for (const auto number : numbers) text.append(std::to_string(number)).push_back(',');
}

}  // namespace

void CallText::clear() {
  text_.clear();
  met_.clear();
}

void CallText::meet(const at::Tensor& tensor) {
  const auto& storage = tensor.unsafeGetTensorImpl()->unsafe_storage();
  if (met_.count(storage.unsafeGetStorageImpl()) != 0) return;
  met_.emplace(storage.unsafeGetStorageImpl(), Met{met_.size() + 1, storage.getWeakStorageImpl()});
}

void CallText::add(const std::string& name, c10::ArrayRef<c10::IValue> arguments) {
  text_.append(name).push_back('(');
  for (const auto& argument : arguments) {
    for_each_tensor(argument, [&](const at::Tensor& tensor) { meet(tensor); });
    describe(argument);
    text_.push_back(';');
  }
  text_.append(")\n");
}

void CallText::describe(const c10::IValue& value) {
  if (value.isTensor()) {
    const auto& tensor = value.toTensor();
    if (!tensor.defined()) {
      text_.append("none");
      return;
    }
    text_.append(c10::toString(tensor.scalar_type())).push_back('[');
    append_numbers(text_, tensor.sizes());
    text_.push_back('/');
    append_numbers(text_, tensor.strides());
    text_.push_back(']');
    if (tensor.dim() == 0 && !is_device_memory(*storage_of(tensor))) {
      text_.append("=").append(c10::str(tensor.item()));  // a number of the host is a constant
    } else {
      text_.append("@").append(std::to_string(met_.at(storage_of(tensor)).number));
      text_.append("+").append(std::to_string(tensor.storage_offset()));
    }
  } else if (value.isGenerator()) {
    text_.append("generator");
  } else if (value.isDouble()) {
    char number[32];
    std::snprintf(number, sizeof number, "%.17g", value.toDouble());
    text_.append(number);
  } else if (value.isList()) {
    text_.push_back('{');
    for (const c10::IValue& element : value.toListRef()) {
      describe(element);
      text_.push_back(';');
    }
    text_.push_back('}');
  } else {
    text_.append(c10::str(value));
  }
}

}  // namespace gaudi
