// A tile of the weight, 16 rows of 32 elements, is an operand as it lies in memory; only the few rows
// of x are rearranged. So the weight is read once, at the speed of memory.
#include <bridge/tile_product.h>
#include <torch_headers.h>

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <vector>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define GAUDI_HAS_TILES 1
#define GAUDI_TILES __attribute__((target("amx-tile,amx-bf16")))
#endif

namespace gaudi::bridge {

#ifdef GAUDI_HAS_TILES
namespace {

constexpr int64_t kTile = 16;        // rows of a tile, and float32 sums in a row of one
constexpr int64_t kInner = 32;       // bfloat16 elements in a row of a tile
constexpr int64_t kMostBlocks = 4;   // tiles of sums: 64 rows of x
constexpr int64_t kFewestRows = 4;   // below, a tile is mostly empty

// Linux lets a process use tiles once it has asked: arch_prctl(2), and Intel's Architecture
// Instruction Set Extensions Programming Reference, chapter 3, for CPUID and the configuration.
bool available() {
  constexpr unsigned kTileBit = 1u << 24, kBfloat16Bit = 1u << 22;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kTileBit) == 0 || (d & kBfloat16Bit) == 0) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
  TileConfig() {
    for (int i = 0; i < 6; ++i) {
      row_bytes[i] = 64;
      rows[i] = kTile;
    }
  }
};

// [blocks][k / 2][16] pairs of neighbours in a row of x; rows that x lacks are zero.
std::vector<uint32_t> pairs_of(const Product& p, int64_t blocks) {
  const int64_t pairs = p.k / 2;
  std::vector<uint32_t> packed(static_cast<size_t>(blocks * pairs * kTile), 0);
  for (int64_t row = 0; row < p.m; ++row) {
    uint32_t* to = packed.data() + (row / kTile) * pairs * kTile + row % kTile;
    const c10::BFloat16* from = p.x + row * p.x_stride;
    for (int64_t i = 0; i < pairs; ++i) std::memcpy(to + i * kTile, from + 2 * i, 4);
  }
  return packed;
}

// 16 columns of the result from `column` on, for all rows of x. Tiles 0 to 3 are sums, 4 is a piece
// of the weight, 5 of x.
template <int Blocks>
GAUDI_TILES void panel(const Product& p, const uint32_t* packed, int64_t column) {
  const c10::BFloat16* weight = p.weight + column * p.weight_stride;
  const int64_t stride = p.weight_stride * 2, block = p.k / 2 * kTile;
  const int64_t ahead = column + 2 * kTile <= p.n ? kTile * p.weight_stride : 0;
  _tile_zero(0);
  if constexpr (Blocks > 1) _tile_zero(1);
  if constexpr (Blocks > 2) _tile_zero(2);
  if constexpr (Blocks > 3) _tile_zero(3);
  for (int64_t i = 0; i < p.k; i += kInner) {
    const uint32_t* x = packed + i / 2 * kTile;
    _tile_loadd(4, weight + i, stride);
    for (int64_t row = 0; row < kTile; ++row) {
      _mm_prefetch(reinterpret_cast<const char*>(weight + ahead + row * p.weight_stride + i),
                   _MM_HINT_T1);
    }
    _tile_loadd(5, x, kTile * 4);
    _tile_dpbf16ps(0, 4, 5);
    if constexpr (Blocks > 1) {
      _tile_loadd(5, x + block, kTile * 4);
      _tile_dpbf16ps(1, 4, 5);
    }
    if constexpr (Blocks > 2) {
      _tile_loadd(5, x + 2 * block, kTile * 4);
      _tile_dpbf16ps(2, 4, 5);
    }
    if constexpr (Blocks > 3) {
      _tile_loadd(5, x + 3 * block, kTile * 4);
      _tile_dpbf16ps(3, 4, 5);
    }
  }
  alignas(64) float sums[Blocks][kTile][kTile];  // [block][column][row]
  _tile_stored(0, sums[0], kTile * 4);
  if constexpr (Blocks > 1) _tile_stored(1, sums[1], kTile * 4);
  if constexpr (Blocks > 2) _tile_stored(2, sums[2], kTile * 4);
  if constexpr (Blocks > 3) _tile_stored(3, sums[3], kTile * 4);
  for (int64_t row = 0; row < p.m; ++row) {
    c10::BFloat16* y = p.y + row * p.n + column;
    for (int64_t c = 0; c < kTile; ++c) {
      const float bias = p.bias == nullptr ? 0.0f : static_cast<float>(p.bias[column + c]);
      y[c] = static_cast<c10::BFloat16>(sums[row / kTile][c][row % kTile] + bias);
    }
  }
}

GAUDI_TILES void panels(const Product& p, const uint32_t* packed, int64_t blocks, int64_t begin,
                        int64_t end) {
  using Panel = void (*)(const Product&, const uint32_t*, int64_t);
  static constexpr Panel kPanels[] = {&panel<1>, &panel<2>, &panel<3>, &panel<4>};
  const TileConfig config;
  _tile_loadconfig(&config);
  for (int64_t i = begin; i < end; ++i) kPanels[blocks - 1](p, packed, i * kTile);
  _tile_release();
}

}  // namespace

bool multiply_in_tiles(const Product& p) {
  static const bool supported = available();
  const int64_t blocks = (p.m + kTile - 1) / kTile;
  if (!supported || p.m < kFewestRows || blocks > kMostBlocks || p.k % kInner != 0 ||
      p.n % kTile != 0) {
    return false;
  }
  const std::vector<uint32_t> packed = pairs_of(p, blocks);
  const int64_t grain = std::max<int64_t>(1, (1 << 18) / (p.k * kTile));
  at::parallel_for(0, p.n / kTile, grain, [&](int64_t begin, int64_t end) {
    panels(p, packed.data(), blocks, begin, end);
  });
  return true;
}

#else

bool multiply_in_tiles(const Product&) { return false; }

#endif

}  // namespace gaudi::bridge
