#include <torch_headers.h>

#include "fallback.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/List.h>
#include <c10/util/SmallVector.h>

#include <mutex>

#include "../runtime/clock.h"
#include "../runtime/counters.h"
#include "../runtime/host_fallbacks.h"
#include "../runtime/memory.h"
#include "../runtime/stream.h"
#include "device_storage.h"
#include "fault_effects.h"
#include "generator.h"
#include "graph.h"
#include "host_kernel.h"
#include "launch.h"
#include "lazy_graph.h"
#include "observer.h"
#include "operator_facts.h"

namespace gaudi {
namespace {

std::mutex g_forbidden_mutex;
std::string g_forbidden_reason;
std::atomic<bool> g_forbidden{false};

// One call of an operator: its hpu arguments beside their host aliases.
class Call {
 public:
  Call(const OperatorFacts& facts, torch::jit::Stack& stack)
      : facts_(facts), stack_(stack), begin_(stack.size() - facts.argument_count) {}

  void lower_arguments() {
    for (const auto& argument : facts_.arguments) {
      auto& value = stack_[begin_ + argument.index];
      switch (argument.kind) {
        case ArgumentKind::kTensor:
          if (value.isTensor()) lower_tensor(value, argument);
          break;
        case ArgumentKind::kTensorList:
          if (value.isTensorList()) lower_list(value, argument);
          break;
        case ArgumentKind::kOptionalTensorList:
          if (value.isOptionalTensorList() || value.isList()) lower_optional_list(value, argument);
          break;
        case ArgumentKind::kDevice:
          if (value.isDevice() && value.toDevice().type() == kHPU) {
            const auto index = value.toDevice().index();
            set_card(index < 0 ? runtime::current_card() : index);
            value = c10::Device(c10::kCPU);
          }
          break;
        case ArgumentKind::kGenerator:
          break;  // needs the card, which a later argument may name
      }
    }
    if (card_ < 0) set_card(runtime::current_card());
    TORCH_CHECK(!stranger_, "Expected all tensors to be on the same device, but found at least two "
                "devices, hpu:", card_, " and ", *stranger_, "! (operator ", facts_.name, ")");
    if (facts_.takes_generator) lower_generators();
  }

  // True if a result's shape depends on values: a boolean mask counts unless it only selects where
  // one number goes.
  bool dynamic_shape() const {
    if (facts_.dynamic_shape) {
      // repeat_interleave is told its size when the caller knows it.
      return facts_.name != "aten::repeat_interleave.Tensor" || stack_[begin_ + 1].isNone();
    }
    return facts_.dynamic_if_bool_index && bool_index_ && !one_number_written();
  }

  void raise_results(size_t first_result) {
    for (size_t i = 0; i < facts_.returns.size(); ++i) {
      auto& value = stack_[first_result + i];
      const auto& ret = facts_.returns[i];
      if (ret.is_tensor && value.isTensor()) {
        raise_tensor(value);
      } else if (ret.is_tensor_list && value.isTensorList()) {
        c10::List<at::Tensor> raised;
        const auto list = value.toTensorList();
        raised.reserve(list.size());
        for (const at::Tensor& host : list) raised.push_back(raised_tensor(host));
        value = std::move(raised);
      }
    }
  }

  // The arguments as the launch uses them; before the kernel runs.
  void note_uses(StreamLaunch& launch) const {
    for (const auto& pair : pairs_) {
      if (pair.written) {
        launch.writes(pair.host);
      } else {
        launch.reads(pair.host);
      }
    }
  }

  // Fresh results, which the kernel has just written.
  void note_results(StreamLaunch& launch, size_t first_result) const {
    for (size_t i = 0; i < facts_.returns.size(); ++i) {
      const auto& value = stack_[first_result + i];
      if (value.isTensor()) {
        launch.writes(fresh(value.toTensor()));
      } else if (value.isTensorList()) {
        for (const at::Tensor& tensor : value.toTensorList()) launch.writes(fresh(tensor));
      }
    }
  }

  // An operator that runs on the host gets its tensors by copies, and its results go back by others.
  void count_inputs() const {
    auto& count = runtime::counters();
    for (const auto& pair : pairs_) {
      runtime::bump(count.d2h_copies);
      runtime::bump(count.d2h_bytes, static_cast<int64_t>(pair.host.nbytes()));
    }
  }

