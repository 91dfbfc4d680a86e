// The family of disks, the circle of confusion with an antialiased edge: f(d) = clamp(ρ + 1/2 - d, 0, 1),
// T(d) = f(d) / Σ_u f(|u|).
//
// Per pixel: ρ, in pixels; its sign is ignored, and beyond R it counts as R. Analytic: a weight is computed where it is
// used, and only those are that are within the disk.
//   ∂f/∂ρ = 1 for 0 <= ρ + 1/2 - d <= 1, else 0
//   ∂T/∂ρ = (∂f/∂ρ - T(d) Σ_u ∂f/∂ρ(|u|)) / Σ_u f(|u|)
#pragma once

#include <cmath>

#include "common/lane.h"
#include "common/problem.h"
#include "common/radii.h"

namespace reblur {

constexpr DistanceTable kClassDistances = make_distance_table();

struct DiskFamily {
  using Radii = SingleRadius;
  static constexpr bool kAnalytic = true;

  Radii radii;

  // ---- The formula, for a pixel ----

  template <class Lane>
  struct Shape {
    Lane edge;   // ρ + 1/2: f(d) = clamp(edge - d, 0, 1)
    Lane slope;  // the derivative of ρ as it counts by ρ as given: -1, 0 or 1
  };

  template <class Lane>
  REBLUR_HOST_DEVICE Shape<Lane> shape(const Lane& rho) const {
    using Math = LaneMath<Lane>;
    using Scalar = typename Math::Scalar;
    const Lane size = Math::abs(rho), largest = Lane(Scalar(radii.max()));
    return {Math::min(size, largest) + Lane(Scalar(0.5)), Math::sign(rho) * Math::at_most(size, largest)};
  }

  // f at a distance.
  template <class Lane>
  REBLUR_HOST_DEVICE static Lane value_at(const Lane& edge, typename LaneMath<Lane>::Scalar distance) {
    using Math = LaneMath<Lane>;
    return Math::max(Math::min(edge - Lane(distance), Lane(1)), Lane(0));
  }
  // Whether the distance is on the soft edge: 1 or 0.
  template <class Lane>
  REBLUR_HOST_DEVICE static Lane on_edge(const Lane& edge, typename LaneMath<Lane>::Scalar distance) {
    using Math = LaneMath<Lane>;
    const Lane inside = edge - Lane(distance);
    return Math::at_most(Lane(0), inside) * Math::at_most(inside, Lane(1));
  }

  // f at squared distance d2, and ∂f/∂ρ there.
  template <class Lane>
  REBLUR_HOST_DEVICE Lane value(const Shape<Lane>& shape, typename LaneMath<Lane>::Scalar d2) const {
    return value_at<Lane>(shape.edge, std::sqrt(d2));
  }
  template <class Lane>
  REBLUR_HOST_DEVICE Lane derivative(const Shape<Lane>& shape,
                                     typename LaneMath<Lane>::Scalar d2,
                                     const Lane& value) const {
    return shape.slope * on_edge<Lane>(shape.edge, std::sqrt(d2));
  }

  // The only field of a shape that value_of() needs.
  template <class Lane>
  REBLUR_HOST_DEVICE Lane number_of(const Shape<Lane>& shape) const {
    return shape.edge;
  }
  template <class Lane>
  REBLUR_HOST_DEVICE Lane value_of(const Lane& number, typename LaneMath<Lane>::Scalar d2) const {
    return value_at<Lane>(number, std::sqrt(d2));
  }

  // No tap farther than this along x or y has a weight or a derivative. A radius that is NaN reaches the whole window.
  template <class Lane>
  REBLUR_HOST_DEVICE int shape_reach(const Shape<Lane>& shape) const {
    if (shape.edge != shape.edge) return radii.max();
    return shape.edge >= 1 ? static_cast<int>(shape.edge) : 0;
  }

  // ---- What the CPU kernels ask for: see families/class_family.h ----

  static constexpr int kState = 4;
  static constexpr int kSums = 2;  // Σ g Σ_k f_k S_k, Σ g Σ_k ∂f_k/∂ρ S_k
  static constexpr int kEdge = 0, kInverse = 1, kSlope = 2, kLargestEdge = 3;

  // ρ + 1/2, 1 / Σ f, slope, and in every lane the largest ρ + 1/2 of all. The third sum Σ ∂f/∂ρ is needed by the
  // adjoint alone, which computes it.
  REBLUR_HOST_DEVICE int state_size() const { return kState; }

