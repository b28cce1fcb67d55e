// What is the same work? A text of calls of operators that is equal for equal work: operators, shapes,
// strides, dtypes, constants, and which tensors share memory, but no address and no value on a card.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <string>
#include <unordered_map>

namespace gaudi {

// Every defined tensor in a value, those in lists too.
template <typename F>
void for_each_tensor(const c10::IValue& value, F&& f) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) f(value.toTensor());
  } else if (value.isList()) {
    for (const auto& element : value.toListRef()) for_each_tensor(element, f);
  }
}

class CallText {
 public:
  // One more call, of host aliases as the kernel gets them.
  void add(const std::string& name, c10::ArrayRef<c10::IValue> arguments);
  // A result of the latest call, by which later ones are told apart.
  void meet(const at::Tensor& tensor);
  void clear();
  const std::string& text() const { return text_; }

 private:
  struct Met {
    size_t number;  // in the order in which storages were met, from 1
    // A program may free the storage meanwhile; its address is not used again as long as this lives.
    c10::weak_intrusive_ptr<c10::StorageImpl> keep;
  };

  void describe(const c10::IValue& value);

  std::string text_;
  std::unordered_map<const c10::StorageImpl*, Met> met_;
};

}  // namespace gaudi