  void count_results(size_t first_result) const {
    auto& count = runtime::counters();
    for (size_t i = 0; i < facts_.returns.size(); ++i) {
      const auto& value = stack_[first_result + i];
      if (!value.isTensor() || !value.toTensor().defined()) continue;
      runtime::bump(count.h2d_copies);
      runtime::bump(count.h2d_bytes, static_cast<int64_t>(value.toTensor().nbytes()));
    }
  }

  void follow_writes() {
    for (const auto& pair : pairs_) {
      if (pair.written) follow_alias(pair.device, pair.host);
    }
  }

  int card() const { return card_; }
  size_t begin() const { return begin_; }

 private:
  struct Pair {
    at::Tensor device;
    at::Tensor host;
    bool written;
  };

  void set_card(int card) {
    if (card_ < 0) {
      card_ = card;
    } else if (card_ != card && !stranger_) {
      stranger_ = c10::Device(kHPU, static_cast<c10::DeviceIndex>(card));
    }
  }

  // Host alias of an hpu tensor; a CPU scalar as it is.
  at::Tensor lowered(const at::Tensor& tensor, bool written) {
    if (!tensor.defined()) return tensor;
    const auto device = tensor.device();
    if (device.type() == kHPU) {
      set_card(device.index());
      auto host = host_alias(tensor);
      pairs_.push_back({tensor, host, written});
      return host;
    }
    if ((!device.is_cpu() || tensor.dim() != 0 || written) && !stranger_) stranger_ = device;
    // A graph keeps the value of today, whatever the program writes into its scalar later.
    const bool constant = Graph::capturing() != nullptr && device.is_cpu() &&
                          !tensor.unsafeGetTensorImpl()->is_wrapped_number();
    return constant ? tensor.clone() : tensor;
  }

  void lower_tensor(c10::IValue& value, const ArgumentFacts& argument) {
    const auto& tensor = value.toTensor();
    if (!tensor.defined()) return;
    value = lowered(argument.is_index ? on_card(tensor) : tensor, argument.written);
  }

  void lower_list(c10::IValue& value, const ArgumentFacts& argument) {
    c10::List<at::Tensor> list;
    const auto tensors = value.toTensorList();
    list.reserve(tensors.size());
    for (const at::Tensor& tensor : tensors) list.push_back(lowered(tensor, argument.written));
    value = std::move(list);
  }

  void lower_optional_list(c10::IValue& value, const ArgumentFacts& argument) {
    c10::List<std::optional<at::Tensor>> list;
    const auto elements = value.toListRef();
    list.reserve(elements.size());
    for (const auto& element : elements) {
      if (element.isNone() || !element.toTensor().defined()) {
        list.push_back(std::nullopt);
        continue;
      }
      const auto& tensor = element.toTensor();
      const auto type = tensor.scalar_type();
      bool_index_ = bool_index_ || type == c10::ScalarType::Bool || type == c10::ScalarType::Byte;
      list.push_back(lowered(on_card(tensor), argument.written));
    }
    value = std::move(list);
  }

  // An index, copied to the card of the tensor before it if it is on the host.
  at::Tensor on_card(const at::Tensor& index) const {
    if (card_ < 0 || !index.device().is_cpu()) return index;
    return index.to(c10::Device(kHPU, static_cast<c10::DeviceIndex>(card_)));
  }

  void lower_generators() {
    for (const auto& argument : facts_.arguments) {
      if (argument.kind != ArgumentKind::kGenerator) continue;
      auto& value = stack_[begin_ + argument.index];
      if (value.isNone()) {
        value = host_generator(default_generator(card_), card_);
      } else if (value.isGenerator()) {
        auto generator = value.toGenerator();
        value = generator.defined() ? host_generator(generator, card_)
                                    : host_generator(default_generator(card_), card_);
      }
    }
  }

  // The host alias of a result that is no argument nor a view of one; else undefined.
  at::Tensor fresh(const at::Tensor& device) const {
    if (!device.defined() || device.device().type() != kHPU) return {};
    const auto* storage = storage_of(device);
    for (const auto& pair : pairs_) {
      if (storage_of(pair.device) == storage) {
        return {};
      }
    }
    return host_alias(device);
  }

