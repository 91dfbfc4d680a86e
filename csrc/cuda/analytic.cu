// Analytic families: a weight is computed where it is used, from one number per pixel, so that a window of any size
// takes no memory, and only the part of it that the pixel's kernel covers takes time.
//
// Values of the image come through the read-only cache, not shared memory: with R = 64 a tile with its surroundings
// would not fit, and a warp's neighbours read the same lines.
#include "cuda/padding.cuh"
#include "cuda/tiles.cuh"
#include "families/disk.h"
#include "families/gaussian.h"

namespace reblur {
namespace cuda {
namespace {

// A warp is 32 neighbours in x; a thread is a pixel. Registers are bounded to 64 a thread.
constexpr int kWarps = 8, kThreads = kWarps * kWarpLanes, kBlocks = 4;
static_assert(kWarps == kReachRows && kWarpLanes == kReachColumns, "a block is a tile of reach_tiles");
constexpr int kGroup = 3;  // channels that share the computation of a weight

template <class F>
cudaError_t with_analytic_family(const KernelOptions& kernel, F&& f) {
  if (kernel.family == FamilyName::kGaussian) return f(GaussianFamily{{kernel.radius()}});
  return f(DiskFamily{{kernel.radius()}});
}

struct Pixel {
  int64_t n;
  int y, x;
  bool inside;
};

__device__ __forceinline__ Pixel pixel_of_thread(const Size& size) {
  const Tile tile = tile_of_block(size, kWarps, kWarpLanes);
  const int y = tile.y + int(threadIdx.y), x = tile.x + int(threadIdx.x);
  return {tile.n, y, x, y < size.height && x < size.width};
}

__device__ __forceinline__ int multiplicity(int a, int b) { return (a == 0 ? 1 : 2) * (b == 0 ? 1 : 2); }

// The largest value of a block's threads, >= 0, in all of them. Every thread takes part.
__device__ __forceinline__ int block_max(int value) {
  int* of_warps = shared_memory<int>();  // [kWarps]
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2)
    value = max(value, __shfl_xor_sync(0xFFFFFFFF, value, distance));
  if (threadIdx.x == 0) of_warps[threadIdx.y] = value;
  __syncthreads();
  for (int warp = 0; warp < kWarps; ++warp) value = max(value, of_warps[warp]);
  return value;
}
constexpr size_t kBlockMaxBytes = kWarps * sizeof(int);

// The sums of the image over the taps (±a, ±b) of a pixel, a along y, b along x, for a group of channels. Where
// kInterior all of them lie inside the image.
template <class T, bool kInterior>
class TapSums {
 public:
  __device__ __forceinline__
  TapSums(const StridedPlanes<const T>& image, const Size& size, Padding padding, const Pixel& pixel)
      : image_(image), size_(size), padding_(padding), pixel_(pixel) {}

  // Row a of the window, for the channels from c on.
  __device__ __forceinline__ void begin_row(int a, int64_t c) {
    above_ = row(pixel_.y - a, c);
    below_ = a == 0 ? nullptr : row(pixel_.y + a, c);
  }

  __device__ __forceinline__ void add(int b, int channels, Accumulation<T> sums[kGroup]) const {
    static_for<kGroup>([&](auto i) { sums[decltype(i)::value] = Accumulation<T>(0); });
    add_column(pixel_.x - b, channels, sums);
    if (b != 0) add_column(pixel_.x + b, channels, sums);
  }

 private:
  // Its column 0; nullptr for a row of zeros.
  __device__ __forceinline__ const T* row(int y, int64_t c) const {
    const int source = kInterior ? y : padded_index<int>(y, int(size_.height), padding_);
    return source < 0 ? nullptr : image_.at(pixel_.n, c, source, 0);
  }

  __device__ __forceinline__ void add_column(int x, int channels, Accumulation<T> sums[kGroup]) const {
    const int source = kInterior ? x : padded_index<int>(x, int(size_.width), padding_);
    if (!kInterior && source < 0) return;
    const int64_t offset = source * image_.column_stride;
    if (kInterior || above_) add_pixel(above_ + offset, channels, sums);
    if (below_) add_pixel(below_ + offset, channels, sums);
  }

