// The handle of a collective: complete when its result stands, failed when a rank has died.
#pragma once

#include <torch/csrc/distributed/c10d/Work.hpp>

#include <functional>
#include <string>
#include <vector>

namespace gaudi {

using WorkPointer = c10::intrusive_ptr<c10d::Work>;

// Whoever carries the collective out says how it ended, once; what comes later is ignored.
class CollectiveWork : public c10d::Work {
 public:
  CollectiveWork();

  void complete(int source_rank);  // the sender of a receive from anyone, else -1
  void fail(const std::string& text);

  int sourceRank() const override { return source_rank_.load(); }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }

 private:
  std::atomic<bool> decided_{false};
  std::atomic<int> source_rank_{-1};
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

// Call `ended` once, when all of the transfers have ended: with the text of the first error, or "".
// A thread of the transport calls it; the caller's, if all have ended already.
void when_ended(const std::vector<WorkPointer>& transfers,
                std::function<void(const std::string&)> ended);

// The same in the calling thread: wait for all of them.
std::string wait_for(const std::vector<WorkPointer>& transfers);

}  // namespace gaudi
