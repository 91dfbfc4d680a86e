// What the registered operators check, whoever calls them: wrong shapes must never reach a kernel.
//
// The Python functions check the same first, with messages in the user's terms; these guard torch.ops.reblur_ops.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <optional>

#include "engine/classes.h"
#include "engine/problem.h"

namespace reblur {

struct RadiiList {
  int count;
  int values[kMaxRadius];

  int max() const { return values[count - 1]; }
  int64_t seed_channels() const {
    int64_t channels = count;
    for (int n = 0; n < count; ++n) channels += values[n];
    return channels;
  }
};

inline RadiiList check_radii(at::IntArrayRef radii) {
  TORCH_CHECK_VALUE(
      !radii.empty() && radii.size() <= kMaxRadius, "radii must hold 1 to ", kMaxRadius, " values, got ", radii.size());
  RadiiList list{static_cast<int>(radii.size()), {}};
  for (int n = 0; n < list.count; ++n) {
    TORCH_CHECK_VALUE(radii[n] > (n ? radii[n - 1] : 0) && radii[n] <= kMaxRadius,
                      "radii must increase, each between 1 and ",
                      kMaxRadius,
                      ", got ",
                      radii);
    list.values[n] = static_cast<int>(radii[n]);
  }
  return list;
}

inline bool check_square(c10::string_view support) {
  TORCH_CHECK_VALUE(
      support == "square" || support == "disk", "support must be \"square\" or \"disk\", got \"", support, "\"");
  return support == "square";
}

inline Padding check_padding(c10::string_view padding) {
  if (padding == "zeros") return Padding::kZeros;
  if (padding == "replicate") return Padding::kReplicate;
  TORCH_CHECK_VALUE(
      padding == "reflect", "padding must be \"zeros\", \"replicate\" or \"reflect\", got \"", padding, "\"");
  return Padding::kReflect;
}

// `tensor` is [N, channels, H, W] like `like`; channels < 0 stands for any.
inline void check_like(const at::Tensor& tensor, const char* name, const at::Tensor& like, int64_t channels) {
  TORCH_CHECK_VALUE(tensor.dim() == 4, name, " must have 4 dimensions, got ", tensor.dim());
  TORCH_CHECK_VALUE(tensor.size(0) == like.size(0) && tensor.size(2) == like.size(2) &&
                        tensor.size(3) == like.size(3) && (channels < 0 || tensor.size(1) == channels),
                    name,
                    " must have shape (",
                    like.size(0),
                    ", ",
                    channels < 0 ? like.size(1) : channels,
                    ", ",
                    like.size(2),
                    ", ",
                    like.size(3),
                    "), got ",
                    tensor.sizes());
  TORCH_CHECK_TYPE(tensor.scalar_type() == like.scalar_type(),
                   name,
                   " must be ",
                   like.scalar_type(),
                   ", got ",
                   tensor.scalar_type());
  TORCH_CHECK_VALUE(tensor.device() == like.device(), name, " must be on ", like.device(), ", got ", tensor.device());
}

inline void check_parameters(const at::Tensor& seeds, const at::Tensor& weights, const RadiiList& radii) {
  check_like(seeds, "seeds", seeds, radii.seed_channels());
  TORCH_CHECK_TYPE(at::isFloatingType(seeds.scalar_type()), "seeds must be floating point, got ", seeds.scalar_type());
  check_like(weights, "weights", seeds, radii.count + 1);
}

// `image`, or the gradient of the output, which has its shape.
inline void check_image(
    const at::Tensor& image, const char* name, const at::Tensor& seeds, const RadiiList& radii, Padding padding) {
  check_like(image, name, seeds, -1);
  TORCH_CHECK_VALUE(
      padding != Padding::kReflect || image.numel() == 0 || std::min(image.size(2), image.size(3)) > radii.max(),
      "reflect padding needs an image larger than the radius ",
      radii.max(),
      ", got ",
      image.sizes());
}

// The checked options of an operator.
struct Options {
  RadiiList radii;
  bool square;
  Padding padding;  // kZeros where the operator has none

  int classes() const { return class_count(radii.max()); }
};

inline Options check_class_weights(const at::Tensor& seeds,
                                   const at::Tensor& weights,
                                   at::IntArrayRef radii,
                                   c10::string_view support) {
  const Options options{check_radii(radii), check_square(support), Padding::kZeros};
  check_parameters(seeds, weights, options.radii);
  return options;
}

inline Options check_reblur(const at::Tensor& image,
                            const char* name,
                            const at::Tensor& seeds,
                            const at::Tensor& weights,
                            at::IntArrayRef radii,
                            c10::string_view support,
                            c10::string_view padding) {
  Options options = check_class_weights(seeds, weights, radii, support);
  options.padding = check_padding(padding);
  check_image(image, name, seeds, options.radii, options.padding);
  return options;
}

inline Options check_reblur_backward(const at::Tensor& grad_output,
                                     const std::optional<at::Tensor>& image,
                                     const at::Tensor& seeds,
                                     const at::Tensor& weights,
                                     at::IntArrayRef radii,
                                     c10::string_view support,
                                     c10::string_view padding,
                                     bool need_parameters) {
  const Options options = check_reblur(grad_output, "grad_output", seeds, weights, radii, support, padding);
  TORCH_CHECK_VALUE(image || !need_parameters, "image must be given where gradients to seeds or weights are needed");
  if (image) check_like(*image, "image", grad_output, grad_output.size(1));
  return options;
}

}  // namespace reblur
