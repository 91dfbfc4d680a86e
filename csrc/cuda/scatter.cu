// Each pixel spreads its value with its own kernel, the adjoint of the gather: families with class weights.
//
// Written as a gather, so that nothing is added up by two threads. In what pixel (y, x) receives, the taps split into
// rows and columns:
//   W_b(y, x) = Σ_a T_{a,b}(y - a, x) v(y - a, x) + T_{a,b}(y + a, x) v(y + a, x)
//   y(y, x)   = W_0(y, x) + Σ_b W_b(y, x - b) + W_b(y, x + b)
// so that a class weight is read once for each row of the window, not for each tap.
//
// What pixels beyond the border receive belongs to the pixels inside whose copies they are: for rows, W_b adds up all
// copies; for columns, y does.
#include "cuda/family.cuh"
#include "cuda/padding.cuh"
#include "cuda/tiles.cuh"

namespace reblur {
namespace cuda {
namespace {

template <class T, class Radii>
struct ScatterShape {
  static constexpr bool kTuned = kStatic<Radii> && sizeof(Accumulation<T>) == 4;
  // Channels at a time that share a class weight's read, at most: three of doubles take more shared memory than sm_75
  // has.
  static constexpr int kGroup = sizeof(Accumulation<T>) == 4 ? 3 : 2;
  // A wide tile has less halo, but W takes (R + 1) kGroup values for each of its columns. Tuned: with the halo a row is
  // two warps, and the tile two rounds of the block.
  static constexpr int kHeight = kStatic<Radii> ? 8 : 4;
  static_assert(kSlabStep % kHeight == 0, "slabs end where tiles do");
  static constexpr int kWidth = kTuned ? 50 : 32;
  static constexpr int kThreads = 256;
  // Blocks on a multiprocessor at least: bounds the registers of a thread to 128.
  static constexpr int kBlocks = 2;
  // Values of b that a thread keeps in registers at a time.
  static constexpr int kOffsets = 8;
};
using TunedShape = ScatterShape<float, PublishedRadii>;
static_assert(TunedShape::kWidth + 2 * PublishedRadii::kMax == 2 * kWarpLanes, "two warps");
static_assert(TunedShape::kHeight * 2 * kWarpLanes == 2 * TunedShape::kThreads, "two rounds");
static_assert(TunedShape::kOffsets == PublishedRadii::kRings, "one chunk");

// W_b of a tile in shared memory, [kGroup, R + 1, kHeight, kWidth + 2R]: b outside the tile's pixels, of which a row
// has R more on either side.
template <class Value, int kGroup, class Shape, class Radius>
struct TileColumns {
  Value* data;
  Radius radius;

