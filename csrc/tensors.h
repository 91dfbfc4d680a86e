// Tensors, through Torch's stable ABI alone: one build serves every Torch from 2.10 on.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "common/problem.h"

namespace reblur {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline bool is_16_bit(ScalarType type) { return type == ScalarType::Half || type == ScalarType::BFloat16; }

inline Size size_of(const Tensor& tensor) { return {tensor.size(0), tensor.size(1), tensor.size(2), tensor.size(3)}; }

// Uninitialised, contiguous, on the device of `like`. Directly, as the dispatcher takes microseconds to be asked.
template <size_t kDimensions>
Tensor empty(const Tensor& like, const int64_t (&shape)[kDimensions], ScalarType type) {
  int64_t strides[kDimensions];
  strides[kDimensions - 1] = 1;
  for (size_t n = kDimensions - 1; n > 0; --n) strides[n - 1] = strides[n] * std::max<int64_t>(shape[n], 1);
  const auto dtype = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  int32_t device_type;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle result = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(kDimensions, shape, strides, dtype, device_type, like.get_device_index(), &result));
  return Tensor(result);
}

// `tensor` itself where it has the type already.
inline Tensor to_type(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}

// |x| of every element.
inline Tensor absolute(const Tensor& tensor) {
  StableIValue stack[] = {torch::stable::detail::from(tensor)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::abs", "", stack, TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// Every pixel's kernel, and what lies beyond the image.
struct Blur {
  KernelOptions kernel;
  Padding padding;  // kZeros where there is no image
  Tensor parameters;
  std::optional<Tensor> weights;  // of seeds
};

// The gradients that are needed. The others come as tensors without elements.
struct Needed {
  bool image, parameters, weights;

  bool any_parameters() const { return parameters || weights; }
};

using ParameterGradients = std::tuple<Tensor, Tensor>;  // to parameters, weights
using Gradients = std::tuple<Tensor, Tensor, Tensor>;   // to image, parameters, weights

}  // namespace reblur
