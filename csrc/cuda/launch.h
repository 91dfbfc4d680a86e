// Launching a kernel, its shared memory, and the scalar types in memory against those of computation.
//
// One source compiles with nvcc and, for the tests, with a host compiler and emulation/include.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

// The scalar types of tensors. A build may have fewer: the sum of 1 for float, 2 for double, 4 for __half and 8 for
// __nv_bfloat16.
#if !defined(REBLUR_SCALARS)
#define REBLUR_SCALARS 15
#endif
// Of these, the types of parameters that this source is compiled for. setup.py compiles each source in parts, side by
// side: as a whole it would take minutes.
#if !defined(REBLUR_PART)
#define REBLUR_PART REBLUR_SCALARS
#endif
#if REBLUR_PART & 1
#define REBLUR_IF_FLOAT(...) __VA_ARGS__
#else
#define REBLUR_IF_FLOAT(...)
#endif
#if REBLUR_PART & 2
#define REBLUR_IF_DOUBLE(...) __VA_ARGS__
#else
#define REBLUR_IF_DOUBLE(...)
#endif
#if REBLUR_PART & 4
#define REBLUR_IF_HALF(...) __VA_ARGS__
#else
#define REBLUR_IF_HALF(...)
#endif
#if REBLUR_PART & 8
#define REBLUR_IF_BFLOAT16(...) __VA_ARGS__
#else
#define REBLUR_IF_BFLOAT16(...)
#endif
#if REBLUR_SCALARS & 1
#define REBLUR_IF_BESIDE_FLOAT(...) __VA_ARGS__
#else
#define REBLUR_IF_BESIDE_FLOAT(...)
#endif
#define REBLUR_FOR_EACH_SCALAR(f) \
  REBLUR_IF_FLOAT(f(float))       \
  REBLUR_IF_DOUBLE(f(double))     \
  REBLUR_IF_HALF(f(__half))       \
  REBLUR_IF_BFLOAT16(f(__nv_bfloat16))
// The pairs of the types of images and parameters.
#define REBLUR_FOR_EACH_PAIR(f)                                              \
  REBLUR_IF_FLOAT(f(float, float))                                           \
  REBLUR_IF_DOUBLE(f(double, double))                                        \
  REBLUR_IF_HALF(f(__half, __half) REBLUR_IF_BESIDE_FLOAT(f(float, __half))) \
  REBLUR_IF_BFLOAT16(f(__nv_bfloat16, __nv_bfloat16) REBLUR_IF_BESIDE_FLOAT(f(float, __nv_bfloat16)))

namespace reblur {
namespace cuda {

// A kernel that asks for more shared memory than this must be allowed to.
constexpr size_t kDefaultSharedBytes = 48 << 10;

// No triple brackets: only nvcc knows them.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...),
                   dim3 grid,
                   dim3 block,
                   size_t shared_bytes,
                   cudaStream_t stream,
                   Arguments&&... arguments) {
  if (shared_bytes > kDefaultSharedBytes) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

// The block's dynamic shared memory, aligned to 16 bytes.
template <class T>
__device__ __forceinline__ T* shared_memory() {
#if defined(REBLUR_CUDA_EMULATION)
  return static_cast<T*>(emulated_shared_memory());
#else
  extern __shared__ __align__(16) unsigned char reblur_shared_memory[];
  return reinterpret_cast<T*>(reblur_shared_memory);
#endif
}

__device__ __forceinline__ float accumulation_of(float value) { return value; }
__device__ __forceinline__ double accumulation_of(double value) { return value; }
__device__ __forceinline__ float accumulation_of(__half value) { return __half2float(value); }
__device__ __forceinline__ float accumulation_of(__nv_bfloat16 value) { return __bfloat162float(value); }

// Reads what no kernel in flight writes, through the read-only path, in the type of computation.
template <class T>
__device__ __forceinline__ auto load(const T* from) {
  return accumulation_of(__ldg(from));
}

__device__ __forceinline__ void store(float value, float* to) { *to = value; }
__device__ __forceinline__ void store(double value, double* to) { *to = value; }
__device__ __forceinline__ void store(float value, __half* to) { *to = __float2half_rn(value); }
__device__ __forceinline__ void store(float value, __nv_bfloat16* to) { *to = __float2bfloat16_rn(value); }

}  // namespace cuda
}  // namespace reblur
