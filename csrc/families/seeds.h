// The family of the published reblurring operator: a pixel mixes S softmax kernels, each given by one seed per integer
// distance, and the unblurred image.
//
// Per pixel: seeds s, block n holding s_n[0 … r_n]; weights w_0 … w_S, w_0 for the unblurred image. With j = floor(d)
// and t = d - j, a tap at distance d has logit_n(d) = (1 - t)|s_n[j]| + t|s_n[j+1]| for d <= r_n. Farther taps of the
// (2 r_n + 1)^2 window have logit 0 (square support) or are left out (disk support). The kernel is the softmax over the
// taps.
//
// All S kernels act on the same image, so their weighted sum is one kernel. A class weight T_k is the weight of each
// tap of distance class k:
//   T_k = [k = 0] w_0 + Σ_n w_n e_n(k) / Z_n,     e_n(k) = exp(logit_n(k) - m_n),  Z_n = Σ_k m_k e_n(k)
// where m_k is the class's multiplicity and m_n the largest logit.
#pragma once

#include "families/class_family.h"

namespace reblur {

template <class RadiiPolicy>
struct SeedsFamily : ClassFamily<RadiiPolicy> {
  using Radii = RadiiPolicy;
  static constexpr int kTensors = 2;
  static constexpr int kSeeds = 0, kWeights = 1;  // seeds [N, Σ(r_n+1), H, W], weights [N, S+1, H, W]

  using ClassFamily<RadiiPolicy>::radii;
  using ClassFamily<RadiiPolicy>::square;

  // T_k for every class. load(tensor, channel) gives a parameter of the pixel.
  template <class Lane, class Load>
  REBLUR_HOST_DEVICE void prepare(const Load& load,
                                  Lane* weights  // [kClasses]
  ) const {
    initialise(load, weights);
    radii.for_each_compiled_radius([&](auto n, auto radius, auto offset) REBLUR_INLINE_LAMBDA {
      LaneArray<Lane, Radii::kClasses> taps;
      Lane outside, total;
      exponentials<Lane>(load, radius, offset, taps, outside, total);
      accumulate_kernel<Lane>(radius, quotient<Lane>(load(kWeights, n + 1), total), taps, outside, weights);
    });
  }

  // The adjoint: from the gradient D_k to each class weight, the gradient to each parameter, handed to
  // store(tensor, channel, value). With p_n(k) = e_n(k) / Z_n:
  //   dw_0 = D_0,  dw_n = Σ_k D_k p_n(k),  dlogit_n(k) = w_n p_n(k) (D_k - m_k dw_n)
  // It passes by every e_n(k), so it gives the class weights too if they are wanted.
  template <class Lane, class Load, class Store>
  REBLUR_HOST_DEVICE void adjoint(const Load& load,
                                  const Lane* grad_weights,  // [kClasses]: D_k
                                  const Store& store,
                                  Lane* weights = nullptr  // [kClasses]: T_k
  ) const {
    using Math = LaneMath<Lane>;
    using Scalar = typename Math::Scalar;
    store(kWeights, 0, grad_weights[0]);
    if (weights) initialise(load, weights);
    radii.for_each_radius([&](auto n, auto radius, auto offset) REBLUR_INLINE_LAMBDA {
      LaneArray<Lane, Radii::kClasses> taps;
      Lane outside, total;
      exponentials<Lane>(load, radius, offset, taps, outside, total);
      Lane inside_sum = Lane(0), outside_sum = Lane(0);
      radii.for_each_class(radius, [&](auto k) REBLUR_INLINE_LAMBDA {
        if (radii.within_disk(k, radius))
          inside_sum = Math::fma(grad_weights[k.index], taps[k.index], inside_sum);
        else if (square)
          outside_sum = outside_sum + grad_weights[k.index];
      });
      const Lane inverse = quotient<Lane>(Lane(1), total);
      const Lane grad_weight = Math::fma(outside_sum, outside, inside_sum) * inverse;
      store(kWeights, n + 1, grad_weight);

      const Lane scale = load(kWeights, n + 1) * inverse;
      if (weights) accumulate_kernel<Lane>(radius, scale, taps, outside, weights);
      LaneArray<Lane, Radii::kRings> grad_seeds;  // gradient to |s_n[j]|
      radii.for_each_offset(radius, [&](auto j) REBLUR_INLINE_LAMBDA { grad_seeds[j] = Lane(0); });
      radii.for_each_class(radius, [&](auto k) REBLUR_INLINE_LAMBDA {
        if (!radii.within_disk(k, radius)) return;
        const Lane centred = Math::fma(Lane(Scalar(-k.multiplicity)), grad_weight, grad_weights[k.index]);
        const Lane grad_logit = scale * taps[k.index] * centred;
        if (k.template fraction<Scalar>() == 0) {
          grad_seeds[k.ring] = grad_seeds[k.ring] + grad_logit;
        } else {
          const Lane far = Lane(k.template fraction<Scalar>()) * grad_logit;
          grad_seeds[k.ring] = grad_seeds[k.ring] + (grad_logit - far);
          grad_seeds[k.ring + 1] = grad_seeds[k.ring + 1] + far;
        }
      });
      radii.for_each_offset(radius, [&](auto j) REBLUR_INLINE_LAMBDA {
        store(kSeeds, offset + j, grad_seeds[j] * Math::sign(load(kSeeds, offset + j)));
      });
    });
  }

