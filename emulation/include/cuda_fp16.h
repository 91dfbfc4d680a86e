// Stands in for the toolkit's header of the same name.
#pragma once

#include "emulation/float16.h"

using __half = cuda_emulation::Float16<cuda_emulation::HalfFormat>;
using __half2 = cuda_emulation::Float16Pair<cuda_emulation::HalfFormat>;
using half = __half;
using half2 = __half2;

inline float __half2float(__half value) { return value; }
inline __half __float2half_rn(float value) { return value; }
inline __half __float2half(float value) { return value; }
inline float2 __half22float2(__half2 value) { return {value.x, value.y}; }
inline __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
inline unsigned short __half_as_ushort(__half value) { return value.bits; }
inline __half __ushort_as_half(unsigned short bits) {
  return cuda_emulation::float16_of<cuda_emulation::HalfFormat>(bits);
}