  bool one_number_written() const {
    if (facts_.name != "aten::_index_put_impl_" && facts_.name != "aten::index_put_") return false;
    const auto& values = stack_[begin_ + 2].toTensor();
    for (const auto& pair : pairs_) {
      if (pair.host.is_same(values)) return false;  // a number on the card is read by a kernel
    }
    return values.numel() == 1;
  }

  at::Tensor raised_tensor(const at::Tensor& host) {
    if (!host.defined()) return host;
    const auto* storage = storage_of(host);
    const at::Tensor* base = nullptr;
    for (const auto& pair : pairs_) {
      if (pair.host.unsafeGetTensorImpl() == host.unsafeGetTensorImpl()) return pair.device;
      if (storage_of(pair.host) == storage) {
        base = &pair.device;
      }
    }
    return base != nullptr ? adopt_view(host, *base) : adopt(host, card_);
  }

  void raise_tensor(c10::IValue& value) {
    const auto& host = value.toTensor();
    if (host.defined()) value = raised_tensor(host);
  }

  const OperatorFacts& facts_;
  torch::jit::Stack& stack_;
  const size_t begin_;
  c10::SmallVector<Pair, 6> pairs_;
  int card_ = -1;
  bool bool_index_ = false;
  std::optional<c10::Device> stranger_;
};

// Random operators without a generator argument draw from PyTorch's CPU generator: lend it the
// card's state for the call, so that the host's own sequence is untouched.
class LentGeneratorState {
 public:
  explicit LentGeneratorState(int card)
      : lock_(mutex()),
        host_(at::detail::getDefaultCPUGenerator()),
        device_(host_generator(default_generator(card), card)),
        saved_(host_.get_state()) {
    host_.set_state(device_.get_state());
  }
  ~LentGeneratorState() {
    device_.set_state(host_.get_state());
    host_.set_state(saved_);
  }
  LentGeneratorState(const LentGeneratorState&) = delete;
  LentGeneratorState& operator=(const LentGeneratorState&) = delete;

 private:
  static std::mutex& mutex() {
    static std::mutex instance;
    return instance;
  }
  std::lock_guard<std::mutex> lock_;
  at::Generator host_;
  at::Generator device_;
  at::Tensor saved_;
};

// Whether this call draws random numbers from a generator that is not among its arguments.
bool draws_unseen(const OperatorFacts& facts, const torch::jit::Stack& stack, size_t begin) {
  if (!facts.random_without_generator || facts.dropout_argument < 0) {
    return facts.random_without_generator;
  }
  const auto& dropout = stack[begin + static_cast<size_t>(facts.dropout_argument)];
  return !dropout.isDouble() || dropout.toDouble() != 0.0;
}

void run_host_kernel(const c10::OperatorHandle& op, const OperatorFacts& facts, int card,
                     torch::jit::Stack* stack) {
  // Inference mode: the aliases are inside of PyTorch's autograd and need no version counters.
  const c10::InferenceMode inference;
  std::optional<LentGeneratorState> lent;
  if (draws_unseen(facts, *stack, stack->size() - facts.argument_count)) lent.emplace(card);
  const auto& host_op = facts.run_as ? *facts.run_as : op;
  call_host_kernel(host_op, stack);
}

TORCH_LIBRARY_IMPL(_, HPU, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&boxed_fallback>());
}

}  // namespace

void boxed_fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  run_on_card(op, stack);
}

