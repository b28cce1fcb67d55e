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
  if (checking_order()) event.clock = clock_of(card, stream);
  event.completed_ns = std::make_shared<std::atomic<int64_t>>(0);
  event.place = last_place(card, stream);
  if (place_done(card, stream, event.place, /*start=*/false)) {
    event.completed_ns->store(now_ns());
  } else {
    event.place = enqueue(card, stream, [at = event.completed_ns] { at->store(now_ns()); });
  }
}

void stream_wait_event(int card, StreamId stream, const Event& event) {
  check_stream(card, stream);
  if (event.card < 0) return;
  if (checking_order()) stream_has_waited(card, stream, event.clock);
  if (event.completed_ns->load() != 0 || (event.card == card && event.stream == stream)) return;
  enqueue(card, stream, [from = event.card, other = event.stream, place = event.place] {
    let_wait(from, other, place);
  });
}

bool event_complete(const Event& event) {
  if (event.card < 0) return true;
  if (!place_done(event.card, event.stream, event.place)) return false;
  if (checking_order()) host_has_waited(event.clock);
  return true;
}

bool stream_idle(int card, StreamId stream) {
  check_stream(card, stream);
  if (!place_done(card, stream, last_place(card, stream))) return false;
  if (checking_order()) host_has_waited_for_stream(card, stream);
  return true;
}

void synchronize_event(const Event& event) {
  note_host_sync("event");
  if (event.card < 0) return;
  wait_for_place(event.card, event.stream, event.place);
  if (checking_order()) host_has_waited(event.clock);
}

void synchronize_stream(int card, StreamId stream) {
  check_stream(card, stream);
  note_host_sync("stream");
  wait_for_stream(card, stream);
  if (checking_order()) host_has_waited_for_stream(card, stream);
}

void synchronize_card(int card) {
  check_card(card);
  note_host_sync("device");
  wait_for_card(card);
  if (checking_order()) host_has_waited_for_card(card);
}

double elapsed_ms(const Event& start, const Event& end) {
  if (start.card < 0 || end.card < 0) {
    throw std::logic_error("elapsed time needs two recorded events; record both first");
  }
  const auto from = start.completed_ns->load();
  const auto to = end.completed_ns->load();
  if (from == 0 || to == 0) {
    throw std::logic_error(
        "elapsed time needs two complete events, and work before one of them is not done yet; "
        "synchronize it first");
  }
  return static_cast<double>(to - from) / 1e6;
}

}  // namespace gaudi::runtime
