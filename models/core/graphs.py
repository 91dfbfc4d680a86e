"""CUDA graphs: a GPU that is given hundreds of small operations waits for Python; given one graph, it does not."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LARGEST = 1 << 22  # elements of the largest argument: beyond, operations take longer than to launch them


class CapturedCalls:
    """Runs a function of tensors, and from the second call in a row with the same shapes on as one CUDA graph.

    On other devices, and for large arguments, it is called as it is. A graph keeps the memory that it computes in until
    other shapes arrive. It is neither copied nor pickled.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._shapes: list[Any] = []
        self._graph: torch.cuda.CUDAGraph | None = None
        self._arguments: list[Tensor] = []
        self._result: Tensor | None = None

    def __call__(self, function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
        """The value of the function.

        Args:
            function: always the same. It neither waits for the GPU nor copies to it, records no gradients, and its
                operations depend on shapes alone.
            arguments: tensors on one device.
        """
        if arguments[0].device.type != "cuda" or max(argument.numel() for argument in arguments) > LARGEST:
            return function(*arguments)
        shapes = [(argument.shape, argument.dtype, argument.device) for argument in arguments]
        if shapes != self._shapes:
            self._forget()
            self._shapes = shapes
            return function(*arguments)
        with torch.cuda.device(arguments[0].device):
            if self._graph is None:
                self._capture(function, arguments)
            assert self._graph is not None
            assert self._result is not None
            for own, given in zip(self._arguments, arguments, strict=True):
                own.copy_(given)
            self._graph.replay()
            return self._result.clone()

    def _capture(self, function: Callable[..., Tensor], arguments: tuple[Tensor, ...]) -> None:
        self._arguments = [argument.clone() for argument in arguments]
        # Libraries make their plans and workspaces outside of the graph, on a stream that is not the default one.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            function(*self._arguments)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Threads of the loader and of NCCL go on with calls that a capture of the whole process would not survive.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._result = function(*self._arguments)
        self._graph = graph

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._forget()
