"""Which backend answers, and what happens where nothing was compiled."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import reblur_ops
from reblur_ops import __main__ as command
from reblur_ops import backend, record
from reblur_ops.testing import problem


def python(code, folder=None, **environment):
    """Run code in a fresh interpreter; its output."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **environment},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_backends():
    assert set(reblur_ops.backends()) >= {"torch", "reference"}
    assert list(reblur_ops.backends())[-2:] == ["torch", "reference"]
    assert bool(reblur_ops.build_info()) == ("native" in reblur_ops.backends())


def test_use_backend_nests_and_restores():
    p = problem()
    by_default = reblur_ops.reblur(*p.tensors)
    with reblur_ops.use_backend("torch"):
        by_torch = reblur_ops.reblur(*p.tensors)
        with reblur_ops.use_backend("reference"):
            by_reference = reblur_ops.reblur(*p.tensors)
        assert torch.equal(reblur_ops.reblur(*p.tensors), by_torch)
        with pytest.raises(ZeroDivisionError), reblur_ops.use_backend("reference"):
            _ = 1 / 0
        assert torch.equal(reblur_ops.reblur(*p.tensors), by_torch)
    assert torch.equal(reblur_ops.reblur(*p.tensors), by_default)
    # The three round differently, which shows that each did answer.
    assert not torch.equal(by_torch, by_reference)


def test_use_backend_restores_where_two_threads_leave_in_the_order_they_came():
    first, second = reblur_ops.use_backend("torch"), reblur_ops.use_backend("reference")
    before = reblur_ops.explain_backend()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert reblur_ops.explain_backend() == "reference (chosen by use_backend)"
    second.__exit__(None, None, None)
    assert reblur_ops.explain_backend() == before


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", b"\xff\xfe"])
def test_a_damaged_record_of_the_build_is_none(tmp_path, content):
    path = tmp_path / record.RECORD
    record.write_record(path, "compiled", "sources")
    assert record.read_record(path) == {"decision": "compiled", "sources": "sources"}
    assert [entry.name for entry in tmp_path.iterdir()] == [record.RECORD]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert record.read_record(path) == {}


def test_use_backend_refuses_other_names():
    message = "backend must be one of 'native', 'torch', 'reference', got 'cuda'"
    with pytest.raises(ValueError, match=message), reblur_ops.use_backend("cuda"):
        pass


@pytest.mark.native
def test_the_backward_pass_runs_on_the_backend_of_its_forward_pass():
    """Told apart by third derivatives, which only pure PyTorch has."""
    p = problem(5, 6, batch=1)
    for forward, backward in (("torch", "native"), ("native", "torch")):
        seeds = p.seeds.detach().requires_grad_()
        with reblur_ops.use_backend(forward):
            output = reblur_ops.reblur(p.image, seeds, p.weights)
        with reblur_ops.use_backend(backward):
            (gradient,) = torch.autograd.grad(output, seeds, p.grad_output, create_graph=True)
            (second,) = torch.autograd.grad(gradient.square().sum(), seeds, create_graph=True)
            if forward == "torch":
                assert torch.autograd.grad(second.square().sum(), seeds)[0].any()
            else:
                with pytest.raises(NotImplementedError):
                    second.square().sum().backward()


def test_tensors_without_data_get_shapes():
    image, seeds, weights = (torch.empty(2, c, 5, 6, device="meta") for c in (3, 35, 8))
    assert reblur_ops.reblur(image, seeds, weights).shape == (2, 3, 5, 6)
    assert reblur_ops.blur_radius(seeds, weights).shape == (2, 1, 5, 6)
    bank = torch.empty(4, 6, device="meta")
    for name in reblur_ops.backends():
        with reblur_ops.use_backend(name):
            assert reblur_ops.cost_volume(image, image, bank, 2).shape == (2, 4, 1, 5, 6)
    with pytest.raises(ValueError, match="radius must be given on device meta"):
        reblur_ops.gaussian_blur(image, torch.empty(2, 1, 5, 6, device="meta"))
    with pytest.raises(ValueError, match="seeds must have values, got device meta"):
        reblur_ops.kernel_image(seeds, weights, [(0, 1, 2)])


def test_without_a_compiled_module_pure_pytorch_answers_and_says_so_once():
    output = python(
        """
import sys, warnings
sys.modules["reblur_ops._C"] = None
import torch, reblur_ops
assert "native" not in reblur_ops.backends() and reblur_ops.build_info() == {}
image, seeds, weights = (torch.rand(1, c, 9, 9, requires_grad=True) for c in (3, 35, 8))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(3):
        output = reblur_ops.reblur(image, seeds, weights)
        reblur_ops.blur_radius(seeds, weights)
    output.sum().backward()
print(len(caught), caught[0].category.__name__, caught[0].filename == "<string>", caught[0].message)
with reblur_ops.use_backend("reference"):
    print(torch.allclose(output, reblur_ops.reblur(image, seeds, weights), atol=1e-6))
try:
    with reblur_ops.use_backend("native"):
        pass
except RuntimeError as error:
    print(error)
"""
    )
    warned, agrees, refused = output.splitlines()
    assert warned.startswith("1 RuntimeWarning True reblur_ops: the compiled module was not loaded")
    assert agrees == "True"
    assert refused.startswith("backend 'native' is not built here")


