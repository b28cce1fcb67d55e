#include <torch_headers.h>

#include "collective_work.h"

#include <c10/util/Exception.h>

#include <mutex>
#include <thread>

namespace gaudi {
namespace {

struct Followed {
  std::mutex mutex;
  size_t left;
  std::string error;
  std::function<void(const std::string&)> ended;

  void one_ended(const std::string& text) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (error.empty()) error = text;
      if (--left > 0) return;
    }
    ended(error);
  }
};

std::string outcome(c10d::Work& work) {
  try {
    work.wait();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

}  // namespace

CollectiveWork::CollectiveWork()
    : future_(c10::make_intrusive<c10::ivalue::Future>(
          c10::ListType::create(c10::TensorType::get()))) {}

void CollectiveWork::complete(int source_rank) {
  if (decided_.exchange(true)) return;
  source_rank_.store(source_rank);
  finish();
  future_->markCompleted(c10::IValue(std::vector<at::Tensor>{}));
}

void CollectiveWork::fail(const std::string& text) {
  if (decided_.exchange(true)) return;
  const auto error = std::make_exception_ptr(c10::DistBackendError(
      {__func__, __FILE__, static_cast<uint32_t>(__LINE__)}, text));
  finish(error);
  future_->setError(error);
}

std::string wait_for(const std::vector<WorkPointer>& transfers) {
  std::string error;
  for (const auto& work : transfers) {
    auto text = outcome(*work);
    if (error.empty()) error = std::move(text);
  }
  return error;
}

void when_ended(const std::vector<WorkPointer>& transfers,
                std::function<void(const std::string&)> ended) {
  if (transfers.empty()) {
    ended("");
    return;
  }
  auto followed = std::make_shared<Followed>();
  followed->left = transfers.size();
  followed->ended = std::move(ended);
  for (const auto& work : transfers) {
    if (c10d::isP2POp(work->retrieveOpType())) {
      // gloo's sends and receives are the caller's to wait for; nothing else drives them.
      std::thread([followed, work] { followed->one_ended(outcome(*work)); }).detach();
      continue;
    }
    work->getFuture()->addCallback([followed](c10::ivalue::Future& future) {
      followed->one_ended(future.hasError() ? future.tryRetrieveErrorMessage() : "");
    });
  }
}

}  // namespace gaudi
