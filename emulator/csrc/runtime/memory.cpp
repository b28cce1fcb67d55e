#include "memory.h"

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>

#include "address_space.h"
#include "allocation_log.h"

namespace gaudi::runtime {
namespace {

struct Card {
  std::atomic<int64_t> in_use{0};
  std::atomic<int64_t> peak{0};
  std::atomic<int64_t> allocations{0};
  std::atomic<int64_t> frees{0};
  std::atomic<int64_t> errors{0};
  std::atomic<int64_t> allocated_total{0};
  std::atomic<int64_t> fragmented{0};
  std::mutex layout_mutex;
  std::unique_ptr<AddressSpace> layout;  // only when fragmentation is modelled
};

std::array<Card, kMaxCards> g_cards;
int g_card_count = 0;
int64_t g_total_bytes = 0;
bool g_poison = false;

// Every host allocation starts with this header, so that freeing needs no look-up.
struct alignas(64) Header {
  size_t mapped_bytes;  // whole mapping for mmap, 0 for malloc
};
static_assert(sizeof(Header) == 64);

// Smaller zeroed blocks are cheaper to clear than to map and unmap.
constexpr size_t kMapThreshold = size_t{32} << 20;

std::string gibibytes(int64_t bytes) {
  char text[64];
  if (bytes < (int64_t{1} << 20)) {
    std::snprintf(text, sizeof text, "%lld bytes", static_cast<long long>(bytes));
  } else if (bytes < (int64_t{1} << 30)) {
    std::snprintf(text, sizeof text, "%.2f MiB", static_cast<double>(bytes) / (1 << 20));
  } else {
    std::snprintf(text, sizeof text, "%.2f GiB", static_cast<double>(bytes) / (1 << 30));
  }
  return text;
}

[[noreturn]] void throw_out_of_memory(Card& c, int card, int64_t amount, int64_t used) {
  c.errors.fetch_add(1, std::memory_order_relaxed);
  throw OutOfMemory("HPU out of memory. Tried to allocate " + gibibytes(amount) + " on hpu:" +
                    std::to_string(card) + ", which has " + gibibytes(g_total_bytes) +
                    " in total, " + gibibytes(used) + " in use and " +
                    gibibytes(g_total_bytes - used) +
                    " free. Use smaller batches or a smaller cache, or free tensors first.");
}

void count(Card& c, int64_t amount) {
  c.allocations.fetch_add(1, std::memory_order_relaxed);
  c.allocated_total.fetch_add(amount, std::memory_order_relaxed);
}

void raise_peak(Card& c, int64_t now) {
  int64_t peak = c.peak.load(std::memory_order_relaxed);
  while (now > peak && !c.peak.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
  }
}

}  // namespace

void configure_memory(int cards, int64_t bytes_per_card, bool poison) {
  g_card_count = cards;
  g_total_bytes = bytes_per_card;
  g_poison = poison;
}

int card_count() { return g_card_count; }
bool poison_enabled() { return g_poison; }

void set_fragmentation(bool on) {
  for (int card = 0; card < g_card_count; ++card) {
    g_cards[card].layout = on ? std::make_unique<AddressSpace>(g_total_bytes) : nullptr;
  }
}

// An address for bytes that are free in total; throws if they do not lie together.
int64_t place(int card, int64_t bytes) {
  auto& c = g_cards[card];
  if (c.layout == nullptr) return -1;
  const std::lock_guard<std::mutex> lock(c.layout_mutex);
  if (const auto address = c.layout->allocate(bytes)) return *address;
  c.in_use.fetch_sub(bytes, std::memory_order_relaxed);
  c.errors.fetch_add(1, std::memory_order_relaxed);
  c.fragmented.fetch_add(1, std::memory_order_relaxed);
  throw OutOfMemory(
      "HPU out of memory. Tried to allocate " + gibibytes(bytes) + " on hpu:" +
      std::to_string(card) + ", where " + gibibytes(g_total_bytes - c.in_use.load()) +
      " are free, but in " + std::to_string(c.layout->holes()) + " pieces of at most " +
      gibibytes(c.layout->largest_hole()) +
      ": the memory is fragmented. Allocate what is large and lasts first, and free what lies "
      "between (GAUDI_EMULATOR_FRAGMENTATION=0 switches this off).");
}

Reservation reserve(int card, size_t bytes) {
  if (bytes == 0) return {};
  auto& c = g_cards[card];
  const auto amount = static_cast<int64_t>(bytes);
  const int64_t now = c.in_use.fetch_add(amount, std::memory_order_relaxed) + amount;
  if (now > g_total_bytes) {
    c.in_use.fetch_sub(amount, std::memory_order_relaxed);
    throw_out_of_memory(c, card, amount, now - amount);
  }
  const int64_t address = place(card, amount);
  count(c, amount);
  raise_peak(c, now);
  return {address, log_allocation(card, amount)};
}

Reservation note(int card, size_t bytes) {
  if (bytes == 0) return {};
  auto& c = g_cards[card];
  const auto amount = static_cast<int64_t>(bytes);
  c.in_use.fetch_add(amount, std::memory_order_relaxed);
  count(c, amount);
  return {-1, log_allocation(card, amount)};
}

void settle(int card) {
  auto& c = g_cards[card];
  const int64_t now = c.in_use.load(std::memory_order_relaxed);
  if (now > g_total_bytes) throw_out_of_memory(c, card, now - g_total_bytes, g_total_bytes);
  raise_peak(c, now);
}

void release(int card, size_t bytes, Reservation reservation) noexcept {
  if (bytes == 0) return;
  auto& c = g_cards[card];
  c.in_use.fetch_sub(static_cast<int64_t>(bytes), std::memory_order_relaxed);
  c.frees.fetch_add(1, std::memory_order_relaxed);
  log_free(reservation.serial);
  if (reservation.address < 0) return;
  const std::lock_guard<std::mutex> lock(c.layout_mutex);
  c.layout->free(reservation.address, static_cast<int64_t>(bytes));
}

void* allocate_host(size_t bytes, bool zeroed) {
  if (bytes == 0) return nullptr;
  const size_t whole = bytes + sizeof(Header);
  void* base = nullptr;
  size_t mapped = 0;
  if (zeroed && whole >= kMapThreshold) {
    base = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                -1, 0);
    if (base == MAP_FAILED) base = nullptr;
    mapped = whole;
  } else if (posix_memalign(&base, alignof(Header), whole) != 0) {
    base = nullptr;
  }
  if (base == nullptr) {
    throw OutOfMemory("HPU out of memory: the host that emulates the card cannot provide " +
                      gibibytes(static_cast<int64_t>(bytes)) +
                      ". Lower GAUDI_EMULATOR_MEMORY or use a larger host.");
  }
  auto* header = static_cast<Header*>(base);
  header->mapped_bytes = mapped;
  void* data = header + 1;
  if (zeroed && mapped == 0) std::memset(data, 0, bytes);
  return data;
}

