// Which work is ordered after which? Streams and events of the cards. No torch in this file.
//
// Work runs at the moment it is submitted, so a stream is always idle and an event is complete as
// soon as it is recorded. The interface is that of an asynchronous device, so that queues with
// threads can come in behind it.
#pragma once

#include <cstdint>

namespace gaudi::runtime {

using StreamId = int64_t;
constexpr StreamId kDefaultStream = 0;

struct Event {
  bool timed = true;
  int card = -1;            // -1 until first recorded
  StreamId stream = kDefaultStream;
  int64_t version = 0;      // how often it was recorded
  int64_t completed_ns = 0; // device clock at the completion of the latest record
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

// Milliseconds from `start` to `end`; throws std::logic_error if either has not been recorded.
double elapsed_ms(const Event& start, const Event& end);

}  // namespace gaudi::runtime
