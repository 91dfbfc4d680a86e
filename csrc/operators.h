// The operators as the schemas in reblur_ops/library.py have them, once for every device: checks, memory for the
// results, and which of the device's kernels answer.
//
// A Device offers, as static functions,
//   compute_type(type)           in which its kernels write results for tensors of a type;
//   readable(tensor)             the tensor as its kernels can read it;
//   advise(tensor)               tells the system what the fresh memory of a result is for;
//   with_launcher(blur, image, f) calls f with a launcher for the types of image and parameters.
// A launcher, whose tensors are readable or results:
//   gather(image, output), scatter(image, output)
//   parameter_gradients(image, grad, results)           of a gather from `image`, whose output has the gradient `grad`
//   gather_gradients(image, grad, grad_image, results)  the same with the gradient to the image
//   class_weights(output), class_weights_gradients(grad, results)
#pragma once

#include <torch/csrc/stable/library.h>

#include "checks.h"

namespace reblur {

enum class Direction { kGather, kScatter };

template <class Device>
class Operators {
 public:
  template <Direction direction>
  static Tensor blur(const Tensor& image,
                     const Tensor& parameters,
                     const std::optional<Tensor>& weights,
                     std::string_view family,
                     const Radii& radii,
                     std::string_view support,
                     std::string_view normalize,
                     std::string_view padding) {
    const Blur blur = check_blur(parameters, weights, check_kernel(family, radii, support, normalize), padding);
    check_image(image, "image", blur);
    const Tensor output = allocate(image, image.size(1));
    with_launcher(blur, image, [&](const auto& launcher) {
      if constexpr (direction == Direction::kGather)
        launcher.gather(Device::readable(image), output);
      else
        launcher.scatter(Device::readable(image), output);
    });
    return to_type(output, image.scalar_type());
  }

  template <Direction direction>
  static Gradients blur_backward(const Tensor& grad_output,
                                 const std::optional<Tensor>& image,
                                 const Tensor& parameters,
                                 const std::optional<Tensor>& weights,
                                 std::string_view family,
                                 const Radii& radii,
                                 std::string_view support,
                                 std::string_view normalize,
                                 std::string_view padding,
                                 bool need_image,
                                 bool need_parameters,
                                 bool need_weights) {
    const Blur blur = check_blur(parameters, weights, check_kernel(family, radii, support, normalize), padding);
    const Needed needed{need_image, need_parameters, need_weights};
    check_backward(blur, grad_output, image, needed);
    const Tensor grad_image = allocate(grad_output, grad_output.size(1), needed.image);
    const ParameterGradients results = allocate_gradients(blur, needed);
    if (grad_output.numel() == 0) set_to_zero(results);  // an image without channels still has parameters
    with_launcher(blur, grad_output, [&](const auto& launcher) {
      if constexpr (direction == Direction::kGather)
        gather_backward(launcher, grad_output, image, needed, grad_image, results);
      else
        scatter_backward(launcher, grad_output, image, needed, grad_image, results);
    });
    auto [grad_parameters, grad_weights] = in_type_of(blur, results);
    return {to_type(grad_image, grad_output.scalar_type()), grad_parameters, grad_weights};
  }

  static Tensor class_weights(const Tensor& parameters,
                              const std::optional<Tensor>& weights,
                              std::string_view family,
                              const Radii& radii,
                              std::string_view support,
                              std::string_view normalize) {
    const Blur blur = check_class_weights(parameters, weights, check_kernel(family, radii, support, normalize));
    const Tensor output = allocate(parameters, class_count(blur.kernel.radius()));
    with_launcher(blur, parameters, [&](const auto& launcher) { launcher.class_weights(output); });
    return to_type(output, parameters.scalar_type());
  }

