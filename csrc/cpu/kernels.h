// The CPU engine's entry points. No Torch here: raw pointers, sizes and strides.
//
// Each exists once per instruction set and scalar type, and works on the range [begin, end) of a problem's tiles, so that
// the caller spreads them over threads. Every pixel is computed by the same instructions whatever its tile or thread:
// results are bitwise repeatable.
#pragma once

#include "engine/classes.h"
#include "engine/problem.h"

namespace reblur {
namespace cpu {

// One family with its parameters' planes.
template <class T>
struct SeedsProblem {
  int radii_count;
  int radii[kMaxRadius];
  bool square;
  Planes<const T> parameters[2];  // seeds [N, Σ(r+1), H, W], weights [N, S+1, H, W]
};

// Class weights as the engine keeps them between kernels: [N, H, ceil(W / lanes), classes, lanes]. All classes of a block
// of neighbouring pixels lie together, which spares the caches 36 streams at equal distances.
template <class T>
struct BlockedWeights {
  T* data;  // aligned to 64 bytes; nullptr where not wanted
};

template <class T>
struct GatherArguments {
  Size size;
  Padding padding;
  Planes<const T> image;   // [N, C, H, W]
  Planes<T> output;        // [N, C, H, W]
};

template <class T>
struct ParameterGradientsArguments {
  Size size;
  Padding padding;
  Planes<const T> image;          // [N, C, H, W]
  Planes<const T> grad_output;    // [N, C, H, W]
  Planes<T> grad_parameters[2];   // like the parameters; each may be unwanted
  BlockedWeights<T> weights;      // may be unwanted
};

template <class T>
struct ScatterArguments {
  Size size;
  Padding padding;
  BlockedWeights<const T> weights;
  Planes<const T> grad_output;  // [N, C, H, W]
  Planes<T> grad_image;         // [N, C, H, W]
};

template <class T>
struct ClassWeightsArguments {
  Size size;                   // channels unused
  Planes<T> planes;            // [N, classes, H, W], or unwanted
  BlockedWeights<T> blocked;   // or unwanted
};

template <class T>
struct ClassWeightsGradientsArguments {
  Size size;                     // channels unused
  Planes<const T> grad_weights;  // [N, classes, H, W]
  Planes<T> grad_parameters[2];  // each may be unwanted
};

// The engine compiled for one instruction set.
template <class T>
struct Kernels {
  const char* capability;  // "AVX512", "AVX2" or "DEFAULT"
  int lanes;

  // The number of tiles that a size splits into: for `scatter`, and for all the others.
  int64_t (*tiles)(const Size&);
  int64_t (*scatter_tiles)(const Size&);

  void (*gather)(const SeedsProblem<T>&, const GatherArguments<T>&, int64_t begin, int64_t end);
  void (*parameter_gradients)(const SeedsProblem<T>&, const ParameterGradientsArguments<T>&, int64_t begin, int64_t end);
  void (*scatter)(const SeedsProblem<T>&, const ScatterArguments<T>&, int64_t begin, int64_t end);
  void (*class_weights)(const SeedsProblem<T>&, const ClassWeightsArguments<T>&, int64_t begin, int64_t end);
  void (*class_weights_gradients)(const SeedsProblem<T>&,
                                  const ClassWeightsGradientsArguments<T>&,
                                  int64_t begin,
                                  int64_t end);
};

const Kernels<float>& kernels_default(float);
const Kernels<double>& kernels_default(double);
#if defined(REBLUR_X86)
const Kernels<float>& kernels_avx2(float);
const Kernels<double>& kernels_avx2(double);
const Kernels<float>& kernels_avx512(float);
const Kernels<double>& kernels_avx512(double);
#endif

}  // namespace cpu
}  // namespace reblur
