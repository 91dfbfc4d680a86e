// The operators on CUDA: memory from the caching allocator, the current stream. The kernels are in the .cu files.
#define USE_CUDA  // Torch's stable headers declare the current stream with it
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <torch/csrc/stable/accelerator.h>

#include <stdexcept>
#include <string>

#include "cuda/kernels.h"
#include "cuda/slabs.h"
#include "operators.h"

namespace reblur {
namespace cuda {
namespace {

template <class T>
StridedPlanes<const T> planes(const Tensor& tensor) {
  return {static_cast<const T*>(tensor.const_data_ptr()),
          tensor.stride(0),
          tensor.stride(1),
          tensor.stride(2),
          tensor.stride(3)};
}

template <class T>
StridedPlanes<T> mutable_planes(const Tensor& tensor) {
  if (tensor.numel() == 0) return {};
  return {static_cast<T*>(tensor.mutable_data_ptr()),
          tensor.stride(0),
          tensor.stride(1),
          tensor.stride(2),
          tensor.stride(3)};
}

void check_launch(cudaError_t error, const char* name) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // clears it: the next launch that is checked is not to blame
  throw std::runtime_error(std::string("reblur_ops: ") + name + " was not launched: " + cudaGetErrorString(error));
}

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// The kernels for the types of images and parameters on tensors, on the current stream of their device, with the memory
// that they need.
template <class T, class P>
class Launcher {
 public:
  Launcher(const Blur& blur, const Size& size)
      : blur_(blur),
        size_(size),
        stream_(current_stream(blur.parameters)),
        problem_{blur.kernel,
                 {planes<P>(blur.parameters), blur.weights ? planes<P>(*blur.weights) : StridedPlanes<const P>{}}} {}

  void gather(const Tensor& image, const Tensor& output) const {
    const GatherArguments<T> arguments{size_, blur_.padding, planes<T>(image), mutable_planes<T>(output)};
    check_launch(launch_gather(problem_, arguments, stream_), "gather");
  }

  void parameter_gradients(const Tensor& image, const Tensor& grad, const ParameterGradients& results) const {
    check_launch(launch_parameter_gradients(problem_, gradient_arguments(image, grad, results), stream_),
                 "parameter gradients");
  }

  void scatter(const Tensor& image, const Tensor& output) const {
    const ScatterMemory memory(*this);
    check_launch(launch_states_and_scatter(problem_, scatter_arguments(image, output, memory), stream_), "scatter");
  }

  void gather_gradients(const Tensor& image,
                        const Tensor& grad,
                        const Tensor& grad_image,
                        const ParameterGradients& results) const {
    const ScatterMemory memory(*this);
    check_launch(
        launch_gather_gradients(
            problem_, gradient_arguments(image, grad, results), scatter_arguments(grad, grad_image, memory), stream_),
        "gather gradients");
  }

  void class_weights(const Tensor& output) const {
    const ClassWeightsArguments<P> arguments{size_, mutable_planes<P>(output)};
    check_launch(launch_class_weights(problem_, arguments, stream_), "class weights");
  }

  void class_weights_gradients(const Tensor& grad, const ParameterGradients& results) const {
    const auto& [parameters, weights] = results;
    const ClassWeightsGradientsArguments<P> arguments{
        size_, planes<P>(grad), {mutable_planes<P>(parameters), mutable_planes<P>(weights)}};
    check_launch(launch_class_weights_gradients(problem_, arguments, stream_), "class weights gradients");
  }

 private:
  static constexpr ScalarType kAccumulation = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;

  static Accumulation<T>* data(const Tensor& tensor) {
    return static_cast<Accumulation<T>*>(tensor.mutable_data_ptr());
  }

  // What a scatter needs between its kernels: the states; of families without class weights how far tiles reach, and,
  // unless the padding is zeros, a canvas with a border, which is then folded.
  struct ScatterMemory {
    StatesLayout layout;
    Tensor values, reach, canvas;

    explicit ScatterMemory(const Launcher& launcher)
        : layout(launcher.blur_.kernel, launcher.size_, sizeof(Accumulation<T>), kStatesBytes),
          values(launcher.workspace(layout.elements(), kAccumulation)),
          reach(launcher.workspace(launcher.reach_count(), ScalarType::Int)),
          canvas(launcher.workspace(launcher.canvas_count(), kAccumulation)) {}

    States<Accumulation<T>> states() const {
      return {layout, data(values), reach.numel() == 0 ? nullptr : static_cast<int*>(reach.mutable_data_ptr())};
    }
  };

  Tensor workspace(int64_t elements, ScalarType type) const { return empty(blur_.parameters, {elements}, type); }

  int64_t reach_count() const {
    const int64_t tiles = has_class_weights(blur_.kernel) ? 0 : reach_tiles(size_);
    if (tiles < 0) throw std::runtime_error("reblur_ops: scatter was not launched: the image is too large for a grid");
    return tiles;
  }

  int64_t canvas_count() const {
    if (has_class_weights(blur_.kernel) || blur_.padding == Padding::kZeros) return 0;
    const int64_t border = 2 * blur_.kernel.radius();
    return size_.batch * size_.channels * (size_.height + border) * (size_.width + border);
  }

  ParameterGradientsArguments<T, P> gradient_arguments(const Tensor& image,
                                                       const Tensor& grad,
                                                       const ParameterGradients& results) const {
    const auto& [parameters, weights] = results;
    return {size_,
            all_rows(size_),
            blur_.padding,
            planes<T>(image),
            planes<T>(grad),
            {mutable_planes<P>(parameters), mutable_planes<P>(weights)},
            {}};
  }

  ScatterArguments<T> scatter_arguments(const Tensor& image, const Tensor& output, const ScatterMemory& memory) const {
    Accumulation<T>* const canvas = memory.canvas.numel() == 0 ? nullptr : data(memory.canvas);
    return {
        size_, all_rows(size_), blur_.padding, memory.states(), planes<T>(image), mutable_planes<T>(output), canvas};
  }

  const Blur& blur_;
  Size size_;
  cudaStream_t stream_;
  Problem<P> problem_;
};

// Kernels read and write every type with any strides.
struct Device {
  static ScalarType compute_type(ScalarType type) { return type; }
  static const Tensor& readable(const Tensor& tensor) { return tensor; }
  static void advise(const Tensor&) {}

  template <class F>
  static void with_launcher(const Blur& blur, const Tensor& image, const F& f) {
    const torch::stable::accelerator::DeviceGuard guard(blur.parameters.get_device_index());
    const ScalarType type = image.scalar_type(), parameters = blur.parameters.scalar_type();
    const Size size = size_of(image);
    if (type == ScalarType::Double) return f(Launcher<double, double>(blur, size));
    if (type == ScalarType::Half) return f(Launcher<__half, __half>(blur, size));
    if (type == ScalarType::BFloat16) return f(Launcher<__nv_bfloat16, __nv_bfloat16>(blur, size));
    if (parameters == ScalarType::Half) return f(Launcher<float, __half>(blur, size));
    if (parameters == ScalarType::BFloat16) return f(Launcher<float, __nv_bfloat16>(blur, size));
    return f(Launcher<float, float>(blur, size));
  }
};

}  // namespace
}  // namespace cuda
}  // namespace reblur

STABLE_TORCH_LIBRARY_IMPL(reblur_ops, CUDA, library) { reblur::Operators<reblur::cuda::Device>::register_in(library); }
