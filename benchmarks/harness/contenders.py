"""Contenders: what they are given, how they are called, checked and measured."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import reblur_ops
from benchmarks.counts import PASSES
from benchmarks.harness.memory import peak_memory
from benchmarks.harness.timing import time_in_turns

Function = Callable[..., Tensor]
Call = Callable[[], list[Tensor]]


@dataclass
class Problem:
    """The problem that every contender of a run is given."""

    op: str  # the name of the operator
    reference: Function  # of the tensors: the definition, which every contender must agree with
    tensors: list[Tensor]  # the image first
    grad_output: Tensor
    radius: int  # how far a pixel reaches

    @property
    def shape(self) -> list[int]:
        return list(self.tensors[0].shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.tensors[0].dtype

    def part(self, rows: slice, columns: slice) -> "Problem":
        """A rectangle of it, in float64."""
        tensors = [tensor[:, :, rows, columns].double() for tensor in (*self.tensors, self.grad_output)]
        return Problem(self.op, self.reference, tensors[:-1], tensors[-1], self.radius)


@dataclass
class Contender:
    """A way to solve a problem."""

    name: str
    function: Function | None  # of the problem's tensors; None where it is not run
    cold: bool = False  # whether its inputs are out of the caches when it starts
    not_run: str = ""  # why


@dataclass
class Row:
    """One contender on one problem. One that was not run has a note and no numbers."""

    op: str
    pass_: str  # "forward" or "forward+backward"
    impl: str
    dtype: str
    shape: list[int]
    radius: int
    cache: str  # "warm": as the rivals and a call of its own leave it; "cold": swept
    ms_p20: float | None = None
    ms_p50: float | None = None
    ms_p80: float | None = None
    samples: int = 0
    peak_mb: float | None = None  # largest memory allocated at once during a call, in 10^6 bytes, results included
    error: float | None = None  # largest error relative to the largest value, against the reference in float64
    note: str = ""


def on_backend(name: str, function: Function) -> Function:
    """The function, answered by one backend."""

    def call(*tensors: Tensor) -> Tensor:
        with reblur_ops.use_backend(name):
            return function(*tensors)

    return call


def make_call(function: Function, pass_: str, tensors: Sequence[Tensor], grad_output: Tensor) -> Call:
    """The call that is timed: the output, or the output and the gradients to all tensors."""

    def forward() -> list[Tensor]:
        with torch.no_grad():
            return [function(*tensors)]

    def forward_backward() -> list[Tensor]:
        output = function(*leaves)
        return [output.detach(), *torch.autograd.grad(output, leaves, grad_output)]

    if pass_ == "forward":
        return forward
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    return forward_backward


def error(results: Sequence[Tensor], problem: Problem, pass_: str, inner: int = 24) -> float:
    """The largest error of results, relative to the largest value of each, where the reference can be afforded.

    That is in two opposite corners of `inner` pixels: what the timed call itself has computed. A pixel depends on
    nothing farther than a radius away, so the reference, in float64, is computed on a corner a radius larger.
    """
    height, width = problem.shape[2:]
    reach = inner + problem.radius
    worst = 0.0
    for end in (False, True):
        outer = [slice(max(0, size - reach), size) if end else slice(0, min(size, reach)) for size in (height, width)]
        part = problem.part(*outer)
        expected = make_call(problem.reference, pass_, part.tensors, part.grad_output)()
        own = [slice(max(0, size - inner), size) if end else slice(0, min(size, inner)) for size in (height, width)]
        in_part = [slice(o.start - p.start, o.stop - p.start) for o, p in zip(own, outer, strict=True)]
        for result, exact in zip(results, expected, strict=True):
            scale = max(exact.abs().max().item(), 0.01)
            difference = result[:, :, own[0], own[1]].double() - exact[:, :, in_part[0], in_part[1]]
            worst = max(worst, difference.abs().max().item() / scale)
    return worst


def _append_results(results: list[Tensor], call: Callable[[], Sequence[Tensor]]) -> None:
    results.extend(call())


def measure(problem: Problem, contenders: Sequence[Contender], seconds: float, *, tolerance: float) -> list[Row]:
    """Both passes of every contender: checked, their memory measured, then timed in turns.

    Raises:
        SystemExit: a contender computes something else.
    """
    rows = []
    dtype = str(problem.dtype).removeprefix("torch.")
    for pass_ in PASSES:
        calls, running = [], []
        for contender in contenders:
            cache = "cold" if contender.cold else "warm"
            row = Row(problem.op, pass_, contender.name, dtype, problem.shape, problem.radius, cache)
            rows.append(row)
            if contender.function is None:
                row.note = f"not run: {contender.not_run}"
                continue
            call = make_call(contender.function, pass_, problem.tensors, problem.grad_output)
            results: list[Tensor] = []  # of the same call: the naive ones take seconds
            row.peak_mb = peak_memory(functools.partial(_append_results, results, call)) / 1e6
            row.error = error(results, problem, pass_)
            if not row.error <= tolerance:
                what = f"{row.impl}, {problem.op}, {pass_}, {row.shape}"
                raise SystemExit(f"{what}: error {row.error:.2g}, at most {tolerance} allowed")
            calls.append(call)
            running.append(row)
        cold = [row.cache == "cold" for row in running]
        description = f"{problem.op} {pass_} {'×'.join(map(str, problem.shape))}"
        for row, times in zip(
            running, time_in_turns(calls, seconds=seconds, cold=cold, description=description), strict=True
        ):
            row.ms_p20, row.ms_p50, row.ms_p80 = times.percentiles
            row.samples = len(times.samples)
    return rows
