// The operators on CUDA: memory from the caching allocator, the current stream. The kernels are in the .cu files.
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/kernels.h"
#include "operators.h"

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
  if (!tensor.defined()) return {};
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

void check_launch(cudaError_t error, const char* name) {
  TORCH_CHECK(error == cudaSuccess, "reblur_ops: ", name, " was not launched: ", cudaGetErrorString(error));
}

// The launchers for one type, on the current stream of the tensors' device, with the memory that they need.
template <class T>
class Launches {
 public:
  Launches(const Blur& blur, const Size& size, cudaStream_t stream)
      : blur_(blur),
        size_(size),
        stream_(stream),
        problem_{blur.kernel, {planes<T>(blur.parameters), planes<T>(blur.weights)}} {}

  void gather(const at::Tensor& image, const at::Tensor& output) const {
    const GatherArguments<T> arguments{size_, blur_.padding, planes<T>(image), mutable_planes<T>(output)};
    check_launch(launch_gather(problem_, arguments, stream_), "gather");
  }

  void parameter_gradients(const at::Tensor& image,
                           const at::Tensor& grad,
                           const ParameterGradients& results,
                           Accumulation<T>* states = nullptr) const {
    if (std::get<0>(results).numel() == 0 && std::get<1>(results).numel() == 0) return;
    const auto& [parameters, weights] = results;
    const ParameterGradientsArguments<T> arguments{size_,
                                                   blur_.padding,
                                                   planes<T>(image),
                                                   planes<T>(grad),
                                                   {mutable_planes<T>(parameters), mutable_planes<T>(weights)},
                                                   states};
    check_launch(launch_parameter_gradients(problem_, arguments, stream_), "parameter gradients");
  }

  // Scatters `image`; where `results` are given, also the gradients to the parameters of a gather from `gather_image`
  // whose output has the gradient `image`. Those of families with class weights leave the states as they pass.
  void scatter(const at::Tensor& image,
               const at::Tensor& output,
               const at::Tensor& gather_image = {},
               const ParameterGradients* results = nullptr) const {
    const auto type = std::is_same_v<T, double> ? at::kDouble : at::kFloat;
    const auto options = image.options().dtype(type);
    const bool analytic = blur_.kernel.is_analytic();
    const at::Tensor planes_of_states =
        at::empty({size_.batch, state_planes(blur_.kernel), size_.height, size_.width}, options);
    const int64_t tiles = analytic ? reach_tiles(size_) : 0;
    TORCH_CHECK(tiles >= 0, "reblur_ops: scatter was not launched: the image is too large for a grid");
    const at::Tensor reach = at::empty({tiles}, image.options().dtype(at::kInt));
    const States<T> states{data(planes_of_states), analytic ? reach.mutable_data_ptr<int>() : nullptr};
    if (results) parameter_gradients(gather_image, image, *results, analytic ? nullptr : states.planes);
    if (!results || analytic) check_launch(launch_states<T>(problem_, {size_, states}, stream_), "states");
    at::Tensor canvas;
    const int64_t border = 2 * blur_.kernel.radius();
    if (analytic && blur_.padding != Padding::kZeros)
      canvas = at::empty({size_.batch, size_.channels, size_.height + border, size_.width + border}, options);
    const ScatterArguments<T> arguments{size_,
                                        blur_.padding,
                                        states,
                                        planes<T>(image),
                                        mutable_planes<T>(output),
                                        canvas.defined() ? data(canvas) : nullptr};
    check_launch(launch_scatter(problem_, arguments, stream_), "scatter");
  }

  void class_weights(const at::Tensor& output) const {
    const ClassWeightsArguments<T> arguments{size_, mutable_planes<T>(output)};
    check_launch(launch_class_weights(problem_, arguments, stream_), "class weights");
  }

  void class_weights_gradients(const at::Tensor& grad, const ParameterGradients& results) const {
    const auto& [parameters, weights] = results;
    const ClassWeightsGradientsArguments<T> arguments{
        size_, planes<T>(grad), {mutable_planes<T>(parameters), mutable_planes<T>(weights)}};
    check_launch(launch_class_weights_gradients(problem_, arguments, stream_), "class weights gradients");
  }

 private:
  static Accumulation<T>* data(const at::Tensor& tensor) {
    return static_cast<Accumulation<T>*>(tensor.mutable_data_ptr());
  }

