// The engine on the CPU: every blur family through the same loops, vectorised over x.
#pragma once

#include <algorithm>

#include "cpu/kernels.h"
#include "cpu/lane.h"
#include "cpu/tiles.h"

namespace reblur {
namespace cpu {
namespace {

// Width of a tile in pixels: class weights (36 · 4 bytes a pixel), folded rows and image rows together stay in a 48 KB
// L1.
constexpr int kTileWidth = 64;
using Tiles = RowTiles<kTileWidth>;

// The scatter reads 2R + 1 rows of class weights around its own: 15 · 144 bytes a pixel and column, in a 1 MB L2. Wider
// tiles have less halo.
constexpr int kScatterTileWidth = 128;
using ScatterTiles = ColumnTiles<kScatterTileWidth>;

template <class Lane>
constexpr int lanes() {
  return Lane::size();
}

// Loads and stores `count` lanes; a full vector without a detour.
template <class Lane, class T>
inline Lane load_lanes(const T* from, int64_t count) {
  return count >= lanes<Lane>() ? Lane::loadu(from) : Lane::loadu(from, count);
}
template <class Lane, class T>
inline void store_lanes(const Lane& value, T* to, int64_t count) {
  if (count >= lanes<Lane>())
    value.store(to);
  else
    value.store(to, static_cast<int>(count));
}

template <class Lane>
inline void copy(const Lane* from, int count, Lane* to) {
  for (int i = 0; i < count; ++i) to[i] = from[i];
}

// A family's parameters at `count` pixels from (n, y, x): load(tensor, channel). Lanes beyond `count` read zeros. The
// planes are more streams than a processor's prefetcher follows, so the vector after the next one is asked for.
template <class Lane, class T>
auto parameter_loader(const Planes<const T>* parameters, int64_t n, int64_t y, int64_t x, int64_t count) {
  const T* base[] = {parameters[0].row(n, 0, y) + x, parameters[1] ? parameters[1].row(n, 0, y) + x : nullptr};
  const int64_t stride[] = {parameters[0].channel_stride, parameters[1].channel_stride};
  return [=](int tensor, int channel) REBLUR_INLINE_LAMBDA {
    const T* at = base[tensor] + channel * stride[tensor];
    __builtin_prefetch(at + 2 * lanes<Lane>());
    return load_lanes<Lane>(at, count);
  };
}

template <class Lane, class T>
auto gradient_storer(const Planes<T>* gradients, int64_t n, int64_t y, int64_t x, int64_t count) {
  return [=](int tensor, int channel, const Lane& value) REBLUR_INLINE_LAMBDA {
    if (gradients[tensor]) store_lanes(value, gradients[tensor].row(n, channel, y) + x, count);
  };
}

// Sums over the taps of a class, at a run of pixels. Row a of the folded rows is image row y for a = 0, else the sum of
// rows y - a and y + a: 2R additions a pixel that leave only the horizontal half of each sum to do.
template <class Lane, class Radii>
class RingSums {
 public:
  using T = typename Lane::value_type;
  static constexpr int kMax = Radii::kRings - 1;
  static constexpr int64_t kPitch = round_up(kTileWidth + 2 * kMax, lanes<Lane>());

  explicit RingSums(const Radii& radii)
      : radii_(radii), folded_((radii.max() + 1) * kPitch), above_(kPitch), below_(kPitch) {}

  // Of what lies within `reach` of the tile, which is at most the radius.
  template <class Reach>
  void fold(const Planes<const T>& image,
            int64_t n,
            int64_t c,
            const Tile& tile,
            Reach reach,
            const Size& size,
            Padding padding) {
    const int64_t radius = reach, begin = tile.x - radius;
    const int64_t count = round_up(round_up(tile.width, lanes<Lane>()) + 2 * radius, lanes<Lane>());
    begin_ = folded_ + radius;
    const auto segment = [&](int64_t y, T* buffer) {
      const int64_t source = padded_index(y, size.height, padding);
      return padded_segment(source < 0 ? nullptr : image.row(n, c, source), begin, count, size.width, padding, buffer);
    };
    const T* centre = segment(tile.y, above_);
    for (int64_t i = 0; i < count; i += lanes<Lane>()) Lane::loadu(centre + i).store(folded_ + i);
    for (int64_t a = 1; a <= radius; ++a) {
      const T* above = segment(tile.y - a, above_);
      const T* below = segment(tile.y + a, below_);
      T* row = folded_ + a * kPitch;
      for (int64_t i = 0; i < count; i += lanes<Lane>())
        (Lane::loadu(above + i) + Lane::loadu(below + i)).store(row + i);
    }
  }

