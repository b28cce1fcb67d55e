#include <torch_headers.h>

#include "operator_facts.h"

#include <ATen/core/enum_tag.h>

#include <array>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "refused_operators.h"

namespace gaudi {
namespace {

// Operators whose name on an accelerator differs from the one that has the CPU kernel, and operators
// for which there is a faster kernel of our own.
struct RunAs {
  std::string_view name;
  const char* host_name;
};
constexpr std::array kRunAs{
    RunAs{"aten::convolution_overrideable", "aten::convolution"},
    RunAs{"aten::mm", "gaudi_kernel::mm"},
    RunAs{"aten::addmm", "gaudi_kernel::addmm"},
    RunAs{"aten::index_copy_", "gaudi_kernel::index_copy_"},
};

// Answer a question about metadata although they return no tensor.
constexpr std::array<std::string_view, 4> kMetadataOnly{"aten::is_set_to", "aten::is_same_size",
                                                        "aten::_nested_tensor_size",
                                                        "aten::_fused_sdp_choice"};

bool is_tensor_type(const c10::TypePtr& type) {
  if (type->kind() == c10::TypeKind::TensorType) return true;
  return type->kind() == c10::TypeKind::OptionalType &&
         type->expectRef<c10::OptionalType>().getElementType()->kind() ==
             c10::TypeKind::TensorType;
}

const c10::Type& without_optional(const c10::TypePtr& type) {
  if (type->kind() == c10::TypeKind::OptionalType) {
    return *type->expectRef<c10::OptionalType>().getElementType();
  }
  return *type;
}

OperatorFacts work_out(const c10::OperatorHandle& op) {
  OperatorFacts facts;
  const auto& schema = op.schema();
  facts.name = toString(op.operator_name());
  facts.argument_count = schema.arguments().size();
  bool tensor_argument = false;
  for (size_t i = 0; i < facts.argument_count; ++i) {
    const auto& argument = schema.arguments()[i];
    const auto& type = argument.real_type();
    const bool written = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
    std::optional<ArgumentKind> kind;
    if (is_tensor_type(type)) {
      kind = ArgumentKind::kTensor;
      tensor_argument = true;
    } else if (const auto& inner = without_optional(type);
               inner.kind() == c10::TypeKind::ListType) {
      const auto& element = inner.expectRef<c10::ListType>().getElementType();
      if (element->kind() == c10::TypeKind::TensorType) {
        kind = ArgumentKind::kTensorList;
        tensor_argument = true;
      } else if (is_tensor_type(element)) {
        kind = ArgumentKind::kOptionalTensorList;
        tensor_argument = true;
      }
    } else if (inner.kind() == c10::TypeKind::DeviceObjType) {
      kind = ArgumentKind::kDevice;
    } else if (inner.kind() == c10::TypeKind::GeneratorType) {
      kind = ArgumentKind::kGenerator;
      facts.takes_generator = true;
    }
    // lazy/test_index_3d.py and lazy/test_inplace_output_handling.py of the bridge's own suite.
    const bool is_index = kind == ArgumentKind::kOptionalTensorList ||
                       (argument.name() == "index" && schema.name().rfind("aten::index_copy", 0) == 0);
    if (kind) facts.arguments.push_back({static_cast<uint16_t>(i), *kind, written, is_index});
    facts.writes_arguments = facts.writes_arguments || written;
  }
  bool value_returned = false;
  for (const auto& ret : schema.returns()) {
    ReturnFacts r;
    r.is_tensor = is_tensor_type(ret.real_type());
    r.is_tensor_list = ret.real_type()->kind() == c10::TypeKind::ListType &&
                       is_tensor_type(
                           ret.real_type()->expectRef<c10::ListType>().getElementType());
    if (r.is_tensor && ret.alias_info() != nullptr && ret.alias_info()->isWrite()) {
      for (size_t i = 0; i < facts.argument_count; ++i) {
        const auto* alias = schema.arguments()[i].alias_info();
        if (alias != nullptr && alias->isWrite() &&
            alias->beforeSets() == ret.alias_info()->beforeSets()) {
          r.aliased_argument = static_cast<int>(i);
        }
      }
    }
    value_returned = value_returned || (!r.is_tensor && !r.is_tensor_list);
    facts.returns.push_back(r);
  }
  facts.reads_host = tensor_argument && (value_returned || op.hasTag(at::Tag::data_dependent_output));
  for (const auto name : kMetadataOnly) {
    if (facts.name == name) facts.reads_host = false;
  }
  facts.dynamic_shape = op.hasTag(at::Tag::dynamic_output_shape);
  if (facts.name == "aten::index.Tensor" || facts.name == "aten::index.Tensor_out" ||
      facts.name == "aten::_index_put_impl_" || facts.name == "aten::index_put_") {
    facts.dynamic_shape = false;
    facts.dynamic_if_bool_index = true;
  }
  facts.random = op.hasTag(at::Tag::nondeterministic_seeded);
  facts.random_without_generator = facts.random && !facts.takes_generator;
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    if (schema.arguments()[i].name() == "dropout_p") facts.dropout_argument = static_cast<int>(i);
  }
  for (const auto& entry : kRunAs) {
    if (facts.name == entry.name) {
      facts.run_as = c10::Dispatcher::singleton().findSchemaOrThrow(entry.host_name, "");
    }
  }
  const auto separator = facts.name.find("::");
  const std::string_view whole(facts.name);
  facts.refusal = refusal_reason(
      whole.substr(0, separator), whole.substr(separator + 2),
      facts.run_as.has_value() || op.hasComputedKernelForDispatchKey(c10::DispatchKey::CPU));
  return facts;
}

// Facts of PyTorch's own operators and of the bridge's kernels, which are never unregistered, so that
// a schema's address names its operator for the life of the process.
struct Cache {
  std::mutex mutex;
  std::unordered_map<const c10::FunctionSchema*, std::unique_ptr<OperatorFacts>> facts;
};

Cache& cache() {
  static Cache instance;
  return instance;
}

struct Slot {
  const c10::FunctionSchema* schema = nullptr;
  const OperatorFacts* facts = nullptr;
};
constexpr size_t kSlots = 1024;

}  // namespace

const OperatorFacts& operator_facts(const c10::OperatorHandle& op) {
  thread_local std::array<Slot, kSlots> slots;
  const auto* key = &op.schema();
  auto& slot = slots[(reinterpret_cast<uintptr_t>(key) >> 6) % kSlots];
  if (slot.schema == key) return *slot.facts;
  const auto& name = op.operator_name().name;
  if (name.rfind("aten::", 0) != 0 && name.rfind("prims::", 0) != 0 &&
      name.rfind("gaudi_kernel::", 0) != 0) {
    thread_local OperatorFacts of_another_library;
    of_another_library = work_out(op);
    return of_another_library;
  }
  auto& shared = cache();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  auto& entry = shared.facts[key];
  if (!entry) entry = std::make_unique<OperatorFacts>(work_out(op));
  slot = {key, entry.get()};
  return *entry;
}

}  // namespace gaudi
