// The family of Gaussians: f(d) = exp(-d^2 / 2σ^2) over the (2R + 1)^2 window, T(d) = f(d) / Σ_u f(|u|).
//
// Per pixel: σ, in pixels; its sign is ignored. Analytic: a weight is computed where it is used.
//   ∂f/∂σ = f(d) d^2 / σ^3
//   ∂T/∂σ = T(d) (d^2 - mean) / σ^3,   mean = Σ_u T(|u|) |u|^2
#pragma once

#include "common/lane.h"
#include "common/problem.h"
#include "common/radii.h"

namespace reblur {

struct GaussianFamily {
  using Radii = SingleRadius;
  static constexpr bool kAnalytic = true;

  Radii radii;

  // ---- The formula, for a pixel ----

  template <class Lane>
  struct Shape {
    Lane exponent;  // -log2(e) / 2σ^2: f(d) = 2^(exponent d^2)
    Lane slope;     // ∂f/∂σ = f(d) d^2 slope
  };

  template <class Lane>
  REBLUR_HOST_DEVICE Shape<Lane> shape(const Lane& sigma) const {
    using Math = LaneMath<Lane>;
    using Scalar = typename Math::Scalar;
    // Below 1/40 every f but f(0) is less than the least number of double, so nothing is lost, and σ = 0 needs no case
    // of its own: it is the identity, with gradient 0.
    const Lane inverse = quotient<Lane>(Lane(1), Math::max(Math::abs(sigma), Lane(Scalar(0.025))));
    const Lane squared = inverse * inverse;
    return {Lane(Scalar(-0.7213475204444817)) * squared, Math::sign(sigma) * squared * inverse};
  }

  // f at squared distance d2, and ∂f/∂σ there.
  template <class Lane>
  REBLUR_HOST_DEVICE Lane value(const Shape<Lane>& shape, typename LaneMath<Lane>::Scalar d2) const {
    using Math = LaneMath<Lane>;
    // Where exp2 cannot reach 0 it stays at the least normal number.
    constexpr float kLeast = 1.17549435e-38f;
    return Math::max(Math::exp2(shape.exponent * Lane(d2)) - Lane(kLeast), Lane(0));
  }
  template <class Lane>
  REBLUR_HOST_DEVICE Lane derivative(const Shape<Lane>& shape,
                                     typename LaneMath<Lane>::Scalar d2,
                                     const Lane& value) const {
    return value * (Lane(d2) * shape.slope);
  }

  // The only field of a shape that value_of() needs.
  template <class Lane>
  REBLUR_HOST_DEVICE Lane number_of(const Shape<Lane>& shape) const {
    return shape.exponent;
  }
  template <class Lane>
  REBLUR_HOST_DEVICE Lane value_of(const Lane& number, typename LaneMath<Lane>::Scalar d2) const {
    return value(Shape<Lane>{number, Lane(0)}, d2);
  }

  // No tap farther than this along x or y has a weight or a derivative.
  template <class Lane>
  REBLUR_HOST_DEVICE int shape_reach(const Shape<Lane>&) const {
    return radii.max();
  }

  // ---- What the CPU kernels ask for: see families/class_family.h ----
  //
  // The window is the product of two axes, and so is its sum: T(a, b) = h_a h_b, h_a = f(a) / Σ_i f(i).

  static constexpr int kState = Radii::kRings + 2;
  static constexpr int kSums = 2;  // Σ g Σ_k T_k S_k, Σ g Σ_k T_k d_k^2 S_k

  REBLUR_HOST_DEVICE int state_size() const { return radii.max() + 3; }  // h_0 … h_R, slope, mean

  template <class Lane, class Load>
  REBLUR_HOST_DEVICE void prepare(const Load& load, Lane* state) const {
    using Math = LaneMath<Lane>;
    using Scalar = typename Math::Scalar;
    const Shape<Lane> own = shape<Lane>(load(0, 0));
    const int radius = radii.max();
    state[0] = value<Lane>(own, 0);
    Lane total = state[0], moment = Lane(0);
    for (int a = 1; a <= radius; ++a) {
      const Lane twice = (state[a] = value<Lane>(own, Scalar(a * a))) * Lane(2);
      total = total + twice;
      moment = Math::fma(twice, Lane(Scalar(a * a)), moment);
    }
    const Lane inverse = quotient<Lane>(Lane(1), total);
    for (int a = 0; a <= radius; ++a) state[a] = state[a] * inverse;
    state[radius + 1] = own.slope;
    state[radius + 2] = Lane(2) * moment * inverse;
  }

  template <class Lane>
  REBLUR_HOST_DEVICE int reach(const Lane*) const {
    return radii.max();
  }

  template <class Lane, class F>
  REBLUR_HOST_DEVICE void for_each_weight(const Lane* state, F&& f) const {
    for (int b = 0; b <= radii.max(); ++b)
      for (int a = 0; a <= b; ++a) f(Taps{a, b}, state[a] * state[b]);
  }

  template <class Lane, class F>
  REBLUR_HOST_DEVICE void for_each_weight_in_row(const Lane* state, int a, F&& f) const {
    const Lane in_row = state[a];
    for (int b = 0; b <= radii.max(); ++b) f(b, in_row * state[b]);
  }

  template <class Lane, class Sum>
  REBLUR_HOST_DEVICE void accumulate(const Lane* state, const Lane& g, const Sum& sum, Lane* sums) const {
    using Math = LaneMath<Lane>;
    using Scalar = typename Math::Scalar;
    Lane total = Lane(0), moment = Lane(0);
    for_each_weight<Lane>(state, [&](Taps k, const Lane& weight) REBLUR_INLINE_LAMBDA {
      const Lane term = weight * sum(k);
      total = total + term;
      moment = Math::fma(Lane(Scalar(k.a * k.a + k.b * k.b)), term, moment);
    });
    sums[0] = Math::fma(g, total, sums[0]);
    sums[1] = Math::fma(g, moment, sums[1]);
  }

  template <class Lane, class Load, class Store>
  REBLUR_HOST_DEVICE void adjoint(const Load&, const Lane* sums, const Store& store, const Lane* state) const {
    const Lane slope = state[radii.max() + 1], mean = state[radii.max() + 2];
    store(0, 0, slope * (sums[1] - mean * sums[0]));
  }
};

}  // namespace reblur
