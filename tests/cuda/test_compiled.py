"""The CUDA sources compile: the kernels with nvcc, the binding against Torch's headers; and what the kernels take."""

import re
import subprocess
from pathlib import Path

import pytest
from torch.utils import cpp_extension

from benchmarks import cuda_resources
from benchmarks.cuda_resources import Kernel, Launch
from emulation import emulator
from tests.cuda.sizes import DTYPES

ROOT = Path(__file__).parents[2]
needs_nvcc = pytest.mark.skipif(cuda_resources.nvcc() is None, reason="nvcc is not on the PATH")
needs_compiler = pytest.mark.skipif(emulator.compiler() is None, reason="there is no g++")


@pytest.fixture(scope="module")
def launches() -> dict[str, Launch]:
    found = cuda_resources.launches(DTYPES)
    assert found is not None
    return found


@needs_nvcc
def test_kernels_compile_and_the_tuned_ones_keep_to_registers(compiled):
    tuned = [kernel for kernel in compiled.kernels if kernel.tuned]
    assert {kernel.architecture for kernel in tuned} == {90}
    assert [kernel for kernel in tuned if not kernel.keeps_to_registers] == []


@pytest.mark.emulated
@needs_nvcc
@needs_compiler
def test_launches_name_the_kernels_that_nvcc_compiles(compiled, launches):
    """Neither a kernel without an occupancy, nor two that are told by one name."""
    assert sorted(kernel.name for kernel in compiled.kernels) == sorted(launches)


@pytest.mark.emulated
@needs_compiler
def test_launches_tell_what_the_launchers_ask_for(launches):
    """Tiles of 18 x 32 pixels of three channels, three pixels a thread, with the radius on each side."""
    assert launches["gather_kernel (seeds 1…7, float32)"] == (192, 3 * (18 + 14) * (32 + 14) * 4)
    # One pixel a thread, so 8 x 32; radius 15.
    assert launches["gather_kernel (seeds any radii, float32)"] == (256, 3 * (8 + 30) * (32 + 30) * 4)


def instantiated(source: Path, *flags: str) -> list[str]:
    """What a CUDA source instantiates, by the preprocessor."""
    command = ["g++", "-E", "-P", "-x", "c++", "-std=c++17", f"-I{emulator.INCLUDE}", f"-I{emulator.CSRC}", *flags]
    text = subprocess.run([*command, str(source)], capture_output=True, text=True, check=True).stdout
    return sorted(re.findall(r"template cudaError_t (launch_\w+<.*?>)", text))


@needs_compiler
@pytest.mark.parametrize("source", cuda_resources.SOURCES, ids=lambda path: path.stem)
def test_parts_make_up_a_source(source):
    """A build compiles a source in parts, and nothing is in none of them, or in two."""
    whole = instantiated(source)
    assert len(whole) == len(set(whole)) >= 4
    assert sorted(name for number in range(4) for name in instantiated(source, f"-DREBLUR_PART={1 << number}")) == whole


@pytest.mark.emulated
@needs_compiler
def test_parts_define_nothing_twice(tmp_path):
    """A function that is no template would be in every part, and they would not link."""
    flags = ["-O0", "-g0", "-fno-sanitize=all", "-DREBLUR_NO_FORCED_INLINE", "-c"]
    source = ROOT / "csrc" / "cuda" / "analytic.cu"
    parts = [
        emulator.build([source], tmp_path / f"{number}.o", [*flags, f"-DREBLUR_PART={1 << number}"])
        for number in (0, 2)
    ]
    listings = [subprocess.run(["nm", "-C", part], capture_output=True, text=True, check=True).stdout for part in parts]
    defined = [set(re.findall(r"^\w+ T (.*)$", listing, re.MULTILINE)) for listing in listings]
    assert defined[0].isdisjoint(defined[1])


