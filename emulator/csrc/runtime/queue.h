// When does queued work of a stream run? One queue and one thread per stream. No torch in this file.
//
// Work of one stream runs in order. Three schedules, all legal for an asynchronous device: at once
// (the caller runs it), as soon as possible (the stream's thread), and as late as possible (the
// stream's thread, but only when somebody waits for it, so that whoever forgot to wait sees the
// state before; after two seconds without a wait it is done as well).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

namespace gaudi::runtime {

using StreamId = int64_t;
using Task = std::function<void()>;

enum class Schedule { kImmediate, kThread, kLate };

// Set once, before the first work.
void configure_schedule(Schedule schedule);
Schedule schedule();

namespace detail {
extern std::atomic<int64_t> pending;
}
// Whether any stream has work left: what everybody who orders himself after a stream asks first.
inline bool any_pending() { return detail::pending.load(std::memory_order_acquire) != 0; }

// Append to the stream's queue; returns the place, counted from 1. What the task holds is freed in
// the stream's thread. Not for Schedule::kImmediate.
int64_t enqueue(int card, StreamId stream, Task task);

// The place of the stream's latest work (0: none yet), and whether a place has been passed; late work
// may start when the host asks.
int64_t last_place(int card, StreamId stream);
bool place_done(int card, StreamId stream, int64_t place, bool start = true);

// Block until the place, or all work of a stream, a card, the process, has been done. Rethrows what
// work of the stream threw, once. A stream's own thread does not wait for itself.
void wait_for_place(int card, StreamId stream, int64_t place);
void wait_for_stream(int card, StreamId stream);
void wait_for_card(int card);
void wait_for_all();
// Somebody outside of this process waits for the stream's work: late work may start.
void start_stream(int card, StreamId stream);
// As wait_for_place, but exceptions are left for the host.
void let_wait(int card, StreamId stream, int64_t place);

// Do what is queued and end all threads; from then on work runs at once.
void stop_queues();

// What a stream's thread does first, and what surrounds a wait of the host (to let go of a lock that
// queued work may need). Each may be null.
struct QueueHooks {
  void (*thread_begins)() = nullptr;
  void* (*wait_begins)() = nullptr;
  void (*wait_ends)(void*) = nullptr;
};
void set_queue_hooks(QueueHooks hooks);

}  // namespace gaudi::runtime
