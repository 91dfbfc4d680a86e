// Stands in for the toolkit's header of the same name: the part of CUDA that this project's kernels use, on the CPU.
//
// __shared__ is missing on purpose: a kernel's shared memory is dynamic and comes from emulated_shared_memory().
// Neither time, the memory model (a write is seen at once), streams (a launch returns when all is done), registers and
// launch bounds nor launch attributes are modelled; threads interleave at barriers and shuffles only.
#pragma once

#define REBLUR_CUDA_EMULATION 1

#include <math.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <type_traits>
#include <utility>

#include "emulation/executor.h"
#include "emulation/vectors.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

// ---- Kernels ----

inline const uint3& threadIdx = cuda_emulation::machine.thread_index;
inline const uint3& blockIdx = cuda_emulation::machine.block_index;
inline const dim3& blockDim = cuda_emulation::machine.block_dim;
inline const dim3& gridDim = cuda_emulation::machine.grid_dim;
inline constexpr int warpSize = cuda_emulation::kWarpSize;

// The running block's dynamic shared memory, what `extern __shared__ unsigned char memory[]` names under nvcc. As large
// as the launch asked for to the byte, aligned to 16 bytes, and all bytes 0xFF when the block starts.
inline void* emulated_shared_memory() { return cuda_emulation::machine.shared; }

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  cuda_emulation::wait({file, line, 0});
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFF, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  cuda_emulation::wait({file, line, mask});
}

// Lanes form groups of `width`, a power of two; whoever asks beyond its group gets its own value.
template <class T>
T __shfl_sync(unsigned mask,
              T value,
              int source,
              int width = warpSize,
              const char* file = __builtin_FILE(),
              int line = __builtin_LINE()) {
  const unsigned group = cuda_emulation::lane() & ~(width - 1u);
  return cuda_emulation::shuffle(mask, value, group | (source & (width - 1u)), file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask,
                   T value,
                   unsigned delta,
                   int width = warpSize,
                   const char* file = __builtin_FILE(),
                   int line = __builtin_LINE()) {
  const unsigned lane = cuda_emulation::lane(), end = (lane & ~(width - 1u)) + width;
  return cuda_emulation::shuffle(mask, value, lane + delta < end ? lane + delta : lane, file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask,
                  T value,
                  int lane_mask,
                  int width = warpSize,
                  const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
  const unsigned lane = cuda_emulation::lane(), end = (lane & ~(width - 1u)) + width, source = lane ^ lane_mask;
  return cuda_emulation::shuffle(mask, value, source < end ? source : lane, file, line);
}

template <class T>
T __ldg(const T* from) {
  return *from;
}
template <class T>
T __ldcs(const T* from) {
  return *from;
}
template <class T>
void __stcs(T* to, T value) {
  *to = value;
}

inline float __fdividef(float x, float y) { return x / y; }
template <class T>
T min(T x, T y) {
  if constexpr (std::is_floating_point_v<T>) return std::fmin(x, y);  // not NaN if there is a choice
  return x < y ? x : y;
}
template <class T>
T max(T x, T y) {
  if constexpr (std::is_floating_point_v<T>) return std::fmax(x, y);
  return x > y ? x : y;
}

// ---- Launches ----

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNotSupported = 801,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

using cudaStream_t = struct CUstream_st*;
struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

namespace cuda_emulation {

constexpr int kSharedBytes = 48 << 10;
constexpr int kSharedBytesOptIn = 64 << 10;  // compute capability 7.5, the least that the kernels run on

inline thread_local cudaError_t last_error = cudaSuccess;
inline std::map<const void*, int> shared_limits;  // by kernel

inline cudaError_t record(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

inline cudaError_t check(const cudaLaunchConfig_t& config, const void* kernel) {
  const dim3 &grid = config.gridDim, &block = config.blockDim;
  if (config.numAttrs != 0) return cudaErrorNotSupported;
  for (const dim3& size : {grid, block})
    if (size.x == 0 || size.y == 0 || size.z == 0) return cudaErrorInvalidConfiguration;
  if (block.x > 1024 || block.y > 1024 || block.z > 64 || block.x * block.y * block.z > 1024)
    return cudaErrorInvalidConfiguration;
  if (grid.x > 0x7FFFFFFF || grid.y > 65535 || grid.z > 65535) return cudaErrorInvalidConfiguration;
  const auto limit = shared_limits.find(kernel);
  if (config.dynamicSmemBytes > size_t(limit == shared_limits.end() ? kSharedBytes : limit->second))
    return cudaErrorInvalidValue;
  return cudaSuccess;
}

// Adds a line to the file that the environment's REBLUR_EMULATION_LAUNCHES names, if it does: the kernel's address, the
// threads of a block and the bytes of its shared memory.
inline void log_launch(const cudaLaunchConfig_t& config, const void* kernel) {
  const char* path = std::getenv("REBLUR_EMULATION_LAUNCHES");
  if (path == nullptr) return;
  std::FILE* file = std::fopen(path, "a");
  if (file == nullptr) fail(std::string("no file to log launches to: ") + path);
  const dim3& block = config.blockDim;
  std::fprintf(file, "%p %u %zu\n", kernel, block.x * block.y * block.z, config.dynamicSmemBytes);
  std::fclose(file);
}

}  // namespace cuda_emulation

inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorNotSupported:
      return "operation not supported";
  }
  return "unrecognized error code";
}

inline cudaError_t cudaPeekAtLastError() { return cuda_emulation::last_error; }
inline cudaError_t cudaGetLastError() { return std::exchange(cuda_emulation::last_error, cudaSuccess); }

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  using namespace cuda_emulation;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > kSharedBytesOptIn)
    return record(cudaErrorInvalidValue);
  int& limit = shared_limits.emplace(reinterpret_cast<const void*>(kernel), kSharedBytes).first->second;
  limit = std::max(kSharedBytes, value);
  return cudaSuccess;
}

enum cudaMemcpyKind { cudaMemcpyDeviceToDevice = 3 };

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  const char *target = static_cast<char*>(to), *source = static_cast<const char*>(from);
  if (target < source + bytes && source < target + bytes) return cuda_emulation::record(cudaErrorInvalidValue);
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

template <class... ExpTypes, class... ActTypes>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(ExpTypes...), ActTypes&&... args) {
  static_assert((std::is_trivially_copyable_v<ExpTypes> && ...), "arguments are copied to the device byte by byte");
  static_assert((sizeof(ExpTypes) + ... + 0) <= 4096, "more arguments than every toolkit passes");
  return [&](ExpTypes... coerced) {
    const cudaError_t error = cuda_emulation::check(*config, reinterpret_cast<const void*>(kernel));
    if (error == cudaSuccess) {
      cuda_emulation::log_launch(*config, reinterpret_cast<const void*>(kernel));
      cuda_emulation::run_grid(
          config->gridDim, config->blockDim, config->dynamicSmemBytes, reinterpret_cast<const void*>(kernel), [&] {
            kernel(coerced...);
          });
    }
    return cuda_emulation::record(error);
  }(std::forward<ActTypes>(args)...);
}
