// Each pixel gathers with its own kernel: families with class weights.
#include "cuda/image_tile.cuh"

namespace reblur {
namespace cuda {
namespace {

template <class T, class Radii>
struct GatherKernelShape : GatherShape<T, Radii, 3> {
  using Base = GatherShape<T, Radii, 3>;
  // Two blocks of six warps are three for each of a multiprocessor's four schedulers: 168 registers a thread.
  static constexpr int kWarps = Base::kPixels > 1 ? 6 : 8;
  static constexpr int kThreads = kWarps * kWarpLanes;
  static constexpr int kHeight = kWarps * Base::kPixels;
  static constexpr int kBlocks = least_blocks<Accumulation<T>, Radii>(2, 4);  // 168 registers, or 64
};

// y = Σ_k T_k S_k of some channels, the first of which lies `at`: finish(channel, p, y).
template <int kChannels, class Family, class Value, int kPixels, int kClasses, class Finish>
__device__ __forceinline__ void gather_channels(const Family& family,
                                                const Value (&weights)[kPixels][kClasses],
                                                const Value* at,
                                                int pitch,
                                                int plane,
                                                int64_t channel,
                                                const Finish& finish) {
  Value totals[kChannels][kPixels];
  static_for<kChannels>(
      [&](auto i) { static_for<kPixels>([&](auto p) { totals[decltype(i)::value][decltype(p)::value] = Value(0); }); });
  for_each_row_sum<kPixels, kChannels>(family, at, pitch, plane, [&](auto p, auto i, auto a, auto b, Value sum) {
    Value& total = totals[decltype(i)::value][decltype(p)::value];
    total = LaneMath<Value>::fma(weights[decltype(p)::value][class_index(a, b)], sum, total);
  });
  static_for<kChannels>([&](auto i) {
    static_for<kPixels>([&](auto p) { finish(channel + i, p, totals[decltype(i)::value][decltype(p)::value]); });
  });
}

template <class T, class P, class Family, class Shape = GatherKernelShape<T, typename Family::Radii>>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks) gather_kernel(
    const __grid_constant__ Family launched_family, Parameters<P> parameters, GatherArguments<T> arguments, int stage) {
  using Value = Accumulation<T>;
  using Radii = typename Family::Radii;
  constexpr int kPixels = Shape::kPixels, kHeight = Shape::kHeight, kWidth = Shape::kWidth;
  constexpr int kGroup = kTogether<Radii>;
  static_assert(kHeight == kPixels * Shape::kWarps && kWidth == kWarpLanes, "a thread per kPixels pixels");
  const auto& family = on_device(launched_family);
  const auto radius = family.radii.max();
  const int pitch = tile_pitch(kWidth, radius), plane = tile_elements(kHeight, kWidth, radius);
  const Size& size = arguments.size;
  const Tile tile = tile_of_block(size, kHeight, kWidth);
  const int row = threadIdx.y * kPixels, y = tile.y + row, x = tile.x + int(threadIdx.x);
  Value* shared = shared_memory<Value>();  // [stage, kHeight + 2R, pitch]

  // 1. The first channels of the image, on their way while the class weights are computed.
  const auto load_stage = [&](int64_t c) {
    const int channels = int(min(int64_t(stage), size.channels - c));
    load_tiles(arguments.image, size, arguments.padding, tile, kHeight, kWidth, radius, c, channels, shared);
  };
  load_stage(0);

  // 2. The class weights of the thread's pixels.
  Value weights[kPixels][Radii::kClasses];
  static_for<kPixels>([&](auto p) {
    constexpr int kP = decltype(p)::value;
    if (x < size.width && y + kP < size.height) {
      family.template prepare<Value>(ParameterLoader<P, Family>(parameters, tile.n, y + kP, x), weights[kP]);
    } else {
      family.radii.for_each_class(radius, [&](auto k) { weights[kP][k.index] = Value(0); });
    }
  });

  // 3. Every channel: y = Σ_k T_k S_k.
  for (int64_t c = 0; c < size.channels; c += stage) {
    if (c != 0) {
      __syncthreads();  // nobody reads the channels before any more
      load_stage(c);
    }
    __syncthreads();
    const int channels = int(min(int64_t(stage), size.channels - c));
    const auto finish = [&](int64_t channel, auto p, Value total) {
      constexpr int kP = decltype(p)::value;
      if (x < size.width && y + kP < size.height) store(total, arguments.output.at(tile.n, channel, y + kP, x));
    };
    const Value* at = shared + row * pitch + threadIdx.x;
    int i = 0;
    for (; i + kGroup <= channels; i += kGroup)
      gather_channels<kGroup>(family, weights, at + i * plane, pitch, plane, c + i, finish);
    for (; kGroup > 1 && i < channels; ++i)
      gather_channels<1>(family, weights, at + i * plane, pitch, plane, c + i, finish);
  }
}

}  // namespace

template <class T, class P>
cudaError_t launch_gather(const Problem<P>& problem, const GatherArguments<T>& arguments, cudaStream_t stream) {
  const Size& size = arguments.size;
  if (is_empty(size) || size.channels == 0) return cudaSuccess;
  if (!has_class_weights(problem.kernel)) return launch_analytic_gather(problem, arguments, stream);
  return with_family<Accumulation<P>>(problem.kernel, [&](const auto& family) {
    using Family = std::decay_t<decltype(family)>;
    using Shape = GatherKernelShape<T, typename Family::Radii>;
    return launch_image_tiles<Shape>(gather_kernel<T, P, Family>, family, problem, arguments.size, arguments, stream);
  });
}

#define REBLUR_INSTANTIATE(T, P) \
  template cudaError_t launch_gather<T, P>(const Problem<P>&, const GatherArguments<T>&, cudaStream_t);
REBLUR_FOR_EACH_PAIR(REBLUR_INSTANTIATE)
#undef REBLUR_INSTANTIATE

}  // namespace cuda
}  // namespace reblur
