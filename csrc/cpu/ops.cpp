// The operators on the CPU: memory and threads. The kernels are in cpu/engine.h.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/empty.h>

#include <cmath>

#include "cpu/kernels.h"
#include "operators.h"

namespace reblur {
namespace cpu {
namespace {

// float16 and bfloat16 are computed in float32.
at::ScalarType compute_type(const at::Tensor& tensor) {
  return at::isReducedFloatingType(tensor.scalar_type()) ? at::kFloat : tensor.scalar_type();
}

// In the type of computation and with neighbours in x next to each other; other strides are free. No copy where that
// holds.
at::Tensor readable(const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  at::Tensor converted = tensor.to(compute_type(tensor));
  return converted.size(3) > 1 && converted.stride(3) != 1 ? converted.contiguous() : converted;
}

template <class T>
Planes<const T> planes(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  return {tensor.const_data_ptr<T>(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

template <class T>
Planes<T> mutable_planes(const at::Tensor& tensor) {
  if (tensor.numel() == 0) return {};
  return {tensor.mutable_data_ptr<T>(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

// A result in the type of computation; empty where it is not wanted.
at::Tensor allocate(const at::Tensor& like, int64_t channels, bool wanted = true) {
  const auto options = like.options().dtype(compute_type(like));
  if (!wanted) return at::empty({0}, options);
  return at::empty({like.size(0), channels, like.size(2), like.size(3)}, options);
}

// The gradients to the parameters, to be written or, of an image without channels, zero.
struct ParameterResults {
  at::Tensor parameters, weights;

  ParameterResults(const Blur& blur, const Needed& needed)
      : parameters(allocate(blur.parameters, blur.parameters.size(1), needed.parameters)),
        weights(needed.weights ? allocate(blur.weights, blur.weights.size(1)) : allocate(blur.parameters, 0, false)) {}

  void zero() {
    parameters.zero_();
    weights.zero_();
  }

  // As the caller's tensors are.
  ParameterGradients in_type_of(const Blur& blur) const {
    const auto type = blur.parameters.scalar_type();
    return {parameters.to(type), weights.to(type)};
  }
};

Size size_of(const at::Tensor& tensor) { return {tensor.size(0), tensor.size(1), tensor.size(2), tensor.size(3)}; }

// The engine for this processor. ATEN_CPU_CAPABILITY overrides it, as it does for Torch's own kernels.
template <class T>
const Kernels<T>& select() {
#if defined(REBLUR_X86)
  static const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return kernels_avx512(T());
  if (capability == "AVX2") return kernels_avx2(T());
#endif
  return kernels_default(T());
}

// The kernel with no larger a radius than the disks of this call have: what a scatter does for each pixel besides its
// taps grows with the radius. Here a look at the parameters costs next to nothing.
KernelOptions within_parameters(KernelOptions kernel, const at::Tensor& parameters) {
  if (kernel.family != FamilyName::kDisk) return kernel;
  const double largest = parameters.abs().amax().item<double>();
  if (largest < kernel.radius()) kernel.radii[0] = std::max(1, static_cast<int>(std::ceil(largest)));  // not if NaN
  return kernel;
}

template <class F>
void parallel(int64_t tiles, const F& f) {
  at::parallel_for(0, tiles, 1, f);
}

// Rows between two barriers of a scatter: enough tiles to keep every thread busy.
int64_t slab_height(int64_t tiles_per_row) {
  constexpr int64_t kRows = 8, kTilesPerThread = 8;
  return std::max(kRows, kTilesPerThread * at::get_num_threads() / tiles_per_row);
}

// An operator's tensors as the kernels take them, and the engine's kernels over all threads.
template <class T>
class Engine {
 public:
  Engine(const Blur& blur, const Size& size)
      : size_(size),
        padding_(blur.padding),
        parameters_(readable(blur.parameters)),
        weights_(readable(blur.weights)),
        problem_{within_parameters(blur.kernel, parameters_), {planes<T>(parameters_), planes<T>(weights_)}},
        kernels_(select<T>()) {}

  void gather(const at::Tensor& image, const at::Tensor& output) const {
    const GatherArguments<T> arguments{size_, rows(), padding_, planes<T>(image), mutable_planes<T>(output)};
    parallel(kernels_.tiles(size_, arguments.rows),
             [&](int64_t begin, int64_t end) { kernels_.gather(problem_, arguments, begin, end); });
  }

  void parameter_gradients(const at::Tensor& image, const at::Tensor& grad, const ParameterResults& results) const {
    parameter_gradients(gradient_arguments(image, grad, results));
  }

  // Scatters `image`; where `gather_image` is given, also the gradients to the parameters of a gather from it whose
  // output has the gradient `image`.
  //
  // States first, then the scatter that reads them, a slab of rows at a time: memory for a few rows, still in cache
  // when it is read, in place of a whole image's. Small images share a slab.
  void scatter(const at::Tensor& image,
               const at::Tensor& output,
               const at::Tensor& gather_image = {},
               const ParameterResults* results = nullptr) const {
    const int64_t reach = problem_.kernel.radius();
    const int64_t slab = slab_height(kernels_.tiles(size_, {0, 1, 0, 1}));
    const bool whole = size_.height <= slab + 2 * reach;
    const int64_t images = whole ? std::min(size_.batch, std::max<int64_t>(1, slab / size_.height)) : 1;
    const int64_t height = whole ? size_.height : slab, kept = whole ? size_.height : slab + 2 * reach;
    const int64_t blocks = (size_.width + kernels_.lanes - 1) / kernels_.lanes;
    const at::Tensor memory =
        at::empty({images, kept, blocks, kernels_.state_size(problem_), kernels_.lanes}, parameters_.options());
    BlockedStates<T> states{memory.mutable_data_ptr<T>(), 0, kept};
    ParameterGradientsArguments<T> gradients{};
    if (results) gradients = gradient_arguments(gather_image, image, *results);
    ScatterArguments<T> arguments{size_, {}, padding_, {}, planes<T>(image), mutable_planes<T>(output)};
    for (int64_t n = 0; n < size_.batch; n += images) {
      const int64_t last = std::min(size_.batch, n + images);
      states.first_image = n;
      for (int64_t y = 0, computed = 0; y < size_.height; y += height) {
        const int64_t end = std::min(size_.height, y + height), within_reach = std::min(size_.height, end + reach);
        const Rows needed{n, last, computed, within_reach};
        if (results) {
          gradients.rows = needed;
          gradients.states = states;
          parameter_gradients(gradients);
        } else {
          const StatesArguments<T> of_rows{size_, needed, states};
          parallel(kernels_.tiles(size_, needed),
                   [&](int64_t begin, int64_t end) { kernels_.states(problem_, of_rows, begin, end); });
        }
        computed = within_reach;
        arguments.rows = {n, last, y, end};
        arguments.states = {states.data, n, kept};
        parallel(kernels_.scatter_tiles(size_, arguments.rows),
                 [&](int64_t begin, int64_t end) { kernels_.scatter(problem_, arguments, begin, end); });
      }
    }
  }

  void class_weights(const at::Tensor& output) const {
    const ClassWeightsArguments<T> arguments{size_, rows(), mutable_planes<T>(output)};
    parallel(kernels_.tiles(size_, arguments.rows),
             [&](int64_t begin, int64_t end) { kernels_.class_weights(problem_, arguments, begin, end); });
  }

  void class_weights_gradients(const at::Tensor& grad, const ParameterResults& results) const {
    const ClassWeightsGradientsArguments<T> arguments{
        size_, rows(), planes<T>(grad), {mutable_planes<T>(results.parameters), mutable_planes<T>(results.weights)}};
    parallel(kernels_.tiles(size_, arguments.rows),
             [&](int64_t begin, int64_t end) { kernels_.class_weights_gradients(problem_, arguments, begin, end); });
  }

 private:
  Rows rows() const { return {0, size_.batch, 0, size_.height}; }

  ParameterGradientsArguments<T> gradient_arguments(const at::Tensor& image,
                                                    const at::Tensor& grad,
                                                    const ParameterResults& results) const {
    return {size_,
            rows(),
            padding_,
            planes<T>(image),
            planes<T>(grad),
            {mutable_planes<T>(results.parameters), mutable_planes<T>(results.weights)},
            {}};
  }

  void parameter_gradients(const ParameterGradientsArguments<T>& arguments) const {
    parallel(kernels_.tiles(size_, arguments.rows),
             [&](int64_t begin, int64_t end) { kernels_.parameter_gradients(problem_, arguments, begin, end); });
  }

  Size size_;
  Padding padding_;
  at::Tensor parameters_, weights_;
  Problem<T> problem_;
  const Kernels<T>& kernels_;
};

// Calls f with the engine for the type of computation, if there is a pixel.
template <class F>
void with_engine(const Blur& blur, const Size& size, const F& f) {
  if (size.batch == 0 || size.height == 0 || size.width == 0) return;
  AT_DISPATCH_FLOATING_TYPES(compute_type(blur.parameters), "reblur_ops", [&] { f(Engine<scalar_t>(blur, size)); });
}

struct CpuEngine {
  static at::Tensor gather(const Blur& blur, const at::Tensor& image) {
    const at::Tensor output = allocate(image, image.size(1));
    if (output.numel() > 0)
      with_engine(blur, size_of(image), [&](const auto& engine) { engine.gather(readable(image), output); });
    return output.to(image.scalar_type());
  }

  static at::Tensor scatter(const Blur& blur, const at::Tensor& image) {
    const at::Tensor output = allocate(image, image.size(1));
    if (output.numel() > 0)
      with_engine(blur, size_of(image), [&](const auto& engine) { engine.scatter(readable(image), output); });
    return output.to(image.scalar_type());
  }

  static Gradients gather_backward(const Blur& blur,
                                   const at::Tensor& grad_output,
                                   const at::Tensor& image,
                                   const Needed& needed) {
    return backward(blur, grad_output, needed, [&](const auto& engine, auto& grad_image, auto& results) {
      const at::Tensor g = readable(grad_output), x = readable(image);
      if (!needed.image)
        engine.parameter_gradients(x, g, results);
      else
        engine.scatter(g, grad_image, x, needed.any_parameters() ? &results : nullptr);
    });
  }

  // ⟨g, Aᵀx⟩ = ⟨A g, x⟩: to the parameters, the scatter of x with gradient g is the gather of g with gradient x.
  static Gradients scatter_backward(const Blur& blur,
                                    const at::Tensor& grad_output,
                                    const at::Tensor& image,
                                    const Needed& needed) {
    return backward(blur, grad_output, needed, [&](const auto& engine, auto& grad_image, auto& results) {
      const at::Tensor g = readable(grad_output);
      if (needed.image) engine.gather(g, grad_image);
      if (needed.any_parameters()) engine.parameter_gradients(g, readable(image), results);
    });
  }

  static at::Tensor class_weights(const Blur& blur) {
    const at::Tensor output = allocate(blur.parameters, class_count(blur.kernel.radius()));
    with_engine(blur, size_of(blur.parameters), [&](const auto& engine) { engine.class_weights(output); });
    return output.to(blur.parameters.scalar_type());
  }

  static ParameterGradients class_weights_backward(const Blur& blur,
                                                   const at::Tensor& grad_output,
                                                   const Needed& needed) {
    const ParameterResults results(blur, needed);
    with_engine(blur, size_of(blur.parameters), [&](const auto& engine) {
      engine.class_weights_gradients(readable(grad_output), results);
    });
    return results.in_type_of(blur);
  }

 private:
  template <class F>
  static Gradients backward(const Blur& blur, const at::Tensor& grad_output, const Needed& needed, const F& f) {
    const at::Tensor grad_image = allocate(grad_output, grad_output.size(1), needed.image);
    ParameterResults results(blur, needed);
    if (grad_output.numel() > 0)
      with_engine(blur, size_of(grad_output), [&](const auto& engine) { f(engine, grad_image, results); });
    else
      results.zero();  // an image without channels still has parameters
    auto [parameters, weights] = results.in_type_of(blur);
    return {grad_image.to(grad_output.scalar_type()), parameters, weights};
  }
};

}  // namespace

std::string capability() { return select<float>().capability; }

}  // namespace cpu
}  // namespace reblur

TORCH_LIBRARY_IMPL(reblur_ops, CPU, m) { reblur::Operators<reblur::cpu::CpuEngine>::register_in(m); }
