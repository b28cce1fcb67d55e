// What does a launch read and write, and is it queued or run at once?
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "../runtime/order.h"
#include "../runtime/queue.h"

namespace gaudi {

// One piece of work on a card's current stream, noted with the memory it uses. Does nothing unless
// the order of work is checked; raises for a missing synchronisation before anything runs.
class StreamLaunch {
 public:
  StreamLaunch(int card, const std::string& what) {
    if (runtime::checking_order()) begin(card, what);
  }
  // Host aliases of device tensors, or pinned host tensors; others are nobody else's business.
  void reads(const at::Tensor& host) {
    if (launch_) note(host, false);
  }
  void writes(const at::Tensor& host) {
    if (launch_) note(host, true);
  }
  // The same for a span of a storage.
  void note_span(const c10::StorageImpl& host, uintptr_t begin, uintptr_t end, bool write);
  // Whether the host knows of every card that it has left this memory alone; no if that is unknown.
  bool unused_by_cards(const at::Tensor& host) const;
  // The host must leave pinned memory alone until it has waited for this launch.
  void watch(const at::Tensor& host) const;

 private:
  void begin(int card, const std::string& what);
  void note(const at::Tensor& host, bool write);

  std::optional<runtime::Launch> launch_;
};

// Bytes from the first to the last element, as addresses.
std::pair<uintptr_t, uintptr_t> span_of(const at::Tensor& host);

// The host has waited for the card's current stream, without a count: a blocking copy or read does.
void wait_for_current_stream(int card);

// What work runs next on the card's current stream must find done: for work that is not queued.
void come_after_current_stream(int card);

// A copy between cards: both cards' current streams wait for each other, before it and after it.
void let_current_streams_meet(int card, int other);

// Whether copies on the card's current stream are queued: work is still before them, or everything
// is done as late as possible.
bool copies_are_queued(int card);

// Append to the card's current stream. The task runs in inference mode.
void enqueue_on_current_stream(int card, runtime::Task task);

// While work is queued that will write `host`, its present content is nothing to read.
void poison_until_written(const at::Tensor& host);

}  // namespace gaudi
