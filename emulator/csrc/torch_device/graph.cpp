#include <torch_headers.h>

#include "fault_effects.h"
#include "graph.h"

#include <ATen/ops/copy.h>

#include <algorithm>

#include "../runtime/clock.h"
#include "../runtime/counters.h"
#include "../runtime/memory.h"
#include "../runtime/stream.h"
#include "device_storage.h"
#include "host_kernel.h"
#include "launch.h"
#include "lazy_graph.h"
#include "observer.h"
#include "operator_facts.h"

namespace gaudi {
namespace {

// The out= overload of a functional operator with a CPU kernel, if there is exactly one that takes
// the same arguments followed by its outputs.
std::optional<c10::OperatorHandle> find_out_overload(const c10::OperatorHandle& op) {
  const auto& schema = op.schema();
  const auto& base = schema.operator_name();
  for (const auto& ret : schema.returns()) {
    if (ret.type()->kind() != c10::TypeKind::TensorType) return std::nullopt;
  }
  const std::string& overload = base.overload_name;
  for (const std::string& candidate :
       {overload.empty() ? std::string("out") : overload + "_out", std::string("out")}) {
    const auto out = c10::Dispatcher::singleton().findSchema({base.name, candidate});
    if (!out || !out->hasKernelForDispatchKey(c10::DispatchKey::CPU)) continue;
    const auto& arguments = out->schema().arguments();
    const size_t n = schema.arguments().size();
    if (arguments.size() != n + schema.returns().size()) continue;
    bool same = true;
    for (size_t i = 0; i < n && same; ++i) {
      same = arguments[i].name() == schema.arguments()[i].name() &&
             *arguments[i].real_type() == *schema.arguments()[i].real_type();
    }
    for (size_t i = n; i < arguments.size() && same; ++i) {
      same = arguments[i].alias_info() != nullptr && arguments[i].alias_info()->isWrite();
    }
    if (same) return out;
  }
  return std::nullopt;
}

}  // namespace

thread_local Graph* Graph::t_capturing = nullptr;

// Queued replays hold the graph, so none is left.
Graph::~Graph() { clear(); }

void Graph::reset() {
  if (state_ == State::kCaptured) runtime::wait_for_card(card_);
  clear();
}

void Graph::clear() {
  if (t_capturing == this) t_capturing = nullptr;
  outside_.clear();
  steps_.clear();
  description_.clear();
  storages_.clear();
  inputs_.clear();
  seen_.clear();
  born_.clear();
  tolerant_ = false;
  meets_others_ = false;
  given_up_.clear();
  if (workspace_bytes_ > 0) {
    runtime::release(card_, static_cast<size_t>(workspace_bytes_), workspace_);
    workspace_bytes_ = 0;
  }
  state_ = State::kEmpty;
}

void Graph::capture_begin() {
  TORCH_CHECK(t_capturing == nullptr, "this thread already captures a graph; end that one first");
  TORCH_CHECK(state_ == State::kEmpty, "the graph holds a capture; reset() it first");
  cut_lazy_graphs();
  state_ = State::kCapturing;
  card_ = runtime::current_card();
  runtime::wait_for_card(card_);
  t_capturing = this;
}

void Graph::capture_end() {
  TORCH_CHECK(t_capturing == this, "capture_end() without capture_begin() in this thread");
  t_capturing = nullptr;
  try {
    plan_memory();
  } catch (...) {
    reset();
    throw;
  }
  if (runtime::checking_order()) find_outside_uses();
  state_ = State::kCaptured;
}

void Graph::note_allocation(const c10::intrusive_ptr<c10::StorageImpl>& host) {
  born_.emplace_back(host);
}

void Graph::touch(const at::Tensor& tensor, size_t step, bool produced) {
  auto* storage = storage_of(tensor);
  auto [it, is_new] = storages_.try_emplace(storage);
  auto& s = it->second;
  if (is_new) {
    s.first = step;
    s.produced = produced;
    s.bytes = storage->nbytes();
  }
  s.last = step;
  s.bytes = std::max(s.bytes, storage->nbytes());
  if (seen_.emplace(tensor.unsafeGetTensorImpl(), true).second) s.references += 1;
}

void Graph::touch_all(const c10::IValue& value, size_t step) {
  for_each_tensor(value, [&](const at::Tensor& t) { touch(t, step, false); });
}

void Graph::record(const c10::OperatorHandle& op, std::vector<c10::IValue> args,
                   c10::ArrayRef<c10::IValue> results) {
  if (!given_up_.empty()) return;
  const size_t index = steps_.size();
  Step step{op, std::move(args), {}, false, {}, {}};
  // The operator of distributed/hccl/collectives.py.
  meets_others_ |= op.operator_name().name == "gaudi_kernel::collective";
  description_.add(toString(op.operator_name()), step.args);
  for (const auto& argument : step.args) touch_all(argument, index);
  auto is_argument = [&](const at::Tensor& t) {
    bool found = false;
    for (const auto& argument : step.args) {
      for_each_tensor(argument, [&](const at::Tensor& a) {
        found = found || storage_of(a) == storage_of(t);
      });
    }
    return found;
  };
  auto note_result = [&](const at::Tensor& t, size_t result, int64_t position) {
    if (!t.defined() || is_argument(t)) return;  // written in place, or a view
    // Under the tensor the program sees lies the same storage; the graph keeps an alias of its own.
    step.fresh.push_back({result, position, t, false});
    description_.meet(t);
    touch(t, index, true);
  };
  for (size_t i = 0; i < results.size(); ++i) {
    if (results[i].isTensor()) {
      note_result(results[i].toTensor(), i, -1);
    } else if (results[i].isTensorList()) {
      int64_t position = 0;
      for (const at::Tensor& t : results[i].toTensorList()) note_result(t, i, position++);
    }
  }
  steps_.push_back(std::move(step));
}

void Graph::plan_memory() {
  std::unordered_map<c10::StorageImpl*, bool> born;
  for (const auto& weak : born_) {
    if (auto strong = weak.lock()) born.emplace(strong.get(), true);
  }
  born_.clear();
  std::vector<int64_t> change(steps_.size() + 1, 0);
  for (auto& [storage, s] : storages_) {
    s.born_inside = born.count(storage) != 0;
    const auto holders = static_cast<int64_t>(
        c10::raw::intrusive_ptr::use_count(storage));
    s.internal = (s.produced || s.born_inside) && holders <= s.references && s.bytes > 0;
    if (!s.internal) continue;
    change[s.first] += static_cast<int64_t>(s.bytes);
    change[s.last + 1] -= static_cast<int64_t>(s.bytes);
    if (!s.produced) steps_[s.first].allocate_before.push_back(storage);
    steps_[s.last].free_after.push_back(storage);
  }
  for (auto& step : steps_) {
    bool all_external = !step.fresh.empty();
    for (auto& output : step.fresh) {
      output.internal = storages_.at(storage_of(output.captured)).internal;
      all_external = all_external && !output.internal;
    }
    if (all_external) use_out_variant(step);
  }
  // The bytes of the internal storages go back; what a replay needs of them at once stays reserved.
  for (auto& [storage, s] : storages_) {
    if (s.internal) storage->set_data_ptr_noswap(c10::DataPtr(nullptr, c10::Device(c10::kCPU)));
  }
  int64_t live = 0;
  int64_t peak = 0;
  for (const auto delta : change) {
    live += delta;
    peak = std::max(peak, live);
  }
  try {
    runtime::settle(card_);
    workspace_ = runtime::reserve(card_, static_cast<size_t>(peak));
  } catch (const runtime::OutOfMemory& e) {
    TORCH_CHECK_WITH(OutOfMemoryError, false, e.what());
  }
  workspace_bytes_ = peak;
  note_inputs();
}

void Graph::use_out_variant(Step& step) const {
  if (operator_facts(step.op).writes_arguments) return;
  const auto out = find_out_overload(step.op);
  if (!out || step.fresh.size() != step.op.schema().returns().size()) return;
  step.op = *out;
  for (const auto& output : step.fresh) step.args.emplace_back(output.captured);
  step.fresh.clear();
  step.run_out_variant = true;
}

void Graph::give_bytes(c10::StorageImpl& storage) {
  void* data = runtime::allocate_host(storage.nbytes(), /*zeroed=*/false);
  if (runtime::poison_enabled()) runtime::poison(data, storage.nbytes());
  storage.set_data_ptr_noswap(
      c10::DataPtr(data, data, &runtime::free_host, c10::Device(c10::kCPU)));
}

void Graph::run(Step& step, torch::jit::Stack& stack) {
  for (auto* storage : step.allocate_before) give_bytes(*storage);
  stack.assign(step.args.begin(), step.args.end());
  call_host_kernel(step.op, &stack);
  for (auto& output : step.fresh) {
    const auto& value = stack[output.result_index];
    at::Tensor result =
        output.list_index < 0 ? value.toTensor() : value.toTensorList().get(output.list_index);
    if (output.internal) {
      auto* from = storage_of(result);
      auto* to = storage_of(output.captured);
      if (from == to || from->data() == nullptr) continue;
      to->set_data_ptr_noswap(
          from->set_data_ptr(c10::DataPtr(nullptr, c10::Device(c10::kCPU))));
    } else {
      output.captured.copy_(result);
    }
  }
  for (auto* storage : step.free_after) {
    storage->set_data_ptr_noswap(c10::DataPtr(nullptr, c10::Device(c10::kCPU)));
  }
}

void Graph::replay() {
  TORCH_CHECK(state_ == State::kCaptured, "replay() needs a finished capture");
  refuse_in_capture("Graph.replay", "graphs do not nest");
  check_inputs();
  cut_lazy_graphs();
  if (runtime::compile_only()) return;
  const auto fault = fault_at(runtime::Site::kGraphReplay, card_);
  note_outside_uses();
  runtime::bump(runtime::counters().graph_launches);
  if (auto* watching = device_observer()) {
    come_after_current_stream(card_);
    const auto started_ns = runtime::now_ns();
    run_all(fault);
    watching->replayed(*this, started_ns);
  } else if (runtime::schedule() == runtime::Schedule::kImmediate) {
    run_all(fault);
  } else {
    enqueue_on_current_stream(card_, [self = shared_from_this(), fault] { self->run_all(fault); });
    if (meets_others_) runtime::start_stream(card_, runtime::current_stream(card_));
  }
}

void Graph::run_all(runtime::Fault fault) {
  const std::lock_guard<std::mutex> lock(running_);
  const c10::InferenceMode inference;
  torch::jit::Stack stack;
  for (auto& step : steps_) {
    stack.clear();
    run(step, stack);
  }
  if (fault == runtime::Fault::kNan) spoil_results();
}

void Graph::for_each_call(const CallVisitor& visit) const {
  for (const auto& step : steps_) {
    const auto& returns = step.op.schema().returns();
    const auto& arguments = step.op.schema().arguments();
    std::vector<c10::IValue> results;
    for (const auto& ret : returns) {
      if (ret.alias_info() == nullptr || !ret.alias_info()->isWrite()) continue;
      for (size_t i = 0; i < arguments.size(); ++i) {
        const auto* alias = arguments[i].alias_info();
        if (alias != nullptr && *alias == *ret.alias_info()) results.push_back(step.args[i]);
      }
    }
    for (const auto& output : step.fresh) results.emplace_back(output.captured);
    visit(step.op, step.args, results);
  }
}

std::vector<std::string> Graph::operators() const {
  std::vector<std::string> names;
  names.reserve(steps_.size());
  for (const auto& step : steps_) names.push_back(toString(step.op.operator_name()));
  return names;
}

void Graph::give_up(const std::string& why) {
  if (given_up_.empty()) given_up_ = why;
}

void refuse_in_capture(const char* what, const char* why) {
  auto* capture = Graph::capturing();
  if (capture != nullptr && capture->tolerant()) {
    capture->give_up(std::string(what) + ": " + why);
    return;
  }
  TORCH_CHECK(!capture_is_checked() || capture == nullptr, "cannot capture '", what,
              "' into a graph: ", why, ".");
}

}  // namespace gaudi
