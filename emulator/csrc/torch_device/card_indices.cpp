#include <torch_headers.h>

#include "card_indices.h"

#include <ATen/core/List.h>
#include <ATen/ops/empty.h>
#include <c10/core/WrapDimMinimal.h>
#include <c10/util/SmallVector.h>

#include <string_view>
#include <unordered_map>

namespace gaudi {

namespace detail {
std::atomic<bool> card_indices{false};
}  // namespace detail

namespace {

// Which axes of the tensor do indices count?
enum class Axis {
  kDim,   // that of the argument "dim"
  kRows,  // the first
  kFlat,  // elements, whatever the shape
  kList,  // one per index of a list
};

struct Indexed {
  Axis axis;
  bool writes;
};

// By name, for the plain, the in-place and the out= overloads alike.
const std::unordered_map<std::string_view, Indexed>& indexed_operators() {
  static const std::unordered_map<std::string_view, Indexed> table{
      {"aten::index_select", {Axis::kDim, false}},
      {"aten::gather", {Axis::kDim, false}},
      {"aten::embedding", {Axis::kRows, false}},
      {"aten::take", {Axis::kFlat, false}},
      {"gaudi_kernel::take", {Axis::kFlat, false}},
      {"aten::index", {Axis::kList, false}},
      {"aten::scatter", {Axis::kDim, true}},
      {"aten::scatter_", {Axis::kDim, true}},
      {"aten::scatter_add", {Axis::kDim, true}},
      {"aten::scatter_add_", {Axis::kDim, true}},
      {"aten::scatter_reduce", {Axis::kDim, true}},
      {"aten::scatter_reduce_", {Axis::kDim, true}},
      {"aten::index_add", {Axis::kDim, true}},
      {"aten::index_add_", {Axis::kDim, true}},
      {"aten::index_copy", {Axis::kDim, true}},
      {"aten::index_copy_", {Axis::kDim, true}},
      {"gaudi_kernel::index_copy_", {Axis::kDim, true}},
      {"aten::index_fill", {Axis::kDim, true}},
      {"aten::index_fill_", {Axis::kDim, true}},
      {"aten::index_reduce", {Axis::kDim, true}},
      {"aten::index_reduce_", {Axis::kDim, true}},
      {"aten::put", {Axis::kFlat, true}},
      {"aten::put_", {Axis::kFlat, true}},
      {"aten::index_put", {Axis::kList, true}},
      {"aten::index_put_", {Axis::kList, true}},
      {"aten::_index_put_impl_", {Axis::kList, true}},
  };
  return table;
}

int argument_named(const c10::FunctionSchema& schema, std::string_view name) {
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    if (schema.arguments()[i].name() == name) return static_cast<int>(i);
  }
  return -1;
}

// Where `index` lies outside of `size` elements; from the end counts where PyTorch lets it.
at::Tensor outside(const at::Tensor& index, int64_t size, bool from_end) {
  return index.lt(from_end ? -size : 0).logical_or_(index.ge(size));
}

// The index into a tensor with a margin. What counts from the end would count from that of the margin.
at::Tensor inside(const at::Tensor& index, const at::Tensor& wrong, int64_t size) {
  return index.add(index.lt(0).to(index.scalar_type()), size).masked_fill(wrong, size);
}

// The same values in a tensor that has one more place, of zeros, at the end of each axis.
at::Tensor with_margin(const at::Tensor& tensor, c10::IntArrayRef axes) {
  auto sizes = tensor.sizes().vec();
  for (const auto axis : axes) ++sizes[static_cast<size_t>(axis)];
  auto wide = at::empty(sizes, tensor.options()).zero_();
  auto inner = wide;
  for (const auto axis : axes) inner = inner.narrow(axis, 0, tensor.size(axis));
  inner.copy_(tensor);
  return wide;
}

at::Tensor without_margin(at::Tensor wide, c10::IntArrayRef axes) {
  for (const auto axis : axes) wide = wide.narrow(axis, 0, wide.size(axis) - 1);
  return wide;
}

// One call whose indices are to lie inside: those outside are sent to a margin of zeros, which
// reads find and in which writes are lost.
class Call {
 public:
  Call(const c10::FunctionSchema& schema, Indexed kind, torch::jit::Stack& stack)
      : schema_(schema), kind_(kind), stack_(stack), begin_(stack.size() - schema.arguments().size()) {}