  __device__ __forceinline__ int pitch() const { return Shape::kWidth + 2 * radius; }
  __device__ __forceinline__ int plane() const { return Shape::kHeight * pitch(); }
  __device__ __forceinline__ Value* at(int i, int b, int item) const {
    return data + (i * (radius + 1) + b) * plane() + item;
  }
};

// Whether all rows that the tile's pixels receive from are rows of the image, and none of them is received twice.
template <class Shape, class Radius>
__device__ __forceinline__ bool has_all_rows(const Size& size, Padding padding, const Tile& tile, Radius radius) {
  return tile.y >= radius && tile.y + Shape::kHeight + radius <= size.height &&
         copies(tile.y, tile.y + Shape::kHeight, size.height, padding, radius) == 1;
}

// 1. W_b of the tile's columns; zeros beyond the border. From channel c on.
template <bool kSquare, bool kAllRows, class T, class Family, int kGroup, class Shape, class Radius>
__device__ __forceinline__ void sum_columns(const Family& family,
                                            const ScatterArguments<T>& arguments,
                                            const Tile& tile,
                                            int c,
                                            const TileColumns<Accumulation<T>, kGroup, Shape, Radius>& columns) {
  using Value = Accumulation<T>;
  constexpr int kOffsets = Shape::kOffsets;
  const Radius radius = columns.radius;
  const Size& size = arguments.size;
  const int height = int(size.height), width = int(size.width), pitch = columns.pitch();
  const int channels = int(size.channels) - c;
  const StatesLayout& layout = arguments.states.layout;
  const int row_copies = kAllRows ? 1 : copies(tile.y, tile.y + Shape::kHeight, size.height, arguments.padding, radius);
  for (int item = threadIdx.x; item < columns.plane(); item += Shape::kThreads) {
    const int y = tile.y + item / pitch, x = tile.x - radius + item % pitch;
    const bool inside = (kAllRows || y < height) && x >= 0 && x < width;
    for (int first = 0; first <= radius; first += kOffsets) {
      Value sums[kGroup][kOffsets];
      static_for<kGroup>([&](auto i) {
        static_for<kOffsets>([&](auto j) { sums[decltype(i)::value][decltype(j)::value] = Value(0); });
      });
      for (int copy = 0; inside && copy < row_copies; ++copy) {
        int target = y;  // the row that receives
        if (!kAllRows && !is_copy(copy, y, height, arguments.padding, target)) continue;
        const Value* const weights_there = arguments.states.data + layout.offset(tile.n, target, x);
        const T* const image_there = arguments.image.at(tile.n, c, target, x);
        // From a row `distance` below the target, negative above it.
        const auto add_row = [&](int distance, auto a) {
          // Selected, not jumped over, so that the reads of many rows are under way together. A weight beyond the
          // family's support is not read either: it may stand beside a NaN.
          const bool exists = kAllRows || unsigned(target + distance) < unsigned(height);
          const Value* weights = weights_there + distance * layout.row_stride();
          const T* from = image_there + distance * arguments.image.row_stride;
          Value values[kGroup];
          static_for<kGroup>([&](auto i) {
            constexpr int kI = decltype(i)::value;
            const bool wanted = exists && (kI == 0 || kI < channels);
            values[kI] = wanted ? load(from + kI * arguments.image.channel_stride) : Value(0);
          });
          const auto reaches = [&](int a, int b) {
            // Known when compiling where the radius is: one kernel for either support.
            return kStatic<typename Family::Radii> ? kSquare || within_disk(a, b, radius) : family.reaches(a, b);
          };
          static_for<kOffsets>([&](auto j) {
            constexpr int kJ = decltype(j)::value;
            const int b = first + kJ;
            if (b > radius || !reaches(a, b)) return;
            const Value weight = exists ? load(weights + class_index(a, b) * StatesLayout::kRun) : Value(0);
            static_for<kGroup>([&](auto i) {
              Value& sum = sums[decltype(i)::value][kJ];
              sum = LaneMath<Value>::fma(weight, values[decltype(i)::value], sum);
            });
          });
        };
        const auto add_rows = [&](auto a) {
          add_row(-a, a);
          if (a != 0) add_row(a, a);
        };
        if constexpr (kAllRows) {
          family.radii.for_each_offset(radius, add_rows);
        } else {
#pragma unroll 1
          for (int a = 0; a <= radius; ++a) add_rows(a);  // few tiles come here
        }
      }
      static_for<kGroup>([&](auto i) {
        static_for<kOffsets>([&](auto j) {
          constexpr int kI = decltype(i)::value, kJ = decltype(j)::value;
          if (first + kJ <= radius) *columns.at(kI, first + kJ, item) = sums[kI][kJ];
        });
      });
    }
  }
}

// 2. Along the rows.
template <class T, class Family, int kGroup, class Shape, class Radius>
__device__ __forceinline__ void sum_rows(const Family& family,
                                         const ScatterArguments<T>& arguments,
                                         const Tile& tile,
                                         int c,
                                         const TileColumns<Accumulation<T>, kGroup, Shape, Radius>& columns) {
  using Value = Accumulation<T>;
  const Radius radius = columns.radius;
  const Size& size = arguments.size;
  const int height = int(size.height), width = int(size.width);
  const int column_copies = copies(tile.x, tile.x + Shape::kWidth, size.width, arguments.padding, radius);
  for (int item = threadIdx.x; item < Shape::kHeight * Shape::kWidth; item += Shape::kThreads) {
    const int row = item / Shape::kWidth, y = tile.y + row, x = tile.x + item % Shape::kWidth;
    if (y >= height || x >= width) continue;
    const int first = row * columns.pitch() + radius - tile.x;  // plus a column of the image: its item
    T* to = arguments.output.at(tile.n, c, y, x);
    for (int i = 0; i < kGroup && c + i < int(size.channels); ++i, to += arguments.output.channel_stride) {
      Value total = Value(0);
      family.radii.for_each_offset(radius, [&](auto b) {
        const Value* at = columns.at(i, b, first + x);
        total += b == 0 ? at[0] : at[-b] + at[b];
      });
      for (int copy = 1; copy < column_copies; ++copy) {
        int target;  // the column that receives
        if (!is_copy(copy, x, width, arguments.padding, target)) continue;
        for (int b = 1; b <= radius; ++b) {
          const int left = target - b, right = target + b;
          if (left >= 0 && left < width) total += *columns.at(i, b, first + left);
          if (right >= 0 && right < width) total += *columns.at(i, b, first + right);
        }
      }
      store(total, to);
    }
  }
}

template <class T, class Family, int kGroup, bool kSquare, class Shape = ScatterShape<T, typename Family::Radii>>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    scatter_kernel(Family family, ScatterArguments<T> arguments) {
  using Value = Accumulation<T>;
  const auto radius = family.radii.max();
  const Tile tile = tile_of_block(arguments.rows, arguments.size, Shape::kHeight, Shape::kWidth);
  const TileColumns<Value, kGroup, Shape, std::decay_t<decltype(radius)>> columns{shared_memory<Value>(), radius};
  const int channels = int(arguments.size.channels);
  const bool all_rows =
      kStatic<typename Family::Radii> && has_all_rows<Shape>(arguments.size, arguments.padding, tile, radius);
  for (int c = 0; c < channels; c += kGroup) {
    if (c != 0) __syncthreads();  // nobody reads the channels before any more
    if (all_rows)
      sum_columns<kSquare, kStatic<typename Family::Radii>>(family, arguments, tile, c, columns);
    else
      sum_columns<kSquare, false>(family, arguments, tile, c, columns);
    __syncthreads();
    sum_rows(family, arguments, tile, c, columns);
  }
}

template <int kGroup, class T, class Family>
cudaError_t launch_group(const Family& family, const ScatterArguments<T>& arguments, cudaStream_t stream) {
  using Shape = ScatterShape<T, typename Family::Radii>;
  const int radius = family.radii.max();
  const int elements = kGroup * (radius + 1) * Shape::kHeight * (Shape::kWidth + 2 * radius);
  auto kernel = &scatter_kernel<T, Family, kGroup, true>;
  if constexpr (kStatic<typename Family::Radii>)
    if (!family.square) kernel = &scatter_kernel<T, Family, kGroup, false>;
  return launch_tiles(kernel,
                      size_of(arguments.rows, arguments.size),
                      Shape::kHeight,
                      Shape::kWidth,
                      dim3(Shape::kThreads),
                      elements * sizeof(Accumulation<T>),
                      stream,
                      family,
                      arguments);
}

}  // namespace

template <class T>
cudaError_t launch_scatter(const KernelOptions& kernel, const ScatterArguments<T>& arguments, cudaStream_t stream) {
  const Size& size = arguments.size;
  if (is_empty(size) || size.channels == 0) return cudaSuccess;
  if (!has_class_weights(kernel)) return launch_analytic_scatter(kernel, arguments, stream);
  return with_classes(kernel, [&](const auto& family) {
    constexpr int kGroup = ScatterShape<T, typename std::decay_t<decltype(family)>::Radii>::kGroup;
    if (size.channels == 1) return launch_group<1>(family, arguments, stream);
    if (size.channels == 2) return launch_group<2>(family, arguments, stream);
    return launch_group<kGroup>(family, arguments, stream);
  });
}

#define REBLUR_INSTANTIATE(T) \
  template cudaError_t launch_scatter<T>(const KernelOptions&, const ScatterArguments<T>&, cudaStream_t);
REBLUR_FOR_EACH_SCALAR(REBLUR_INSTANTIATE)
#undef REBLUR_INSTANTIATE

}  // namespace cuda
}  // namespace reblur
