#include "address_space.h"

#include <iterator>

namespace gaudi::runtime {
namespace {

int64_t rounded(int64_t bytes) {
  return (bytes + AddressSpace::kGranule - 1) / AddressSpace::kGranule * AddressSpace::kGranule;
}

}  // namespace

AddressSpace::AddressSpace(int64_t bytes) { add_hole(0, bytes / kGranule * kGranule); }

void AddressSpace::add_hole(int64_t address, int64_t bytes) {
  if (bytes <= 0) return;
  by_address_.emplace(address, bytes);
  by_size_.emplace(bytes, address);
}

void AddressSpace::remove_hole(std::map<int64_t, int64_t>::iterator hole) {
  by_size_.erase({hole->second, hole->first});
  by_address_.erase(hole);
}

std::optional<int64_t> AddressSpace::allocate(int64_t bytes) {
  const int64_t size = rounded(bytes);
  const auto fit = by_size_.lower_bound({size, -1});
  if (fit == by_size_.end()) return std::nullopt;
  const auto [hole_bytes, hole_address] = *fit;
  remove_hole(by_address_.find(hole_address));
  if (bytes < kSmall) {
    add_hole(hole_address, hole_bytes - size);
    return hole_address + hole_bytes - size;
  }
  add_hole(hole_address + size, hole_bytes - size);
  return hole_address;
}

void AddressSpace::free(int64_t address, int64_t bytes) {
  int64_t size = rounded(bytes);
  auto next = by_address_.lower_bound(address);
  if (next != by_address_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == address) {
      address = before->first;
      size += before->second;
      remove_hole(before);
    }
  }
  next = by_address_.lower_bound(address);
  if (next != by_address_.end() && address + size == next->first) {
    size += next->second;
    remove_hole(next);
  }
  add_hole(address, size);
}

int64_t AddressSpace::largest_hole() const {
  return by_size_.empty() ? 0 : by_size_.rbegin()->first;
}

}  // namespace gaudi::runtime
