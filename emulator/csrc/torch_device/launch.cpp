#include <torch_headers.h>

#include "launch.h"

#include "../runtime/memory.h"
#include "../runtime/observer.h"
#include "../runtime/stream.h"
#include "device_storage.h"
#include "pinned_memory.h"

namespace gaudi {
namespace {

runtime::Uses* uses_behind(const c10::StorageImpl& storage) {
  auto* uses = uses_of(storage);
  return uses != nullptr ? uses : pinned_uses(storage);
}

template <typename F>
void translated(F&& f) {
  try {
    f();
  } catch (const runtime::MissingSynchronisation& e) {
    TORCH_CHECK(false, e.what());
  }
}

}  // namespace

void StreamLaunch::begin(int card, const std::string& what) {
  translated([&] { launch_.emplace(card, runtime::current_stream(card), what); });
}

void StreamLaunch::note(const at::Tensor& host, bool write) {
  if (!host.defined() || !host.has_storage()) return;
  const auto [begin, end] = span_of(host);
  note_span(*storage_of(host), begin, end, write);
}

void StreamLaunch::note_span(const c10::StorageImpl& host, uintptr_t begin, uintptr_t end,
                             bool write) {
  auto* uses = launch_ ? uses_behind(host) : nullptr;
  if (uses == nullptr) return;
  translated([&] {
    if (write) {
      launch_->writes(*uses, begin, end);
    } else {
      launch_->reads(*uses, begin, end);
    }
  });
}

bool StreamLaunch::unused_by_cards(const at::Tensor& host) const {
  const auto& storage = *storage_of(host);
  const auto* uses = pinned_uses(storage);
  return uses == nullptr || (launch_ && runtime::host_has_waited_for(*uses));
}

void StreamLaunch::watch(const at::Tensor& host) const {
  if (!launch_ || host.numel() == 0) return;
  const auto [begin, end] = span_of(host);
  auto keep = std::make_shared<c10::Storage>(host.storage());
  launch_->watch(reinterpret_cast<const void*>(begin), end - begin, std::move(keep));
}

std::pair<uintptr_t, uintptr_t> span_of(const at::Tensor& host) {
  if (host.numel() == 0) return {0, 0};
  int64_t last = 0;
  for (int64_t i = 0; i < host.dim(); ++i) last += (host.size(i) - 1) * host.stride(i);
  const auto begin = reinterpret_cast<uintptr_t>(host.const_data_ptr());
  return {begin, begin + static_cast<uintptr_t>(last + 1) * host.element_size()};
}

void wait_for_current_stream(int card) {
  const auto stream = runtime::current_stream(card);
  runtime::wait_for_stream(card, stream);
  if (runtime::checking_order()) {
    translated([&] { runtime::host_has_waited_for_stream(card, stream); });
  }
}

void come_after_current_stream(int card) {
  if (runtime::any_pending()) runtime::wait_for_stream(card, runtime::current_stream(card));
}

void let_current_streams_meet(int card, int other) {
  come_after_current_stream(card);
  come_after_current_stream(other);
  if (!runtime::checking_order()) return;
  const auto stream = runtime::current_stream(card);
  const auto its_stream = runtime::current_stream(other);
  runtime::stream_has_waited(card, stream, runtime::clock_of(other, its_stream));
  runtime::stream_has_waited(other, its_stream, runtime::clock_of(card, stream));
}

bool copies_are_queued(int card) {
  if (runtime::observer() != nullptr) return false;  // which is told when work was done
  switch (runtime::schedule()) {
    case runtime::Schedule::kImmediate:
      return false;
    case runtime::Schedule::kLate:
      return true;
    case runtime::Schedule::kThread:
      break;
  }
  const auto stream = runtime::current_stream(card);
  return !runtime::place_done(card, stream, runtime::last_place(card, stream));
}

void enqueue_on_current_stream(int card, runtime::Task task) {
  runtime::enqueue(card, runtime::current_stream(card), [task = std::move(task)] {
    const c10::InferenceMode inference;
    task();
  });
}

void poison_until_written(const at::Tensor& host) {
  if (!runtime::poison_enabled() || host.numel() == 0 || !host.is_non_overlapping_and_dense()) return;
  const auto [begin, end] = span_of(host);
  runtime::poison(reinterpret_cast<void*>(begin), end - begin);
}

}  // namespace gaudi