void free_host(void* data) noexcept {
  if (data == nullptr) return;
  auto* header = static_cast<Header*>(data) - 1;
  if (header->mapped_bytes != 0) {
    munmap(header, header->mapped_bytes);
  } else {
    std::free(header);
  }
}

void poison(void* data, size_t bytes) noexcept {
  if (data != nullptr) std::memset(data, 0xFF, bytes);
}

MemoryStats memory_stats(int card) {
  auto& c = g_cards[card];
  MemoryStats s;
  s.total_bytes = g_total_bytes;
  s.in_use_bytes = c.in_use.load();
  s.peak_bytes = c.peak.load();
  s.allocations = c.allocations.load();
  s.frees = c.frees.load();
  s.out_of_memory_errors = c.errors.load();
  s.allocated_bytes_total = c.allocated_total.load();
  s.fragmented_errors = c.fragmented.load();
  s.largest_free_bytes = s.total_bytes - s.in_use_bytes;
  s.free_pieces = s.largest_free_bytes > 0 ? 1 : 0;
  const std::lock_guard<std::mutex> lock(c.layout_mutex);
  if (c.layout != nullptr) {
    s.largest_free_bytes = c.layout->largest_hole();
    s.free_pieces = c.layout->holes();
  }
  return s;
}

void reset_peak(int card) {
  auto& c = g_cards[card];
  c.peak.store(c.in_use.load());
}

}  // namespace gaudi::runtime