@pytest.mark.native
@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_every_instruction_set(capability):
    """Torch's own override picks the kernels; each set is compared with the definition."""
    supported = ["default", "avx2", "avx512"]
    if supported.index(capability) > supported.index(torch.backends.cpu.get_cpu_capability().lower()):
        pytest.skip(f"this processor has no {capability}")
    output = python(
        """
import torch, reblur_ops
from reblur_ops.testing import RADII, TOLERANCE, assert_all_close, problem, run
for dtype in (torch.float64, torch.float32):
    for n, radii in enumerate(RADII):
        support, padding = ("square", "disk")[n % 2], ("zeros", "replicate", "reflect")[n % 3]
        p = problem(14, 70, batch=1, radii=radii, support=support, padding=padding)
        p = p.to(dtype)
        assert_all_close(run(p, "native"), run(p.to(torch.float64), "reference"), dtype)
print(reblur_ops.build_info()["cpu_capability"])
""",
        ATEN_CPU_CAPABILITY=capability,
    )
    assert output.strip().lower() == capability


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((8, 0), "8.0", True),
        ((8, 6), "8.0", True),
        ((8, 0), "8.6", False),
        ((9, 0), "8.0", False),
        ((9, 0), "7.5;8.0+PTX", True),
        ((7, 5), "8.0+PTX", False),
        ((9, 0), "9.0a", True),
        ((10, 0), "9.0a+PTX", False),
        ((12, 1), "7.5 12.0", True),
        ((8, 0), "Ampere", True),
    ],
)
def test_code_for_a_gpu(capability, architectures, runs):
    assert backend.holds_code_for(capability, backend.parse_architectures(architectures)) == runs


def test_a_gpu_without_code_gets_pure_pytorch(monkeypatch):
    """Tensors on a GPU are stood in for: select() looks at their device alone."""

    class Properties(NamedTuple):
        name: str = "Old GPU"
        major: int = 5
        minor: int = 0

    class OnGpu:
        device = torch.device("cuda:0")

    monkeypatch.setattr(backend, "_NATIVE_DEVICES", ("cpu", "cuda"))
    monkeypatch.setattr(backend, "_PARSED", backend.parse_architectures("7.5;9.0+PTX"))
    monkeypatch.setattr(backend, "_holds_code", {})
    monkeypatch.setattr(backend, "_warned", False)
    monkeypatch.setattr(backend.native, "MODULE", backend.native)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties())
    with pytest.warns(RuntimeWarning, match=r"has no code for Old GPU, sm_50; pure PyTorch answers"):
        assert backend.select(OnGpu()) == "torch"
    assert backend.select(OnGpu()) == "torch"  # a second warning would be an error
    assert backend.explain_backend("cuda") == (
        "torch, slower and with more memory (the compiled module has no code for Old GPU, sm_50)"
    )
    with reblur_ops.use_backend("native"), pytest.raises(RuntimeError, match=r"cannot answer on cuda:0: .* sm_50"):
        backend.select(OnGpu())


@pytest.mark.native
def test_a_checkout_takes_the_module_of_an_installation_of_the_same_sources(tmp_path):
    """And of no others: their operators might differ."""
    package = Path(reblur_ops.__file__).parent
    checkout, installed = tmp_path / "checkout", tmp_path / "site"
    shutil.copytree(package, checkout / "reblur_ops", ignore=shutil.ignore_patterns("*.so", "_build.json"))
    shutil.copytree(package.parent / "csrc", checkout / "csrc")
    (installed / "reblur_ops").mkdir(parents=True)
    compiled = installed / "reblur_ops" / "_C.abi3.so"
    compiled.write_bytes(Path(backend.native.MODULE.__file__).read_bytes())
    information = installed / "reblur_ops-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: reblur-ops\nVersion: 0.1.0\n")
    code = "import reblur_ops; print(reblur_ops.__file__, reblur_ops.native.MODULE, reblur_ops.native.REASON)"
    for sources, found in (("of others", False), (record.digest(checkout / "csrc"), True)):
        record.write_record(compiled.with_name(record.RECORD), "compiled for CPU alone", sources)
        output = python(code, folder=checkout, PYTHONPATH=f"{checkout}{os.pathsep}{installed}")
        assert str(checkout) in output
        assert (str(compiled) in output) == found
        assert ("run `make build`" in output) != found
        assert ("is of other sources" in output) != found


@pytest.mark.native
def test_the_compiled_module_uses_stable_symbols_only():
    """Python's limited API is a promise of its headers; of Torch, the stable ABI is a set of names."""
    if shutil.which("nm") is None:
        pytest.skip("there is no nm")
    listed = subprocess.run(
        ["nm", "-DC", "-u", backend.native.MODULE.__file__], capture_output=True, text=True, check=True
    )
    names = [line.split()[-1] for line in listed.stdout.splitlines()]
    assert "torch_library_impl" in names
    assert [
        name for name in listed.stdout.splitlines() if re.search(r"at::|c10::|torch::|caffe2::|pybind11", name)
    ] == []


def test_the_command_prints_what_a_bug_report_needs():
    output = python("import runpy; runpy.run_module('reblur_ops', run_name='__main__', alter_sys=True)")
    for name in ("reblur_ops", "compiled module", "decided at build", "running", "CPU", "CUDA architectures"):
        assert f"{name}:" in output
    assert torch.__version__ in output


@pytest.mark.native
def test_the_command_checks_native_kernels(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["reblur_ops", "--check"])
    command.main()
    assert "check:              passed" in capsys.readouterr().out
    monkeypatch.setattr(command, "_TOLERANCE", 0.0)
    with pytest.raises(SystemExit, match="native results differ from the definition by"):
        command.main()


def test_import_is_quick():
    """Importing reblur_ops must not import, compile or download anything heavy beyond torch."""
    output = python(
        """
import sys, torch
before = set(sys.modules)
import reblur_ops
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
"""
    )
    assert set(output.split()) <= {"reblur_ops"}
