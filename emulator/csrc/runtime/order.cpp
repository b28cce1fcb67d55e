#include "order.h"

#include <algorithm>
#include <cstdio>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string_view>
#include <unordered_set>
#include <utility>

namespace gaudi::runtime {

namespace detail {
std::atomic<bool> checking{false};
}

namespace {

// Uses kept of one piece of memory, and copies from host memory watched. What is beyond is forgotten:
// better a problem missed than one invented.
constexpr size_t kUses = 24;
constexpr size_t kWatched = 256;
constexpr size_t kHashedBytes = size_t{1} << 20;

struct Stream {
  int card;
  StreamId id;
  int64_t launches = 0;
  Clock clock;
};

struct Watched {
  int stream;
  int64_t launch;
  const std::string* what;
  const void* data;
  size_t bytes;
  size_t hash;
  std::shared_ptr<void> keep;
};

struct State {
  std::mutex mutex;
  std::map<std::pair<int, StreamId>, int> numbers;
  std::deque<Stream> streams;
  Clock host;
  std::unordered_set<std::string> names;
  std::deque<Watched> watched;
  std::string freed_too_early;
  std::set<std::pair<const std::string*, const std::string*>> logged;
};

State& state() {
  static auto* instance = new State;  // memory may be freed at the very end of the process
  return *instance;
}

std::atomic<OrderCheck> g_check{OrderCheck::kOff};
std::atomic<int64_t> g_problems{0};

void take_over(Clock& mine, const Clock& other) {
  if (mine.size() < other.size()) mine.resize(other.size(), 0);
  for (size_t i = 0; i < other.size(); ++i) mine[i] = std::max(mine[i], other[i]);
}

bool covers(const Clock& clock, int stream, int64_t launch) {
  return static_cast<size_t>(stream) < clock.size() && clock[stream] >= launch;
}

int number_of(State& s, int card, StreamId id) {
  const auto [it, fresh] = s.numbers.emplace(std::pair{card, id}, static_cast<int>(s.streams.size()));
  if (fresh) s.streams.push_back({card, id, 0, Clock(s.streams.size() + 1, 0)});
  return it->second;
}

std::string name_of(const Stream& stream) {
  return (stream.id == 0 ? std::string("the default stream")
                         : "stream " + std::to_string(stream.id)) +
         " of hpu:" + std::to_string(stream.card);
}

size_t hash_of(const void* data, size_t bytes) {
  return std::hash<std::string_view>{}(
      {static_cast<const char*>(data), std::min(bytes, kHashedBytes)});
}

// Must be called with the state locked.
void report(State& s, const std::string* what, const std::string* other, const std::string& text) {
  g_problems.fetch_add(1, std::memory_order_relaxed);
  if (g_check.load() == OrderCheck::kRaise) throw MissingSynchronisation(text);
  if (s.logged.emplace(what, other).second) std::fprintf(stderr, "gaudi-emulator: %s\n", text.c_str());
}

void raise_freed(State& s) {
  if (s.freed_too_early.empty()) return;
  const auto text = std::exchange(s.freed_too_early, {});
  throw MissingSynchronisation(text);
}

void check_watched(State& s) {
  for (size_t i = 0; i < s.watched.size();) {
    if (!covers(s.host, s.watched[i].stream, s.watched[i].launch)) {
      ++i;
      continue;
    }
    const Watched done = std::move(s.watched[i]);
    s.watched.erase(s.watched.begin() + static_cast<std::ptrdiff_t>(i));
    if (hash_of(done.data, done.bytes) == done.hash) continue;
    const auto& stream = s.streams[done.stream];
    report(s, done.what, nullptr,
           "missing synchronisation: the host changed pinned memory while " + *done.what + " on " +
               name_of(stream) + " (launch " + std::to_string(done.launch) +
               ") could still read it. Record an event after the copy and synchronize it before "
               "writing to its source again, or write to another buffer.");
  }
}

}  // namespace

void configure_order_check(OrderCheck check) {
  g_check.store(check);
  detail::checking.store(check != OrderCheck::kOff);
}

int64_t order_problems() { return g_problems.load(); }

Launch::Launch(int card, StreamId stream, const std::string& what) {
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  raise_freed(s);
  stream_ = number_of(s, card, stream);
  auto& mine = s.streams[stream_];
  launch_ = ++mine.launches;
  take_over(mine.clock, s.host);
  mine.clock[stream_] = launch_;
  what_ = &*s.names.insert(what).first;
}

void Launch::note(Uses& uses, uintptr_t begin, uintptr_t end, bool write) {
  if (begin >= end) return;
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  const auto& clock = s.streams[stream_].clock;
  bool known = false;
  auto& list = uses.list;
  if (write && !s.watched.empty()) {
    // From now on it is a card that changes the bytes.
    std::erase_if(s.watched, [&](const Watched& w) {
      const auto at = reinterpret_cast<uintptr_t>(w.data);
      return at < end && begin < at + w.bytes;
    });
  }
  for (size_t i = 0; i < list.size();) {
    auto& use = list[i];
    const bool mine = use.stream == stream_;
    const bool before = mine || covers(clock, use.stream, use.launch);
    const bool overlaps = use.begin < end && begin < use.end;
    if (!before && overlaps && (write || use.write)) {
      const auto* other = use.what;
      const auto& stranger = s.streams[use.stream];
      const auto launch = use.launch;
      const bool other_writes = use.write;
      list.erase(list.begin() + static_cast<std::ptrdiff_t>(i));  // reported once
      report(s, what_, other,
             "missing synchronisation: " + *what_ + " on " + name_of(s.streams[stream_]) +
                 (write ? " writes" : " reads") + " memory that " + *other + " on " +
                 name_of(stranger) + " (launch " + std::to_string(launch) + ") " +
                 (other_writes ? "writes" : "reads") +
                 ", and has not waited for it. Let it wait first: Stream.wait_stream, "
                 "Stream.wait_event, or a synchronize of the host.");
      continue;
    }
    if (mine && use.write == write && use.begin == begin && use.end == end) {
      use.launch = launch_;
      use.what = what_;
      known = true;
    } else if (write && before && begin <= use.begin && use.end <= end) {
      // Who is ordered after this write is ordered after that use.
      list.erase(list.begin() + static_cast<std::ptrdiff_t>(i));
      continue;
    }
    ++i;
  }
  if (known) return;
  if (list.size() >= kUses) {
    std::erase_if(list, [&](const Use& use) { return covers(s.host, use.stream, use.launch); });
    if (list.size() >= kUses) list.erase(list.begin());
  }
  list.push_back({stream_, launch_, what_, begin, end, write});
}

void Launch::watch(const void* data, size_t bytes, std::shared_ptr<void> keep) const {
  auto& s = state();
  const auto hash = hash_of(data, bytes);
  std::shared_ptr<void> dropped;  // freed after the lock
  const std::lock_guard lock(s.mutex);
  if (s.watched.size() >= kWatched) {
    dropped = std::move(s.watched.front().keep);
    s.watched.pop_front();
  }
  s.watched.push_back({stream_, launch_, what_, data, bytes, hash, std::move(keep)});
}

int stream_number(int card, StreamId stream) {
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  return number_of(s, card, stream);
}

Clock clock_of(int card, StreamId stream) {
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  auto& mine = s.streams[number_of(s, card, stream)];
  take_over(mine.clock, s.host);
  return mine.clock;
}

void stream_has_waited(int card, StreamId stream, const Clock& clock) {
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  take_over(s.streams[number_of(s, card, stream)].clock, clock);
}

void host_has_waited(const Clock& clock) {
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  take_over(s.host, clock);
  check_watched(s);
  raise_freed(s);
}

void host_has_waited_for_stream(int card, StreamId stream) {
  host_has_waited(clock_of(card, stream));
}

void host_has_waited_for_card(int card) {
  Clock together;
  {
    auto& s = state();
    const std::lock_guard lock(s.mutex);
    for (const auto& stream : s.streams) {
      if (stream.card == card) take_over(together, stream.clock);
    }
  }
  host_has_waited(together);
}

bool host_has_waited_for(const Uses& uses) {
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  return std::all_of(uses.list.begin(), uses.list.end(), [&](const Use& use) {
    return covers(s.host, use.stream, use.launch);
  });
}

void record_stream_use(Uses& uses, int card, StreamId stream) {
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  uses.recorded.push_back(number_of(s, card, stream));
}

void check_freed(const Uses& uses) noexcept {
  if (uses.home < 0 || uses.list.empty()) return;
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  const auto& home = s.streams[uses.home];
  for (const auto& use : uses.list) {
    if (use.stream == uses.home || covers(home.clock, use.stream, use.launch) ||
        covers(s.host, use.stream, use.launch) ||
        std::count(uses.recorded.begin(), uses.recorded.end(), use.stream) != 0) {
      continue;
    }
    const auto text = "missing synchronisation: memory of " + name_of(home) +
                      " was freed while " + *use.what + " on " +
                      name_of(s.streams[use.stream]) + " (launch " + std::to_string(use.launch) +
                      ") could still use it. Call Tensor.record_stream with that stream, or keep "
                      "the tensor until it has been waited for.";
    g_problems.fetch_add(1, std::memory_order_relaxed);
    if (g_check.load() == OrderCheck::kRaise) {
      s.freed_too_early = text;
    } else if (s.logged.emplace(use.what, nullptr).second) {
      std::fprintf(stderr, "gaudi-emulator: %s\n", text.c_str());
    }
    return;
  }
}

}  // namespace gaudi::runtime
