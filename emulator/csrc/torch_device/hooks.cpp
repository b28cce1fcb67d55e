// What does PyTorch ask an HPU build for?
#include <torch_headers.h>

#include <ATen/detail/HPUHooksInterface.h>

#include "../runtime/memory.h"
#include "../runtime/stream.h"
#include "device_storage.h"
#include "generator.h"
#include "pinned_memory.h"

namespace gaudi {
namespace {

int card_or_current(c10::DeviceIndex index) {
  return index >= 0 ? index : runtime::current_card();
}

// PyTorch looks the hooks up by the name of this class: it must be HPUHooks.
struct HPUHooks final : at::HPUHooksInterface {
  explicit HPUHooks(at::HPUHooksArgs) {}

  void init() const override {}
  bool hasHPU() const override { return runtime::card_count() > 0; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return runtime::card_count() > 0; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return runtime::card_count() > 0; }
  c10::DeviceIndex deviceCount() const override {
    return static_cast<c10::DeviceIndex>(runtime::card_count());
  }
  void setCurrentDevice(c10::DeviceIndex card) const override { runtime::set_current_card(card); }
  c10::DeviceIndex getCurrentDevice() const override {
    return static_cast<c10::DeviceIndex>(runtime::current_card());
  }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex card) const override {
    const auto before = getCurrentDevice();
    setCurrentDevice(card);
    return before;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex card) const override {
    return card < 0 ? getCurrentDevice() : exchangeDevice(card);
  }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  at::Allocator* getPinnedMemoryAllocator() const override { return pinned_allocator(); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex index) const override {
    return default_generator(card_or_current(index));
  }
  at::Generator getNewGenerator(c10::DeviceIndex index) const override {
    return new_generator(card_or_current(index));
  }
};

using at::HPUHooksRegistry;
using at::RegistererHPUHooksRegistry;
REGISTER_HPU_HOOKS(HPUHooks);

}  // namespace
}  // namespace gaudi
