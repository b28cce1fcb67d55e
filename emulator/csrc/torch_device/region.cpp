#include <torch_headers.h>

#include "region.h"

#include <ATen/core/List.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "../runtime/counters.h"
#include "../runtime/memory.h"
#include "../runtime/stream.h"
#include "device_storage.h"
#include "fault_effects.h"
#include "launch.h"
#include "observer.h"

namespace gaudi {
namespace {

c10::StorageImpl* host_storage_of(const at::Tensor& device_tensor) {
  return companion(device_tensor.unsafeGetTensorImpl()->unsafe_storage());
}

int64_t offset_bytes(const at::Tensor& tensor) {
  return tensor.storage_offset() * static_cast<int64_t>(tensor.element_size());
}

c10::DataPtr no_bytes() { return {nullptr, c10::Device(c10::kCPU)}; }

c10::intrusive_ptr<c10::StorageImpl> storage_over(c10::DataPtr bytes, size_t size) {
  return c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(),
                                               static_cast<int64_t>(size), std::move(bytes),
                                               c10::GetCPUAllocator(), /*resizable=*/true);
}

// A CPU tensor over `storage` with the type and geometry of another.
at::Tensor tensor_over(c10::intrusive_ptr<c10::StorageImpl> storage, const at::Tensor& like) {
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(std::move(storage)), c10::DispatchKeySet(c10::DispatchKey::CPU), like.dtype());
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(),
                                                      like.storage_offset());
  if (like.is_conj()) tensor._set_conj(true);
  if (like.is_neg()) tensor._set_neg(true);
  return tensor;
}

bool plain_device_tensor(const at::Tensor& t) {
  return t.defined() && t.device().type() == kHPU && t.layout() == c10::kStrided && t.has_storage() &&
         !t.is_conj() && !t.is_neg();
}

}  // namespace

bool Region::fail(std::string why) {
  obstacle_ = std::move(why);
  graph_.reset();
  slots_.clear();
  moved_.clear();
  return false;
}

bool Region::record_begin() {
  TORCH_CHECK(!ready_, "the region is recorded already");
  if (device_observer() != nullptr) return false;
  graph_.capture_begin();
  graph_.tolerant_ = true;
  card_ = runtime::current_card();
  return true;
}

void Region::record_abandon() { graph_.reset(); }

bool Region::record_end(const std::vector<at::Tensor>& inputs,
                        const std::vector<at::Tensor>& outputs) {
  TORCH_CHECK(Graph::capturing() == &graph_, "record_end() without record_begin() in this thread");
  Graph::t_capturing = nullptr;
  if (!graph_.given_up_.empty()) return fail(graph_.given_up_);
  const c10::InferenceMode inference;
  if (!note_inputs(inputs) || !note_storages() || !note_results(inputs, outputs)) return false;
  move_steps();
  plan_lifetimes();
  slots_.clear();
  moved_.clear();
  graph_.storages_.clear();
  graph_.seen_.clear();
  graph_.born_.clear();
  graph_.description_.clear();
  ready_ = true;
  return true;
}

bool Region::note_inputs(const std::vector<at::Tensor>& inputs) {
  std::unordered_map<c10::StorageImpl*, std::pair<size_t, size_t>> known;  // slot, first input
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto& t = inputs[i];
    if (!plain_device_tensor(t) || t.device().index() != card_) {
      return fail("an input is not a tensor of the card");
    }
    auto* storage = host_storage_of(t);
    const auto [entry, is_new] = known.try_emplace(storage, input_slots_.size(), i);
    if (is_new) {
      input_slots_.push_back(storage_over(no_bytes(), storage->nbytes()));
      slots_.emplace(storage, input_slots_.back());
    }
    inputs_.push_back({t.scalar_type(), t.sizes().vec(), t.strides().vec(), offset_bytes(t),
                       entry->second.first, entry->second.second});
  }
  for (const auto& step : graph_.steps_) {
    const auto& arguments = step.op.schema().arguments();
    for (size_t i = 0; i < step.args.size() && i < arguments.size(); ++i) {
      const auto* alias = arguments[i].alias_info();
      if (alias == nullptr || !alias->isWrite() || !step.args[i].isTensor()) continue;
      const auto entry = known.find(storage_of(step.args[i].toTensor()));
      if (entry == known.end()) continue;
      for (auto& input : inputs_) input.written |= input.slot == entry->second.first;
    }
  }
  return true;
}

// Every storage is an input's, made inside, or a number of the host.
bool Region::note_storages() {
  std::unordered_set<c10::StorageImpl*> born;
  for (const auto& weak : graph_.born_) {
    if (auto strong = weak.lock()) born.insert(strong.get());
  }
  for (auto& [storage, facts] : graph_.storages_) {
    if (slots_.count(storage) != 0) continue;
    if (facts.produced || born.count(storage) != 0) {
      facts.born_inside = true;
    } else if (is_device_memory(*storage)) {
      return fail("it uses a tensor of the card that is no input");
    }
  }
  return true;
}