 private:
  template <class Lane, class Load>
  REBLUR_HOST_DEVICE void initialise(const Load& load, Lane* weights) const {
    radii.for_each_class(radii.max(), [&](auto k) REBLUR_INLINE_LAMBDA { weights[k.index] = Lane(0); });
    weights[0] = load(kWeights, 0);
  }

  // Adds one kernel, times scale = w_n / Z_n, to the class weights.
  template <class Lane, class Radius>
  REBLUR_HOST_DEVICE void accumulate_kernel(
      Radius radius, Lane scale, const Lane* taps, Lane outside, Lane* weights) const {
    const Lane outside_weight = scale * outside;
    radii.for_each_class(radius, [&](auto k) REBLUR_INLINE_LAMBDA {
      if (radii.within_disk(k, radius))
        weights[k.index] = LaneMath<Lane>::fma(scale, taps[k.index], weights[k.index]);
      else if (square)
        weights[k.index] = weights[k.index] + outside_weight;
    });
  }

  // e_n(k) of the classes within the disk, that of each tap outside it (0 for disk support), and Z_n.
  template <class Lane, class Load, class Radius, class Offset>
  REBLUR_HOST_DEVICE void exponentials(const Load& load,
                                       Radius radius,
                                       Offset offset,
                                       Lane* taps,  // [kClasses]
                                       Lane& outside,
                                       Lane& total) const {
    using Math = LaneMath<Lane>;
    using Scalar = typename Math::Scalar;
    constexpr Scalar kLog2E = Scalar(1.4426950408889634);
    LaneArray<Lane, Radii::kRings> logits, steps;
    // The largest logit is that of an integer distance, as the others lie between two of those. It is taken away before
    // the scaling to base 2, so that the rounding error is relative to the difference, however large the seeds are.
    Lane largest = Lane(0);
    radii.for_each_offset(radius, [&](auto j) REBLUR_INLINE_LAMBDA {
      // The offset apart, known at run time or not: so that its product with a stride is taken once.
      logits[j] = Math::abs(load(kSeeds, offset, j));
      largest = Math::max(largest, logits[j]);
    });
    radii.for_each_offset(radius,
                          [&](auto j) REBLUR_INLINE_LAMBDA { logits[j] = (logits[j] - largest) * Lane(kLog2E); });
    radii.for_each_step(radius, [&](auto j) REBLUR_INLINE_LAMBDA { steps[j] = logits[j + 1] - logits[j]; });
    total = Lane(0);
    int taps_outside = 0;  // folds into a constant where the radius is one
    radii.for_each_class(radius, [&](auto k) REBLUR_INLINE_LAMBDA {
      if (radii.within_disk(k, radius)) {
        Lane logit = logits[k.ring];
        if (k.template fraction<Scalar>() != 0)
          logit = Math::fma(Lane(k.template fraction<Scalar>()), steps[k.ring], logit);
        taps[k.index] = Math::exp2(logit);
        total = Math::fma(Lane(Scalar(k.multiplicity)), taps[k.index], total);
      } else {
        taps_outside += k.multiplicity;
      }
    });
    outside = square ? Math::exp2(Lane(-kLog2E) * largest) : Lane(0);
    total = Math::fma(Lane(Scalar(taps_outside)), outside, total);
  }
};

}  // namespace reblur
