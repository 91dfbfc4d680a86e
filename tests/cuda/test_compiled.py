"""The CUDA sources compile: the kernels with nvcc, the binding against Torch's headers."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

from benchmarks import cuda_resources

ROOT = Path(__file__).parents[2]
needs_nvcc = pytest.mark.skipif(cuda_resources.nvcc() is None, reason="nvcc is not on the PATH")


@needs_nvcc
@pytest.mark.parametrize("source", cuda_resources.SOURCES, ids=lambda path: path.name)
@pytest.mark.parametrize("architecture", [80, 90])
def test_kernels_compile_and_the_tuned_ones_keep_to_registers(source, architecture):
    kernels = cuda_resources.compile_source(source, architecture)
    assert any(kernel.tuned for kernel in kernels)
    assert [kernel for kernel in kernels if kernel.tuned and kernel.spill_bytes] == []


@needs_nvcc
def test_a_spill_is_seen(tmp_path, monkeypatch):
    """The check above can fail: a kernel that cannot keep its values in the registers it is allowed."""
    source = tmp_path / "greedy.cu"
    source.write_text(
        "__global__ void __launch_bounds__(1024, 2) greedy(float* x) {\n"
        "  float v[64];\n"
        "#pragma unroll\n"
        "  for (int i = 0; i < 64; ++i) v[i] = x[i * 1024 + threadIdx.x];\n"
        "  __syncthreads();\n"
        "#pragma unroll\n"
        "  for (int i = 0; i < 64; ++i) x[i * 1024 + threadIdx.x] = v[(i * 5) % 64] * v[i];\n"
        "}\n"
    )
    monkeypatch.setattr(cuda_resources, "ROOT", tmp_path)
    (kernel,) = cuda_resources.compile_source(source, 80)
    assert kernel.spill_bytes > 0


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_the_binding_compiles():
    """Against the headers of whatever torch is here. A build for CPU lacks one generated header, of macros."""
    nvcc = cuda_resources.nvcc()
    toolkit = Path(nvcc).resolve().parents[1] / "include" if nvcc else None
    if toolkit is None or not (toolkit / "cuda_runtime.h").exists():
        toolkit = Path(cpp_extension.CUDA_HOME or "/usr/local/cuda") / "include"
    if not (toolkit / "cuda_runtime.h").exists():
        pytest.skip("there are no headers of the CUDA toolkit")
    includes = [f"-isystem{path}" for path in (*cpp_extension.include_paths(), toolkit)]
    macros = [] if torch.version.cuda else ["-DC10_USING_CUSTOM_GENERATED_MACROS"]
    command = ["g++", "-std=c++20", "-fsyntax-only", "-Wall", "-Werror", "-Icsrc", *includes, *macros]
    result = subprocess.run([*command, "csrc/cuda/ops.cpp"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
