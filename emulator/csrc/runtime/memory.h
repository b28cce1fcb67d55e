// How much memory does each emulated card have, and how much of it is in use?
//
// Bytes live in host memory; a card's size is an accounting limit only. No torch in this file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace gaudi::runtime {

struct MemoryStats {
  int64_t total_bytes = 0;
  int64_t in_use_bytes = 0;
  int64_t peak_bytes = 0;
  int64_t allocations = 0;
  int64_t frees = 0;
  int64_t out_of_memory_errors = 0;
  int64_t allocated_bytes_total = 0;  // sum over all allocations, never decreases
  int64_t largest_free_bytes = 0;     // the largest allocation that would succeed
  int64_t free_pieces = 0;
  int64_t fragmented_errors = 0;      // refused although as many bytes were free
};

// What `release` gives back.
struct Reservation {
  int64_t address = -1;  // on the card; -1 when the layout is not modelled
  int64_t serial = 0;    // in the log of allocations; 0 when it is off
};

class OutOfMemory : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

constexpr int kMaxCards = 64;

// Set once, before the first allocation.
void configure_memory(int cards, int64_t bytes_per_card, bool poison);
int card_count();
bool poison_enabled();
// Give every allocation an address, so that memory can fragment. Before the first allocation.
void set_fragmentation(bool on);

// Account `bytes` to the card, or throw OutOfMemory and account nothing.
Reservation reserve(int card, size_t bytes);
void release(int card, size_t bytes, Reservation reservation) noexcept;

// The same for memory that only exists while a graph is recorded: no limit, and no peak. What is
// left of it afterwards is subject to both through `settle`, which throws OutOfMemory beyond the
// limit. It has no address of its own.
Reservation note(int card, size_t bytes);
void settle(int card);

// Host bytes, 64-byte aligned, not accounted. Returns nullptr for 0 bytes; throws OutOfMemory when
// the host itself has none left. `zeroed` memory is mapped lazily: untouched pages cost nothing.
void* allocate_host(size_t bytes, bool zeroed);
void free_host(void* data) noexcept;

// Overwrite with 0xFF: NaN in every floating type with a NaN, -1 or the maximum in the integers.
void poison(void* data, size_t bytes) noexcept;

MemoryStats memory_stats(int card);
void reset_peak(int card);

}  // namespace gaudi::runtime
