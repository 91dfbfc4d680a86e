// Analytic families by the weights of their classes: for radii at which those fit into a thread's registers. There a
// window passes through the same kernels as any other, where all taps of a class share a product.
//
// Parameters and values are those of families/gaussian.h and families/disk.h.
#pragma once

#include "families/class_family.h"
#include "families/disk.h"
#include "families/gaussian.h"

namespace reblur {

// Squared distance of a class as the formulas take it.
template <class Scalar, class Class>
REBLUR_HOST_DEVICE constexpr Scalar squared_distance(Class k) {
  return Scalar(k.a * k.a + k.b * k.b);
}

template <class RadiiPolicy>
struct SampledGaussianFamily : ClassFamily<RadiiPolicy> {
  using Radii = RadiiPolicy;
  static constexpr int kTensors = 1;  // σ [N, 1, H, W]

  using ClassFamily<RadiiPolicy>::radii;

  // The window is the product of two axes, and so is its sum: T(a, b) = h_a h_b, h_a = f(a) / Σ_i f(i).
  template <class Lane, class Load>
  REBLUR_HOST_DEVICE void prepare(const Load& load,
                                  Lane* weights  // [kClasses]
  ) const {
    prepare(shape<Lane>(load), weights);
  }

  // Σ_k D_k T_k (d_k^2 - mean) / σ^3.
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
    const auto given = shape<Lane>(load);
    const Lane mean = prepare(given, weights);
    Lane total = Lane(0);
    radii.for_each_class(radii.max(), [&](auto k) REBLUR_INLINE_LAMBDA {
      const Lane centred = Lane(squared_distance<Scalar>(k)) - mean;
      total = Math::fma(grad_weights[k.index] * weights[k.index], centred, total);
    });
    store(0, 0, given.slope * total);
  }

 private:
  template <class Lane, class Load>
  REBLUR_HOST_DEVICE auto shape(const Load& load) const {
    return GaussianFamily{{radii.max()}}.template shape<Lane>(load(0, 0));
  }

  // Fills the weights; returns Σ_u T(|u|) |u|^2.
  template <class Lane>
  REBLUR_HOST_DEVICE Lane prepare(const GaussianFamily::Shape<Lane>& given, Lane* weights) const {
    using Math = LaneMath<Lane>;
    using Scalar = typename Math::Scalar;
    const GaussianFamily formula{{radii.max()}};
    LaneArray<Lane, Radii::kRings> axis;
    Lane total = Lane(0), moment = Lane(0);
    radii.for_each_offset(radii.max(), [&](auto a) REBLUR_INLINE_LAMBDA {
      axis[a] = formula.template value<Lane>(given, Scalar(a * a));
      const Lane both = axis[a] * Lane(Scalar(a == 0 ? 1 : 2));
      total = total + both;
      moment = Math::fma(both, Lane(Scalar(a * a)), moment);
    });
    const Lane inverse = quotient<Lane>(Lane(1), total);
    radii.for_each_offset(radii.max(), [&](auto a) REBLUR_INLINE_LAMBDA { axis[a] = axis[a] * inverse; });
    radii.for_each_class(radii.max(), [&](auto k) REBLUR_INLINE_LAMBDA { weights[k.index] = axis[k.a] * axis[k.b]; });
    return Lane(2) * moment * inverse;
  }
};

template <class RadiiPolicy>
struct SampledDiskFamily : ClassFamily<RadiiPolicy> {
  using Radii = RadiiPolicy;
  static constexpr int kTensors = 1;  // ρ [N, 1, H, W]

  using ClassFamily<RadiiPolicy>::radii;

  template <class Lane, class Load>
  REBLUR_HOST_DEVICE void prepare(const Load& load,
                                  Lane* weights  // [kClasses]
  ) const {
    prepare(shape<Lane>(load), weights);
  }

  // (Σ_k D_k ∂f_k/∂ρ - Σ_u ∂f/∂ρ(|u|) Σ_k D_k T_k) / Σ_u f(|u|).
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
    const auto given = shape<Lane>(load);
    const Lane inverse = prepare(given, weights);
    Lane total = Lane(0), on_edge = Lane(0), taps_on_edge = Lane(0);
    radii.for_each_class(radii.max(), [&](auto k) REBLUR_INLINE_LAMBDA {
      const Lane edge = DiskFamily::on_edge<Lane>(given.edge, distance<Scalar>(k));
      total = Math::fma(grad_weights[k.index], weights[k.index], total);
      on_edge = Math::fma(grad_weights[k.index], edge, on_edge);
      taps_on_edge = Math::fma(Lane(Scalar(k.multiplicity)), edge, taps_on_edge);
    });
    store(0, 0, given.slope * inverse * (on_edge - taps_on_edge * total));
  }

 private:
  template <class Scalar, class Class>
  REBLUR_HOST_DEVICE static constexpr Scalar distance(Class k) {
    return Scalar(k.ring + k.template fraction<double>());
  }

  template <class Lane, class Load>
  REBLUR_HOST_DEVICE auto shape(const Load& load) const {
    return DiskFamily{{radii.max()}}.template shape<Lane>(load(0, 0));
  }

  // Fills the weights; returns 1 / Σ_u f(|u|).
  template <class Lane>
  REBLUR_HOST_DEVICE Lane prepare(const DiskFamily::Shape<Lane>& given, Lane* weights) const {
    using Math = LaneMath<Lane>;
    using Scalar = typename Math::Scalar;
    Lane total = Lane(0);
    radii.for_each_class(radii.max(), [&](auto k) REBLUR_INLINE_LAMBDA {
      weights[k.index] = DiskFamily::value_at<Lane>(given.edge, distance<Scalar>(k));
      total = Math::fma(Lane(Scalar(k.multiplicity)), weights[k.index], total);
    });
    const Lane inverse = quotient<Lane>(Lane(1), total);
    radii.for_each_class(radii.max(),
                         [&](auto k) REBLUR_INLINE_LAMBDA { weights[k.index] = weights[k.index] * inverse; });
    return inverse;
  }
};

}  // namespace reblur
