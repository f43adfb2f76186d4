"""A training step as CUDA graphs: on a GPU the kernels of a small network take less time than launching them one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

EAGER_STEPS = 2  # of each shape, in which the libraries choose kernels and take their memory, before one is captured

Inputs = Tensor | None
Outputs = tuple[Tensor, Tensor, Tensor, Tensor | None]  # logits, labels, loss, features
_Graph = tuple[torch.cuda.CUDAGraph, list[Inputs], Outputs, list[Tensor | None]]  # with what it reads, what it leaves, and the gradients


class CapturedStep:
    """Calls `step(*inputs)`, which must do the same for all values of its inputs and end in `backward()`; after some calls with inputs of one shape it is captured and then replayed.

    Inputs are tensors of the host or the device, or None; outputs are copied at each call. The gradients of `parameters` are those of the call.
    All of it, and what reads its results, runs within `stream()`. Raises RuntimeError for a step that cannot be captured: one that looks at a value on the host.
    """

    def __init__(self, step: Callable[..., Outputs], parameters: Sequence[Tensor], device: torch.device) -> None:
        self._step, self._parameters, self._device = step, parameters, device
        self._stream = torch.cuda.Stream(device)
        self._calls: dict[tuple[torch.Size | None, ...], int] = {}
        self._graphs: dict[tuple[torch.Size | None, ...], _Graph] = {}

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Where it runs: after what was asked of the device before, and before what is asked of it later."""
        usual = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(usual)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            usual.wait_stream(self._stream)

    def forget(self) -> None:
        """The step has changed: it is captured anew."""
        self._calls.clear()
        self._graphs.clear()

    def __call__(self, *inputs: Inputs) -> Outputs:
        shapes = tuple(None if value is None else value.shape for value in inputs)
        n_calls = self._calls[shapes] = self._calls.get(shapes, 0) + 1
        if n_calls <= EAGER_STEPS:
            return self._step(*inputs)
        if shapes not in self._graphs:
            held = [None if value is None else value.to(self._device, copy=True) for value in inputs]
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream):
                outputs = self._step(*held)
            self._graphs[shapes] = graph, held, outputs, [parameter.grad for parameter in self._parameters]
        graph, held, outputs, gradients = self._graphs[shapes]
        for into, value in zip(held, inputs, strict=True):
            if into is not None and value is not None:
                into.copy_(value, non_blocking=True)
        graph.replay()
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        logits, labels, loss, features = outputs
        return logits.clone(), labels.clone(), loss.clone(), None if features is None else features.clone()
