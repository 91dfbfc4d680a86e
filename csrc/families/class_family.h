// What families have in common whose kernel is given by the weight of every distance class.
//
// The kernels ask any family for the following. Lanes are those of one pixel, or of several with SIMD; a state is what
// the weights are read off or computed from.
//
//   Radii, radii              the radii policy (common/radii.h)
//   kState, state_size()      lanes of a pixel's state: capacity, and number in use
//   prepare(load, state)      fills the state from the parameters, load(tensor, channel). load(tensor, first, further)
//                             is that of channel first + further
//   for_each_weight(state, f)            f(class, weight), for the classes that may have a weight
//   for_each_weight_in_row(state, a, f)  f(b, weight) of the taps (±a, ±b) likewise, 0 <= b
//
// and for the gradients to its parameters, which it gets from the sums S_k of the image over each class:
//
//   kSums                     lanes that add up over the channels, from zero
//   accumulate(state, g, sum, sums)      adds one channel, with g the output's gradient and sum(class) = S_k
//   adjoint(load, sums, store, state)    hands the gradients to store(tensor, channel, value)
//   kAnalytic                 whether accumulate and adjoint read the state, which is prepared before. If not, adjoint
//                             fills it where it is not nullptr, as it passes by all of it anyway
//
// An analytic family also has reach(state): no weight of these lanes farther along x or y differs from zero.
#pragma once

#include "common/lane.h"
#include "common/radii.h"

namespace reblur {

// The state is the class weights T_k, and the sums are D_k, the gradient to each.
template <class RadiiPolicy>
struct ClassFamily {
  using Radii = RadiiPolicy;
  static constexpr bool kAnalytic = false;
  static constexpr int kState = Radii::kClasses, kSums = Radii::kClasses;

  Radii radii;
  bool square;  // the support: square, or disk

  REBLUR_HOST_DEVICE int state_size() const { return class_count(radii.max()); }

  // False for a class (a, b) that no kernel of this family reaches: its weight is 0 and its taps need not be read.
  REBLUR_HOST_DEVICE bool reaches(int a, int b) const { return within_disk(a, b, radii.max()) || square; }

  template <class Lane, class F>
  REBLUR_HOST_DEVICE void for_each_weight(const Lane* state, F&& f) const {
    radii.for_each_class(radii.max(), [&](auto k) REBLUR_INLINE_LAMBDA {
      if (reaches(k.a, k.b)) f(k, state[k.index]);
    });
  }

  template <class Lane, class Offset, class F>
  REBLUR_HOST_DEVICE void for_each_weight_in_row(const Lane* state, Offset a, F&& f) const {
    radii.for_each_offset(radii.max(), [&](auto b) REBLUR_INLINE_LAMBDA {
      if (reaches(a, b)) f(b, state[class_index(a, b)]);
    });
  }

  template <class Lane, class Sum>
  REBLUR_HOST_DEVICE void accumulate(const Lane*, const Lane& g, const Sum& sum, Lane* sums) const {
    radii.for_each_class(radii.max(), [&](auto k) REBLUR_INLINE_LAMBDA {
      if (reaches(k.a, k.b)) sums[k.index] = LaneMath<Lane>::fma(g, sum(k), sums[k.index]);
    });
  }
};

}  // namespace reblur