bool Region::note_results(const std::vector<at::Tensor>& inputs,
                          const std::vector<at::Tensor>& outputs) {
  std::unordered_map<c10::StorageImpl*, size_t> fresh;
  for (const auto& t : outputs) {
    if (!plain_device_tensor(t)) return fail("a result is not a tensor of the card");
    auto* storage = host_storage_of(t);
    size_t input = inputs.size();
    bool same = false;
    for (size_t i = 0; i < inputs.size() && !same; ++i) {
      same = inputs[i].unsafeGetTensorImpl() == t.unsafeGetTensorImpl();
      if (same || (input == inputs.size() && host_storage_of(inputs[i]) == storage)) input = i;
    }
    if (input < inputs.size()) {
      const auto kind = same ? Result::Kind::kInput : Result::Kind::kViewOfInput;
      const auto geometry = same ? at::Tensor() : tensor_over(input_slots_[inputs_[input].slot], t);
      results_.push_back({kind, input, geometry, offset_bytes(t) - inputs_[input].offset_bytes});
      continue;
    }
    const auto found = graph_.storages_.find(storage);
    if (found == graph_.storages_.end() || !found->second.born_inside) {
      return fail("a result is no input and was not made inside");
    }
    const auto [entry, is_new] = fresh.try_emplace(storage, fresh_slots_.size());
    if (is_new) fresh_slots_.push_back(slot_of(storage));
    results_.push_back({Result::Kind::kFresh, entry->second,
                        tensor_over(fresh_slots_[entry->second], t)});
  }
  return true;
}

Region::SlotPointer Region::slot_of(c10::StorageImpl* original) {
  auto& slot = slots_[original];
  if (!slot) slot = storage_over(no_bytes(), original->nbytes());
  return slot;
}

at::Tensor Region::moved(const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  auto* original = storage_of(tensor);
  const auto facts = graph_.storages_.find(original);
  const bool inside = facts != graph_.storages_.end() && facts->second.born_inside;
  if (!inside && slots_.count(original) == 0) return tensor;  // a number of the host
  auto& copy = moved_[tensor.unsafeGetTensorImpl()];
  if (!copy.defined()) copy = tensor_over(slot_of(original), tensor);
  return copy;
}

c10::IValue Region::moved(const c10::IValue& value) {
  if (value.isTensor()) return moved(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorList()) list.push_back(moved(tensor));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const auto& element : value.toListRef()) {
      list.push_back(element.isNone() ? std::nullopt
                                      : std::optional<at::Tensor>(moved(element.toTensor())));
    }
    return list;
  }
  return value;
}

void Region::move_steps() {
  // The tensors of the recording stay alive meanwhile, so that no address is used twice.
  std::vector<c10::IValue> kept;
  for (auto& step : graph_.steps_) {
    for (auto& argument : step.args) {
      kept.push_back(argument);
      argument = moved(argument);
    }
    for (auto& output : step.fresh) {
      kept.emplace_back(output.captured);
      output.captured = moved(output.captured);
      output.internal = true;
    }
  }
}

void Region::plan_lifetimes() {
  auto& steps = graph_.steps_;
  std::vector<int64_t> change(steps.size() + 1, 0);
  for (const auto& [original, facts] : graph_.storages_) {
    if (!facts.born_inside) continue;
    auto* slot = slot_of(original).get();
    if (!facts.produced && facts.bytes > 0) steps[facts.first].allocate_before.push_back(slot);
    if (std::find(fresh_slots_.begin(), fresh_slots_.end(), slots_[original]) !=
        fresh_slots_.end()) {
      continue;
    }
    inner_slots_.push_back(slots_[original]);
    steps[facts.last].free_after.push_back(slot);
    change[facts.first] += static_cast<int64_t>(facts.bytes);
    change[facts.last + 1] -= static_cast<int64_t>(facts.bytes);
  }
  int64_t live = 0;
  int64_t peak = 0;
  for (const auto delta : change) {
    live += delta;
    peak = std::max(peak, live);
  }
  workspace_bytes_ = static_cast<size_t>(peak);
}

