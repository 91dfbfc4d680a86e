// What the registered operators check, whoever calls them: wrong shapes must never reach a kernel.
//
// The Python functions check the same first, with messages in the user's terms; these guard torch.ops.reblur_ops.
#pragma once

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tensors.h"

namespace reblur {

using Radii = std::vector<int64_t>;

inline std::ostream& operator<<(std::ostream& stream, const Radii& values) {
  for (size_t n = 0; n < values.size(); ++n) stream << (n ? ", " : "(") << values[n];
  return stream << (values.empty() ? "()" : ")");
}

inline Radii shape_of(const Tensor& tensor) { return tensor.sizes().vec(); }

// Python gets a std::invalid_argument as ValueError; the standard library has nothing that becomes a TypeError.
template <class... Message>
void require(bool condition, const Message&... message) {
  if (condition) return;
  std::ostringstream stream;
  (stream << ... << message);
  throw std::invalid_argument(stream.str());
}

inline FamilyName check_family(std::string_view family) {
  if (family == "seeds") return FamilyName::kSeeds;
  if (family == "radial") return FamilyName::kRadial;
  if (family == "taps") return FamilyName::kTaps;
  if (family == "gaussian") return FamilyName::kGaussian;
  require(family == "disk",
          "family must be \"seeds\", \"radial\", \"taps\", \"gaussian\" or \"disk\", got \"",
          family,
          "\"");
  return FamilyName::kDisk;
}

inline bool check_square(std::string_view support) {
  require(support == "square" || support == "disk", "support must be \"square\" or \"disk\", got \"", support, "\"");
  return support == "square";
}

inline Normalization check_normalization(std::string_view normalize) {
  if (normalize == "softmax") return Normalization::kSoftmax;
  if (normalize == "sum") return Normalization::kSum;
  require(normalize == "none", "normalize must be \"softmax\", \"sum\" or \"none\", got \"", normalize, "\"");
  return Normalization::kNone;
}

inline Padding check_padding(std::string_view padding) {
  if (padding == "zeros") return Padding::kZeros;
  if (padding == "replicate") return Padding::kReplicate;
  require(padding == "reflect", "padding must be \"zeros\", \"replicate\" or \"reflect\", got \"", padding, "\"");
  return Padding::kReflect;
}

inline KernelOptions check_kernel(std::string_view family,
                                  const Radii& radii,
                                  std::string_view support,
                                  std::string_view normalize) {
  KernelOptions kernel{check_family(family), 0, {}, check_square(support), check_normalization(normalize)};
  const int most = kernel.family == FamilyName::kSeeds ? kMaxRadius : 1;
  const int largest = kernel.is_analytic() ? kMaxAnalyticRadius : kMaxRadius;
  require(!radii.empty() && radii.size() <= static_cast<size_t>(most),
          "radii of family \"",
          family,
          "\" must hold 1 to ",
          most,
          " values, got ",
          radii.size());
  kernel.radii_count = static_cast<int>(radii.size());
  for (int n = 0; n < kernel.radii_count; ++n) {
    require(radii[n] > (n ? radii[n - 1] : 0) && radii[n] <= largest,
            "radii must increase, each between 1 and ",
            largest,
            ", got ",
            radii);
    kernel.radii[n] = static_cast<int>(radii[n]);
  }
  return kernel;
}

// `tensor` is [N, channels, H, W] like `like`; channels < 0 stands for any.
inline void check_shape(const Tensor& tensor, const char* name, const Tensor& like, int64_t channels) {
  require(tensor.dim() == 4, name, " must have 4 dimensions, got ", tensor.dim());
  const Size size = size_of(tensor), expected = size_of(like);
  require(size.batch == expected.batch && size.height == expected.height && size.width == expected.width,
          name,
          " must have the batch, height and width ",
          Radii{expected.batch, expected.height, expected.width},
          ", got shape ",
          shape_of(tensor));
  require(channels < 0 || size.channels == channels,
          name,
          " must have ",
          channels,
          " channels, got shape ",
          shape_of(tensor));
}

// The same, of the type and on the device of `like`, which the caller knows as `like_name`.
inline void check_like(
    const Tensor& tensor, const char* name, const Tensor& like, const char* like_name, int64_t channels) {
  check_shape(tensor, name, like, channels);
  require(tensor.scalar_type() == like.scalar_type(),
          name,
          " must be ",
          toString(like.scalar_type()),
          ", got ",
          toString(tensor.scalar_type()));
  require(tensor.device() == like.device(), name, " must be on the device of ", like_name);
}

// What the family reads: `parameters`, and for seeds `weights` too.
inline void check_parameters(const Tensor& parameters,
                             const std::optional<Tensor>& weights,
                             const KernelOptions& kernel) {
  int64_t channels = 1;
  if (kernel.family == FamilyName::kTaps) {
    require(kernel.square, "support of family \"taps\" must be \"square\"");
    channels = class_count(kernel.radius());
  } else if (!kernel.is_analytic()) {
    channels = kernel.radii_count;
    for (int n = 0; n < kernel.radii_count; ++n) channels += kernel.radii[n];
  }
  check_like(parameters, "parameters", parameters, "parameters", channels);
  const ScalarType type = parameters.scalar_type();
  require(type == ScalarType::Float || type == ScalarType::Double || is_16_bit(type),
          "parameters must be Float, Double, Half or BFloat16, got ",
          toString(type));
  const bool has_weights = kernel.family == FamilyName::kSeeds;
  require(weights.has_value() == has_weights, "weights must be given for family \"seeds\", and no other");
  if (has_weights) check_like(*weights, "weights", parameters, "parameters", kernel.radii_count + 1);
}

// `image`, or the gradient of the output, which has its shape. Beside parameters of 16 bits it may be Float: under
// autocast networks give such maps, and a picture has more than 8 bits.
inline void check_image(const Tensor& image, const char* name, const Blur& blur) {
  check_shape(image, name, blur.parameters, -1);
  const ScalarType type = blur.parameters.scalar_type();
  require(image.scalar_type() == type || (image.scalar_type() == ScalarType::Float && is_16_bit(type)),
          name,
          " must be ",
          toString(type),
          is_16_bit(type) ? " or Float, got " : ", got ",
          toString(image.scalar_type()));
  require(image.device() == blur.parameters.device(), name, " must be on the device of parameters");
  require(blur.padding != Padding::kReflect || image.numel() == 0 ||
              std::min(image.size(2), image.size(3)) > blur.kernel.radius(),
          "reflect padding needs an image larger than the radius ",
          blur.kernel.radius(),
          ", got ",
          shape_of(image));
}

inline Blur check_blur(const Tensor& parameters,
                       const std::optional<Tensor>& weights,
                       const KernelOptions& kernel,
                       std::string_view padding) {
  check_parameters(parameters, weights, kernel);
  return {kernel, check_padding(padding), parameters, weights};
}

// How the cost volume is padded, if its arguments fit.
inline Padding check_cost_volume(const Tensor& image,
                                 const Tensor& target,
                                 const Tensor& bank,
                                 int64_t radius,
                                 int64_t slack,
                                 int64_t cell,
                                 std::string_view padding_name) {
  const Padding padding = check_padding(padding_name);
  require(radius >= 1 && radius <= kMaxAnalyticRadius, "radius must be 1 to ", kMaxAnalyticRadius, ", got ", radius);
  require(slack >= 0 && slack <= kMaxSlack, "slack must be 0 to ", kMaxSlack, ", got ", slack);
  require(cell == 1 || cell == 2, "cell must be 1 or 2, got ", cell);
  check_like(image, "image", image, "image", -1);
  check_like(target, "target", image, "image", image.size(1));
  const ScalarType type = image.scalar_type();
  require(type == ScalarType::Float || type == ScalarType::Double || is_16_bit(type),
          "image must be Float, Double, Half or BFloat16, got ",
          toString(type));
  require(bank.dim() == 2 && bank.size(1) == class_count(static_cast<int>(radius)),
          "bank must have shape (K, ",
          class_count(static_cast<int>(radius)),
          ") for radius ",
          radius,
          ", got ",
          shape_of(bank));
  require(bank.scalar_type() == type && bank.device() == image.device(), "bank must be like image in type and device");
  require(image.size(2) % cell == 0 && image.size(3) % cell == 0,
          "height and width must be multiples of cell ",
          cell,
          ", got ",
          shape_of(image));
  require(padding != Padding::kReflect || image.numel() == 0 || std::min(image.size(2), image.size(3)) > radius,
          "reflect padding needs an image larger than the radius ",
          radius,
          ", got ",
          shape_of(image));
  return padding;
}

inline Blur check_class_weights(const Tensor& parameters,
                                const std::optional<Tensor>& weights,
                                const KernelOptions& kernel) {
  require(!kernel.is_analytic(), "families \"gaussian\" and \"disk\" have no class weights");
  return check_blur(parameters, weights, kernel, "zeros");
}

inline void check_backward(const Blur& blur,
                           const Tensor& grad_output,
                           const std::optional<Tensor>& image,
                           const Needed& needed) {
  check_image(grad_output, "grad_output", blur);
  require(image || !needed.any_parameters(), "image must be given where gradients to parameters are needed");
  require(blur.weights || !needed.weights, "family has no weights that could have a gradient");
  if (image) check_like(*image, "image", grad_output, "grad_output", grad_output.size(1));
}

}  // namespace reblur
