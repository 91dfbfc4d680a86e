"""Memory that is free: the limits of all control groups that this process is in, and pages of files give way. And the
errors that say that there is none."""

import psutil
import pytest
import torch

from models.core import devices

CPU = torch.device("cpu")


@pytest.fixture
def groups(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(devices, "OWN_CGROUPS", tmp_path / "own")
    return tmp_path


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(str(content))


def test_the_smallest_of_nested_limits_counts(groups):
    (groups / "own").write_text("0::/slurm/job_1/step_0\n")
    root = groups / "cgroup"
    write(root / "slurm", memory__max="max", memory__current=5_000_000)
    write(root / "slurm/job_1", memory__max=3_000_000, memory__current=1_000_000)
    write(root / "slurm/job_1/step_0", memory__max="max", memory__current=900_000)
    assert devices.free_memory(CPU) == 2_000_000
    write(root / "slurm/job_1/step_0", memory__max=1_000_000, memory__stat="anon 5\ninactive_file 400000\n")
    assert devices.free_memory(CPU) == 500_000


def test_version_1_has_files_of_its_own(groups):
    (groups / "own").write_text("9:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n")
    group = groups / "cgroup/memory/docker/abc"
    write(group, memory__limit_in_bytes=7_000, memory__usage_in_bytes=5_000, memory__stat="total_inactive_file 1500\n")
    assert devices.free_memory(CPU) == 3_500
    # Within a container the path is that of the host, and only the top is there.
    (groups / "own").write_text("4:memory:/elsewhere\n")
    write(groups / "cgroup/memory", memory__limit_in_bytes=900, memory__usage_in_bytes=100)
    assert devices.free_memory(CPU) == 800


def test_without_limits_it_is_what_the_machine_has(groups):
    for content in (None, "", "0::/nowhere\n"):
        if content is not None:
            (groups / "own").write_text(content)
        available = psutil.virtual_memory().available
        assert devices.free_memory(CPU) == pytest.approx(available, rel=0.2)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("could not create a primitive"),  # oneDNN, whose machine code found no room
    ],
)
def test_what_says_that_memory_ran_out(error):
    assert devices.is_out_of_memory(error)


def test_other_errors_are_no_lack_of_memory():
    assert not devices.is_out_of_memory(RuntimeError("sizes of tensors must match"))
    assert not devices.is_out_of_memory(ValueError("out of memory"))
