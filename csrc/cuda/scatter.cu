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

template <class T, class Family, int kGroup, class Shape = ScatterShape<T, typename Family::Radii>>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    scatter_kernel(Family family, ScatterArguments<T> arguments, int64_t plane) {
  using Value = Accumulation<T>;
  constexpr int kHeight = Shape::kHeight, kWidth = Shape::kWidth, kOffsets = Shape::kOffsets;
  const auto radius = family.radii.max();
  const int pitch = kWidth + 2 * radius, columns_of_b = kHeight * pitch;
  const Size& size = arguments.size;
  const int image_height = int(size.height), image_width = int(size.width);
  const Padding padding = arguments.padding;
  const Tile tile = tile_of_block(size, kHeight, kWidth);
  const int row_copies = copies(tile.y, tile.y + kHeight, size.height, padding, radius);
  const int column_copies = copies(tile.x, tile.x + kWidth, size.width, padding, radius);
  const Value* class_weights = arguments.states.planes + tile.n * class_count(radius) * plane;
  Value* columns = shared_memory<Value>();  // W_b: [kGroup, R + 1, kHeight, kWidth + 2R]

  for (int64_t c = 0; c < size.channels; c += kGroup) {
    if (c != 0) __syncthreads();  // nobody reads the channels before any more

    // 1. W_b of the tile's columns and of R more on either side; zeros beyond the border.
    for (int item = threadIdx.x; item < columns_of_b; item += Shape::kThreads) {
      const int y = tile.y + item / pitch, x = tile.x - radius + item % pitch;
      const bool inside = y < image_height && x >= 0 && x < image_width;
      for (int first = 0; first <= radius; first += kOffsets) {
        Value sums[kGroup][kOffsets];
        static_for<kGroup>([&](auto i) {
          static_for<kOffsets>([&](auto j) { sums[decltype(i)::value][decltype(j)::value] = Value(0); });
        });
        for (int copy = 0; inside && copy < row_copies; ++copy) {
          int target;  // the row that receives
          if (!is_copy(copy, y, image_height, padding, target)) continue;
          const auto add_row = [&](int row, auto a) {
            // Selected, not jumped over, so that the reads of many rows are under way together. A weight beyond the
            // family's support is not read either: it may stand beside a NaN.
            const bool exists = unsigned(row) < unsigned(image_height);
            const Value* weights = class_weights + (exists ? row * size.width + x : 0);
            Value values[kGroup];
            static_for<kGroup>([&](auto i) {
              constexpr int kI = decltype(i)::value;
              const bool wanted = exists && c + kI < size.channels;
              values[kI] = wanted ? load(arguments.image.at(tile.n, c + kI, row, x)) : Value(0);
            });
            static_for<kOffsets>([&](auto j) {
              constexpr int kJ = decltype(j)::value;
              const int b = first + kJ;
              if (b > radius || !family.reaches(a, b)) return;
              const Value weight = exists ? load(weights + class_index(a, b) * plane) : Value(0);
              static_for<kGroup>([&](auto i) {
                Value& sum = sums[decltype(i)::value][kJ];
                sum = LaneMath<Value>::fma(weight, values[decltype(i)::value], sum);
              });
            });
          };
          family.radii.for_each_offset(radius, [&](auto a) {
            add_row(target - a, a);
            if (a != 0) add_row(target + a, a);
          });
        }
        static_for<kGroup>([&](auto i) {
          static_for<kOffsets>([&](auto j) {
            constexpr int kI = decltype(i)::value, kJ = decltype(j)::value;
            if (first + kJ <= radius) columns[(kI * (radius + 1) + first + kJ) * columns_of_b + item] = sums[kI][kJ];
          });
        });
      }
    }
#if !defined(REBLUR_FAULT_SCATTER_BARRIER)
    __syncthreads();
#endif

    // 2. Along the rows.
    for (int item = threadIdx.x; item < kHeight * kWidth; item += Shape::kThreads) {
      const int row = item / kWidth, y = tile.y + row, x = tile.x + item % kWidth;
      if (y >= image_height || x >= image_width) continue;
      for (int i = 0; i < kGroup && c + i < size.channels; ++i) {
        // W_0 of the image's column 0.
        const Value* origin = columns + i * (radius + 1) * columns_of_b + row * pitch + radius - tile.x;
        Value total = Value(0);
        family.radii.for_each_offset(radius, [&](auto b) {
          const Value* at = origin + b * columns_of_b + x;
          total += b == 0 ? at[0] : at[-b] + at[b];
        });
        for (int copy = 1; copy < column_copies; ++copy) {
          int target;  // the column that receives
          if (!is_copy(copy, x, image_width, padding, target)) continue;
          for (int b = 1; b <= radius; ++b) {
            const int left = target - b, right = target + b;
            if (left >= 0 && left < image_width) total += origin[b * columns_of_b + left];
            if (right >= 0 && right < image_width) total += origin[b * columns_of_b + right];
          }
        }
        store(total, arguments.output.at(tile.n, c + i, y, x));
      }
    }
  }
}

template <int kGroup, class T, class Family>
cudaError_t launch_group(const Family& family, const ScatterArguments<T>& arguments, cudaStream_t stream) {
  using Shape = ScatterShape<T, typename Family::Radii>;
  const int radius = family.radii.max();
  const int elements = kGroup * (radius + 1) * Shape::kHeight * (Shape::kWidth + 2 * radius);
  return launch_tiles(scatter_kernel<T, Family, kGroup>,
                      arguments.size,
                      Shape::kHeight,
                      Shape::kWidth,
                      dim3(Shape::kThreads),
                      elements * sizeof(Accumulation<T>),
                      stream,
                      family,
                      arguments,
                      arguments.size.height * arguments.size.width);
}

}  // namespace

template <class T>
cudaError_t launch_scatter(const Problem<T>& problem, const ScatterArguments<T>& arguments, cudaStream_t stream) {
  const Size& size = arguments.size;
  if (is_empty(size) || size.channels == 0) return cudaSuccess;
  if (problem.kernel.is_analytic()) return launch_analytic_scatter(problem, arguments, stream);
  return with_classes(problem.kernel, [&](const auto& family) {
    constexpr int kGroup = ScatterShape<T, typename std::decay_t<decltype(family)>::Radii>::kGroup;
    if (size.channels == 1) return launch_group<1>(family, arguments, stream);
    if (size.channels == 2) return launch_group<2>(family, arguments, stream);
    return launch_group<kGroup>(family, arguments, stream);
  });
}

#define REBLUR_INSTANTIATE(T) \
  template cudaError_t launch_scatter<T>(const Problem<T>&, const ScatterArguments<T>&, cudaStream_t);
REBLUR_FOR_EACH_SCALAR(REBLUR_INSTANTIATE)
#undef REBLUR_INSTANTIATE

}  // namespace cuda
}  // namespace reblur
