// Spellings that let one source compile as host C++ and as CUDA device code.
#pragma once

#if defined(__CUDACC__)
#define REBLUR_HOST_DEVICE __host__ __device__ __forceinline__
// nvcc takes no GNU attribute on a device lambda; it inlines them all by itself.
#define REBLUR_INLINE_LAMBDA
#elif defined(REBLUR_NO_FORCED_INLINE)  // for builds where the time to compile counts
#define REBLUR_HOST_DEVICE inline
#define REBLUR_INLINE_LAMBDA
#else
#define REBLUR_HOST_DEVICE inline __attribute__((always_inline))
#define REBLUR_INLINE_LAMBDA __attribute__((always_inline))
#endif
