#include <torch_headers.h>

#include "generator.h"

#include <array>
#include <mutex>

#include "../runtime/memory.h"
#include "../runtime/queue.h"
#include "device_storage.h"

namespace gaudi {
namespace {

// A program draws on the host and on a card after one call of torch.manual_seed. Drawn from one
// sequence, the numbers would be equal: uniform numbers of the host taken as probabilities of a
// Bernoulli draw on the card would all be missed.
constexpr uint64_t kApartFromHost = 0x9E3779B97F4A7C15;

uint64_t apart(uint64_t seed) { return seed ^ kApartFromHost; }  // its own inverse

// Turns the engine behind a card into the one that the program sees, and back. As with the bridge,
// host and card have the same state after the same seed (any_mode/test_hpu_rng_state.py of its
// suite); once numbers are drawn, only the seed that is noted in the state differs.
at::mt19937 seen_or_behind(const at::mt19937& engine) {
  auto data = engine.data();
  const bool untouched = data.state_ == at::mt19937(data.seed_).data().state_ && data.left_ == 1;
  const auto seed = apart(data.seed_);
  if (untouched) return at::mt19937(seed);
  data.seed_ = seed;
  at::mt19937 other;
  other.set_data(data);
  return other;
}

void swap_engine(const at::Generator& generator) {
  auto* host = at::check_generator<at::CPUGeneratorImpl>(generator);
  host->set_engine(seen_or_behind(host->engine()));
}

}  // namespace

DeviceGenerator::DeviceGenerator(int card)
    : c10::GeneratorImpl(c10::Device(kHPU, static_cast<c10::DeviceIndex>(card)),
                         c10::DispatchKeySet(c10::DispatchKey::HPU)),
      host_(at::make_generator<at::CPUGeneratorImpl>(apart(c10::default_rng_seed_val))) {}

// Queued work draws what it would have drawn when it was submitted: the state the program sees and
// sets is the one after it.
void DeviceGenerator::set_current_seed(uint64_t seed) {
  come_after_draws();
  host_.set_current_seed(apart(seed));
}
void DeviceGenerator::set_offset(uint64_t offset) {
  come_after_draws();
  host_.set_offset(offset);
}
uint64_t DeviceGenerator::get_offset() const {
  come_after_draws();
  return host_.get_offset();
}
uint64_t DeviceGenerator::current_seed() const { return apart(host_.current_seed()); }
uint64_t DeviceGenerator::seed() {
  come_after_draws();
  return apart(host_.seed());
}
void DeviceGenerator::come_after_draws() const {
  if (runtime::any_pending()) runtime::wait_for_card(device_.index());
}
void DeviceGenerator::set_state(const c10::TensorImpl& new_state) {
  come_after_draws();
  host_.unsafeGetGeneratorImpl()->set_state(new_state);
  swap_engine(host_);
}
c10::intrusive_ptr<c10::TensorImpl> DeviceGenerator::get_state() const {
  come_after_draws();
  const auto seen = host_.clone();
  swap_engine(seen);
  return seen.unsafeGetGeneratorImpl()->get_state();
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
