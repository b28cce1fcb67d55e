// Which work is ordered after which? Streams and events of the cards. No torch in this file.
//
// What is queued, and when it runs, is the business of queue.h; whether the order suffices, of order.h.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "order.h"
#include "queue.h"

namespace gaudi::runtime {

constexpr StreamId kDefaultStream = 0;

struct Event {
  bool timed = true;
  int card = -1;            // -1 until first recorded
  StreamId stream = kDefaultStream;
  int64_t place = 0;        // of the latest record in the stream's queue; 0: nothing was queued
  // Device clock at the completion of the latest record; 0 before. Null until first recorded.
  std::shared_ptr<std::atomic<int64_t>> completed_ns;
  Clock clock;              // what is finished when this event is, if the order is checked
};

int current_card();
void set_current_card(int card);  // throws std::out_of_range for a card that does not exist

StreamId new_stream(int card, int priority);
bool stream_exists(int card, StreamId stream);
StreamId current_stream(int card);
void set_current_stream(int card, StreamId stream);  // throws std::out_of_range

void record_event(Event& event, int card, StreamId stream);
void stream_wait_event(int card, StreamId stream, const Event& event);
bool event_complete(const Event& event);
bool stream_idle(int card, StreamId stream);

// The host waits. Counted as one host synchronisation each.
void synchronize_event(const Event& event);
void synchronize_stream(int card, StreamId stream);
void synchronize_card(int card);

// Work of the host on the stream's memory comes after what is queued there; nothing is counted.
inline void come_after(int card, StreamId stream) {
  if (any_pending()) wait_for_stream(card, stream);
}

// Milliseconds from `start` to `end`; throws std::logic_error if either has not been recorded or is
// not complete.
double elapsed_ms(const Event& start, const Event& end);

}  // namespace gaudi::runtime