  const Blur& blur_;
  Size size_;
  cudaStream_t stream_;
  Problem<T> problem_;
};

// Calls f with the launches for the parameters' type, if there is a pixel.
template <class F>
void with_launches(const Blur& blur, const Size& size, const F& f) {
  if (size.batch == 0 || size.height == 0 || size.width == 0) return;
  const c10::DeviceGuard guard(blur.parameters.device());
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream(blur.parameters.get_device()).stream();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, blur.parameters.scalar_type(), "reblur_ops", [&] {
    f(Launches<typename DeviceScalar<scalar_t>::type>(blur, size, stream));
  });
}

// To be written or, of an image without channels, zero.
ParameterGradients allocate_gradients(const Blur& blur, const Needed& needed) {
  return {allocate(blur.parameters, blur.parameters.size(1), needed.parameters),
          needed.weights ? allocate(blur.weights, blur.weights.size(1)) : allocate(blur.parameters, 0, false)};
}

struct CudaEngine {
  static at::Tensor gather(const Blur& blur, const at::Tensor& image) {
    const at::Tensor output = allocate(image, image.size(1));
    if (output.numel() > 0)
      with_launches(blur, size_of(image), [&](const auto& launches) { launches.gather(image, output); });
    return output;
  }

  static at::Tensor scatter(const Blur& blur, const at::Tensor& image) {
    const at::Tensor output = allocate(image, image.size(1));
    if (output.numel() > 0)
      with_launches(blur, size_of(image), [&](const auto& launches) { launches.scatter(image, output); });
    return output;
  }

  static Gradients gather_backward(const Blur& blur,
                                   const at::Tensor& grad_output,
                                   const at::Tensor& image,
                                   const Needed& needed) {
    return backward(blur, grad_output, needed, [&](const auto& launches, const auto& grad_image, const auto& results) {
      if (!needed.image)
        launches.parameter_gradients(image, grad_output, results);
      else
        launches.scatter(grad_output, grad_image, image, needed.any_parameters() ? &results : nullptr);
    });
  }

  // ⟨g, Aᵀx⟩ = ⟨A g, x⟩: to the parameters, the scatter of x with gradient g is the gather of g with gradient x.
  static Gradients scatter_backward(const Blur& blur,
                                    const at::Tensor& grad_output,
                                    const at::Tensor& image,
                                    const Needed& needed) {
    return backward(blur, grad_output, needed, [&](const auto& launches, const auto& grad_image, const auto& results) {
      if (needed.image) launches.gather(grad_output, grad_image);
      launches.parameter_gradients(grad_output, image, results);
    });
  }

  static at::Tensor class_weights(const Blur& blur) {
    const at::Tensor output = allocate(blur.parameters, class_count(blur.kernel.radius()));
    with_launches(blur, size_of(blur.parameters), [&](const auto& launches) { launches.class_weights(output); });
    return output;
  }

  static ParameterGradients class_weights_backward(const Blur& blur,
                                                   const at::Tensor& grad_output,
                                                   const Needed& needed) {
    const ParameterGradients results = allocate_gradients(blur, needed);
    if (needed.any_parameters())
      with_launches(blur, size_of(blur.parameters), [&](const auto& launches) {
        launches.class_weights_gradients(grad_output, results);
      });
    return results;
  }

 private:
  template <class F>
  static Gradients backward(const Blur& blur, const at::Tensor& grad_output, const Needed& needed, const F& f) {
    const at::Tensor grad_image = allocate(grad_output, grad_output.size(1), needed.image);
    const ParameterGradients results = allocate_gradients(blur, needed);
    const auto& [grad_parameters, grad_weights] = results;
    if (grad_output.numel() > 0) {
      with_launches(blur, size_of(grad_output), [&](const auto& launches) { f(launches, grad_image, results); });
    } else {  // an image without channels still has parameters
      grad_parameters.zero_();
      grad_weights.zero_();
    }
    return {grad_image, grad_parameters, grad_weights};
  }
};

}  // namespace
}  // namespace cuda
}  // namespace reblur

TORCH_LIBRARY_IMPL(reblur_ops, CUDA, m) { reblur::Operators<reblur::cuda::CudaEngine>::register_in(m); }