  __device__ __forceinline__ void add_pixel(const T* at, int channels, Accumulation<T> sums[kGroup]) const {
    static_for<kGroup>([&](auto i) {
      constexpr int kI = decltype(i)::value;
      if (kI < channels) sums[kI] += load(at + kI * image_.channel_stride);
    });
  }

  const StridedPlanes<const T>& image_;
  const Size& size_;
  Padding padding_;
  Pixel pixel_;
  const T *above_ = nullptr, *below_ = nullptr;
};

// Calls f with the tap sums of a pixel whose kernel has a reach.
template <class T, class F>
__device__ __forceinline__ void with_tap_sums(
    const StridedPlanes<const T>& image, const Size& size, Padding padding, const Pixel& p, int reach, F&& f) {
  if (p.y >= reach && p.y + reach < size.height && p.x >= reach && p.x + reach < size.width)
    f(TapSums<T, true>(image, size, padding, p));
  else
    f(TapSums<T, false>(image, size, padding, p));
}

template <class T, class P, class Family>
__global__ void __launch_bounds__(kThreads, kBlocks)
    analytic_gather_kernel(Family family, StridedPlanes<const P> parameter, GatherArguments<T> arguments) {
  using Value = Accumulation<T>;
  const Size& size = arguments.size;
  const Pixel p = pixel_of_thread(size);
  if (!p.inside) return;
  const auto shape = family.shape(load(parameter.at(p.n, 0, p.y, p.x)));
  const int reach = family.shape_reach(shape);
  with_tap_sums(arguments.image, size, arguments.padding, p, reach, [&](auto taps) {
    for (int64_t c = 0; c < size.channels; c += kGroup) {
      const int channels = int(min(int64_t(kGroup), size.channels - c));
      Value totals[kGroup] = {}, weight = Value(0);
      for (int a = 0; a <= reach; ++a) {
        taps.begin_row(a, c);
        for (int b = 0; b <= reach; ++b) {
          const Value value = family.value(shape, Value(a * a + b * b));
          if (!(value > 0)) break;  // farther in the row there is nothing; and NaN, alone, leaves 0 / 0
          weight = LaneMath<Value>::fma(Value(multiplicity(a, b)), value, weight);
          Value sums[kGroup];
          taps.add(b, channels, sums);
          static_for<kGroup>([&](auto i) {
            constexpr int kI = decltype(i)::value;
            totals[kI] = LaneMath<Value>::fma(value, sums[kI], totals[kI]);
          });
        }
      }
      static_for<kGroup>([&](auto i) {
        constexpr int kI = decltype(i)::value;
        if (kI < channels) store(totals[kI] / weight, arguments.output.at(p.n, c + kI, p.y, p.x));
      });
    }
  });
}

// With F = Σ_c g_c Σ_u f x_c, F' = Σ_c g_c Σ_u ∂f x_c, Z = Σ_u f and Z' = Σ_u ∂f: (F' - F Z' / Z) / Z.
template <class T, class P, class Family>
__global__ void __launch_bounds__(kThreads, kBlocks)
    analytic_gradients_kernel(Family family,
                              StridedPlanes<const P> parameter,
                              ParameterGradientsArguments<T, P> arguments) {
  using Value = Accumulation<T>;
  const Size& size = arguments.size;
  const Pixel p = pixel_of_thread(size);
  if (!p.inside) return;
  const auto shape = family.shape(load(parameter.at(p.n, 0, p.y, p.x)));
  const int reach = family.shape_reach(shape);
  Value total = Value(0), total_derivative = Value(0), weight = Value(0), weight_derivative = Value(0);
  with_tap_sums(arguments.image, size, arguments.padding, p, reach, [&](auto taps) {
    for (int64_t c = 0; c == 0 || c < size.channels; c += kGroup) {
      const int channels = int(min(int64_t(kGroup), size.channels - c));
      Value grad_output[kGroup];
      static_for<kGroup>([&](auto i) {
        constexpr int kI = decltype(i)::value;
        grad_output[kI] = kI < channels ? load(arguments.grad_output.at(p.n, c + kI, p.y, p.x)) : Value(0);
      });
      for (int a = 0; a <= reach; ++a) {
        taps.begin_row(a, c);
        for (int b = 0; b <= reach; ++b) {
          const Value d2 = Value(a * a + b * b), value = family.value(shape, d2);
          const Value derivative = family.derivative(shape, d2, value);
          if (!(value > 0) && derivative == 0) break;
          if (c == 0) {
            const Value m = Value(multiplicity(a, b));
            weight = LaneMath<Value>::fma(m, value, weight);
            weight_derivative = LaneMath<Value>::fma(m, derivative, weight_derivative);
          }
          Value sums[kGroup], dot = Value(0);
          taps.add(b, channels, sums);
          static_for<kGroup>([&](auto i) {
            constexpr int kI = decltype(i)::value;
            dot = LaneMath<Value>::fma(grad_output[kI], sums[kI], dot);
          });
          total = LaneMath<Value>::fma(value, dot, total);
          total_derivative = LaneMath<Value>::fma(derivative, dot, total_derivative);
        }
      }
    }
  });
  const Value gradient = (total_derivative - total * (weight_derivative / weight)) / weight;
  store(gradient, arguments.grad_parameters[0].at(p.n, 0, p.y, p.x));
}

// Of every pixel the number that gives its shape and 1 / Σ f; of every tile how far the furthest kernel reaches.
template <class P, class Family, class Value = Accumulation<P>>
__global__ void __launch_bounds__(kThreads, kBlocks)
    analytic_states_kernel(Family family, StridedPlanes<const P> parameter, Size size, States<Value> states) {
  const Pixel p = pixel_of_thread(size);
  int reach = 0;
  if (p.inside) {
    const auto shape = family.shape(load(parameter.at(p.n, 0, p.y, p.x)));
    reach = family.shape_reach(shape);
    Value weight = Value(0);
    for (int a = 0; a <= reach; ++a) {
      for (int b = 0; b <= reach; ++b) {
        const Value value = family.value(shape, Value(a * a + b * b));
        if (!(value > 0)) break;
        weight = LaneMath<Value>::fma(Value(multiplicity(a, b)), value, weight);
      }
    }
    Value* to = states.data + states.layout.offset(p.n, p.y, p.x);
    to[0] = family.number_of(shape);
    to[StatesLayout::kRun] = Value(1) / weight;
  }
  reach = block_max(reach);
  if (threadIdx.x == 0 && threadIdx.y == 0) states.reach[blockIdx.x] = reach;
}

// Every pixel of the canvas, which has `border` pixels more than the image on each side, collects what the pixels
// around it spread. How far it must look is found from the tiles first.
template <class T, class Result, class Family>
__global__ void __launch_bounds__(kThreads, kBlocks) analytic_scatter_kernel(Family family,
                                                                             Size size,
                                                                             int border,
                                                                             States<Accumulation<T>> states,
                                                                             StridedPlanes<const T> image,
                                                                             StridedPlanes<Result> canvas) {
  using Value = Accumulation<T>;
  const int radius = family.radii.max();
  const Size canvas_size = {size.batch, size.channels, size.height + 2 * border, size.width + 2 * border};
  const Tile tile = tile_of_block(canvas_size, kWarps, kWarpLanes);
  const int top = tile.y - border, left = tile.x - border;  // in the image
  const int thread = int(threadIdx.y) * kWarpLanes + int(threadIdx.x);

  // 1. The tiles of the image within a radius: does one of their kernels reach this tile?
  int reach = 0;  // of a pixel outside all of them, to itself
  const int image_height = int(size.height), image_width = int(size.width);
  const int columns = (image_width + kWarpLanes - 1) / kWarpLanes, rows = (image_height + kWarps - 1) / kWarps;
  const int first_row = max(top - radius, 0) / kWarps, first_column = max(left - radius, 0) / kWarpLanes;
  const int last_row = min(top + kWarps - 1 + radius, image_height - 1) / kWarps;
  const int last_column = min(left + kWarpLanes - 1 + radius, image_width - 1) / kWarpLanes;
  const int across = last_column - first_column + 1, tiles = across * (last_row - first_row + 1);
  for (int i = thread; i < tiles; i += kThreads) {
    const int row = first_row + i / across, column = first_column + i % across;
    const int furthest = states.reach[(tile.n * rows + row) * columns + column];
    const int below = row * kWarps - (top + kWarps - 1), above = top - (row * kWarps + kWarps - 1);
    const int right = column * kWarpLanes - (left + kWarpLanes - 1);
    const int before = left - (column * kWarpLanes + kWarpLanes - 1);
    if (max(max(below, above), max(right, before)) <= furthest) reach = max(reach, furthest);
  }
  reach = block_max(reach);

  // 2. Every pixel within that reach gives its share.
  const int y = top + int(threadIdx.y), x = left + int(threadIdx.x);
  if (y >= image_height + border || x >= image_width + border) return;
  const int begin_x = max(x - reach, 0), end_x = min(x + reach, image_width - 1);
  const int begin_y = max(y - reach, 0), end_y = min(y + reach, image_height - 1);
  for (int64_t c = 0; c < size.channels; c += kGroup) {
    const int channels = int(min(int64_t(kGroup), size.channels - c));
    Value totals[kGroup] = {};
    for (int source_y = begin_y; source_y <= end_y; ++source_y) {
      const Value* const row_states = states.data + states.layout.offset(tile.n, source_y, 0);
      const T* const row = image.at(tile.n, c, source_y, 0);
      for (int source_x = begin_x; source_x <= end_x; ++source_x) {
        // Runs of two states.
        const Value* state = row_states + source_x + (source_x & ~(StatesLayout::kRun - 1));
        const int dy = source_y - y, dx = source_x - x;
        // Beyond a Gaussian's window, too, lies nothing.
        if (max(abs(dy), abs(dx)) > radius) continue;
        const Value value = family.value_of(load(state), Value(dy * dy + dx * dx));
        if (value <= 0) continue;
        const Value weight = value * load(state + StatesLayout::kRun);
        const T* at = row + source_x * image.column_stride;
        static_for<kGroup>([&](auto i) {
          constexpr int kI = decltype(i)::value;
          if (kI < channels)
            totals[kI] = LaneMath<Value>::fma(weight, load(at + kI * image.channel_stride), totals[kI]);
        });
      }
    }
    for (int i = 0; i < channels; ++i) store(totals[i], canvas.at(tile.n, c + i, y + border, x + border));
  }
}

// What stands in the canvas beyond the border goes to the pixels that it was a copy of.
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks)
    fold_kernel(int radius, Padding padding, Size size, const Accumulation<T>* canvas, StridedPlanes<T> output) {
  using Value = Accumulation<T>;
  const Pixel p = pixel_of_thread(size);
  if (!p.inside) return;
  const int row_copies = copies(p.y, p.y + 1, size.height, padding, radius);
  const int column_copies = copies(p.x, p.x + 1, size.width, padding, radius);
  const int64_t pitch = size.width + 2 * radius, plane = (size.height + 2 * radius) * pitch;
  for (int64_t c = 0; c < size.channels; ++c) {
    const Value* of_channel = canvas + (p.n * size.channels + c) * plane;
    Value total = Value(0);
    for (int i = 0; i < row_copies; ++i) {
      int y, x;
      if (!is_copy(i, p.y, int(size.height), padding, y)) continue;
      for (int j = 0; j < column_copies; ++j)
        if (is_copy(j, p.x, int(size.width), padding, x)) total += of_channel[(y + radius) * pitch + x + radius];
    }
    store(total, output.at(p.n, c, p.y, p.x));
  }
}

template <class... Parameters, class... Arguments>
cudaError_t launch_pixels(void (*kernel)(Parameters...),
                          const Size& size,
                          size_t shared_bytes,
                          cudaStream_t stream,
                          const Arguments&... arguments) {
  return launch_tiles(kernel, size, kWarps, kWarpLanes, dim3(kWarpLanes, kWarps), shared_bytes, stream, arguments...);
}

}  // namespace

