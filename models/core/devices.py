"""Devices: whether they compute here, how much memory is free, and how much a computation takes."""

import argparse
import contextlib
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

OWN_CGROUPS = Path("/proc/self/cgroup")  # which groups this process is in, a line each: number:controllers:path
CGROUPS = Path("/sys/fs/cgroup")
# Of a group of version 2 and of version 1: the files of what it may use and uses, and the line of memory.stat that says
# what of that is pages of files, which give way.
MEMORY_FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def usable_device(text: str) -> torch.device:
    """A type for argparse: a device of PyTorch's that computes here."""
    try:
        device = torch.device(text)
        torch.zeros(1, device=device).item()
    except (RuntimeError, NotImplementedError, AssertionError, ImportError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether it has instructions for products of bfloat16; where they are emulated float32 is as fast or faster."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Older releases of Torch do not tell.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device; of the CPU, and those that share its memory, what is available."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # Torch keeps what it has freed: the driver counts it as used.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    available = psutil.virtual_memory().available
    left = [_left_in(group, version) for group, version in _memory_groups()]
    return max(min([available, *(value for value in left if value is not None)]), 0)


def _memory_groups() -> Iterator[tuple[Path, int]]:
    """The groups whose limits of memory hold for this process: its own and all above, with the version of each."""
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, version = CGROUPS, 2
        elif "memory" in controllers.split(","):
            root, version = CGROUPS / "memory", 1
        else:
            continue
        # Within a container the path may be that of the host, and only the top be there.
        group = root / path.lstrip("/")
        yield from ((folder, version) for folder in (group, *group.parents) if folder == root or root in folder.parents)


def _left_in(group: Path, version: int) -> int | None:
    """Bytes that a group may still use; None where it has no limit."""
    limit, usage, cached = MEMORY_FILES[version]
    try:
        left = int((group / limit).read_text()) - int((group / usage).read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None
    with contextlib.suppress(OSError, ValueError):
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        left += int(stat.get(cached, 0))
    return left


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out: CUDA's has a class of its own, those of a CPU a text.

    The last two are oneDNN's, which tells no reason: it is the memory of a convolution's machine code or scratchpad.
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    allocator = ("can't allocate memory", "not enough memory", "out of memory")
    texts = (*allocator, "could not create a primitive", "could not execute a primitive")
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in texts)


def peak_memory(call: Callable[[], object]) -> int:
    """The most bytes of tensors that a call holds at once, results included, what there was before not.

    It counts what passes Torch's dispatcher, on any device: what kernels use inside for themselves is not seen.
    """
    with _Meter() as meter:
        call()
    return meter.peak


class _Meter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: dict[int, int] = {}  # bytes of each storage that came up meanwhile
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in known and storage._cdata not in self.held:
                    self.held[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.held.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.held.values()))
        return result
