// The kernel of every pixel, as class weights, and its adjoint: the family by itself, without an image.
#include "cuda/family.cuh"
#include "cuda/tiles.cuh"

namespace reblur {
namespace cuda {
namespace {

// A warp is 32 neighbours in x; a thread is a pixel.
template <class P, class Radii>
struct PixelShape {
  static constexpr int kWarps = 4, kWidth = kWarpLanes;
  static_assert(kSlabStep % kWarps == 0, "slabs end where tiles do");
  static constexpr int kThreads = kWarps * kWarpLanes;
  static constexpr int kBlocks = least_blocks<Accumulation<P>, Radii>(4, 8);  // 128 registers, or 64
};

// Where the weights go: planes of a tensor, or the states that a scatter reads. at(n, y, x) is where class 0 goes, and
// stride() how far the next class is from it.
template <class P>
struct WeightPlanes {
  StridedPlanes<P> planes;

  __device__ __forceinline__ P* at(int64_t n, int y, int x) const { return planes.at(n, 0, y, x); }
  __device__ __forceinline__ int64_t stride() const { return planes.channel_stride; }
};
template <class Value>
struct WeightStates {
  States<Value> states;

  __device__ __forceinline__ Value* at(int64_t n, int y, int x) const {
    return states.data + states.layout.offset(n, y, x);
  }
  __device__ __forceinline__ static constexpr int stride() { return StatesLayout::kRun; }
};

template <class P, class Family, class Weights, class Shape = PixelShape<P, typename Family::Radii>>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks) class_weights_kernel(
    const __grid_constant__ Family launched_family, Parameters<P> parameters, Size size, Rows rows, Weights target) {
  using Value = Accumulation<P>;
  const auto& family = on_device(launched_family);
  const Tile tile = tile_of_block(rows, size, Shape::kWarps, Shape::kWidth);
  const int y = tile.y + int(threadIdx.y), x = tile.x + int(threadIdx.x);
  if (x >= size.width || y >= size.height) return;
  Value weights[Family::Radii::kClasses];
  family.template prepare<Value>(ParameterLoader<P, Family>(parameters, tile.n, y, x), weights);
  auto* to = target.at(tile.n, y, x);
  family.radii.for_each_class(family.radii.max(),
                              [&](auto k) { store(weights[k.index], to + k.index * target.stride()); });
}

template <class P, class Family, class Shape = PixelShape<P, typename Family::Radii>>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    class_weights_gradients_kernel(const __grid_constant__ Family launched_family,
                                   Parameters<P> parameters,
                                   ClassWeightsGradientsArguments<P> arguments) {
  using Value = Accumulation<P>;
  const auto& family = on_device(launched_family);
  const Tile tile = tile_of_block(arguments.size, Shape::kWarps, Shape::kWidth);
  const int y = tile.y + int(threadIdx.y), x = tile.x + int(threadIdx.x);
  if (x >= arguments.size.width || y >= arguments.size.height) return;
  Value grad_weights[Family::Radii::kClasses];
  const P* from = arguments.grad_class_weights.at(tile.n, 0, y, x);
  family.radii.for_each_class(family.radii.max(), [&](auto k) {
    grad_weights[k.index] = load(from + k.index * arguments.grad_class_weights.channel_stride);
  });
  const ParameterGradients<P> gradients = {{arguments.grad_parameters[0], arguments.grad_parameters[1]}};
  family.template adjoint<Value>(ParameterLoader<P, Family>(parameters, tile.n, y, x),
                                 grad_weights,
                                 GradientStorer<P, Family>(gradients, tile.n, y, x));
}

template <class P, class Family, class Weights>
cudaError_t launch(const Family& family,
                   const Problem<P>& problem,
                   const Size& size,
                   const Rows& rows,
                   const Weights& target,
                   cudaStream_t stream) {
  using Shape = PixelShape<P, typename Family::Radii>;
  return launch_tiles(class_weights_kernel<P, Family, Weights>,
                      size_of(rows, size),
                      Shape::kWarps,
                      Shape::kWidth,
                      dim3(Shape::kWidth, Shape::kWarps),
                      0,
                      stream,
                      family,
                      Parameters<P>{{problem.parameters[0], problem.parameters[1]}},
                      size,
                      rows,
                      target);
}

}  // namespace

template <class P>
cudaError_t launch_class_weights(const Problem<P>& problem,
                                 const ClassWeightsArguments<P>& arguments,
                                 cudaStream_t stream) {
  if (is_empty(arguments.size)) return cudaSuccess;
  return with_class_family<Accumulation<P>>(problem.kernel, [&](const auto& family) {
    return launch(
        family, problem, arguments.size, all_rows(arguments.size), WeightPlanes<P>{arguments.class_weights}, stream);
  });
}

template <class P>
cudaError_t launch_states(const Problem<P>& problem,
                          const StatesArguments<Accumulation<P>>& arguments,
                          cudaStream_t stream) {
  const Size& size = arguments.size;
  if (is_empty(size)) return cudaSuccess;
  if (!has_class_weights(problem.kernel)) return launch_analytic_states(problem, arguments, stream);
  return with_family<Accumulation<P>>(problem.kernel, [&](const auto& family) {
    return launch(family, problem, size, arguments.rows, WeightStates<Accumulation<P>>{arguments.states}, stream);
  });
}

template <class P>
cudaError_t launch_class_weights_gradients(const Problem<P>& problem,
                                           const ClassWeightsGradientsArguments<P>& arguments,
                                           cudaStream_t stream) {
  if (is_empty(arguments.size)) return cudaSuccess;
  return with_class_family<Accumulation<P>>(problem.kernel, [&](const auto& family) {
    using Family = std::decay_t<decltype(family)>;
    using Shape = PixelShape<P, typename Family::Radii>;
    return launch_tiles(class_weights_gradients_kernel<P, Family>,
                        arguments.size,
                        Shape::kWarps,
                        Shape::kWidth,
                        dim3(Shape::kWidth, Shape::kWarps),
                        0,
                        stream,
                        family,
                        Parameters<P>{{problem.parameters[0], problem.parameters[1]}},
                        arguments);
  });
}

#define REBLUR_INSTANTIATE(P)                                                                                      \
  template cudaError_t launch_states<P>(const Problem<P>&, const StatesArguments<Accumulation<P>>&, cudaStream_t); \
  template cudaError_t launch_class_weights<P>(const Problem<P>&, const ClassWeightsArguments<P>&, cudaStream_t);  \
  template cudaError_t launch_class_weights_gradients<P>(                                                          \
      const Problem<P>&, const ClassWeightsGradientsArguments<P>&, cudaStream_t);
REBLUR_FOR_EACH_SCALAR(REBLUR_INSTANTIATE)
#undef REBLUR_INSTANTIATE

}  // namespace cuda
}  // namespace reblur
