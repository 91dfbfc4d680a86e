// The kernels for any processor of the architecture.
#define CPU_CAPABILITY DEFAULT
#define CPU_CAPABILITY_DEFAULT
#include "cpu/kernels.inl"

namespace reblur {
namespace cpu {

const Kernels<float>& kernels_default(float) { return kernels<float>("DEFAULT"); }
const Kernels<double>& kernels_default(double) { return kernels<double>("DEFAULT"); }

}  // namespace cpu
}  // namespace reblur