  static ParameterGradients class_weights_backward(const Tensor& grad_output,
                                                   const Tensor& parameters,
                                                   const std::optional<Tensor>& weights,
                                                   std::string_view family,
                                                   const Radii& radii,
                                                   std::string_view support,
                                                   std::string_view normalize,
                                                   bool need_parameters,
                                                   bool need_weights) {
    const Blur blur = check_class_weights(parameters, weights, check_kernel(family, radii, support, normalize));
    check_like(grad_output, "grad_output", parameters, "parameters", class_count(blur.kernel.radius()));
    const Needed needed{false, need_parameters, need_weights};
    require(blur.weights || !needed.weights, "family has no weights that could have a gradient");
    const ParameterGradients results = allocate_gradients(blur, needed);
    if (needed.any_parameters()) {
      with_launcher(blur, parameters, [&](const auto& launcher) {
        launcher.class_weights_gradients(Device::readable(grad_output), results);
      });
    }
    return in_type_of(blur, results);
  }

  static void register_in(torch::stable::detail::StableLibrary& library) {
    library.impl("gather", TORCH_BOX(&Operators::blur<Direction::kGather>));
    library.impl("scatter", TORCH_BOX(&Operators::blur<Direction::kScatter>));
    library.impl("gather_backward", TORCH_BOX(&Operators::blur_backward<Direction::kGather>));
    library.impl("scatter_backward", TORCH_BOX(&Operators::blur_backward<Direction::kScatter>));
    library.impl("class_weights", TORCH_BOX(&Operators::class_weights));
    library.impl("class_weights_backward", TORCH_BOX(&Operators::class_weights_backward));
  }

 private:
  // The gradient to the image of a gather is the scatter of the output's.
  template <class Launcher>
  static void gather_backward(const Launcher& launcher,
                              const Tensor& grad_output,
                              const std::optional<Tensor>& image,
                              const Needed& needed,
                              const Tensor& grad_image,
                              const ParameterGradients& results) {
    const Tensor grad = Device::readable(grad_output);
    if (needed.image && needed.any_parameters())
      launcher.gather_gradients(Device::readable(*image), grad, grad_image, results);
    else if (needed.image)
      launcher.scatter(grad, grad_image);
    else if (needed.any_parameters())
      launcher.parameter_gradients(Device::readable(*image), grad, results);
  }

  // ⟨g, Aᵀx⟩ = ⟨A g, x⟩: to the parameters, the scatter of x with gradient g is the gather of g with gradient x.
  template <class Launcher>
  static void scatter_backward(const Launcher& launcher,
                               const Tensor& grad_output,
                               const std::optional<Tensor>& image,
                               const Needed& needed,
                               const Tensor& grad_image,
                               const ParameterGradients& results) {
    const Tensor grad = Device::readable(grad_output);
    if (needed.image) launcher.gather(grad, grad_image);
    if (needed.any_parameters()) launcher.parameter_gradients(grad, Device::readable(*image), results);
  }

  // Calls f with the device's launcher, if there is an element.
  template <class F>
  static void with_launcher(const Blur& blur, const Tensor& image, const F& f) {
    if (image.numel() > 0) Device::with_launcher(blur, image, f);
  }

  // [N, channels, H, W] in the type of computation; without elements where it is not wanted.
  static Tensor allocate(const Tensor& like, int64_t channels, bool wanted = true) {
    const ScalarType type = Device::compute_type(like.scalar_type());
    if (!wanted) return empty(like, {0}, type);
    const Tensor result = empty(like, {like.size(0), channels, like.size(2), like.size(3)}, type);
    Device::advise(result);
    return result;
  }

  static ParameterGradients allocate_gradients(const Blur& blur, const Needed& needed) {
    const Tensor& weights = blur.weights ? *blur.weights : blur.parameters;
    return {allocate(blur.parameters, blur.parameters.size(1), needed.parameters),
            allocate(weights, weights.size(1), needed.weights)};
  }

  static void set_to_zero(ParameterGradients results) {
    torch::stable::zero_(std::get<0>(results));
    torch::stable::zero_(std::get<1>(results));
  }

  static ParameterGradients in_type_of(const Blur& blur, const ParameterGradients& results) {
    const ScalarType type = blur.parameters.scalar_type();
    return {to_type(std::get<0>(results), type), to_type(std::get<1>(results), type)};
  }
};

}  // namespace reblur
