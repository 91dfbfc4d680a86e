// The gradients to the parameters of a family with class weights: D_k = Σ_c g_c S_{c,k}, with S as the gather sums,
// then the family's adjoint.
#include "cuda/image_tile.cuh"

namespace reblur {
namespace cuda {
namespace {

// Pixels of a thread whose sums, with what the adjoint needs, its registers hold. A disk and states need the most.
template <class Family, bool kKeepsStates>
constexpr int kGradientPixels = kKeepsStates || std::is_same<Family, SampledDiskFamily<LargestRadius>>::value ? 2 : 3;

template <class T, class Family, bool kKeepsStates>
struct ParameterGradientsShape : GatherShape<T, typename Family::Radii, kGradientPixels<Family, kKeepsStates>> {
  using Radii = typename Family::Radii;
  using Base = GatherShape<T, Radii, kGradientPixels<Family, kKeepsStates>>;
  static constexpr int kWarps = kStatic<Radii> ? 4 : 8;
  static constexpr int kThreads = kWarps * kWarpLanes;
  static constexpr int kHeight = kWarps * Base::kPixels;
  static_assert(!kKeepsStates || kSlabStep % kHeight == 0, "slabs end where tiles do");
  // 168 registers: the adjoint keeps three values a class, on top of the other pixels' sums.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 750 || __CUDA_ARCH__ == 1200)
  static constexpr int kTunedBlocks = 2;  // with a third, ptxas spills a few bytes there in the 16-bit kernels
#else
  static constexpr int kTunedBlocks = 3;
#endif
  static constexpr int kBlocks = least_blocks<Accumulation<T>, Radii>(kTunedBlocks, 4);
};

// D_k += g S_k of some channels, the first of which lies `at`; grad_output(channel, p) is g.
template <int kChannels, class Family, class Value, int kPixels, int kClasses, class GradOutput>
__device__ __forceinline__ void add_channels(const Family& family,
                                             const Value* at,
                                             int pitch,
                                             int plane,
                                             int64_t channel,
                                             const GradOutput& grad_output,
                                             Value (&grad_weights)[kPixels][kClasses]) {
  Value grads[kChannels][kPixels];
  static_for<kChannels>([&](auto i) {
    static_for<kPixels>([&](auto p) { grads[decltype(i)::value][decltype(p)::value] = grad_output(channel + i, p); });
  });
  for_each_row_sum<kPixels, kChannels>(family, at, pitch, plane, [&](auto p, auto i, auto a, auto b, Value sum) {
    Value& grad_weight = grad_weights[decltype(p)::value][class_index(a, b)];
    grad_weight = LaneMath<Value>::fma(grads[decltype(i)::value][decltype(p)::value], sum, grad_weight);
  });
}

template <class T,
          class P,
          class Family,
          bool kKeepsStates,
          class Shape = ParameterGradientsShape<T, Family, kKeepsStates>>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    parameter_gradients_kernel(const __grid_constant__ Family launched_family,
                               Parameters<P> parameters,
                               ParameterGradientsArguments<T, P> arguments,
                               int stage) {
  using Value = Accumulation<T>;
  using Radii = typename Family::Radii;
  constexpr int kPixels = Shape::kPixels, kHeight = Shape::kHeight, kWidth = Shape::kWidth;
  constexpr int kGroup = kTogether<Radii>;
  static_assert(kHeight == kPixels * Shape::kWarps && kWidth == kWarpLanes, "a thread per kPixels pixels");
  const auto& family = on_device(launched_family);
  const auto radius = family.radii.max();
  const int pitch = tile_pitch(kWidth, radius), plane = tile_elements(kHeight, kWidth, radius);
  const Size& size = arguments.size;
  const Tile tile = tile_of_block(arguments.rows, size, kHeight, kWidth);
  const int row = threadIdx.y * kPixels, y = tile.y + row, x = tile.x + int(threadIdx.x);
  Value* shared = shared_memory<Value>();  // [stage, kHeight + 2R, pitch]

  // 1. Every channel: D_k += g S_k.
  Value grad_weights[kPixels][Radii::kClasses];
  static_for<kPixels>([&](auto p) {
    family.radii.for_each_class(radius, [&](auto k) { grad_weights[decltype(p)::value][k.index] = Value(0); });
  });
  const T* const grads = arguments.grad_output.at(tile.n, 0, y, x);
  for (int64_t c = 0; c < size.channels; c += stage) {
    const int channels = int(min(int64_t(stage), size.channels - c));
    if (c != 0) __syncthreads();  // nobody reads the channels before any more
    load_tiles(arguments.image, size, arguments.padding, tile, kHeight, kWidth, radius, c, channels, shared);
    __syncthreads();
    const auto grad_output = [&](int64_t channel, auto p) {
      constexpr int kP = decltype(p)::value;
      const bool inside = x < size.width && y + kP < size.height;
      const auto& planes = arguments.grad_output;
      return inside ? load(grads + channel * planes.channel_stride + kP * planes.row_stride) : Value(0);
    };
    const Value* at = shared + row * pitch + threadIdx.x;
    int i = 0;
    for (; i + kGroup <= channels; i += kGroup)
      add_channels<kGroup>(family, at + i * plane, pitch, plane, c + i, grad_output, grad_weights);
    for (; kGroup > 1 && i < channels; ++i)
      add_channels<1>(family, at + i * plane, pitch, plane, c + i, grad_output, grad_weights);
  }

  // 2. The adjoint, pixel by pixel. Nothing is shared any more: threads without a pixel may be done before others.
  static_for<kPixels>([&](auto p) {
    constexpr int kP = decltype(p)::value;
    if (x >= size.width || y + kP >= size.height) return;
    const ParameterGradients<P> gradients = {{arguments.grad_parameters[0], arguments.grad_parameters[1]}};
    const ParameterLoader<P, Family> load_parameter(parameters, tile.n, y + kP, x);
    const GradientStorer<P, Family> store_gradient(gradients, tile.n, y + kP, x);
    if constexpr (kKeepsStates) {
      Value weights[Radii::kClasses];
      family.template adjoint<Value>(load_parameter, grad_weights[kP], store_gradient, weights);
      Value* to = arguments.states.data + arguments.states.layout.offset(tile.n, y + kP, x);
      family.radii.for_each_class(radius, [&](auto k) { to[k.index * StatesLayout::kRun] = weights[k.index]; });
    } else {
      family.template adjoint<Value>(load_parameter, grad_weights[kP], store_gradient);
    }
  });
}

}  // namespace

template <class T, class P>
cudaError_t launch_parameter_gradients(const Problem<P>& problem,
                                       const ParameterGradientsArguments<T, P>& arguments,
                                       cudaStream_t stream) {
  if (is_empty(arguments.size)) return cudaSuccess;  // without channels, parameters still have gradients, all zero
  if (!has_class_weights(problem.kernel)) return launch_analytic_gradients(problem, arguments, stream);
  return with_family<Accumulation<P>>(problem.kernel, [&](const auto& family) {
    using Family = std::decay_t<decltype(family)>;
    const auto launch = [&](auto keeps_states) {
      constexpr bool kKeepsStates = decltype(keeps_states)::value;
      using Shape = ParameterGradientsShape<T, Family, kKeepsStates>;
      const auto kernel = &parameter_gradients_kernel<T, P, Family, kKeepsStates>;
      const Size grid = size_of(arguments.rows, arguments.size);
      return launch_image_tiles<Shape>(kernel, family, problem, grid, arguments, stream);
    };
    if constexpr (!kStatic<typename Family::Radii> && !kDynamic<typename Family::Radii>) {
      // Sums, terms and weights of all classes at once are more than the registers hold: states by themselves.
      const cudaError_t error = launch(std::false_type());
      if (error != cudaSuccess || arguments.states.data == nullptr) return error;
      return launch_states(
          problem, StatesArguments<Accumulation<P>>{arguments.size, arguments.rows, arguments.states}, stream);
    } else {
      return arguments.states.data != nullptr ? launch(std::true_type()) : launch(std::false_type());
    }
  });
}

#define REBLUR_INSTANTIATE(T, P)                         \
  template cudaError_t launch_parameter_gradients<T, P>( \
      const Problem<P>&, const ParameterGradientsArguments<T, P>&, cudaStream_t);
REBLUR_FOR_EACH_PAIR(REBLUR_INSTANTIATE)
#undef REBLUR_INSTANTIATE

}  // namespace cuda
}  // namespace reblur