  // The sum over class k, at the pixels that begin x pixels behind the tile's first.
  template <class Class>
  REBLUR_HOST_DEVICE Lane sum(Class k, int64_t x) {
    return k.a == k.b ? half(k.a, k.b, x) : half(k.a, k.b, x) + half(k.b, k.a, x);
  }

 private:
  // Taps (±dx, ±dy).
  REBLUR_HOST_DEVICE Lane half(int dy, int dx, int64_t x) {
    const T* at = begin_ + dy * kPitch + x;
    return dx == 0 ? Lane::loadu(at) : Lane::loadu(at - dx) + Lane::loadu(at + dx);
  }

  Radii radii_;
  Scratch<T> folded_;         // [radius + 1, kPitch]
  Scratch<T> above_, below_;  // [kPitch]
  const T* begin_ = nullptr;  // folded row 0 at the tile's first pixel
};

// The states of a tile's pixels, and how far any of their kernels reaches.
template <class Lane, class Family>
class TileStates {
 public:
  using T = typename Lane::value_type;

  explicit TileStates(const Family& family) : family_(family), states_(kTileWidth / lanes<Lane>() * Family::kState) {}

  auto prepare(const Planes<const T>* parameters, const Tile& tile) {
    for (int64_t x = 0; x < tile.width; x += lanes<Lane>())
      family_.prepare(parameter_loader<Lane>(parameters, tile.n, tile.y, tile.x + x, tile.width - x), at(x));
    if constexpr (Family::kAnalytic) {
      int furthest = 0;
      for (int64_t x = 0; x < tile.width; x += lanes<Lane>()) furthest = std::max(furthest, family_.reach(at(x)));
      return furthest;
    } else {
      return family_.radii.max();
    }
  }

  Lane* at(int64_t x) { return states_ + x / lanes<Lane>() * Family::kState; }

 private:
  const Family& family_;
  Scratch<Lane> states_;  // [blocks, kState]
};

// y(p) = Σ_k T_k(p) S_k(p): each pixel gathers with its own kernel.
template <class Lane, class Family, class T = typename Lane::value_type>
void gather(const Family& family,
            const Planes<const T>* parameters,
            const GatherArguments<T>& arguments,
            int64_t begin,
            int64_t end) {
  constexpr int kLanes = lanes<Lane>();
  const Size& size = arguments.size;
  RingSums<Lane, typename Family::Radii> sums(family.radii);
  TileStates<Lane, Family> states(family);
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = Tiles::at(size, arguments.rows, index);
    const auto reach = states.prepare(parameters, tile);
    for (int64_t c = 0; c < size.channels; ++c) {
      sums.fold(arguments.image, tile.n, c, tile, reach, size, arguments.padding);
      T* output = arguments.output.row(tile.n, c, tile.y) + tile.x;
      for (int64_t x = 0; x < tile.width; x += kLanes) {
        Lane total(0);
        family.for_each_weight(static_cast<const Lane*>(states.at(x)),
                               [&](auto k, const Lane& weight) REBLUR_INLINE_LAMBDA {
                                 total = LaneMath<Lane>::fma(weight, sums.sum(k, x), total);
                               });
        store_lanes(total, output + x, tile.width - x);
      }
    }
  }
}

// The gradients to the parameters: from the sums S_k and the output's gradient, as the family's adjoint asks for them.
template <class Lane, class Family, class T = typename Lane::value_type>
void parameter_gradients(const Family& family,
                         const Planes<const T>* parameters,
                         const ParameterGradientsArguments<T>& arguments,
                         int64_t begin,
                         int64_t end) {
  constexpr int kLanes = lanes<Lane>(), kSums = Family::kSums;
  const Size& size = arguments.size;
  const bool keeps_states = arguments.states.data;
  RingSums<Lane, typename Family::Radii> ring_sums(family.radii);
  TileStates<Lane, Family> states(family);
  Scratch<Lane> tile_sums(kTileWidth / kLanes * kSums);
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = Tiles::at(size, arguments.rows, index);
    auto reach = family.radii.max();
    if constexpr (Family::kAnalytic) reach = states.prepare(parameters, tile);
    for (int64_t i = 0; i < kTileWidth / kLanes * kSums; ++i) tile_sums[i] = Lane(0);
    for (int64_t c = 0; c < size.channels; ++c) {
      ring_sums.fold(arguments.image, tile.n, c, tile, reach, size, arguments.padding);
      const T* grad_output = arguments.grad_output.row(tile.n, c, tile.y) + tile.x;
      for (int64_t x = 0; x < tile.width; x += kLanes)
        family.accumulate(
            static_cast<const Lane*>(states.at(x)),
            load_lanes<Lane>(grad_output + x, tile.width - x),
            [&](auto k) REBLUR_INLINE_LAMBDA { return ring_sums.sum(k, x); },
            tile_sums + x / kLanes * kSums);
    }
    for (int64_t x = 0; x < tile.width; x += kLanes) {
      const int64_t count = tile.width - x;
      // Filled in cache first: a store for every term of a weight would wait for the memory behind it.
      Lane* state = states.at(Family::kAnalytic ? x : 0);
      family.adjoint(parameter_loader<Lane>(parameters, tile.n, tile.y, tile.x + x, count),
                     static_cast<const Lane*>(tile_sums + x / kLanes * kSums),
                     gradient_storer<Lane>(arguments.grad_parameters, tile.n, tile.y, tile.x + x, count),
                     keeps_states || Family::kAnalytic ? state : nullptr);
      if (keeps_states)
        copy<Lane>(state,
                   family.state_size(),
                   arguments.states.template block<Lane>(size, family.state_size(), tile.n, tile.y, tile.x + x));
    }
  }
}

// What the scatter reads, by itself.
template <class Lane, class Family, class T = typename Lane::value_type>
void states(const Family& family,
            const Planes<const T>* parameters,
            const StatesArguments<T>& arguments,
            int64_t begin,
            int64_t end) {
  constexpr int kLanes = lanes<Lane>();
  const Size& size = arguments.size;
  Scratch<Lane> state(Family::kState);
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = Tiles::at(size, arguments.rows, index);
    for (int64_t x = tile.x; x < tile.x + tile.width; x += kLanes) {
      const int64_t count = tile.x + tile.width - x;
      family.prepare(parameter_loader<Lane>(parameters, tile.n, tile.y, x, count), static_cast<Lane*>(state));
      copy<Lane>(state,
                 family.state_size(),
                 arguments.states.template block<Lane>(size, family.state_size(), tile.n, tile.y, x));
    }
  }
}

