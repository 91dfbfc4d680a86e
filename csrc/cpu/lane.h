// SIMD lanes: at::vec::Vectorized, as wide as the instruction set that the including file is compiled for.
#pragma once

#include <ATen/cpu/vec/vec.h>

#include <cstring>

#include "common/lane.h"

namespace reblur {

namespace exp2_detail {

// 2^f for |f| <= 1/2. The coefficients minimise the largest relative error, found by iteratively reweighted least
// squares: 9e-8 for float. For double they are from Chebyshev interpolation, 8e-18 before rounding.
constexpr float kFloat[] = {1.0f,
                            0.69314697755563569f,
                            0.2402224205732537f,
                            0.05550733805731397f,
                            0.0096715139260068223f,
                            0.0013264708407152093f};
// For 0 <= f < 1: 7.5e-8.
constexpr float kFloatFloor[] = {0.99999992506762525f,
                                 0.69315307297075817f,
                                 0.24015361902695086f,
                                 0.055826312184469847f,
                                 0.0089893470840489511f,
                                 0.0018775737854327744f};
constexpr double kDouble[] = {1.0,
                              0.693147180559945309,
                              0.240226506959100982,
                              0.0555041086648215943,
                              0.00961812910760688853,
                              0.00133335581464169353,
                              0.000154035304417360502,
                              0.0000152527338298361184,
                              1.32154425879216897e-6,
                              1.01780624458457735e-7,
                              7.0725859492692237e-9,
                              4.45496059818651839e-10};

constexpr const auto& coefficients(float) { return kFloat; }
constexpr const auto& coefficients(double) { return kDouble; }

template <class V, class T, int N, class Fma>
inline __attribute__((always_inline)) V polynomial(V f, const T (&c)[N], const Fma& fma) {
  V p = V(c[N - 1]);
  for (int i = N - 2; i >= 0; --i) p = fma(p, f, V(c[i]));
  return p;
}

// A scalar at a time, without a branch, so that compilers vectorise a loop of it for whatever machine. Adding 1.5·2^m,
// m the mantissa's length, leaves round(x) in the low bits.
template <class T, class Int, int kMantissa, int kBias>
inline __attribute__((always_inline)) T scalar(T x) {
  constexpr T kShift = T(Int(3) << (kMantissa - 1));
  constexpr T kLowest = T(1 - kBias);  // below it 2^x is not normal; NaN stays NaN
  x = x < kLowest ? kLowest : x;
  const T shifted = x + kShift;
  const T f = x - (shifted - kShift);
  Int bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = Int((static_cast<std::make_unsigned_t<Int>>(bits) + kBias) << kMantissa);
  T scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return scale * polynomial(f, coefficients(T()), [](T a, T b, T c) { return a * b + c; });
}

inline float scalar(float x) { return scalar<float, int32_t, 23, 127>(x); }
inline double scalar(double x) { return scalar<double, int64_t, 52, 1023>(x); }

}  // namespace exp2_detail

template <class T>
struct LaneMath<at::vec::Vectorized<T>> {
  using Lane = at::vec::Vectorized<T>;
  using Scalar = T;

  static Lane abs(const Lane& x) { return x.abs(); }
  // One instruction each (at::vec::maximum takes four).
  static Lane max(const Lane& x, const Lane& y) { return at::vec::clamp_min(x, y); }
  static Lane min(const Lane& x, const Lane& y) { return at::vec::clamp_max(x, y); }
  static Lane at_most(const Lane& x, const Lane& y) { return x.le(y); }
  static Lane fma(const Lane& x, const Lane& y, const Lane& z) { return at::vec::fmadd(x, y, z); }
  // Of all lanes, and 0; `bound` if one is NaN.
  static T largest(const Lane& x, T bound) {
    T values[Lane::size()], result = 0;
    x.store(values);
    for (const T value : values) {
      if (value != value) return bound;
      result = value > result ? value : result;
    }
    return result;
  }
  static Lane sign(const Lane& x) { return x.gt(Lane(0)) - x.lt(Lane(0)); }

  static Lane exp2(const Lane& x) {
#if defined(CPU_CAPABILITY_AVX512)
    if constexpr (std::is_same_v<T, float>) {
      // x - floor(x) in one instruction; scalef takes the floor of its exponent by itself.
      const Lane f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
      return _mm512_scalef_ps(exp2_detail::polynomial(f, exp2_detail::kFloatFloor, fma), x);
    } else {
      const __m512d whole = _mm512_roundscale_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      const Lane p = exp2_detail::polynomial(x - Lane(whole), exp2_detail::kDouble, fma);
      return _mm512_scalef_pd(p, whole);
    }
#elif defined(CPU_CAPABILITY_AVX2)
    // 2^n by writing n into the exponent; below the lowest normal number the result stays there, and NaN stays NaN.
    if constexpr (std::is_same_v<T, float>) {
      const __m256 bounded = _mm256_max_ps(_mm256_set1_ps(-126), x);
      const __m256 whole = _mm256_round_ps(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
      const Lane p = exp2_detail::polynomial(Lane(bounded) - Lane(whole), exp2_detail::kFloat, fma);
      return p * Lane(_mm256_castsi256_ps(_mm256_slli_epi32(biased, 23)));
    } else {
      const __m256d bounded = _mm256_max_pd(_mm256_set1_pd(-1022), x);
      const __m256d whole = _mm256_round_pd(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      const __m256i biased =
          _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(whole)), _mm256_set1_epi64x(1023));
      const Lane p = exp2_detail::polynomial(Lane(bounded) - Lane(whole), exp2_detail::kDouble, fma);
      return p * Lane(_mm256_castsi256_pd(_mm256_slli_epi64(biased, 52)));
    }
#else
    T values[Lane::size()];
    x.store(values);
    for (T& value : values) value = exp2_detail::scalar(value);
    return Lane::loadu(values);
#endif
  }
};

}  // namespace reblur