@needs_nvcc
def test_spills_and_static_shared_memory_are_seen(tmp_path, monkeypatch):
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
        "template <class T>\n"
        "__global__ void reverse(T* x) {\n"
        "  __shared__ T shared[1024];\n"
        "  shared[threadIdx.x] = x[threadIdx.x];\n"
        "  __syncthreads();\n"
        "  x[threadIdx.x] = shared[1023 - threadIdx.x];\n"
        "}\n"
        "template __global__ void reverse(double*);\n"
    )
    monkeypatch.setattr(cuda_resources, "ROOT", tmp_path)
    found = {kernel.name: kernel for kernel in cuda_resources.compile_source(source, tmp_path / "cubin", 80)}
    assert found["greedy"].spill_bytes > 0
    assert found["greedy"].shared_bytes == 0
    assert found["reverse (float64)"].spill_bytes == 0
    assert found["reverse (float64)"].shared_bytes == 1024 * 8


@needs_nvcc
def test_a_source_that_does_not_compile_is_named(tmp_path, monkeypatch):
    source = tmp_path / "broken.cu"
    source.write_text("__global__ void broken() { missing(); }\n")
    monkeypatch.setattr(cuda_resources, "ROOT", tmp_path)
    with pytest.raises(RuntimeError, match=r"broken.cu does not compile for sm_90:\n(.|\n)*missing"):
        cuda_resources.compile_source(source, tmp_path / "cubin", 90)


@pytest.mark.parametrize(
    ("demangled", "name"),
    [
        ("greedy(float*)", "greedy"),
        (
            "void reblur::cuda::_GLOBAL__N__1f_9_gather_cu_7a::k<__half, reblur::SeedsFamily<reblur::DynamicRadii>, "
            "(int)3, (bool)1, reblur::cuda::_GLOBAL__N__1f_9_gather_cu_7a::KShape<__half, reblur::DynamicRadii> >(T2)",
            "k (seeds any radii, float16, 3, 1)",
        ),
        (
            "void reblur::cuda::(anonymous namespace)::k<cuda_emulation::Float16<cuda_emulation::BFloat16Format>, "
            "double, reblur::SeedsFamily<reblur::StaticRadii<1, 2, 3> >, true>(reblur::Size, float)",
            "k (seeds 1…3, bfloat16, float64, true)",
        ),
        ("void k<float, RadialFamily<StaticRadii<2, 5> > >(Size)", "k (radial 2,5, float32)"),
        ("void k<float, TapsFamily<BoundedRadii<8, 12> > >(Size)", "k (taps largest 8…12, float32)"),
        ("void k<float, TapsFamily<BoundedRadii<(int)8, (int)12> > >(Size)", "k (taps largest 8…12, float32)"),
        ("void k<float, float, reblur::DiskFamily>(Size)", "k (disk, float32)"),
        ("void k<float, Gaussian<Window<(int)7>, float> >(Size)", "k (Gaussian<Window<7>, float32>, float32)"),
    ],
)
def test_names(demangled, name):
    assert cuda_resources.spoken_name(demangled) == name


@pytest.mark.parametrize(
    ("name", "tuned"),
    [
        ("k (seeds 1…7, float32)", True),
        ("k (gaussian Window<7>, bfloat16, 3)", True),
        ("k (seeds largest 8…12, float32)", True),
        ("k (seeds any radii, float32)", False),
        ("k (seeds 1…7, float64)", False),
    ],
)
def test_tuned(name, tuned):
    assert Kernel(80, name, 32, 0, 0, 0).tuned == tuned


