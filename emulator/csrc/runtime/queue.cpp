#include "queue.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace gaudi::runtime {

namespace detail {
std::atomic<int64_t> pending{0};
}

namespace {

// A submitter waits while a stream has this much work left, as a card's queues are finite too.
constexpr int64_t kLongest = 512;
// A thread without work for so long ends; the next work starts another. Late work that nobody waits for
// is done after as long: somebody may wait whom this process cannot see.
constexpr auto kIdle = std::chrono::seconds(2);

std::atomic<Schedule> g_schedule{Schedule::kImmediate};
QueueHooks g_hooks;

class Queue {
 public:
  int64_t add(Task task) {
    std::unique_lock lock(mutex_);
    if (submitted_ - completed_ >= kLongest) wait(lock, submitted_ - kLongest / 2);
    tasks_.push_back(std::move(task));
    detail::pending.fetch_add(1, std::memory_order_acq_rel);
    ++submitted_;
    if (g_schedule.load() != Schedule::kLate) want(submitted_);
    if (!running_) {
      running_ = true;
      std::thread(&Queue::work, this).detach();
    }
    return submitted_;
  }

  int64_t last() {
    const std::lock_guard lock(mutex_);
    return submitted_;
  }

  bool done(int64_t place, bool start) {
    const std::lock_guard lock(mutex_);
    if (start) want(place);
    return completed_ >= place;
  }

  void await(int64_t place, bool rethrow) {
    if (t_own == this) return;
    std::exception_ptr error;
    {
      std::unique_lock lock(mutex_);
      wait(lock, place);
      if (rethrow) error = std::exchange(error_, nullptr);
    }
    if (error) std::rethrow_exception(error);
  }

  void await_all(bool rethrow) { await(last(), rethrow); }

  void stop() {
    await_all(false);
    std::unique_lock lock(mutex_);
    stopping_ = true;
    work_.notify_all();
    finished_.wait(lock, [&] { return !running_; });
  }

 private:
  void want(int64_t place) {
    if (place <= wanted_) return;
    wanted_ = std::min(place, submitted_);
    work_.notify_all();
  }

  void wait(std::unique_lock<std::mutex>& lock, int64_t place) {
    want(place);
    if (completed_ >= place) return;
    lock.unlock();
    void* let_go = g_hooks.wait_begins != nullptr ? g_hooks.wait_begins() : nullptr;
    lock.lock();
    finished_.wait(lock, [&] { return completed_ >= place; });
    lock.unlock();  // taking the other lock back must not hold up this queue
    if (g_hooks.wait_ends != nullptr) g_hooks.wait_ends(let_go);
    lock.lock();
  }

  void work() {
    t_own = this;
    if (g_hooks.thread_begins != nullptr) g_hooks.thread_begins();
    std::unique_lock lock(mutex_);
    while (true) {
      const bool ready =
          work_.wait_for(lock, kIdle, [&] { return completed_ < wanted_ || stopping_; });
      if (completed_ < wanted_) {
        Task task = std::move(tasks_.front());
        tasks_.pop_front();
        lock.unlock();
        std::exception_ptr error;
        try {
          task();
        } catch (...) {
          error = std::current_exception();
        }
        task = nullptr;
        lock.lock();
        if (error && !error_) error_ = error;
        ++completed_;
        detail::pending.fetch_sub(1, std::memory_order_acq_rel);
        finished_.notify_all();
      } else if (stopping_ || (!ready && tasks_.empty())) {
        break;
      } else if (!ready) {
        wanted_ = submitted_;
      }
    }
    running_ = false;
    finished_.notify_all();
  }

  static thread_local Queue* t_own;

  std::mutex mutex_;
  std::condition_variable work_, finished_;
  std::deque<Task> tasks_;
  int64_t submitted_ = 0;
  int64_t wanted_ = 0;  // the thread may go on up to here
  int64_t completed_ = 0;
  std::exception_ptr error_;
  bool running_ = false;
  bool stopping_ = false;
};

thread_local Queue* Queue::t_own = nullptr;

struct Registry {
  std::mutex mutex;
  std::map<std::pair<int, StreamId>, std::unique_ptr<Queue>> queues;
};

Registry& registry() {
  static auto* instance = new Registry;  // threads may outlive static objects
  return *instance;
}

Queue* find(int card, StreamId stream) {
  auto& r = registry();
  const std::lock_guard lock(r.mutex);
  const auto it = r.queues.find({card, stream});
  return it == r.queues.end() ? nullptr : it->second.get();
}

std::vector<Queue*> all_of(int card) {
  auto& r = registry();
  const std::lock_guard lock(r.mutex);
  std::vector<Queue*> found;
  for (const auto& [key, queue] : r.queues) {
    if (card < 0 || key.first == card) found.push_back(queue.get());
  }
  return found;
}

// Threads do not survive a fork, so a child computes at once.
void in_child() {
  g_schedule.store(Schedule::kImmediate);
  detail::pending.store(0);
}

}  // namespace

void configure_schedule(Schedule schedule) {
  static const int registered = pthread_atfork(nullptr, nullptr, &in_child);
  (void)registered;
  g_schedule.store(schedule);
}

Schedule schedule() { return g_schedule.load(std::memory_order_relaxed); }

int64_t enqueue(int card, StreamId stream, Task task) {
  auto& r = registry();
  Queue* queue = nullptr;
  {
    const std::lock_guard lock(r.mutex);
    auto& entry = r.queues[{card, stream}];
    if (!entry) entry = std::make_unique<Queue>();
    queue = entry.get();
  }
  return queue->add(std::move(task));
}

int64_t last_place(int card, StreamId stream) {
  if (schedule() == Schedule::kImmediate) return 0;
  auto* queue = find(card, stream);
  return queue == nullptr ? 0 : queue->last();
}

bool place_done(int card, StreamId stream, int64_t place, bool start) {
  if (!any_pending()) return true;
  auto* queue = find(card, stream);
  return queue == nullptr || queue->done(place, start);
}

void wait_for_place(int card, StreamId stream, int64_t place) {
  if (auto* queue = find(card, stream)) queue->await(place, true);
}

void wait_for_stream(int card, StreamId stream) {
  if (auto* queue = find(card, stream)) queue->await_all(true);
}

void wait_for_card(int card) {
  for (auto* queue : all_of(card)) queue->await_all(true);
}

void wait_for_all() { wait_for_card(-1); }

void start_stream(int card, StreamId stream) {
  if (auto* queue = find(card, stream)) queue->done(queue->last(), /*start=*/true);
}

void let_wait(int card, StreamId stream, int64_t place) {
  if (auto* queue = find(card, stream)) queue->await(place, false);
}

void stop_queues() {
  for (auto* queue : all_of(-1)) queue->stop();
  g_schedule.store(Schedule::kImmediate);
}

void set_queue_hooks(QueueHooks hooks) { g_hooks = hooks; }

}  // namespace gaudi::runtime
