"""The CUDA kernels on a CPU: a stand-in for CUDA's execution model, and problems for the kernels.

`include/` stands in for the toolkit's headers, `emulator` compiles and runs, `driver.cu` calls the launchers on
`problems`. Tests compare the results with the reference; `benchmarks.cuda_resources` reads the launches. `accesses`
counts what a warp does: bank conflicts, sectors of memory, exponentials.
"""
