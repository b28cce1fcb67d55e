// Does a captured graph still own what it reads? And how is its result spoilt by an armed fault?
#include <torch_headers.h>

#include <atomic>

#include "device_storage.h"
#include "fault_effects.h"
#include "graph.h"

namespace gaudi {
namespace {

std::atomic<bool> g_check_freed{true};
std::atomic<bool> g_check_capture{true};

bool is_over(const c10::IValue& value, const c10::StorageImpl* storage, std::string& text) {
  if (value.isTensor()) {
    const auto& t = value.toTensor();
    if (!t.defined() || storage_of(t) != storage) return false;
    text = c10::str(c10::toString(t.scalar_type()), t.sizes());
    return true;
  }
  if (!value.isList()) return false;
  for (const c10::IValue& element : value.toListRef()) {
    if (is_over(element, storage, text)) return true;
  }
  return false;
}

}  // namespace

void set_check_freed(bool on) { g_check_freed.store(on); }
void set_check_capture(bool on) { g_check_capture.store(on); }
bool capture_is_checked() { return g_check_capture.load(std::memory_order_relaxed); }

void Graph::note_inputs() {
  inputs_.clear();
  for (const auto& [storage, s] : storages_) {
    if (s.produced || s.born_inside || !is_device_memory(*storage)) continue;
    inputs_.push_back({storage, s.references});
  }
}

void Graph::check_inputs() const {
  if (!g_check_freed.load(std::memory_order_relaxed)) return;
  for (const auto& input : inputs_) {
    const auto holders = static_cast<int64_t>(c10::raw::intrusive_ptr::use_count(input.storage));
    TORCH_CHECK(holders > input.references, "Graph.replay: ", describe_input(input.storage),
                " was freed after the capture. On a card its memory may hold something else by now: "
                "keep every tensor that a graph reads or writes as long as the graph, and copy new "
                "values into it (GAUDI_EMULATOR_CHECK_FREED=0 switches this check off)");
  }
}

std::string Graph::describe_input(const c10::StorageImpl* storage) const {
  std::string tensor;
  for (size_t index = 0; index < steps_.size(); ++index) {
    const auto& step = steps_[index];
    for (size_t i = 0; i < step.args.size(); ++i) {
      if (!is_over(step.args[i], storage, tensor)) continue;
      return c10::str("the captured tensor ", tensor, ", argument '",
                      step.op.schema().arguments()[i].name(), "' of ",
                      toString(step.op.operator_name()), " (operator ", index + 1, " of ",
                      steps_.size(), ")");
    }
  }
  return "a captured tensor";
}

void Graph::spoil_results() {
  bool any = false;
  for (auto& step : steps_) {
    for (const auto& output : step.fresh) {
      if (!output.internal) any = spoil(output.captured) || any;
    }
    if (!step.run_out_variant) continue;
    const size_t first = step.args.size() - step.op.schema().returns().size();
    for (size_t i = first; i < step.args.size(); ++i) any = spoil(step.args[i].toTensor()) || any;
  }
  if (!any && !steps_.empty() && !steps_.back().args.empty() &&
      steps_.back().args[0].isTensor()) {
    spoil(steps_.back().args[0].toTensor());  // written in place
  }
}

}  // namespace gaudi
