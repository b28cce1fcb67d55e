// How do values move between host and cards, and between cards?
#include <torch_headers.h>

#include <ATen/ExpandUtils.h>
#include <ATen/ops/_to_copy.h>
#include <ATen/ops/copy.h>
#include <ATen/ops/empty_like.h>

#include "../runtime/clock.h"
#include "../runtime/counters.h"
#include "../runtime/stream.h"
#include "device_storage.h"
#include "fallback.h"
#include "fault_effects.h"
#include "graph.h"
#include "integers.h"
#include "launch.h"
#include "lazy_graph.h"
#include "observer.h"
#include "pinned_memory.h"

namespace gaudi {
namespace {

bool on_card(const at::Tensor& t) { return t.device().type() == kHPU; }
int card_of(const at::Tensor& t) { return t.device().index(); }

const c10::OperatorHandle& copy_operator() {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::copy_", "");
  return op;
}

const c10::OperatorHandle& to_copy_operator() {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::_to_copy", "");
  return op;
}

// Whether a copy is an operator that the lazy mode gathers.
bool is_gathered(bool within_card) {
  return within_card && Graph::capturing() == nullptr && operators_are_gathered();
}

// A copy between cards is a launch of its own, after those that make what it moves.
void come_between_cards(int card, int other) {
  cut_lazy_graphs();
  let_current_streams_meet(card, other);
}

void count_launch(bool gathered) {
  auto& count = runtime::counters();
  if (Graph::capturing() != nullptr) {
    runtime::bump(count.captured_ops);
  } else {
    const bool fused = gathered || runtime::in_launch_region();
    runtime::bump(fused ? count.fused_ops : count.eager_launches);
  }
}

// Count a copy of `bytes`; refuse what cannot happen inside a graph. A single element is baked into
// the graph as a constant, as a Python number would be.
void count_copy(bool from_card, bool to_card, bool gathered, int64_t elements, int64_t bytes,
                bool non_blocking, const char* name) {
  auto& count = runtime::counters();
  if (from_card && to_card) {
    runtime::bump(count.d2d_copies);
    runtime::bump(count.d2d_bytes, bytes);
    count_launch(gathered);
  } else if (to_card) {
    if (elements != 1) {
      refuse_in_capture(name, "it copies host values into the graph; copy them before the capture");
    }
    runtime::bump(count.h2d_copies);
    runtime::bump(count.h2d_bytes, bytes);
  } else {
    refuse_in_capture(name, "it copies values to the host");
    cut_lazy_graphs();
    runtime::bump(count.d2h_copies);
    runtime::bump(count.d2h_bytes, bytes);
    // The bridge leaves a non-blocking copy running whatever memory it goes to (copy_data_to_host in
    // backend/helpers/tensor_utils.cpp of HabanaAI/gaudi-pytorch-bridge).
    if (!non_blocking) host_read(name);
  }
}

// Tell whoever observes the device of a copy that has been made outside of a graph.
void report_copy(const c10::OperatorHandle& op, bool from_card, bool to_card, int card,
                 c10::ArrayRef<c10::IValue> arguments, const at::Tensor& result, bool gathered,
                 int64_t started_ns) {
  auto* watching = device_observer();
  if (watching == nullptr || Graph::capturing() != nullptr) return;
  const auto& source = op.operator_name().name == "aten::copy_" ? arguments[1] : arguments[0];
  if (from_card && to_card) {
    const c10::IValue value(result);
    watching->operator_ran(op, card, arguments, c10::ArrayRef<c10::IValue>(&value, 1), gathered,
                           started_ns);
  } else {
    watching->copied(card, to_card, payload_bytes(source.toTensor()), started_ns);
  }
}

void record_copy(const at::Tensor& host_dst, const at::Tensor& host_src, bool src_is_constant) {
  auto* capture = Graph::capturing();
  if (capture == nullptr) return;
  const auto source = src_is_constant ? host_src.clone() : host_src;
  const c10::IValue result(host_dst);
  capture->record(copy_operator(), {host_dst, source, false}, c10::ArrayRef<c10::IValue>(&result, 1));
}

// PyTorch's CPU kernel for booleans makes 1 of every byte but 0; a device that moves memory does not.
bool is_bool(const at::Tensor& t) { return t.scalar_type() == c10::ScalarType::Bool; }
at::Tensor bytes_of(const at::Tensor& t) { return t.view(c10::ScalarType::Byte); }

void copy_now(const at::Tensor& host_dst, const at::Tensor& host_src) {
  if (is_bool(host_src) && is_bool(host_dst)) {
    bytes_of(host_dst).copy_(bytes_of(host_src));
  } else {
    host_dst.copy_(host_src);
  }
}

// A tensor of the queue's own over the same bytes, whatever the program does to its tensor meanwhile.
at::Tensor own_alias(const at::Tensor& host) {
  const c10::InferenceMode inference;
  return host.detach();
}

// Leave `dst.copy_(src)` to the stream, which owns what it needs until then. Memory of the host that
// is not pinned is read now, as by a card, which stages it.
void enqueue_copy(int card, const at::Tensor& host_dst, const at::Tensor& host_src, bool staged,
                  bool to_card, runtime::Fault fault) {
  const c10::InferenceMode inference;
  const auto source = staged ? host_src.clone() : own_alias(host_src);
  enqueue_on_current_stream(card, [dst = own_alias(host_dst), source, to_card, fault] {
    copy_now(dst, source);
    if (to_card) keep_card_integers(dst);
    if (fault == runtime::Fault::kNan) spoil(dst);
  });
}

bool plain(const at::Tensor& t) { return !t.is_conj() && !t.is_neg(); }

void copy_values(const at::Tensor& src, const at::Tensor& dst, bool non_blocking) {
  static const std::string name = "aten::copy_";
  TORCH_CHECK(src.defined() && dst.defined(), "copy_ needs two defined tensors");
  const bool from_card = on_card(src);
  const bool to_card = on_card(dst);
  TORCH_CHECK((from_card || src.is_cpu()) && (to_card || dst.is_cpu()),
              "copies go between hpu and cpu, not from ", src.device(), " to ", dst.device());
  const bool within = from_card && to_card && src.device() == dst.device();
  const bool gathered = is_gathered(within);
  count_copy(from_card, to_card, gathered, src.numel(), payload_bytes(src), non_blocking,
             name.c_str());
  const auto fault = fault_at(runtime::Site::kCopy, card_of(from_card ? src : dst));
  const auto host_src = from_card ? host_alias(src) : src;
  const auto host_dst = to_card ? host_alias(dst) : dst;
  if (!from_card) cut_if_written(host_dst);
  const int card = (to_card ? dst : src).device().index();
  const auto account = [&] {
    const c10::IValue result(host_dst);
    if (gathered) gather(copy_operator(), card, {host_dst, host_src, non_blocking}, result);
  };
  const bool pinned_source = !from_card && is_pinned(src.storage().data());
  const bool capturing = Graph::capturing() != nullptr;
  const bool between = from_card && to_card && !within;
  if (between) come_between_cards(card, src.device().index());
  StreamLaunch launch(card, name);
  const bool unused = !to_card && launch.unused_by_cards(host_dst);
  launch.reads(host_src);
  launch.writes(host_dst);
  if (non_blocking && pinned_source && !capturing) launch.watch(host_src);
  if (!capturing && (within || (non_blocking && from_card != to_card)) && plain(src) &&
      plain(dst) && at::is_expandable_to(src.sizes(), dst.sizes()) && copies_are_queued(card)) {
    if (unused) poison_until_written(host_dst);
    enqueue_copy(card, host_dst, host_src, !from_card && !pinned_source, to_card, fault);
    account();
    return;
  }
  come_after_current_stream(card);
  const auto started_ns = runtime::observer() != nullptr ? runtime::now_ns() : 0;
  {
    const c10::InferenceMode inference;
    copy_now(host_dst, host_src);
    if (to_card) keep_card_integers(host_dst);
    if (fault == runtime::Fault::kNan) spoil(host_dst);
  }
  if (runtime::observer() != nullptr) {
    report_copy(copy_operator(), from_card, to_card, (to_card ? dst : src).device().index(),
                {host_dst, host_src, non_blocking}, host_dst, gathered, started_ns);
  }
  account();
  if (between) let_current_streams_meet(card, src.device().index());
  record_copy(host_dst, host_src, !from_card);
  if (!non_blocking && from_card != to_card) wait_for_current_stream(card);
}

at::Tensor& copy_(at::Tensor& self, const at::Tensor& src, bool non_blocking) {
  copy_values(src, self, non_blocking);
  return self;
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& dst, bool non_blocking) {
  copy_values(self, dst, non_blocking);
  return dst;
}

at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& dst) {
  dst.resize_(self.sizes());
  copy_values(self, dst, false);
  return dst;
}

at::Tensor to_copy(const at::Tensor& self, std::optional<c10::ScalarType> dtype,
                   std::optional<c10::Layout> layout, std::optional<c10::Device> device,
                   std::optional<bool> pin_memory, bool non_blocking,
                   std::optional<c10::MemoryFormat> format) {
  TORCH_CHECK_NOT_IMPLEMENTED(!layout || *layout == c10::kStrided,
                              "the HPU device has dense strided tensors only, got layout ",
                              *layout);
  const auto target = device.value_or(self.device());
  const bool from_card = on_card(self);
  const bool to_card = target.type() == kHPU;
  TORCH_CHECK(to_card || target.is_cpu(), "copies go between hpu and cpu, not to ", target);
  const bool pinned = !to_card && pin_memory.value_or(false);
  static const std::string name = "aten::_to_copy";
  const int target_card =
      !to_card ? -1 : target.has_index() ? target.index() : runtime::current_card();
  const bool within = from_card && to_card && self.device().index() == target_card;
  const bool gathered = is_gathered(within);
  count_copy(from_card, to_card, gathered, self.numel(), payload_bytes(self), non_blocking,
             name.c_str());
  const auto fault = fault_at(
      runtime::Site::kCopy, from_card ? card_of(self) : runtime::current_card());
  const auto host = from_card ? host_alias(self) : self;
  const int card = to_card ? target_card : self.device().index();
  const bool pinned_source = !from_card && is_pinned(self.storage().data());
  const bool between = from_card && to_card && !within;
  if (between) come_between_cards(card, self.device().index());
  StreamLaunch launch(card, name);
  launch.reads(host);
  const bool capturing = Graph::capturing() != nullptr;
  if (non_blocking && pinned_source && !capturing) launch.watch(host);
  const auto arguments = [&] {
    return std::vector<c10::IValue>{host,   dtype,        layout, c10::Device(c10::kCPU),
                                    pinned, non_blocking, format};
  };
  const auto account = [&](const at::Tensor& copy) {
    const c10::IValue result(copy);
    if (gathered) gather(to_copy_operator(), card, arguments(), result);
  };
  // A fresh tensor on the card needs nothing of the stream if the values are read now.
  const bool reads_later = from_card || (non_blocking && pinned_source);
  const bool may_queue = within || (non_blocking && from_card != to_card);
  if (!capturing && reads_later && may_queue && plain(self) && copies_are_queued(card)) {
    const auto like = [&] {
      return at::empty_like(host, dtype, layout, c10::Device(c10::kCPU), pinned,
                            format.value_or(c10::MemoryFormat::Preserve));
    };
    if (!to_card) {
      auto copy = like();
      launch.writes(copy);
      poison_until_written(copy);
      enqueue_copy(card, copy, host, false, to_card, fault);
      return copy;
    }
    at::Tensor copy;
    {
      const c10::InferenceMode inference;
      copy = like();
    }
    auto out = adopt(copy, target_card);
    launch.writes(copy);
    enqueue_copy(card, copy, host, false, to_card, fault);
    account(copy);
    return out;
  }
  if (from_card) come_after_current_stream(card);
  const auto started_ns = runtime::observer() != nullptr ? runtime::now_ns() : 0;
  const auto report = [&](const at::Tensor& result) {
    if (runtime::observer() == nullptr) return;
    report_copy(to_copy_operator(), from_card, to_card, card, arguments(), result, gathered,
                started_ns);
  };
  if (!to_card) {
    // The result belongs to the caller, so it is made in the caller's grad and inference mode.
    auto copy = at::_to_copy(host, dtype, layout, c10::Device(c10::kCPU), pinned, false, format);
    if (fault == runtime::Fault::kNan) spoil(copy);
    launch.writes(copy);
    report(copy);
    if (!non_blocking) wait_for_current_stream(card);
    return copy;
  }
  at::Tensor copy;
  {
    const c10::InferenceMode inference;
    if (is_bool(host) && dtype.value_or(c10::ScalarType::Bool) == c10::ScalarType::Bool) {
      copy = at::_to_copy(bytes_of(host), c10::ScalarType::Byte, layout, c10::Device(c10::kCPU),
                          false, false, format)
                 .view(c10::ScalarType::Bool);
    } else {
      copy = at::_to_copy(host, dtype, layout, c10::Device(c10::kCPU), false, false, format);
    }
    keep_card_integers(copy);
    if (fault == runtime::Fault::kNan) spoil(copy);
  }
  report(copy);
  account(copy);
  if (auto* capture = Graph::capturing()) {
    const c10::IValue result(copy);
    capture->record(to_copy_operator(),
                    {from_card ? host : host.clone(), dtype, layout, c10::Device(c10::kCPU), false,
                     false, format},
                    c10::ArrayRef<c10::IValue>(&result, 1));
  }
  auto out = adopt(copy, target_card);
  launch.writes(copy);
  if (between) let_current_streams_meet(card, self.device().index());
  return out;
}

TORCH_LIBRARY_IMPL(aten, HPU, m) {
  m.impl("copy_", &copy_);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_to_copy", &to_copy);
}

}  // namespace
}  // namespace gaudi
