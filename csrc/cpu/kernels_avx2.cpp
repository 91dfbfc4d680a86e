// The kernels for x86-64 with AVX2.
#define CPU_CAPABILITY AVX2
#define CPU_CAPABILITY_AVX2
#include "cpu/kernels.inl"

namespace reblur {
namespace cpu {

const Kernels<float>& kernels_avx2(float) { return kernels<float>("AVX2"); }
const Kernels<double>& kernels_avx2(double) { return kernels<double>("AVX2"); }

}  // namespace cpu
}  // namespace reblur