void run_on_card(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& facts = operator_facts(op);
  const bool on_host = runtime::is_placed_on_host(facts.name);
  TORCH_CHECK_NOT_IMPLEMENTED(on_host || facts.refusal.empty(), "The operator '", facts.name,
                              "' is not available on the HPU device: ", facts.refusal, ".");
  Call call(facts, *stack);
  call.lower_arguments();
  auto* capture = Graph::capturing();
  bool waits = facts.reads_host || on_host;
  if (on_host) {
    refuse_in_capture(facts.name.c_str(), "PT_HPU_PLACE_ON_CPU puts it on the host");
    cut_lazy_graphs();
  }
  if (waits) host_read(facts.name.c_str());
  if (on_host) {
    runtime::note_host_fallback(facts.name);
    call.count_inputs();
  }
  if ((facts.dynamic_shape || facts.dynamic_if_bool_index) && call.dynamic_shape()) {
    refuse_in_capture(facts.name.c_str(), "the shape of its result depends on values");
    host_read(facts.name.c_str());
    waits = true;
  }
  StreamLaunch launch(call.card(), facts.name);
  if (runtime::checking_order()) call.note_uses(launch);
  come_after_current_stream(call.card());
  auto& count = runtime::counters();
  if (capture != nullptr) {
    if (draws_unseen(facts, *stack, call.begin())) {
      refuse_in_capture(facts.name.c_str(),
                        "it takes no generator, so that a replay could not draw again");
    }
    std::vector<c10::IValue> arguments(stack->begin() + static_cast<std::ptrdiff_t>(call.begin()),
                                       stack->end());
    run_host_kernel(op, facts, call.card(), stack);
    const auto first = stack->size() - facts.returns.size();
    capture->record(facts.run_as ? *facts.run_as : op, std::move(arguments),
                    c10::ArrayRef<c10::IValue>(*stack).slice(first));
    runtime::bump(capture->tolerant() ? count.fused_ops : count.captured_ops);
  } else {
    const auto fault = fault_at(runtime::Site::kLaunch, call.card());
    const bool gathered = !on_host && operators_are_gathered();
    auto* watching = runtime::compile_only() || on_host ? nullptr : device_observer();
    std::vector<c10::IValue> arguments;
    int64_t started_ns = 0;
    if (watching != nullptr || gathered) {
      arguments.assign(stack->begin() + static_cast<std::ptrdiff_t>(call.begin()), stack->end());
    }
    if (watching != nullptr) started_ns = runtime::now_ns();
    run_host_kernel(op, facts, call.card(), stack);
    if (fault == runtime::Fault::kNan) spoil_stack(*stack, facts.returns.size());
    if (on_host) {
      call.count_results(stack->size() - facts.returns.size());
    } else if (!runtime::compile_only()) {
      const bool fused = gathered || runtime::in_launch_region();
      runtime::bump(fused ? count.fused_ops : count.eager_launches);
    }
    const auto results =
        c10::ArrayRef<c10::IValue>(*stack).slice(stack->size() - facts.returns.size());
    if (watching != nullptr) {
      watching->operator_ran(op, call.card(), arguments, results, gathered, started_ns);
    }
    if (gathered) gather(op, call.card(), arguments, results);
  }
  if (facts.writes_arguments) call.follow_writes();
  call.raise_results(stack->size() - facts.returns.size());
  if (runtime::checking_order()) call.note_results(launch, stack->size() - facts.returns.size());
  if (!waits) return;
  cut_lazy_graphs();
  wait_for_current_stream(call.card());
}

void host_read(const char* what) {
  if (g_forbidden.load(std::memory_order_relaxed)) {
    const std::lock_guard<std::mutex> lock(g_forbidden_mutex);
    TORCH_CHECK(g_forbidden_reason.empty(), what, " reads a value on the host, which ",
                g_forbidden_reason);
  }
  refuse_in_capture(what, "it reads a value on the host");
  runtime::note_host_sync(what);
}

void forbid_host_reads(const std::string& reason) {
  const std::lock_guard<std::mutex> lock(g_forbidden_mutex);
  g_forbidden_reason = reason;
  g_forbidden.store(!reason.empty());
}

int64_t register_structured_operators() {
  static auto* library =
      new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::HPU, __FILE__, __LINE__);
  auto& dispatcher = c10::Dispatcher::singleton();
  int64_t registered = 0;
  for (const auto& name : dispatcher.getAllOpNames()) {
    if (name.name.rfind("aten::", 0) != 0) continue;
    const auto op = dispatcher.findSchema(name);
    if (!op || op->hasKernelForDispatchKey(c10::DispatchKey::HPU) ||
        !op->hasKernelForDispatchKey(c10::DispatchKey::CPU) ||
        !op->hasKernelForDispatchKey(
            c10::DispatchKey::CompositeExplicitAutogradNonFunctional)) {
      continue;
    }
    library->impl(toString(name).substr(6).c_str(),
                  torch::CppFunction::makeFromBoxedFunction<&boxed_fallback>());
    ++registered;
  }
  return registered;
}

}  // namespace gaudi
