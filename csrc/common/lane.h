// Arithmetic on a lane: one pixel (float, double) or several neighbours in x (a SIMD vector, see cpu/lane.h).
//
// A family calls nothing else, so its source is the same on every machine.
#pragma once

#include <cmath>
#include <type_traits>

#include "common/macros.h"

namespace reblur {

template <class Lane>
struct LaneMath {
  static_assert(std::is_floating_point<Lane>::value, "a scalar lane is float or double");
  using Scalar = Lane;

  REBLUR_HOST_DEVICE static Lane abs(Lane x) { return std::fabs(x); }
  // If either is NaN: x, or NaN where a GPU has an instruction for that.
  REBLUR_HOST_DEVICE static Lane max(Lane x, Lane y) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    if constexpr (std::is_same<Lane, float>::value) {
      float result;
      asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(x), "f"(y));
      return result;
    }
#endif
    return x < y ? y : x;
  }
  REBLUR_HOST_DEVICE static Lane min(Lane x, Lane y) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    if constexpr (std::is_same<Lane, float>::value) {
      float result;
      asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(x), "f"(y));
      return result;
    }
#endif
    return y < x ? y : x;
  }
  REBLUR_HOST_DEVICE static Lane fma(Lane x, Lane y, Lane z) { return std::fma(x, y, z); }
  // 2^x for x <= 0.
  REBLUR_HOST_DEVICE static Lane exp2(Lane x) {
#if defined(__CUDA_ARCH__)
    if constexpr (std::is_same<Lane, float>::value) {  // one instruction, 2 ulp; results below 2^-126 become 0
      float power;
      asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
      return power;
    }
#endif
    return std::exp2(x);
  }
  // -1, 0 or 1, like torch.sgn.
  REBLUR_HOST_DEVICE static Lane sign(Lane x) { return Lane(x > 0) - Lane(x < 0); }
  // 1 where x <= y, else 0.
  REBLUR_HOST_DEVICE static Lane at_most(Lane x, Lane y) { return Lane(x <= y); }
};

// x / y for y between 2^-126 and 2^126.
template <class Lane>
REBLUR_HOST_DEVICE Lane quotient(const Lane& x, const Lane& y) {
#if defined(__CUDA_ARCH__)
  // 2 ulp. The exact division costs ten times as much, and a call that splits the registers.
  if constexpr (std::is_same<Lane, float>::value) return __fdividef(x, y);
#endif
  return x / y;
}

// Lanes without an initial value. A SIMD vector's constructor clears it; for the families' local arrays, of which every
// element is written before it is read, that took a fifth of the time.
template <class Lane, int kCount>
union LaneArray {
  Lane values[kCount];

  REBLUR_HOST_DEVICE LaneArray() {}
  REBLUR_HOST_DEVICE operator Lane*() { return values; }
};

}  // namespace reblur
