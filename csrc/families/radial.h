// The family of a free radial profile: one value f_j for each integer distance 0 … R, linear in between.
//
// Per pixel: a profile f. With j = floor(d) and t = d - j, f(d) = (1 - t) f_j + t f_{j+1} for d <= R, and f(d) = 0 for
// the farther taps of the (2R + 1)^2 window, which disk support leaves out. The weight of a tap of class k is
//   softmax:  T_k = exp(f(d_k)) / Σ_j m_j exp(f(d_j))
//   sum:      T_k = f(d_k) / Σ_j m_j f(d_j)
//   none:     T_k = f(d_k)
// with m_k the class's multiplicity.
#pragma once

#include "common/problem.h"
#include "families/class_family.h"

namespace reblur {

template <class RadiiPolicy>
struct RadialFamily : ClassFamily<RadiiPolicy> {
  using Radii = RadiiPolicy;
  static constexpr int kTensors = 1;  // profile [N, R+1, H, W]

  Normalization normalization;

  using ClassFamily<RadiiPolicy>::radii;
  using ClassFamily<RadiiPolicy>::square;

  // T_k for every class. load(0, j) gives f_j.
  template <class Lane, class Load>
  REBLUR_HOST_DEVICE void prepare(const Load& load,
                                  Lane* weights  // [kClasses]
  ) const {
    const Lane total = unnormalised<Lane>(load, weights);
    if (normalization == Normalization::kNone) return;
    const Lane inverse = quotient<Lane>(Lane(1), total);
    radii.for_each_class(radii.max(),
                         [&](auto k) REBLUR_INLINE_LAMBDA { weights[k.index] = weights[k.index] * inverse; });
  }

  // From the gradient D_k to each class weight, the gradient to each value of the profile. With mean = Σ_k T_k D_k:
  //   softmax:  df(d_k) = T_k (D_k - m_k mean)
  //   sum:      df(d_k) = (D_k - m_k mean) / Σ_j m_j f(d_j)
  //   none:     df(d_k) = D_k
  // and the distance's two neighbours share it.
  template <class Lane, class Load, class Store>
  REBLUR_HOST_DEVICE void adjoint(const Load& load,
                                  const Lane* grad_weights,  // [kClasses]: D_k
                                  const Store& store,
                                  Lane* weights = nullptr  // [kClasses]: T_k, where wanted
  ) const {
    using Math = LaneMath<Lane>;
    using Scalar = typename Math::Scalar;
    LaneArray<Lane, Radii::kClasses> own;
    if (!weights) weights = own;
    const Lane total = unnormalised<Lane>(load, weights);
    const bool normalised = normalization != Normalization::kNone;
    const Lane inverse = normalised ? quotient<Lane>(Lane(1), total) : Lane(1);
    Lane mean = Lane(0);
    radii.for_each_class(radii.max(), [&](auto k) REBLUR_INLINE_LAMBDA {
      weights[k.index] = weights[k.index] * inverse;
      mean = Math::fma(weights[k.index], grad_weights[k.index], mean);
    });
    if (!normalised) mean = Lane(0);
    LaneArray<Lane, Radii::kRings> grad_profile;
    radii.for_each_offset(radii.max(), [&](auto j) REBLUR_INLINE_LAMBDA { grad_profile[j] = Lane(0); });
    radii.for_each_class(radii.max(), [&](auto k) REBLUR_INLINE_LAMBDA {
      if (!radii.within_disk(k, radii.max())) return;
      const Lane centred = Math::fma(Lane(Scalar(-k.multiplicity)), mean, grad_weights[k.index]);
      const Lane gradient = centred * (normalization == Normalization::kSoftmax ? weights[k.index] : inverse);
      if (k.template fraction<Scalar>() == 0) {
        grad_profile[k.ring] = grad_profile[k.ring] + gradient;
      } else {
        const Lane far = Lane(k.template fraction<Scalar>()) * gradient;
        grad_profile[k.ring] = grad_profile[k.ring] + (gradient - far);
        grad_profile[k.ring + 1] = grad_profile[k.ring + 1] + far;
      }
    });
    radii.for_each_offset(radii.max(), [&](auto j) REBLUR_INLINE_LAMBDA { store(0, j, grad_profile[j]); });
  }

 private:
  // f, or exp(f - the largest) for softmax, of every class; its sum over the taps.
  template <class Lane, class Load>
  REBLUR_HOST_DEVICE Lane unnormalised(const Load& load, Lane* weights) const {
    using Math = LaneMath<Lane>;
    using Scalar = typename Math::Scalar;
    const bool softmax = normalization == Normalization::kSoftmax;
    LaneArray<Lane, Radii::kRings> profile;
    radii.for_each_offset(radii.max(), [&](auto j) REBLUR_INLINE_LAMBDA { profile[j] = load(0, j); });
    Lane beyond = Lane(0);
    if (softmax) {
      constexpr Scalar kLog2E = Scalar(1.4426950408889634);
      Lane largest = square ? Lane(0) : profile[0];
      radii.for_each_offset(radii.max(),
                            [&](auto j) REBLUR_INLINE_LAMBDA { largest = Math::max(largest, profile[j]); });
      // Taken away before the scaling, so that rounding is relative to the differences, however large the profile is.
      radii.for_each_offset(radii.max(),
                            [&](auto j) REBLUR_INLINE_LAMBDA { profile[j] = (profile[j] - largest) * Lane(kLog2E); });
      if (square) beyond = Math::exp2(Lane(-kLog2E) * largest);
    }
    Lane total = Lane(0);
    radii.for_each_class(radii.max(), [&](auto k) REBLUR_INLINE_LAMBDA {
      Lane& weight = weights[k.index];
      if (radii.within_disk(k, radii.max())) {
        weight = profile[k.ring];
        if (k.template fraction<Scalar>() != 0)
          weight = Math::fma(Lane(k.template fraction<Scalar>()), profile[k.ring + 1] - profile[k.ring], weight);
        if (softmax) weight = Math::exp2(weight);
      } else {
        weight = beyond;
      }
      total = Math::fma(Lane(Scalar(k.multiplicity)), weight, total);
    });
    return total;
  }
};

}  // namespace reblur
