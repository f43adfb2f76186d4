"""A training whose steps are replayed, against the same one whose steps are not. Without a GPU a graph is acted: what was captured is run again on the same memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw_shapes
from torch import Tensor, nn

from clprune import captured, training
from clprune.captured import CapturedStep
from clprune.proxies import build_proxy
from clprune.recorder import Recorder
from clprune.training import Recipe, new_state, seed_everything, to_device, train

CPU = torch.device("cpu")


class ActedGraph:
    """Runs the step that was captured again, from the memory it read into the memory it wrote, as a graph does."""

    def __init__(self) -> None:
        self.again: Callable[[], tuple[Tensor | None, ...]]
        self.written: list[Tensor]

    def replay(self) -> None:
        held = [value.grad for value in PARAMETERS]
        fresh = self.again()
        gradients = [value.grad for value in PARAMETERS]
        for into, value in zip(self.written, [*fresh, *gradients], strict=True):
            if into is not None and value is not None:
                into.copy_(value)
        for parameter, gradient in zip(PARAMETERS, held, strict=True):
            parameter.grad = gradient


PARAMETERS: list[nn.Parameter] = []
CAPTURES: list[ActedGraph] = []


class Acted(CapturedStep):
    """CapturedStep whose device is the CPU."""

    def __init__(self, step: Callable[..., Any], parameters: list[nn.Parameter], device: torch.device) -> None:
        self.open: ActedGraph | None = None
        PARAMETERS[:] = parameters

        def watched(*inputs: Tensor | None) -> Any:
            if self.open is None:
                return step(*inputs)
            before = {name: value.clone() for name, value in BUFFERS.items()}
            outputs = step(*inputs)
            for name, value in BUFFERS.items():  # a capture computes nothing
                value.copy_(before[name])
            self.open.again = lambda: step(*inputs)
            self.open.written = [*outputs, *(value.grad for value in parameters)]
            return outputs

        @contextmanager
        def graph(of: ActedGraph, stream: object) -> Iterator[None]:
            CAPTURES.append(of)
            self.open = of
            yield
            self.open = None

        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(torch.cuda, "Stream", lambda device: None)
        self._patch.setattr(torch.cuda, "CUDAGraph", ActedGraph)
        self._patch.setattr(torch.cuda, "graph", graph)
        super().__init__(watched, parameters, device)

    @contextmanager
    def stream(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._patch.undo()


BUFFERS: dict[str, Tensor] = {}


def trained(replay: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, ...]:
    """Weights, running means, logits and what was recorded after two recipes, with weights of samples, of batches of two sizes."""
    images, labels = draw_shapes(100, seed=3, n_classes=3)
    data = to_device(images, labels, CPU)
    seed_everything(0)
    state = new_state(build_proxy("small_cnn", 3, data.input_shape), CPU, Recipe(exact=True))
    recorder = Recorder(range(100), n_classes=3, model=state.model)
    seen: list[Tensor] = []  # not copied: what a step gives stays what it was

    def observe(*given: Any) -> None:
        recorder.observe(*given)
        seen.append(given[1])

    BUFFERS.clear()
    BUFFERS.update(state.model.named_buffers())
    if replay:
        monkeypatch.setattr(training, "replays", lambda *given: True)
        monkeypatch.setattr(training, "CapturedStep", Acted)
    train(
        state,
        data,
        Recipe(exact=True, batch_size=16),
        n_epochs=6,
        seed=0,
        observe=observe,
        end_epoch=lambda now: (recorder.end_epoch() and False) or now.epochs_done == 3,
        later=Recipe(exact=True, batch_size=16, label_smoothing=0.2),
        weights=np.linspace(0.5, 1.5, 100),
    )
    return tuple(
        torch.cat([value.detach().flatten().double() for value in values]).numpy()
        for values in (state.model.parameters(), state.model.buffers(), seen)
    ) + (recorder.trajectory().signals["p_label"],)


def test_a_replayed_training_is_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = trained(False, monkeypatch)
    CAPTURES.clear()
    replayed = trained(True, monkeypatch)
    for one, other in zip(plain, replayed, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(CAPTURES) == 4  # two sizes of batch, two recipes
    assert captured.EAGER_STEPS < 4  # or nothing was replayed
