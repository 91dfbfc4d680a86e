// The instruction set that answers: the best that this processor has, or less where ATEN_CPU_CAPABILITY asks for it, as
// it does for Torch's own kernels.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace reblur {
namespace cpu {

enum class Capability : int { kDefault, kAvx2, kAvx512 };

#if defined(REBLUR_X86)
inline Capability capability_of_processor() {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return avx512 ? Capability::kAvx512 : avx2 ? Capability::kAvx2 : Capability::kDefault;
}

inline Capability capability() {
  const Capability best = capability_of_processor();
  const char* wanted = std::getenv("ATEN_CPU_CAPABILITY");
  if (!wanted) return best;
  const std::string_view name = wanted;
  if (name == "default") return Capability::kDefault;
  if (name == "avx2") return std::min(best, Capability::kAvx2);
  return best;
}
#endif

// "AVX512", "AVX2" or "DEFAULT".
const char* capability_name();

}  // namespace cpu
}  // namespace reblur
