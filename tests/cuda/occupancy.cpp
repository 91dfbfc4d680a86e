// The toolkit's own occupancy calculator. Reads lines of architecture, warps and shared memory of a multiprocessor,
// shared memory reserved for a block, registers of a thread, threads of a block and its shared memory; writes a line
// each: blocks on a multiprocessor, then 0 or 1 for whether registers, shared memory, threads and blocks allow no more.
#include <cuda_occupancy.h>

#include <cstdio>

int main() {
  int architecture, warps, registers, threads;
  size_t shared_of_multiprocessor, reserved, shared;
  while (std::scanf("%d %d %zu %zu %d %d %zu",
                    &architecture,
                    &warps,
                    &shared_of_multiprocessor,
                    &reserved,
                    &registers,
                    &threads,
                    &shared) == 7) {
    cudaOccDeviceProp device;
    device.computeMajor = architecture / 10;
    device.computeMinor = architecture % 10;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = warps * 32;
    device.regsPerBlock = device.regsPerMultiprocessor = 64 << 10;
    device.warpSize = 32;
    device.sharedMemPerBlock = 48 << 10;
    device.sharedMemPerMultiprocessor = shared_of_multiprocessor;
    device.sharedMemPerBlockOptin = shared_of_multiprocessor - reserved;
    device.reservedSharedMemPerBlock = reserved;
    device.numSms = 1;
    cudaOccFuncAttributes kernel;
    kernel.maxThreadsPerBlock = 1024;
    kernel.numRegs = registers;
    kernel.sharedSizeBytes = 0;
    kernel.maxDynamicSharedSizeBytes = shared;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    kernel.numBlockBarriers = 1;
    const cudaOccDeviceState state;
    cudaOccResult result;
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, shared) != CUDA_OCC_SUCCESS)
      return 1;
    const auto limited = [&](unsigned by) { return (result.limitingFactors & by) != 0; };
    std::printf("%d %d %d %d %d\n",
                result.activeBlocksPerMultiprocessor,
                limited(OCC_LIMIT_REGISTERS),
                limited(OCC_LIMIT_SHARED_MEMORY),
                limited(OCC_LIMIT_WARPS),
                limited(OCC_LIMIT_BLOCKS));
  }
}
