// Where do random numbers on a card come from?
//
// Each card has a generator of its own that wraps a CPU generator. Host and cards do not disturb each
// other, and the host draws other numbers from the same seed, as with a card.
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Generator.h>

namespace gaudi {

class DeviceGenerator final : public c10::GeneratorImpl {
 public:
  explicit DeviceGenerator(int card);

  void set_current_seed(uint64_t seed) override;
  void set_offset(uint64_t offset) override;
  uint64_t get_offset() const override;
  uint64_t current_seed() const override;
  uint64_t seed() override;
  void set_state(const c10::TensorImpl& new_state) override;
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override;
  static c10::DeviceType device_type();

  // What the CPU kernels draw from; its seed is another one than that of this generator.
  const at::Generator& host() const { return host_; }

 private:
  DeviceGenerator* clone_impl() const override;
  void come_after_draws() const;
  at::Generator host_;
};

const at::Generator& default_generator(int card);
at::Generator new_generator(int card);

// The host generator behind an hpu generator of this card; throws for any other generator.
const at::Generator& host_generator(const at::Generator& generator, int card);

}  // namespace gaudi
