// How does PyTorch ask for the current card, streams and events?
#include <torch_headers.h>

#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <stdexcept>

#include "../runtime/memory.h"
#include "../runtime/stream.h"
#include "device_storage.h"
#include "graph.h"
#include "lazy_graph.h"

namespace gaudi {
namespace {

c10::Device device_of(int card) { return {kHPU, static_cast<c10::DeviceIndex>(card)}; }

int card_of(c10::Device device) {
  return device.has_index() ? device.index() : runtime::current_card();
}

c10::Stream stream_of(int card, runtime::StreamId id) {
  return c10::Stream(c10::Stream::UNSAFE, device_of(card), id);
}

bool is_current(const c10::Stream& stream) {
  return stream.id() == runtime::current_stream(stream.device_index());
}

runtime::Event& event_of(void* event) { return *static_cast<runtime::Event*>(event); }

// The runtime throws standard exceptions; PyTorch's callers expect c10::Error.
template <typename F>
auto translated(F&& f) {
  try {
    return f();
  } catch (const std::out_of_range& e) {
    TORCH_CHECK(false, e.what());
  } catch (const std::logic_error& e) {
    TORCH_CHECK(false, e.what());
  } catch (const runtime::MissingSynchronisation& e) {
    TORCH_CHECK(false, e.what());
  }
}

struct DeviceGuard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kHPU; }

  c10::Device exchangeDevice(c10::Device device) const override {
    const int before = runtime::current_card();
    setDevice(device);
    return device_of(before);
  }
  c10::Device getDevice() const override { return device_of(runtime::current_card()); }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.type() == kHPU, "expected an hpu device, got ", device);
    if (device.has_index() && device.index() != runtime::current_card()) {
      translated([&] { runtime::set_current_card(device.index()); });
    }
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.index() >= 0 && device.index() < runtime::card_count()) {
      runtime::set_current_card(device.index());
    }
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return static_cast<c10::DeviceIndex>(runtime::card_count());
  }

  c10::Stream getStream(c10::Device device) const override {
    const int card = card_of(device);
    return translated([&] { return stream_of(card, runtime::current_stream(card)); });
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return stream_of(card_of(device), runtime::kDefaultStream);
  }
  c10::Stream getNewStream(c10::Device device, int priority) const override {
    const int card = card_of(device);
    return translated([&] { return stream_of(card, runtime::new_stream(card, priority)); });
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool high_priority) const override {
    return getNewStream(device, high_priority ? -1 : 0);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    const int card = stream.device_index();
    return translated([&] {
      const auto before = runtime::current_stream(card);
      if (before != stream.id()) cut_lazy_graphs();
      runtime::set_current_stream(card, stream.id());
      return stream_of(card, before);
    });
  }
  bool queryStream(const c10::Stream& stream) const override {
    if (!is_current(stream)) cut_lazy_graphs();
    return translated([&] { return runtime::stream_idle(stream.device_index(), stream.id()); });
  }
  // PyTorch 2.11 does not ask yet, so there is nothing to override.
  bool isStreamCapturing(const c10::Stream&) const {
    return Graph::capturing() != nullptr;
  }
  void synchronizeStream(const c10::Stream& stream) const override {
    refuse_in_capture("Stream.synchronize", "the host cannot wait for work that is only recorded");
    cut_lazy_graphs();
    translated([&] { runtime::synchronize_stream(stream.device_index(), stream.id()); });
  }
  void synchronizeDevice(c10::DeviceIndex card) const override {
    refuse_in_capture("synchronize", "the host cannot wait for work that is only recorded");
    cut_lazy_graphs();
    translated([&] { runtime::synchronize_card(card); });
  }

  void record(void** event, const c10::Stream& stream, c10::DeviceIndex,
              c10::EventFlag flag) const override {
    if (*event == nullptr) {
      auto* fresh = new runtime::Event;
      fresh->timed = flag == c10::EventFlag::BACKEND_DEFAULT;
      *event = fresh;
    }
    if (is_current(stream)) cut_lazy_graphs();
    translated([&] {
      runtime::record_event(event_of(*event), stream.device_index(), stream.id());
    });
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (event == nullptr) return;  // never recorded: nothing to wait for
    translated([&] {
      runtime::stream_wait_event(stream.device_index(), stream.id(), event_of(event));
    });
  }
  bool queryEvent(void* event) const override {
    return event == nullptr || translated([&] { return runtime::event_complete(event_of(event)); });
  }
  void synchronizeEvent(void* event) const override {
    refuse_in_capture("Event.synchronize", "the host cannot wait for work that is only recorded");
    if (event != nullptr) translated([&] { runtime::synchronize_event(event_of(event)); });
  }
  double elapsedTime(void* start, void* end, c10::DeviceIndex) const override {
    TORCH_CHECK(start != nullptr && end != nullptr,
                "elapsed time needs two recorded events; record both first");
    TORCH_CHECK(event_of(start).timed && event_of(end).timed,
                "elapsed time needs events made with enable_timing=True");
    return translated([&] { return runtime::elapsed_ms(event_of(start), event_of(end)); });
  }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override {
    delete static_cast<runtime::Event*>(event);
  }
  c10::DeviceCapability getDeviceCapability(c10::Device) const override { return {}; }
};

// Never destroyed: PyTorch may ask until the very end of the process.
c10::impl::DeviceGuardImplRegistrar g_guard(kHPU, new DeviceGuard());

}  // namespace
}  // namespace gaudi
