// The kernel of every pixel, as class weights, and its adjoint: the family by itself, without an image.
#include "cuda/family.cuh"
#include "cuda/tiles.cuh"

namespace reblur {
namespace cuda {
namespace {

// A warp is 32 neighbours in x; a thread is a pixel.
template <class T, class Radii>
struct PixelShape {
  static constexpr int kWarps = 4, kWidth = kWarpLanes;
  static_assert(kSlabStep % kWarps == 0, "slabs end where tiles do");
  static constexpr int kThreads = kWarps * kWarpLanes;
  // Blocks on a multiprocessor at least: bounds the registers of a thread to 128.
  static constexpr int kBlocks = kStatic<Radii> ? (sizeof(Accumulation<T>) == 4 ? 4 : 1) : 8;
};

// Where the weights go: planes of a tensor, or the states that a scatter reads. at(n, y, x) is where class 0 goes, and
// stride() how far the next class is from it.
template <class T>
struct WeightPlanes {
  StridedPlanes<T> planes;

  __device__ __forceinline__ T* at(int64_t n, int y, int x) const { return planes.at(n, 0, y, x); }
  __device__ __forceinline__ int64_t stride() const { return planes.channel_stride; }
};
template <class T>
struct WeightStates {
  States<T> states;

  __device__ __forceinline__ Accumulation<T>* at(int64_t n, int y, int x) const {
    return states.data + states.layout.offset(n, y, x);
  }
  __device__ __forceinline__ static constexpr int stride() { return StatesLayout::kRun; }
};

template <class T, class Family, class Weights, class Shape = PixelShape<T, typename Family::Radii>>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    class_weights_kernel(Family launched_family, Parameters<T> parameters, Size size, Rows rows, Weights target) {
  using Value = Accumulation<T>;
  const Family family = on_device(launched_family);
  const Tile tile = tile_of_block(rows, size, Shape::kWarps, Shape::kWidth);
  const int y = tile.y + int(threadIdx.y), x = tile.x + int(threadIdx.x);
  if (x >= size.width || y >= size.height) return;
  Value weights[Family::Radii::kClasses];
  family.template prepare<Value>(ParameterLoader<T, Family>(parameters, tile.n, y, x), weights);
  auto* to = target.at(tile.n, y, x);
  family.radii.for_each_class(family.radii.max(),
                              [&](auto k) { store(weights[k.index], to + k.index * target.stride()); });
}

template <class T, class Family, class Shape = PixelShape<T, typename Family::Radii>>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    class_weights_gradients_kernel(Family launched_family,
                                   Parameters<T> parameters,
                                   ClassWeightsGradientsArguments<T> arguments) {
  using Value = Accumulation<T>;
  const Family family = on_device(launched_family);
  const Tile tile = tile_of_block(arguments.size, Shape::kWarps, Shape::kWidth);
  const int y = tile.y + int(threadIdx.y), x = tile.x + int(threadIdx.x);
  if (x >= arguments.size.width || y >= arguments.size.height) return;
  Value grad_weights[Family::Radii::kClasses];
  const T* from = arguments.grad_class_weights.at(tile.n, 0, y, x);
  family.radii.for_each_class(family.radii.max(), [&](auto k) {
    grad_weights[k.index] = load(from + k.index * arguments.grad_class_weights.channel_stride);
  });
  const ParameterGradients<T> gradients = {{arguments.grad_parameters[0], arguments.grad_parameters[1]}};
  family.template adjoint<Value>(ParameterLoader<T, Family>(parameters, tile.n, y, x),
                                 grad_weights,
                                 GradientStorer<T, Family>(gradients, tile.n, y, x));
}

template <class T, class Family, class Weights>
cudaError_t launch(const Family& family,
                   const Problem<T>& problem,
                   const Size& size,
                   const Rows& rows,
                   const Weights& target,
                   cudaStream_t stream) {
  using Shape = PixelShape<T, typename Family::Radii>;
  return launch_tiles(class_weights_kernel<T, Family, Weights>,
                      size_of(rows, size),
                      Shape::kWarps,
                      Shape::kWidth,
                      dim3(Shape::kWidth, Shape::kWarps),
                      0,
                      stream,
                      family,
                      Parameters<T>{{problem.parameters[0], problem.parameters[1]}},
                      size,
                      rows,
                      target);
}

}  // namespace

template <class T>
cudaError_t launch_class_weights(const Problem<T>& problem,
                                 const ClassWeightsArguments<T>& arguments,
                                 cudaStream_t stream) {
  if (is_empty(arguments.size)) return cudaSuccess;
  return with_class_family(problem.kernel, [&](const auto& family) {
    return launch(
        family, problem, arguments.size, all_rows(arguments.size), WeightPlanes<T>{arguments.class_weights}, stream);
  });
}

template <class T>
cudaError_t launch_states(const Problem<T>& problem, const StatesArguments<T>& arguments, cudaStream_t stream) {
  const Size& size = arguments.size;
  if (is_empty(size)) return cudaSuccess;
  if (!has_class_weights(problem.kernel)) return launch_analytic_states(problem, arguments, stream);
  return with_family(problem.kernel, [&](const auto& family) {
    return launch(family, problem, size, arguments.rows, WeightStates<T>{arguments.states}, stream);
  });
}

template <class T>
cudaError_t launch_class_weights_gradients(const Problem<T>& problem,
                                           const ClassWeightsGradientsArguments<T>& arguments,
                                           cudaStream_t stream) {
  if (is_empty(arguments.size)) return cudaSuccess;
  return with_class_family(problem.kernel, [&](const auto& family) {
    using Family = std::decay_t<decltype(family)>;
    using Shape = PixelShape<T, typename Family::Radii>;
    return launch_tiles(class_weights_gradients_kernel<T, Family>,
                        arguments.size,
                        Shape::kWarps,
                        Shape::kWidth,
                        dim3(Shape::kWidth, Shape::kWarps),
                        0,
                        stream,
                        family,
                        Parameters<T>{{problem.parameters[0], problem.parameters[1]}},
                        arguments);
  });
}

#define REBLUR_INSTANTIATE(T)                                                                                     \
  template cudaError_t launch_states<T>(const Problem<T>&, const StatesArguments<T>&, cudaStream_t);              \
  template cudaError_t launch_class_weights<T>(const Problem<T>&, const ClassWeightsArguments<T>&, cudaStream_t); \
  template cudaError_t launch_class_weights_gradients<T>(                                                         \
      const Problem<T>&, const ClassWeightsGradientsArguments<T>&, cudaStream_t);
REBLUR_FOR_EACH_SCALAR(REBLUR_INSTANTIATE)
#undef REBLUR_INSTANTIATE

}  // namespace cuda
}  // namespace reblur
