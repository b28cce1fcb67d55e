// What must the fallback know about an operator? Worked out once per operator from its schema.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string>
#include <vector>

namespace gaudi {

enum class ArgumentKind { kTensor, kTensorList, kOptionalTensorList, kDevice, kGenerator };

struct ArgumentFacts {
  uint16_t index;
  ArgumentKind kind;
  bool written;
  bool is_index;  // says which elements: may be on the host, whence it is copied to the card
};

struct ReturnFacts {
  bool is_tensor = false;
  bool is_tensor_list = false;
  int aliased_argument = -1;  // for `Tensor(a!)`: the result is that argument
};

struct OperatorFacts {
  std::string name;  // "aten::add.Tensor"
  size_t argument_count = 0;
  std::vector<ArgumentFacts> arguments;  // the ones that need conversion, in order
  std::vector<ReturnFacts> returns;
  bool writes_arguments = false;
  bool reads_host = false;         // returns a value the host must wait for
  bool dynamic_shape = false;      // the result's shape depends on values
  bool dynamic_if_bool_index = false;
  bool random_without_generator = false;
  bool takes_generator = false;
  bool random = false;
  int dropout_argument = -1;  // position of `dropout_p`: with 0 there nothing is drawn
  std::optional<c10::OperatorHandle> run_as;  // another operator with the same arguments
  std::string refusal;             // not empty: why the card lacks it
};

const OperatorFacts& operator_facts(const c10::OperatorHandle& op);

}  // namespace gaudi
