// Where on the card does an allocation lie, and does a hole fit it? No bytes are behind an address.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace gaudi::runtime {

// Best fit with coalescing. Small blocks are cut from the upper end of a hole, large ones from the
// lower, so that they mix less. Not thread-safe.
class AddressSpace {
 public:
  static constexpr int64_t kGranule = 128;             // bytes; every block is a multiple of it
  static constexpr int64_t kSmall = int64_t{1} << 20;  // bytes below which a block is small

  explicit AddressSpace(int64_t bytes);

  std::optional<int64_t> allocate(int64_t bytes);  // the address; nothing if no hole fits
  void free(int64_t address, int64_t bytes);       // `bytes` as given to `allocate`

  int64_t largest_hole() const;
  int64_t holes() const { return static_cast<int64_t>(by_address_.size()); }

 private:
  void add_hole(int64_t address, int64_t bytes);
  void remove_hole(std::map<int64_t, int64_t>::iterator hole);

  std::map<int64_t, int64_t> by_address_;          // address -> bytes
  std::set<std::pair<int64_t, int64_t>> by_size_;  // (bytes, address)
};

}  // namespace gaudi::runtime