  template <class Lane, class Load>
  REBLUR_HOST_DEVICE void prepare(const Load& load, Lane* state) const {
    using Math = LaneMath<Lane>;
    using Scalar = typename Math::Scalar;
    const Shape<Lane> own = shape<Lane>(load(0, 0));
    state[kEdge] = own.edge;
    state[kSlope] = own.slope;
    // Where a radius is NaN, so is its whole window: the corners are √2 R away.
    state[kLargestEdge] = Lane(Math::largest(own.edge, Scalar(1.5) * Scalar(radii.max())));
    Lane total = Lane(0);
    for_each_class<Lane>(state, [&](Taps k, Scalar distance) REBLUR_INLINE_LAMBDA {
      total = Math::fma(Lane(Scalar(class_multiplicity(k.a, k.b))), value_at<Lane>(own.edge, distance), total);
    });
    state[kInverse] = quotient<Lane>(Lane(1), total);
  }

  template <class Lane>
  REBLUR_HOST_DEVICE int reach(const Lane* state) const {
    const int furthest = static_cast<int>(largest_edge(state));
    return furthest < radii.max() ? furthest : radii.max();
  }

  template <class Lane, class F>
  REBLUR_HOST_DEVICE void for_each_weight(const Lane* state, F&& f) const {
    using Scalar = typename LaneMath<Lane>::Scalar;
    const Lane edge = state[kEdge], inverse = state[kInverse];
    for_each_class<Lane>(
        state, [&](Taps k, Scalar distance) REBLUR_INLINE_LAMBDA { f(k, value_at<Lane>(edge, distance) * inverse); });
  }

  template <class Lane, class F>
  REBLUR_HOST_DEVICE void for_each_weight_in_row(const Lane* state, int a, F&& f) const {
    using Scalar = typename LaneMath<Lane>::Scalar;
    const Scalar limit = largest_edge(state);
    if (Scalar(a) > limit) return;
    const Lane edge = state[kEdge], inverse = state[kInverse];
    for (int b = 0; b <= radii.max(); ++b) {
      const Scalar distance = Scalar(kClassDistances.values[class_index(a, b)]);
      if (distance > limit) break;
      f(b, value_at<Lane>(edge, distance) * inverse);
    }
  }

  template <class Lane, class Sum>
  REBLUR_HOST_DEVICE void accumulate(const Lane* state, const Lane& g, const Sum& sum, Lane* sums) const {
    using Math = LaneMath<Lane>;
    using Scalar = typename Math::Scalar;
    const Lane edge = state[kEdge];
    Lane total = Lane(0), derivative = Lane(0);
    for_each_class<Lane>(state, [&](Taps k, Scalar distance) REBLUR_INLINE_LAMBDA {
      const Lane s = sum(k);
      total = Math::fma(value_at<Lane>(edge, distance), s, total);
      derivative = Math::fma(on_edge<Lane>(edge, distance), s, derivative);
    });
    sums[0] = Math::fma(g, total, sums[0]);
    sums[1] = Math::fma(g, derivative, sums[1]);
  }

  template <class Lane, class Load, class Store>
  REBLUR_HOST_DEVICE void adjoint(const Load&, const Lane* sums, const Store& store, const Lane* state) const {
    using Math = LaneMath<Lane>;
    using Scalar = typename Math::Scalar;
    Lane taps_on_edge = Lane(0);
    for_each_class<Lane>(state, [&](Taps k, Scalar distance) REBLUR_INLINE_LAMBDA {
      taps_on_edge =
          Math::fma(Lane(Scalar(class_multiplicity(k.a, k.b))), on_edge<Lane>(state[kEdge], distance), taps_on_edge);
    });
    const Lane inverse = state[kInverse];
    store(0, 0, state[kSlope] * inverse * (sums[1] - taps_on_edge * inverse * sums[0]));
  }

 private:
  template <class Lane>
  REBLUR_HOST_DEVICE static auto largest_edge(const Lane* state) {
    return *reinterpret_cast<const typename LaneMath<Lane>::Scalar*>(state + kLargestEdge);
  }

  // f(taps, distance) for the classes within the largest disk of the lanes.
  template <class Lane, class F>
  REBLUR_HOST_DEVICE void for_each_class(const Lane* state, F&& f) const {
    using Scalar = typename LaneMath<Lane>::Scalar;
    const Scalar limit = largest_edge(state);
    for (int b = 0; b <= radii.max() && Scalar(b) <= limit; ++b) {
      const double* of_row = kClassDistances.values + class_index(0, b);
      for (int a = 0; a <= b; ++a) {
        const Scalar distance = Scalar(of_row[a]);
        if (distance > limit) break;
        f(Taps{a, b}, distance);
      }
    }
  }
};

}  // namespace reblur
