#include "stream.h"

#include <array>
#include <atomic>
#include <stdexcept>
#include <string>

#include "clock.h"
#include "counters.h"
#include "memory.h"

namespace gaudi::runtime {
namespace {

// Ids 1 .. g_created[card] are streams made by the program; 0 is the default stream.
std::array<std::atomic<int64_t>, kMaxCards> g_created{};
thread_local int t_card = 0;
thread_local std::array<StreamId, kMaxCards> t_streams{};

void check_card(int card) {
  if (card < 0 || card >= card_count()) {
    throw std::out_of_range("invalid device hpu:" + std::to_string(card) + ": " +
                            std::to_string(card_count()) +
                            " card(s) are visible to this process (HABANA_VISIBLE_MODULES, "
                            "GAUDI_EMULATOR_CARDS)");
  }
}

void check_stream(int card, StreamId stream) {
  if (!stream_exists(card, stream)) {
    throw std::out_of_range("hpu:" + std::to_string(card) + " has no stream " +
                            std::to_string(stream));
  }
}

}  // namespace

int current_card() { return t_card; }

void set_current_card(int card) {
  check_card(card);
  t_card = card;
}

StreamId new_stream(int card, int /*priority*/) {
  check_card(card);
  return g_created[card].fetch_add(1) + 1;
}

bool stream_exists(int card, StreamId stream) {
  return card >= 0 && card < card_count() && stream >= 0 && stream <= g_created[card].load();
}

StreamId current_stream(int card) {
  check_card(card);
  return t_streams[card];
}

void set_current_stream(int card, StreamId stream) {
  check_stream(card, stream);
  t_streams[card] = stream;
}

void record_event(Event& event, int card, StreamId stream) {
  check_stream(card, stream);
  event.card = card;
  event.stream = stream;
  event.version += 1;
  event.completed_ns = now_ns();
}

void stream_wait_event(int card, StreamId stream, const Event& /*event*/) {
  // A recorded event is complete, so there is nothing left to wait for.
  check_stream(card, stream);
}

bool event_complete(const Event& /*event*/) { return true; }

bool stream_idle(int card, StreamId stream) {
  check_stream(card, stream);
  return true;
}

void synchronize_event(const Event& /*event*/) { note_host_sync("event"); }

void synchronize_stream(int card, StreamId stream) {
  check_stream(card, stream);
  note_host_sync("stream");
}

void synchronize_card(int card) {
  check_card(card);
  note_host_sync("device");
}

double elapsed_ms(const Event& start, const Event& end) {
  if (start.version == 0 || end.version == 0) {
    throw std::logic_error("elapsed time needs two recorded events; record both first");
  }
  return static_cast<double>(end.completed_ns - start.completed_ns) / 1e6;
}

}  // namespace gaudi::runtime
