// The family of free tap weights: one weight for each class of taps that are mirrored at the axes and the diagonals.
//
// Per pixel: T_k for every class k of the (2R + 1)^2 window, as given. Nothing is normalised.
#pragma once

#include "families/class_family.h"

namespace reblur {

template <class RadiiPolicy>
struct TapsFamily : ClassFamily<RadiiPolicy> {
  using Radii = RadiiPolicy;
  static constexpr int kTensors = 1;  // tap weights [N, (R+1)(R+2)/2, H, W]

  using ClassFamily<RadiiPolicy>::radii;

  template <class Lane, class Load>
  REBLUR_HOST_DEVICE void prepare(const Load& load,
                                  Lane* weights  // [kClasses]
  ) const {
    radii.for_each_class(radii.max(), [&](auto k) REBLUR_INLINE_LAMBDA { weights[k.index] = load(0, k.index); });
  }

  // The gradient D_k to each class weight is that to the parameter.
  template <class Lane, class Load, class Store>
  REBLUR_HOST_DEVICE void adjoint(const Load& load,
                                  const Lane* grad_weights,  // [kClasses]: D_k
                                  const Store& store,
                                  Lane* weights = nullptr  // [kClasses]: T_k, where wanted
  ) const {
    radii.for_each_class(radii.max(), [&](auto k) REBLUR_INLINE_LAMBDA { store(0, k.index, grad_weights[k.index]); });
    if (weights) prepare<Lane>(load, weights);
  }
};

}  // namespace reblur
