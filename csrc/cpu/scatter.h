// The scatter, which is the gradient to the image of a gather.
#pragma once

#include "cpu/pixels.h"

namespace reblur {
namespace cpu {
namespace {

// The scatter reads 2R + 1 rows of class weights around its own: 15 · 144 bytes a pixel and column, in a 1 MB L2. Wider
// tiles have less halo.
constexpr int kScatterTileWidth = 128;
using ScatterTiles = ColumnTiles<kScatterTileWidth>;

// The adjoint of the gather in the image, y(q) = Σ_p T_{|q-p|}(p) g(p), from the class weights alone: every family's.
//
// With source rows p_y = q_y ∓ a folded first, W_b(x) = Σ_a Σ_± T_{a,b}(q_y ± a, x) v(q_y ± a, x), what is left is
// y(x) = W_0(x) + Σ_b W_b(x - b) + W_b(x + b): each weight is read, or computed, once for all channels, aligned.
// Padding is adjoint too: a pixel beyond the border gives what it receives to the pixel that it was a copy of.
template <class Lane, class Family, class T = typename Lane::value_type>
class Scatter {
 public:
  using Radii = typename Family::Radii;
  static constexpr int kLanes = lanes<Lane>();
  static constexpr int kMax = Radii::kRings - 1;
  static constexpr int kGroup = 3;  // channels at a time: their sums, 3 · (R + 1), fit the 32 registers of AVX-512
  static constexpr int64_t kPitch = round_up(ScatterTiles::kMaxWidth + 4 * kMax, kLanes) + 2 * kLanes;

  Scatter(const Family& family, const ScatterArguments<T>& arguments)
      : family_(family),
        radii_(family.radii),
        arguments_(arguments),
        size_(arguments.size),
        columns_(kGroup * (family.radii.max() + 1) * kPitch),
        lines_(kGroup * kPitch) {}

  void run(const Tile& tile) {
    int64_t c = 0;
    for (; c + 3 <= size_.channels; c += 3) channels<3>(tile, c);
    if (size_.channels - c == 2) channels<2>(tile, c);
    if (size_.channels - c == 1) channels<1>(tile, c);
  }

 private:
  template <int kCount>
  void channels(const Tile& tile, int64_t c) {
    const int64_t radius = radii_.max();
    // What the tile receives, with the padding beside it: [begin, end).
    const bool pads = arguments_.padding != Padding::kZeros;
    const int64_t begin = tile.x - (pads && tile.x == 0 ? radius : 0);
    const int64_t end = tile.x + tile.width + (pads && tile.x + tile.width == size_.width ? radius : 0);
    const int64_t length = round_up(end - begin, kLanes);
    std::memset(static_cast<T*>(lines_), 0, kCount * kPitch * sizeof(T));
    for_each_copy(tile.y, size_.height, arguments_.padding, radii_.max(), [&](int64_t y) {
      accumulate<kCount>(tile.n, y, begin, length, c);
    });
    for (int i = 0; i < kCount; ++i) {
      T* line = lines_ + i * kPitch;
      for (int64_t x = begin; x < 0; ++x)
        line[padded_index(x, size_.width, arguments_.padding) - begin] += line[x - begin];
      for (int64_t x = size_.width; x < end; ++x)
        line[padded_index(x, size_.width, arguments_.padding) - begin] += line[x - begin];
      T* output = arguments_.output.row(tile.n, c + i, tile.y) + tile.x;
      std::memcpy(output, line + (tile.x - begin), tile.width * sizeof(T));
    }
  }

  // Adds what row y of the padded image receives to the lines.
  template <int kCount>
  void accumulate(int64_t n, int64_t y, int64_t begin, int64_t length, int64_t c) {
    const auto radius = radii_.max();
    // Source columns [first, last), in whole blocks; those outside the image hold zeros.
    const int64_t first = begin - radius >= 0 ? (begin - radius) / kLanes * kLanes : -round_up(radius - begin, kLanes);
    const int64_t last = round_up(begin + length + radius, kLanes);
    for (int64_t x = first; x < last; x += kLanes) {
      if (x < 0 || x >= size_.width) {
        for (int i = 0; i < kCount; ++i)
          for (int b = 0; b <= radius; ++b) Lane(0).store(column(i, b) + (x - first));
        continue;
      }
      LaneArray<Lane, Radii::kRings> sums[kCount];
      for (int i = 0; i < kCount; ++i)
        radii_.for_each_offset(radius, [&](auto b) REBLUR_INLINE_LAMBDA { sums[i][b] = Lane(0); });
      const auto add_row = [&](int64_t row, auto a) REBLUR_INLINE_LAMBDA {
        const Lane* state = arguments_.states.template block<Lane>(size_, family_.state_size(), n, row, x);
        Lane values[kCount];
        for (int i = 0; i < kCount; ++i)
          values[i] = load_lanes<Lane>(arguments_.image.row(n, c + i, row) + x, size_.width - x);
        family_.for_each_weight_in_row(state, a, [&](auto b, const Lane& weight) REBLUR_INLINE_LAMBDA {
          for (int i = 0; i < kCount; ++i) sums[i][b] = LaneMath<Lane>::fma(weight, values[i], sums[i][b]);
        });
      };
      radii_.for_each_offset(radius, [&](auto a) REBLUR_INLINE_LAMBDA {
        if (y - a >= 0 && y - a < size_.height) add_row(y - a, a);
        if (a != 0 && y + a >= 0 && y + a < size_.height) add_row(y + a, a);
      });
      for (int i = 0; i < kCount; ++i)
        radii_.for_each_offset(radius, [&](auto b) REBLUR_INLINE_LAMBDA {
          T* to = column(i, b) + (x - first);
          if (x + kLanes <= size_.width) {
            sums[i][b].store(to);
          } else {  // a state beyond the image is anything, NaN too
            Lane(0).store(to);
            store_lanes(sums[i][b], to, size_.width - x);
          }
        });
    }
    for (int i = 0; i < kCount; ++i) {
      T* line = lines_ + i * kPitch;
      for (int64_t x = 0; x < length; x += kLanes) {
        Lane total = Lane::loadu(line + x);
        radii_.for_each_offset(radius, [&](auto b) REBLUR_INLINE_LAMBDA {
          const T* at = column(i, b) + (begin - first) + x;
          total = total + (b == 0 ? Lane::loadu(at) : Lane::loadu(at - b) + Lane::loadu(at + b));
        });
        total.store(line + x);
      }
    }
  }

  T* column(int i, int b) { return columns_ + (i * (radii_.max() + 1) + b) * kPitch; }

  const Family& family_;
  const Radii& radii_;
  const ScatterArguments<T>& arguments_;
  const Size& size_;
  Scratch<T> columns_;  // [kGroup, radius + 1, kPitch]: W_b
  Scratch<T> lines_;    // [kGroup, kPitch]
};

template <class Lane, class Family, class T = typename Lane::value_type>
void scatter(const Family& family, const ScatterArguments<T>& arguments, int64_t begin, int64_t end) {
  Scatter<Lane, Family> scatter(family, arguments);
  for (int64_t index = begin; index < end; ++index)
    scatter.run(ScatterTiles::at(arguments.size, arguments.rows, index));
}

}  // namespace
}  // namespace cpu
}  // namespace reblur
