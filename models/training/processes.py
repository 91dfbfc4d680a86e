"""The processes of a run: one, or those that torchrun started."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many. All must make the same calls in the same order.

    Attributes:
        rank: from 0; 0 writes.
        count: of processes.
        device: where this one computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, on the CPU, the same in each."""
        if self.count > 1:
            dist.all_reduce(values)
        return values.cpu()

    def gather(self, value: T) -> list[T]:
        """Gather a value from each process, in the order of ranks, in all of them."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def from_first(self, compute: Callable[[], T]) -> T:
        """Compute in the first process, and return or raise the outcome in all of them."""
        if self.count == 1:
            return compute()
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome[0] = compute()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]


class LostProcessError(RuntimeError):
    """Another process of the run has ended, so that this one cannot go on."""


# How gloo and NCCL tell that the other side is gone.
_LOST = ("connection closed by peer", "connection reset", "broken pipe", "remote process exited", "connection refused")


def is_lost(error: RuntimeError) -> bool:
    """Whether an error of PyTorch means that another process has ended."""
    return any(words in str(error).lower() for words in _LOST)


@contextmanager
def told_when_lost() -> Iterator[None]:
    """Raise LostProcessError where the block fails because another process has ended."""
    try:
        yield
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise LostProcessError("another process of this run was lost") from error


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """The processes that torchrun started, joined while the block lasts: NCCL on GPUs, gloo on CPUs; or this one alone.

    Args:
        device: "auto", "cpu" or "cuda"; on a machine with several GPUs each process has its own.

    Raises:
        ValueError: "cuda" where there is none, or fewer GPUs than processes.
    """
    count, rank, local_rank = (int(os.environ.get(name, default)) for name, default in _ENVIRONMENT.items())
    gpus = torch.cuda.device_count() if device != "cpu" else 0
    if device == "cuda" and not gpus:
        raise ValueError('device "cuda" cannot be used: PyTorch finds no GPU')
    if 0 < gpus <= local_rank:
        raise ValueError(f"each process needs a GPU of its own: process {local_rank} of this machine finds {gpus}")
    own = torch.device("cuda", local_rank) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(own)
    if count == 1:
        yield Processes(0, 1, own)
        return
    cv2.setNumThreads(torch.get_num_threads())  # as torchrun has it: processes of one machine share its cores
    dist.init_process_group("nccl" if gpus else "gloo")
    try:
        yield Processes(rank, count, own)
        # None leaves while another still talks to it, which gloo's threads may not survive. Not after an exception: the
        # others may be anywhere.
        with suppress(LostProcessError), told_when_lost():  # lost by then, it is no longer needed
            dist.barrier()
    finally:
        gc.collect()  # what still holds the group, as DistributedDataParallel does, goes before it
        dist.destroy_process_group()


_ENVIRONMENT = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}
