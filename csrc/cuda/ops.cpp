// The operators on CUDA: checks, memory from the caching allocator, the current stream. The kernels are in the .cu
// files.
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <torch/library.h>

#include "checks.h"
#include "cuda/kernels.h"

namespace reblur {
namespace cuda {
namespace {

// Torch's scalar types as the device knows them; the bits are the same.
template <class T>
struct DeviceScalar {
  using type = T;
};
template <>
struct DeviceScalar<c10::Half> {
  using type = __half;
};
template <>
struct DeviceScalar<c10::BFloat16> {
  using type = __nv_bfloat16;
};

template <class T>
StridedPlanes<const T> planes(const at::Tensor& tensor) {
  return {static_cast<const T*>(tensor.const_data_ptr()),
          tensor.stride(0),
          tensor.stride(1),
          tensor.stride(2),
          tensor.stride(3)};
}

template <class T>
StridedPlanes<T> mutable_planes(const at::Tensor& tensor) {
  if (tensor.numel() == 0) return {};
  return {static_cast<T*>(tensor.mutable_data_ptr()),
          tensor.stride(0),
          tensor.stride(1),
          tensor.stride(2),
          tensor.stride(3)};
}

Size size_of(const at::Tensor& tensor) { return {tensor.size(0), tensor.size(1), tensor.size(2), tensor.size(3)}; }

// Contiguous, on the tensor's device; empty where it is not wanted.
at::Tensor allocate(const at::Tensor& like, int64_t channels, bool wanted = true) {
  if (!wanted) return at::empty({0}, like.options());
  return at::empty({like.size(0), channels, like.size(2), like.size(3)}, like.options());
}

template <class T>
SeedsProblem<T> seeds_problem(const Options& options, const at::Tensor& seeds, const at::Tensor& weights) {
  SeedsProblem<T> problem{options.radii.count, {}, options.square, {planes<T>(seeds), planes<T>(weights)}};
  std::copy(options.radii.values, options.radii.values + kMaxRadius, problem.radii);
  return problem;
}

void check_launch(cudaError_t error, const char* name) {
  TORCH_CHECK(error == cudaSuccess, "reblur_ops: ", name, " was not launched: ", cudaGetErrorString(error));
}

template <class F>
void dispatch(const at::Tensor& tensor, const char* name, const F& f) {
  const c10::DeviceGuard guard(tensor.device());
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream(tensor.get_device()).stream();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, tensor.scalar_type(), "reblur_ops", [&] {
    check_launch(f(typename DeviceScalar<scalar_t>::type(), stream), name);
  });
}

at::Tensor reblur(const at::Tensor& image,
                  const at::Tensor& seeds,
                  const at::Tensor& weights,
                  at::IntArrayRef radii,
                  c10::string_view support,
                  c10::string_view padding) {
  const Options options = check_reblur(image, "image", seeds, weights, radii, support, padding);
  const at::Tensor output = allocate(image, image.size(1));
  if (output.numel() == 0) return output;
  dispatch(image, "reblur", [&](auto scalar, cudaStream_t stream) {
    using T = decltype(scalar);
    const ForwardArguments<T> arguments{size_of(image), options.padding, planes<T>(image), mutable_planes<T>(output)};
    return launch_reblur_forward<T>(seeds_problem<T>(options, seeds, weights), arguments, stream);
  });
  return output;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> reblur_backward(const at::Tensor& grad_output,
                                                               const std::optional<at::Tensor>& image,
                                                               const at::Tensor& seeds,
                                                               const at::Tensor& weights,
                                                               at::IntArrayRef radii,
                                                               c10::string_view support,
                                                               c10::string_view padding,
                                                               bool need_image,
                                                               bool need_seeds,
                                                               bool need_weights) {
  const bool need_parameters = need_seeds || need_weights;
  const Options options =
      check_reblur_backward(grad_output, image, seeds, weights, radii, support, padding, need_parameters);
  const at::Tensor grad_image = allocate(grad_output, grad_output.size(1), need_image);
  const at::Tensor grad_seeds = allocate(seeds, seeds.size(1), need_seeds);
  const at::Tensor grad_weights = allocate(weights, weights.size(1), need_weights);
  if (grad_output.numel() == 0) {  // an image without channels still has parameters
    grad_seeds.zero_();
    grad_weights.zero_();
    return {grad_image, grad_seeds, grad_weights};
  }
  dispatch(grad_output, "reblur_backward", [&](auto scalar, cudaStream_t stream) {
    using T = decltype(scalar);
    const SeedsProblem<T> problem = seeds_problem<T>(options, seeds, weights);
    const Size size = size_of(grad_output);
    at::Tensor class_weights;
    Accumulation<T>* class_weights_data = nullptr;
    if (need_image) {
      const auto type = std::is_same_v<T, double> ? at::kDouble : at::kFloat;
      class_weights = at::empty({size.batch, options.classes(), size.height, size.width}, seeds.options().dtype(type));
      class_weights_data = static_cast<Accumulation<T>*>(class_weights.mutable_data_ptr());
    }
    if (need_parameters) {
      const ParameterGradientsArguments<T> arguments{size,
                                                     options.padding,
                                                     planes<T>(*image),
                                                     planes<T>(grad_output),
                                                     {mutable_planes<T>(grad_seeds), mutable_planes<T>(grad_weights)},
                                                     class_weights_data};
      const cudaError_t error = launch_reblur_parameter_gradients<T>(problem, arguments, stream);
      if (error != cudaSuccess || !need_image) return error;
    } else if (need_image) {
      const ClassWeightsArguments<Accumulation<T>> arguments{size, mutable_planes<Accumulation<T>>(class_weights)};
      const cudaError_t error = launch_class_weights<T, Accumulation<T>>(problem, arguments, stream);
      if (error != cudaSuccess) return error;
    } else {
      return cudaSuccess;
    }
    const ImageGradientArguments<T> arguments{
        size, options.padding, class_weights_data, planes<T>(grad_output), mutable_planes<T>(grad_image)};
    return launch_reblur_image_gradient<T>(problem, arguments, stream);
  });
  return {grad_image, grad_seeds, grad_weights};
}

at::Tensor class_weights(const at::Tensor& seeds,
                         const at::Tensor& weights,
                         at::IntArrayRef radii,
                         c10::string_view support) {
  const Options options = check_class_weights(seeds, weights, radii, support);
  const at::Tensor output = allocate(seeds, options.classes());
  if (output.numel() == 0) return output;
  dispatch(seeds, "class_weights", [&](auto scalar, cudaStream_t stream) {
    using T = decltype(scalar);
    const ClassWeightsArguments<T> arguments{size_of(seeds), mutable_planes<T>(output)};
    return launch_class_weights<T, T>(seeds_problem<T>(options, seeds, weights), arguments, stream);
  });
  return output;
}

std::tuple<at::Tensor, at::Tensor> class_weights_backward(const at::Tensor& grad_output,
                                                          const at::Tensor& seeds,
                                                          const at::Tensor& weights,
                                                          at::IntArrayRef radii,
                                                          c10::string_view support,
                                                          bool need_seeds,
                                                          bool need_weights) {
  const Options options = check_class_weights(seeds, weights, radii, support);
  check_like(grad_output, "grad_output", seeds, options.classes());
  const at::Tensor grad_seeds = allocate(seeds, seeds.size(1), need_seeds);
  const at::Tensor grad_weights = allocate(weights, weights.size(1), need_weights);
  if (seeds.numel() == 0 || !(need_seeds || need_weights)) return {grad_seeds, grad_weights};
  dispatch(seeds, "class_weights_backward", [&](auto scalar, cudaStream_t stream) {
    using T = decltype(scalar);
    const ClassWeightsGradientsArguments<T> arguments{
        size_of(seeds), planes<T>(grad_output), {mutable_planes<T>(grad_seeds), mutable_planes<T>(grad_weights)}};
    return launch_class_weights_gradients<T>(seeds_problem<T>(options, seeds, weights), arguments, stream);
  });
  return {grad_seeds, grad_weights};
}

}  // namespace
}  // namespace cuda
}  // namespace reblur

TORCH_LIBRARY_IMPL(reblur_ops, CUDA, m) {
  m.impl("reblur", reblur::cuda::reblur);
  m.impl("reblur_backward", reblur::cuda::reblur_backward);
  m.impl("class_weights", reblur::cuda::class_weights);
  m.impl("class_weights_backward", reblur::cuda::class_weights_backward);
}
