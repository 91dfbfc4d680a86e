// What the forward pass and the parameter gradients share: an image tile in shared memory, and the sums over its rows.
#pragma once

#include "cuda/family.cuh"
#include "cuda/tiles.cuh"

namespace reblur {
namespace cuda {

// Channels in shared memory at a time, at most: those of a colour image take one barrier.
constexpr int kMaxStage = 3;

// Shape of a block that passes over the image: a warp is 32 neighbours in x, and a thread has kPixels neighbours in y,
// which share the sums along each row.
template <class T, class Radii, int kTunedPixels>
struct GatherShape {
  // Two pixels' classes are more than a thread's registers hold in double; in local memory the second pixel would only
  // crowd the cache.
  static constexpr int kPixels = kStatic<Radii> && sizeof(Accumulation<T>) == 4 ? kTunedPixels : 1;
  static constexpr int kWidth = kWarpLanes;
};

// The size of one channel's tile with `radius` pixels more on each side.
REBLUR_HOST_DEVICE constexpr int tile_pitch(int width, int radius) { return width + 2 * radius; }
REBLUR_HOST_DEVICE constexpr int tile_elements(int height, int width, int radius) {
  return (height + 2 * radius) * tile_pitch(width, radius);
}

// Launches a kernel that passes over an image, or a slab of one, of size `grid`, a block a tile, with memory for as
// many channels as it stages at a time.
template <class Shape, class Kernel, class Family, class P, class Arguments>
cudaError_t launch_image_tiles(Kernel kernel,
                               const Family& family,
                               const Problem<P>& problem,
                               const Size& grid,
                               const Arguments& arguments,
                               cudaStream_t stream) {
  const int64_t channels = grid.channels;
  const int stage = channels < kMaxStage ? int(channels) : kMaxStage;
  const int elements = stage * tile_elements(Shape::kHeight, Shape::kWidth, family.radii.max());
  return launch_tiles(kernel,
                      grid,
                      Shape::kHeight,
                      Shape::kWidth,
                      dim3(Shape::kWidth, Shape::kWarps),
                      elements * sizeof(Accumulation<P>),
                      stream,
                      family,
                      Parameters<P>{{problem.parameters[0], problem.parameters[1]}},
                      arguments,
                      stage);
}

// Fills shared memory with `channels` channels of the image around a tile, from channel c on, padding and all. The
// whole block takes part. Ends without a barrier.
template <class T, class Radius>
__device__ __forceinline__ void load_tiles(const StridedPlanes<const T>& image,  // [N, C, H, W]
                                           const Size& size,
                                           Padding padding,
                                           const Tile& tile,
                                           int height,
                                           int width,
                                           Radius radius,
                                           int64_t c,
                                           int channels,
                                           Accumulation<T>* to  // [channels, height + 2R, width + 2R]
) {
  const int pitch = tile_pitch(width, radius), rows = height + 2 * radius;
  const int left = tile.x - radius, top = tile.y - radius;
  if (left >= 0 && top >= 0 && left + pitch <= size.width && top + rows <= size.height) {
    // Nothing to decide in the interior: pointers run down the columns.
    const int64_t from_step = blockDim.y * image.row_stride;
    const int to_step = blockDim.y * pitch;
    for (int column = threadIdx.x; column < pitch; column += kWarpLanes) {
      const T* from = image.at(tile.n, c, top + int(threadIdx.y), left + column);
      Accumulation<T>* target = to + threadIdx.y * pitch + column;
      for (int row = threadIdx.y; row < rows; row += blockDim.y, from += from_step, target += to_step) {
        static_for<kMaxStage>([&](auto i) {
          constexpr int kI = decltype(i)::value;
          if (kI < channels) target[kI * rows * pitch] = load(from + kI * image.channel_stride);
        });
      }
    }
    return;
  }
  for (int column = threadIdx.x; column < pitch; column += kWarpLanes) {
    const int x = left + column;
    // Farther beyond the border than any pixel's kernel reaches is nobody's, and has no index inside.
    const int64_t source_x = x < size.width + radius ? padded_index(x, size.width, padding) : -1;
    for (int row = threadIdx.y; row < rows; row += blockDim.y) {
      const int y = top + row;
      const int64_t source_y = y < size.height + radius ? padded_index(y, size.height, padding) : -1;
      const bool inside = source_x >= 0 && source_y >= 0;
      const T* from = image.at(tile.n, c, inside ? source_y : 0, inside ? source_x : 0);
      for (int i = 0; i < channels; ++i)
        to[(i * rows + row) * pitch + column] = inside ? load(from + i * image.channel_stride) : Accumulation<T>(0);
    }
  }
}

// Channels whose sums a thread forms together: several where each weight lies in local memory.
template <class Radii>
constexpr int kTogether = kDynamic<Radii> ? kMaxStage : 1;

// As below, of one channel, for radii known when compiling. Each value is read from shared memory once for all pixels,
// and the sums of a row serve every pixel within reach.
template <int kPixels, bool kSquare, class Value, int... Rs, class F>
__device__ __forceinline__ void for_each_row_sum(StaticRadii<Rs...> radii, const Value* at, const F& f) {
  constexpr int kRadius = decltype(radii.max())::value;
  constexpr int kPitch = tile_pitch(kWarpLanes, kRadius);
  static_for<2 * kRadius + kPixels>([&](auto row) {
    constexpr int kRow = decltype(row)::value;
    Value sums[kRadius + 1];
    static_for<kRadius + 1>([&](auto b) {
      constexpr int kB = decltype(b)::value;
      const Value* centre = at + kRow * kPitch + kRadius;
      sums[kB] = kB == 0 ? centre[0] : centre[-kB] + centre[kB];
    });
    static_for<kPixels>([&](auto p) {
      constexpr int kOffset = kRow - kRadius - decltype(p)::value;
      constexpr int kA = kOffset < 0 ? -kOffset : kOffset;
      if constexpr (kA <= kRadius)
        static_for<kRadius + 1>([&](auto b) {
          if constexpr (kSquare || within_disk(kA, decltype(b)::value, kRadius))
            f(p, IntConstant<0>{}, IntConstant<kA>{}, b, sums[decltype(b)::value]);
        });
    });
  });
}

// The same of one pixel, for other radii: rows at equal distance together, so that each class weight is read at most
// twice, and of a row 0 <= b <= extent(a). `centre` is the pixel's own value.
template <int kChannels, class Radii, class Extent, class Value, class F>
__device__ __forceinline__ void for_each_row_sum(
    const Radii& radii, const Extent& extent, const Value* centre, int pitch, int plane, const F& f) {
  radii.for_each_offset(radii.max(), [&](auto a) {
    const Value *above = centre - a * pitch, *below = centre + a * pitch;
    radii.for_each_offset(extent(a), [&](auto b) {
      static_for<kChannels>([&](auto i) {
        const int c = decltype(i)::value * plane;
        Value sum = above[c + b];
        if (b != 0) sum += above[c - b];
        if (a != 0) sum += b == 0 ? below[c] : below[c - b] + below[c + b];
        f(IntConstant<0>{}, i, a, b, sum);
      });
    });
  });
}

// Calls f(p, i, a, b, sum) for each of a thread's pixels p = 0 … kPixels - 1, channels i = 0 … kChannels - 1 and those
// of 0 <= a, b <= R where the family may have a weight, once or twice, so that the sums for (p, i, a, b) add up to the
// sum over the taps (±a, ±b), a along y, b along x. `at` is the value R rows and R columns before the first pixel;
// channels are `plane` apart.
template <int kPixels, int kChannels, class Family, class Value, class F>
__device__ __forceinline__ void for_each_row_sum(
    const Family& family, const Value* at, int pitch, int plane, const F& f) {
  if constexpr (kStatic<typename Family::Radii>) {
    static_assert(kChannels == 1, "");
    // A branch for each support, so that the loop over the taps holds none.
    if (family.square)
      for_each_row_sum<kPixels, true>(family.radii, at, f);
    else
      for_each_row_sum<kPixels, false>(family.radii, at, f);
  } else {
    static_assert(kPixels == 1, "");
    const auto radius = family.radii.max();
    const Value* centre = at + radius * pitch + radius;
    if (family.square)
      for_each_row_sum<kChannels>(family.radii, [=](int) { return radius; }, centre, pitch, plane, f);
    else
      for_each_row_sum<kChannels>(family.radii, [=](int a) { return disk_extent(a, radius); }, centre, pitch, plane, f);
  }
}

}  // namespace cuda
}  // namespace reblur