template <class T, class P>
cudaError_t launch_analytic_gather(const Problem<P>& problem,
                                   const GatherArguments<T>& arguments,
                                   cudaStream_t stream) {
  return with_analytic_family(problem.kernel, [&](const auto& family) {
    return launch_pixels(analytic_gather_kernel<T, P, std::decay_t<decltype(family)>>,
                         arguments.size,
                         0,
                         stream,
                         family,
                         problem.parameters[0],
                         arguments);
  });
}

template <class T, class P>
cudaError_t launch_analytic_gradients(const Problem<P>& problem,
                                      const ParameterGradientsArguments<T, P>& arguments,
                                      cudaStream_t stream) {
  return with_analytic_family(problem.kernel, [&](const auto& family) {
    return launch_pixels(analytic_gradients_kernel<T, P, std::decay_t<decltype(family)>>,
                         arguments.size,
                         0,
                         stream,
                         family,
                         problem.parameters[0],
                         arguments);
  });
}

template <class P>
cudaError_t launch_analytic_states(const Problem<P>& problem,
                                   const StatesArguments<Accumulation<P>>& arguments,
                                   cudaStream_t stream) {
  return with_analytic_family(problem.kernel, [&](const auto& family) {
    return launch_pixels(analytic_states_kernel<P, std::decay_t<decltype(family)>>,
                         arguments.size,
                         kBlockMaxBytes,
                         stream,
                         family,
                         problem.parameters[0],
                         arguments.size,
                         arguments.states);
  });
}