bool Region::accepts(const std::vector<at::Tensor>& inputs) const {
  if (!ready_ || Graph::capturing() != nullptr || device_observer() != nullptr ||
      inputs.size() != inputs_.size()) {
    return false;
  }
  // Results of a replay that does not run are unwritten memory, and what follows may index with it.
  if (runtime::compile_only()) return false;
  const bool gradients = c10::GradMode::is_enabled();
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto& t = inputs[i];
    const auto& like = inputs_[i];
    if (!plain_device_tensor(t) || t.device().index() != card_ || t.scalar_type() != like.type ||
        t.sizes() != like.sizes || t.strides() != like.strides ||
        (gradients && t.requires_grad())) {
      return false;
    }
    if (like.first == i) continue;
    const auto& first = inputs[like.first];
    if (host_storage_of(t) != host_storage_of(first) ||
        offset_bytes(t) - offset_bytes(first) !=
            like.offset_bytes - inputs_[like.first].offset_bytes) {
      return false;
    }
  }
  return true;
}

void Region::bind(const std::vector<at::Tensor>& inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto& like = inputs_[i];
    if (like.written && !inputs[i].is_inference()) {
      inputs[i].unsafeGetTensorImpl()->bump_version();
    }
    if (like.first != i) continue;
    auto* start = static_cast<char*>(host_storage_of(inputs[i])->mutable_data());
    if (start != nullptr) start += offset_bytes(inputs[i]) - like.offset_bytes;
    input_slots_[like.slot]->set_data_ptr_noswap({start, c10::Device(c10::kCPU)});
  }
}

void Region::note_uses(StreamLaunch& launch, const std::vector<at::Tensor>& inputs) const {
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto host = host_alias(inputs[i]);
    launch.reads(host);
    if (inputs_[i].written) launch.writes(host);
  }
}

void Region::note_fresh(StreamLaunch& launch, const std::vector<at::Tensor>& made) const {
  for (size_t i = 0; i < made.size(); ++i) {
    if (results_[i].kind == Result::Kind::kFresh) launch.writes(host_alias(made[i]));
  }
}

void Region::unbind() {
  for (const auto* slots : {&input_slots_, &fresh_slots_, &inner_slots_}) {
    for (const auto& slot : *slots) slot->set_data_ptr_noswap(no_bytes());
  }
}

std::vector<at::Tensor> Region::results(const std::vector<at::Tensor>& inputs) {
  std::vector<at::Tensor> made(fresh_slots_.size());
  std::vector<at::Tensor> values;
  values.reserve(results_.size());
  for (const auto& result : results_) {
    if (result.kind == Result::Kind::kInput) {
      values.push_back(inputs[result.source]);
    } else if (result.kind == Result::Kind::kViewOfInput) {
      const auto& base = inputs[result.source];
      auto view = adopt_view(result.geometry, base);
      const auto size = static_cast<int64_t>(view.element_size());
      view.unsafeGetTensorImpl()->set_storage_offset(
          (offset_bytes(base) + result.offset_bytes) / size);
      values.push_back(std::move(view));
    } else if (auto& first = made[result.source]; first.defined()) {
      values.push_back(adopt_view(result.geometry, first));
    } else {
      auto& slot = fresh_slots_[result.source];
      auto bytes = storage_over(slot->set_data_ptr(no_bytes()), slot->nbytes());
      first = adopt(tensor_over(std::move(bytes), result.geometry), card_);
      values.push_back(first);
    }
  }
  return values;
}

std::optional<std::vector<at::Tensor>> Region::run(const std::vector<at::Tensor>& inputs) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!accepts(inputs)) return std::nullopt;
  const auto fault = fault_at(runtime::Site::kLaunch, card_);
  static const std::string name = "a compiled region";
  StreamLaunch launch(card_, name);
  if (runtime::checking_order()) note_uses(launch, inputs);
  come_after_current_stream(card_);
  struct Bound {
    explicit Bound(Region& r, const std::vector<at::Tensor>& inputs) : region(r) {
      try {
        reservation = runtime::reserve(region.card_, region.workspace_bytes_);
      } catch (const runtime::OutOfMemory& e) {
        TORCH_CHECK_WITH(OutOfMemoryError, false, e.what());
      }
      region.bind(inputs);
      runtime::launch_region_enter();
    }
    ~Bound() {
      runtime::launch_region_exit();
      region.unbind();
      runtime::release(region.card_, region.workspace_bytes_, reservation);
    }
    Region& region;
    runtime::Reservation reservation;
  } bound(*this, inputs);
  {
    const c10::InferenceMode inference;
    torch::jit::Stack stack;
    for (auto& step : graph_.steps_) {
      stack.clear();
      Graph::run(step, stack);
    }
  }
  runtime::bump(runtime::counters().fused_ops, static_cast<int64_t>(graph_.steps_.size()));
  // The results belong to the caller, so they are made in the caller's inference mode: AOTAutograd
  // saves those of a forward graph for the backward one.
  auto made = results(inputs);
  if (fault == runtime::Fault::kNan) {
    for (const auto& value : made) spoil(host_alias(value));
  }
  if (runtime::checking_order()) note_fresh(launch, made);
  return made;
}

}  // namespace gaudi