  bool redirect() {
    if (!argument(0).isTensor()) return false;
    self_ = argument(0).toTensor();
    if (!self_.defined()) return false;
    if (kind_.axis == Axis::kList) return redirect_list();
    const int at = argument_named(schema_, schema_.name() == "aten::embedding" ? "indices" : "index");
    if (at < 0 || !argument(at).isTensor()) return false;
    const auto& index = argument(at).toTensor();
    if (!index.defined() || index.numel() == 0 ||
        !c10::isIntegralType(index.scalar_type(), /*includeBool=*/false)) {
      return false;
    }
    const bool flat = kind_.axis == Axis::kFlat;
    int64_t axis = 0;
    if (kind_.axis == Axis::kDim) {
      const int dim = argument_named(schema_, "dim");
      if (dim < 0 || !argument(dim).isInt()) return false;
      axis = c10::maybe_wrap_dim(argument(dim).toInt(), self_.dim());
    }
    if (!flat && self_.dim() == 0) return false;
    const int64_t size = flat ? self_.numel() : self_.size(axis);
    const bool from_end = flat || schema_.name().rfind("aten::index_fill", 0) == 0;
    const auto wrong = outside(index, size, from_end);
    if (!wrong.any().item<bool>()) return false;
    argument(at) = inside(index, wrong, size);
    axes_.push_back(axis);
    widen(flat ? self_.reshape(-1) : self_);
    return true;
  }

  // After the kernel.
  void finish() {
    if (!kind_.writes) return;
    auto& result = stack_.back();
    const auto inner = without_margin(wide_, axes_);
    if (schema_.arguments()[0].alias_info() != nullptr) {  // in place
      self_.copy_(inner.view_as(self_));
      result = self_;
      return;
    }
    const auto value = without_margin(result.toTensor(), axes_).reshape(self_.sizes());
    if (!out_.defined()) {
      result = value.contiguous();
      return;
    }
    out_.resize_(value.sizes());
    result = out_.copy_(value);
  }

 private:
  c10::IValue& argument(int index) { return stack_[begin_ + static_cast<size_t>(index)]; }

  bool redirect_list() {
    const int at = argument_named(schema_, "indices");
    if (at < 0 || argument(at).isNone()) return false;
    c10::List<std::optional<at::Tensor>> list;
    bool any = false;
    int64_t axis = 0;
    for (const auto& element : argument(at).toListRef()) {
      if (element.isNone() || !element.toTensor().defined()) {
        list.push_back(std::nullopt);
        ++axis;
        continue;
      }
      auto index = element.toTensor();
      const auto type = index.scalar_type();
      if (type == c10::ScalarType::Bool || type == c10::ScalarType::Byte) {
        axis += index.dim();  // a mask has the shape of the axes it stands for
        list.push_back(index);
        continue;
      }
      if (axis >= self_.dim()) return false;
      const auto wrong = outside(index, self_.size(axis), true);
      if (index.numel() != 0 && wrong.any().item<bool>()) {
        any = true;
        index = inside(index, wrong, self_.size(axis));
        axes_.push_back(axis);
      }
      list.push_back(index);
      ++axis;
    }
    if (!any) return false;
    argument(at) = std::move(list);
    widen(self_);
    return true;
  }

  void widen(const at::Tensor& tensor) {
    wide_ = with_margin(tensor, axes_);
    argument(0) = wide_;
    const int at = argument_named(schema_, "out");
    if (kind_.writes && at >= 0) {
      out_ = argument(at).toTensor();
      argument(at) = at::empty({0}, out_.options());
    }
  }

  const c10::FunctionSchema& schema_;
  const Indexed kind_;
  torch::jit::Stack& stack_;
  const size_t begin_;
  at::Tensor self_;
  at::Tensor wide_;
  at::Tensor out_;
  c10::SmallVector<int64_t, 4> axes_;
};

}  // namespace

bool run_with_card_indices(const c10::OperatorHandle& op, torch::jit::Stack* stack,
                           const std::function<void()>& kernel) {
  const auto& table = indexed_operators();
  const auto found = table.find(op.schema().name());
  if (found == table.end()) return false;
  Call call(op.schema(), found->second, *stack);
  if (!call.redirect()) return false;
  kernel();
  call.finish();
  return true;
}

}  // namespace gaudi
