#include <torch_headers.h>

#include "generator.h"

#include <array>
#include <mutex>

#include "../runtime/memory.h"
#include "device_storage.h"

namespace gaudi {

DeviceGenerator::DeviceGenerator(int card)
    : c10::GeneratorImpl(c10::Device(kHPU, static_cast<c10::DeviceIndex>(card)),
                         c10::DispatchKeySet(c10::DispatchKey::HPU)),
      host_(at::make_generator<at::CPUGeneratorImpl>(c10::default_rng_seed_val)) {}

void DeviceGenerator::set_current_seed(uint64_t seed) { host_.set_current_seed(seed); }
void DeviceGenerator::set_offset(uint64_t offset) { host_.set_offset(offset); }
uint64_t DeviceGenerator::get_offset() const { return host_.get_offset(); }
uint64_t DeviceGenerator::current_seed() const { return host_.current_seed(); }
uint64_t DeviceGenerator::seed() { return host_.seed(); }
void DeviceGenerator::set_state(const c10::TensorImpl& new_state) {
  host_.unsafeGetGeneratorImpl()->set_state(new_state);
}
c10::intrusive_ptr<c10::TensorImpl> DeviceGenerator::get_state() const {
  return host_.unsafeGetGeneratorImpl()->get_state();
}
c10::DeviceType DeviceGenerator::device_type() { return kHPU; }

DeviceGenerator* DeviceGenerator::clone_impl() const {
  auto* copy = new DeviceGenerator(device_.index());
  copy->host_ = host_.clone();
  return copy;
}

const at::Generator& default_generator(int card) {
  static std::array<at::Generator, runtime::kMaxCards> generators;
  static std::mutex mutex;
  TORCH_CHECK(card >= 0 && card < runtime::card_count(), "hpu:", card, " does not exist: ",
              runtime::card_count(), " card(s) are visible");
  const std::lock_guard<std::mutex> lock(mutex);
  auto& generator = generators[card];
  if (!generator.defined()) generator = new_generator(card);
  return generator;
}

at::Generator new_generator(int card) { return at::make_generator<DeviceGenerator>(card); }

const at::Generator& host_generator(const at::Generator& generator, int card) {
  // The bridge takes the host's generators, too: lazy/test_hpu_random_gen.py of its own suite.
  if (generator.device().is_cpu()) return generator;
  TORCH_CHECK(generator.device().type() == kHPU,
              "Expected a 'hpu' device type for generator but found '", generator.device().type(),
              "'");
  TORCH_CHECK(generator.device().index() == card, "Expected a generator of hpu:", card,
              " but found one of ", generator.device());
  return static_cast<const DeviceGenerator*>(generator.unsafeGetGeneratorImpl())->host();
}

}  // namespace gaudi
