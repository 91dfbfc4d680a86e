// The kernels for x86-64 with AVX512.
#define CPU_CAPABILITY AVX512
#define CPU_CAPABILITY_AVX512
#include "cpu/kernels.inl"

namespace reblur {
namespace cpu {

const Kernels<float>& kernels_avx512(float) { return kernels<float>("AVX512"); }
const Kernels<double>& kernels_avx512(double) { return kernels<double>("AVX512"); }

}  // namespace cpu
}  // namespace reblur
