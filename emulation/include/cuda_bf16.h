// Stands in for the toolkit's header of the same name.
#pragma once

#include "emulation/float16.h"

using __nv_bfloat16 = cuda_emulation::Float16<cuda_emulation::BFloat16Format>;
using __nv_bfloat162 = cuda_emulation::Float16Pair<cuda_emulation::BFloat16Format>;
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

inline float __bfloat162float(__nv_bfloat16 value) { return value; }
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return value; }
inline __nv_bfloat16 __float2bfloat16(float value) { return value; }
inline float2 __bfloat1622float2(__nv_bfloat162 value) { return {value.x, value.y}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {x, y}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  return cuda_emulation::float16_of<cuda_emulation::BFloat16Format>(bits);
}