def test_page():
    kernels = [
        Kernel(90, "a (seeds 1…7, float32)", 128, 1024, 0, 0),
        Kernel(75, "a (seeds 1…7, float32)", 80, 1024, 0, 8),
        Kernel(90, "b (seeds any radii, float32)", 32, 0, 0, 0),
        Kernel(75, "b (seeds any radii, float32)", 64, 0, 0, 0),
        Kernel(75, "c (seeds 1…7, float64)", 64, 0, 0, 0),
    ]
    launches = {kernels[0].name: Launch(256, 2000), kernels[2].name: Launch(1024, 65540)}
    tuned, general = cuda_resources.page(kernels, launches, "13.0").split("## ")[1:]
    assert "| kernel | threads | shared | sm_75 | sm_90 |" in tuned
    assert "| `a (seeds 1…7, float32)` | 256 | 3024 | 80 · 3 · 75% R · **8** | 128 · 2 · 25% R |" in tuned
    assert "| `b (seeds any radii, float32)` | 1024 | 65540 | 64 · does not fit S | 32 · 2 · 100% RT |" in general
    assert "| `c (seeds 1…7, float64)` | – | – | 64 |" in general


def run_main(monkeypatch, tmp_path, *, kernels=(), launches=None, nvcc="/bin/true") -> Path:
    monkeypatch.setattr("sys.argv", ["cuda_resources"])
    monkeypatch.setattr(cuda_resources, "nvcc", lambda: nvcc)
    monkeypatch.setattr(cuda_resources, "compile_all", lambda folder, architectures: list(kernels))
    monkeypatch.setattr(cuda_resources, "launches", lambda: launches)
    monkeypatch.setattr(cuda_resources, "RESULTS", tmp_path / "page.md")
    cuda_resources.main()
    return tmp_path / "page.md"


def test_main_says_what_is_missing(monkeypatch, tmp_path, capsys):
    assert not run_main(monkeypatch, tmp_path, nvcc=None).exists()
    assert capsys.readouterr().out == "nvcc is not on the PATH: nothing was checked\n"
    kernel = Kernel(90, "a (seeds 1…7, float32)", 128, 0, 0, 0)
    assert not run_main(monkeypatch, tmp_path, kernels=[kernel]).exists()
    assert "g++ is not on the PATH" in capsys.readouterr().out


def test_main_fails_where_a_tuned_kernel_spills(monkeypatch, tmp_path):
    kernel = Kernel(90, "a (seeds 1…7, float32)", 128, 0, 0, 0)
    page = run_main(monkeypatch, tmp_path, kernels=[kernel], launches={kernel.name: Launch(256, 0)})
    assert "| 128 · 2 · 25% R |" in page.read_text()
    tolerated = cuda_resources.TOLERATED_SPILLS
    run_main(monkeypatch, tmp_path, kernels=[kernel._replace(spill_bytes=tolerated)], launches={})
    with pytest.raises(SystemExit, match=rf"sm_90: a .* spills {tolerated + 1} bytes"):
        run_main(monkeypatch, tmp_path, kernels=[kernel._replace(spill_bytes=tolerated + 1)], launches={})
    with pytest.raises(SystemExit, match=r"sm_90: a .* has 144 in local memory"):
        run_main(monkeypatch, tmp_path, kernels=[kernel._replace(stack_bytes=144)], launches={})


def test_without_a_compiler_nothing_is_launched(monkeypatch):
    monkeypatch.setattr(emulator, "compiler", lambda: None)
    assert cuda_resources.launches() is None


@needs_compiler
def test_the_binding_compiles():
    """Against the headers of whatever torch is here, of which it takes the stable ones alone."""
    nvcc = cuda_resources.nvcc()
    toolkit = Path(nvcc).resolve().parents[1] / "include" if nvcc else None
    if toolkit is None or not (toolkit / "cuda_runtime.h").exists():
        toolkit = Path(cpp_extension.CUDA_HOME or "/usr/local/cuda") / "include"
    if not (toolkit / "cuda_runtime.h").exists():
        pytest.skip("there are no headers of the CUDA toolkit")
    includes = [f"-isystem{path}" for path in (*cpp_extension.include_paths(), toolkit)]
    options = ["-std=c++20", "-fsyntax-only", "-fvisibility=hidden", "-Wall", "-Werror"]
    command = ["g++", *options, "-DTORCH_TARGET_VERSION=0x020a000000000000ULL", "-Icsrc", *includes]
    result = subprocess.run([*command, "csrc/cuda/ops.cpp"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
