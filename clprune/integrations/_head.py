"""What a classifier's head is given and gives, caught during somebody else's forward pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from clprune.errors import UsageError


class HeadTap:
    """`features` (B, D) and `logits` (B, C) of the last forward pass in training mode. Nothing of the model is changed; `close` takes the hook away.

    The head is the module named `head`, or the last linear layer that gives `n_classes` numbers (any, where that is None). Raises UsageError where there is none.
    """

    def __init__(self, model: nn.Module, n_classes: int | None = None, head: str | None = None) -> None:
        self.features: Tensor | None = None  # none where a named head is not given vectors
        self.logits: Tensor | None = None
        self._handle = _head_of(model, n_classes, head).register_forward_hook(self._catch, with_kwargs=True)

    def _catch(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        given = inputs[0] if inputs else next(iter(named.values()))
        if module.training and isinstance(output, Tensor) and output.ndim == 2:
            self.features, self.logits = given.detach() if given.ndim == 2 else None, output.detach()

    def take(self) -> tuple[Tensor, Tensor | None]:
        """Logits and features of the step that just ran, once. Raises UsageError where the model's head did not run in it."""
        if self.logits is None:
            raise UsageError(
                "the model's head gave no (batch, classes) output in this training step, so there is nothing to record. "
                "Pass head='NAME' of the module that gives one in every step, or call recorder.observe(index, logits, labels) in your own step instead."
            )
        caught = self.logits, self.features
        self.logits = self.features = None
        return caught

    def close(self) -> None:
        self._handle.remove()


def _head_of(model: nn.Module, n_classes: int | None, head: str | None) -> nn.Module:
    modules, what = dict(model.named_modules()), type(model).__name__
    if head is not None:
        if head not in modules:
            raise UsageError(f"{what} has no module {head!r}. It has: {', '.join(name for name in modules if name)}.")
        return modules[head]
    linear = {name: module for name, module in modules.items() if isinstance(module, nn.Linear)}
    if not linear:
        raise UsageError(
            f"{what} has no linear layer whose output could be the logits. Pass head='NAME' of the module that gives them, "
            "or call recorder.observe(index, logits, labels) in your own step instead."
        )
    fitting = [module for module in linear.values() if n_classes in (None, module.out_features)]
    if not fitting:
        widths = ", ".join(f"{name} {module.out_features}" for name, module in linear.items())
        raise UsageError(
            f"no linear layer of {what} gives the {n_classes} numbers that the recorder's n_classes asks for (they give: {widths}). "
            "Pass head='NAME' of the module that gives the logits."
        )
    return fitting[-1]