template <class Lane, class Family, class T = typename Lane::value_type>
void class_weights(const Family& family,
                   const Planes<const T>* parameters,
                   const ClassWeightsArguments<T>& arguments,
                   int64_t begin,
                   int64_t end) {
  constexpr int kLanes = lanes<Lane>();
  const Size& size = arguments.size;
  const int classes = class_count(family.radii.max());
  Scratch<Lane> weights(Family::Radii::kClasses);
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = Tiles::at(size, arguments.rows, index);
    for (int64_t x = tile.x; x < tile.x + tile.width; x += kLanes) {
      const int64_t count = tile.x + tile.width - x;
      family.prepare(parameter_loader<Lane>(parameters, tile.n, tile.y, x, count), static_cast<Lane*>(weights));
      for (int k = 0; k < classes; ++k)
        store_lanes(weights[k], arguments.class_weights.row(tile.n, k, tile.y) + x, count);
    }
  }
}

template <class Lane, class Family, class T = typename Lane::value_type>
void class_weights_gradients(const Family& family,
                             const Planes<const T>* parameters,
                             const ClassWeightsGradientsArguments<T>& arguments,
                             int64_t begin,
                             int64_t end) {
  constexpr int kLanes = lanes<Lane>();
  const Size& size = arguments.size;
  const int classes = class_count(family.radii.max());
  Scratch<Lane> grad_weights(Family::Radii::kClasses);
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = Tiles::at(size, arguments.rows, index);
    for (int64_t x = tile.x; x < tile.x + tile.width; x += kLanes) {
      const int64_t count = tile.x + tile.width - x;
      for (int k = 0; k < classes; ++k)
        grad_weights[k] = load_lanes<Lane>(arguments.grad_weights.row(tile.n, k, tile.y) + x, count);
      family.adjoint(parameter_loader<Lane>(parameters, tile.n, tile.y, x, count),
                     static_cast<const Lane*>(static_cast<Lane*>(grad_weights)),
                     gradient_storer<Lane>(arguments.grad_parameters, tile.n, tile.y, x, count),
                     static_cast<Lane*>(nullptr));
    }
  }
}

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
  Scatter<Lane, Family> engine(family, arguments);
  for (int64_t index = begin; index < end; ++index) engine.run(ScatterTiles::at(arguments.size, arguments.rows, index));
}

}  // namespace
}  // namespace cpu
}  // namespace reblur
