// What the registered operators check, whoever calls them: wrong shapes must never reach a kernel.
//
// The Python functions check the same first, with messages in the user's terms; these guard torch.ops.reblur_ops.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <optional>

#include "engine/problem.h"

namespace reblur {

inline FamilyName check_family(c10::string_view family) {
  if (family == "seeds") return FamilyName::kSeeds;
  if (family == "radial") return FamilyName::kRadial;
  if (family == "gaussian") return FamilyName::kGaussian;
  TORCH_CHECK_VALUE(
      family == "disk", "family must be \"seeds\", \"radial\", \"gaussian\" or \"disk\", got \"", family, "\"");
  return FamilyName::kDisk;
}

inline bool check_square(c10::string_view support) {
  TORCH_CHECK_VALUE(
      support == "square" || support == "disk", "support must be \"square\" or \"disk\", got \"", support, "\"");
  return support == "square";
}

inline Normalization check_normalization(c10::string_view normalize) {
  if (normalize == "softmax") return Normalization::kSoftmax;
  if (normalize == "sum") return Normalization::kSum;
  TORCH_CHECK_VALUE(normalize == "none", "normalize must be \"softmax\", \"sum\" or \"none\", got \"", normalize, "\"");
  return Normalization::kNone;
}

inline Padding check_padding(c10::string_view padding) {
  if (padding == "zeros") return Padding::kZeros;
  if (padding == "replicate") return Padding::kReplicate;
  TORCH_CHECK_VALUE(
      padding == "reflect", "padding must be \"zeros\", \"replicate\" or \"reflect\", got \"", padding, "\"");
  return Padding::kReflect;
}

inline KernelOptions check_kernel(c10::string_view family,
                                  at::IntArrayRef radii,
                                  c10::string_view support,
                                  c10::string_view normalize) {
  KernelOptions kernel{check_family(family), 0, {}, check_square(support), check_normalization(normalize)};
  const int most = kernel.family == FamilyName::kSeeds ? kMaxRadius : 1;
  const int largest = kernel.is_analytic() ? kMaxAnalyticRadius : kMaxRadius;
  TORCH_CHECK_VALUE(!radii.empty() && radii.size() <= static_cast<size_t>(most),
                    "radii of family \"",
                    family,
                    "\" must hold 1 to ",
                    most,
                    " values, got ",
                    radii.size());
  kernel.radii_count = static_cast<int>(radii.size());
  for (int n = 0; n < kernel.radii_count; ++n) {
    TORCH_CHECK_VALUE(radii[n] > (n ? radii[n - 1] : 0) && radii[n] <= largest,
                      "radii must increase, each between 1 and ",
                      largest,
                      ", got ",
                      radii);
    kernel.radii[n] = static_cast<int>(radii[n]);
  }
  return kernel;
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

// What the family reads: `parameters`, and for seeds `weights` too.
inline void check_parameters(const at::Tensor& parameters,
                             const std::optional<at::Tensor>& weights,
                             const KernelOptions& kernel) {
  int64_t channels = 1;
  if (!kernel.is_analytic()) {
    channels = kernel.radii_count;
    for (int n = 0; n < kernel.radii_count; ++n) channels += kernel.radii[n];
  }
  check_like(parameters, "parameters", parameters, channels);
  TORCH_CHECK_TYPE(at::isFloatingType(parameters.scalar_type()),
                   "parameters must be floating point, got ",
                   parameters.scalar_type());
  const bool has_weights = kernel.family == FamilyName::kSeeds;
  TORCH_CHECK_VALUE(weights.has_value() == has_weights, "weights must be given for family \"seeds\", and no other");
  if (has_weights) check_like(*weights, "weights", parameters, kernel.radii_count + 1);
}

// `image`, or the gradient of the output, which has its shape.
inline void check_image(const at::Tensor& image,
                        const char* name,
                        const at::Tensor& parameters,
                        const KernelOptions& kernel,
                        Padding padding) {
  check_like(image, name, parameters, -1);
  TORCH_CHECK_VALUE(
      padding != Padding::kReflect || image.numel() == 0 || std::min(image.size(2), image.size(3)) > kernel.radius(),
      "reflect padding needs an image larger than the radius ",
      kernel.radius(),
      ", got ",
      image.sizes());
}

}  // namespace reblur