template <class T>
cudaError_t launch_analytic_scatter(const KernelOptions& kernel,
                                    const ScatterArguments<T>& arguments,
                                    cudaStream_t stream) {
  const Size& size = arguments.size;
  return with_analytic_family(kernel, [&](const auto& family) {
    using Family = std::decay_t<decltype(family)>;
    if (arguments.padding == Padding::kZeros)
      return launch_pixels(analytic_scatter_kernel<T, T, Family>,
                           size,
                           kBlockMaxBytes,
                           stream,
                           family,
                           size,
                           0,
                           arguments.states,
                           arguments.image,
                           arguments.output);
    const int border = family.radii.max();
    const Size canvas_size = {size.batch, size.channels, size.height + 2 * border, size.width + 2 * border};
    const int64_t plane = canvas_size.height * canvas_size.width;
    const StridedPlanes<Accumulation<T>> canvas = {
        arguments.canvas, size.channels * plane, plane, canvas_size.width, 1};
    const cudaError_t error = launch_pixels(analytic_scatter_kernel<T, Accumulation<T>, Family>,
                                            canvas_size,
                                            kBlockMaxBytes,
                                            stream,
                                            family,
                                            size,
                                            border,
                                            arguments.states,
                                            arguments.image,
                                            canvas);
    if (error != cudaSuccess) return error;
    return launch_pixels(fold_kernel<T>,
                         size,
                         0,
                         stream,
                         border,
                         arguments.padding,
                         size,
                         static_cast<const Accumulation<T>*>(arguments.canvas),
                         arguments.output);
  });
}

#define REBLUR_INSTANTIATE(T, P)                                                                                 \
  template cudaError_t launch_analytic_gather<T, P>(const Problem<P>&, const GatherArguments<T>&, cudaStream_t); \
  template cudaError_t launch_analytic_gradients<T, P>(                                                          \
      const Problem<P>&, const ParameterGradientsArguments<T, P>&, cudaStream_t);
REBLUR_FOR_EACH_PAIR(REBLUR_INSTANTIATE)
#undef REBLUR_INSTANTIATE

#define REBLUR_INSTANTIATE(T)                                                    \
  template cudaError_t launch_analytic_states<T>(                                \
      const Problem<T>&, const StatesArguments<Accumulation<T>>&, cudaStream_t); \
  template cudaError_t launch_analytic_scatter<T>(const KernelOptions&, const ScatterArguments<T>&, cudaStream_t);
REBLUR_FOR_EACH_SCALAR(REBLUR_INSTANTIATE)
#undef REBLUR_INSTANTIATE

}  // namespace cuda
}  // namespace reblur
