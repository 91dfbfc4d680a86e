// The operators as the schemas in reblur_ops/library.py have them: checks, then a device's engine. Registers them.
//
// An engine offers, as static functions on checked arguments, gather, scatter, gather_backward, scatter_backward,
// class_weights and class_weights_backward: memory, threads or streams, and the kernels.
#pragma once

#include <torch/library.h>

#include <optional>
#include <tuple>

#include "checks.h"

namespace reblur {

// Every pixel's kernel, and what lies beyond the image.
struct Blur {
  KernelOptions kernel;
  Padding padding;  // kZeros where there is no image
  at::Tensor parameters;
  at::Tensor weights;  // of seeds; otherwise undefined
};

// Which gradients are needed. Those that are not come as tensors without elements.
struct Needed {
  bool image, parameters, weights;

  bool any_parameters() const { return parameters || weights; }
};

using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;  // to image, parameters, weights
using ParameterGradients = std::tuple<at::Tensor, at::Tensor>;     // to parameters, weights

template <class Engine>
struct Operators {
  // gather or scatter, whichever the engine's function is.
  template <at::Tensor (*kRun)(const Blur&, const at::Tensor&)>
  static at::Tensor blur(const at::Tensor& image,
                         const at::Tensor& parameters,
                         const std::optional<at::Tensor>& weights,
                         c10::string_view family,
                         at::IntArrayRef radii,
                         c10::string_view support,
                         c10::string_view normalize,
                         c10::string_view padding) {
    const Blur blur = check(parameters, weights, check_kernel(family, radii, support, normalize), padding);
    check_image(image, "image", parameters, blur.kernel, blur.padding);
    return kRun(blur, image);
  }

  template <Gradients (*kRun)(const Blur&, const at::Tensor&, const at::Tensor&, const Needed&)>
  static Gradients blur_backward(const at::Tensor& grad_output,
                                 const std::optional<at::Tensor>& image,
                                 const at::Tensor& parameters,
                                 const std::optional<at::Tensor>& weights,
                                 c10::string_view family,
                                 at::IntArrayRef radii,
                                 c10::string_view support,
                                 c10::string_view normalize,
                                 c10::string_view padding,
                                 bool need_image,
                                 bool need_parameters,
                                 bool need_weights) {
    const Blur blur = check(parameters, weights, check_kernel(family, radii, support, normalize), padding);
    const Needed needed{need_image, need_parameters, need_weights};
    check_backward(blur, grad_output, image, needed);
    return kRun(blur, grad_output, image.value_or(grad_output), needed);
  }

  static at::Tensor class_weights(const at::Tensor& parameters,
                                  const std::optional<at::Tensor>& weights,
                                  c10::string_view family,
                                  at::IntArrayRef radii,
                                  c10::string_view support,
                                  c10::string_view normalize) {
    return Engine::class_weights(
        check_class_weights(parameters, weights, check_kernel(family, radii, support, normalize)));
  }

  static ParameterGradients class_weights_backward(const at::Tensor& grad_output,
                                                   const at::Tensor& parameters,
                                                   const std::optional<at::Tensor>& weights,
                                                   c10::string_view family,
                                                   at::IntArrayRef radii,
                                                   c10::string_view support,
                                                   c10::string_view normalize,
                                                   bool need_parameters,
                                                   bool need_weights) {
    const Blur blur = check_class_weights(parameters, weights, check_kernel(family, radii, support, normalize));
    check_like(grad_output, "grad_output", parameters, class_count(blur.kernel.radius()));
    return Engine::class_weights_backward(blur, grad_output, {false, need_parameters, need_weights});
  }

  static void register_in(torch::Library& library) {
    library.impl("gather", blur<&Engine::gather>);
    library.impl("scatter", blur<&Engine::scatter>);
    library.impl("gather_backward", blur_backward<&Engine::gather_backward>);
    library.impl("scatter_backward", blur_backward<&Engine::scatter_backward>);
    library.impl("class_weights", class_weights);
    library.impl("class_weights_backward", class_weights_backward);
  }

 private:
  static Blur check(const at::Tensor& parameters,
                    const std::optional<at::Tensor>& weights,
                    const KernelOptions& kernel,
                    c10::string_view padding) {
    check_parameters(parameters, weights, kernel);
    return {kernel, check_padding(padding), parameters, weights.value_or(at::Tensor())};
  }

  static void check_backward(const Blur& blur,
                             const at::Tensor& grad_output,
                             const std::optional<at::Tensor>& image,
                             const Needed& needed) {
    check_image(grad_output, "grad_output", blur.parameters, blur.kernel, blur.padding);
    TORCH_CHECK_VALUE(image || !needed.any_parameters(),
                      "image must be given where gradients to parameters are needed");
    TORCH_CHECK_VALUE(!needed.weights || blur.weights.defined(), "family has no weights that could have a gradient");
    if (image) check_like(*image, "image", grad_output, grad_output.size(1));
  }

  static Blur check_class_weights(const at::Tensor& parameters,
                                  const std::optional<at::Tensor>& weights,
                                  const KernelOptions& kernel) {
    TORCH_CHECK_VALUE(!kernel.is_analytic(), "families \"gaussian\" and \"disk\" have no class weights");
    return check(parameters, weights, kernel, "zeros");
  }
};

}  // namespace reblur
