"""What a classifier's last linear layer is given and gives, caught during somebody else's forward pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from clprune.errors import UsageError


class HeadTap:
    """`features` (B, D) and `logits` (B, C) of the last forward pass in training mode. Nothing of the model is changed; `close` takes the hook away.

    Raises UsageError for a model without a linear layer.
    """

    def __init__(self, model: nn.Module) -> None:
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise UsageError(
                f"{type(model).__name__} has no linear layer whose output could be the logits. Call recorder.observe(index, logits, labels) in your own step instead."
            )
        self.features: Tensor | None = None
        self.logits: Tensor | None = None
        self._handle = linear[-1].register_forward_hook(self._catch)

    def _catch(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if module.training and inputs[0].ndim == 2:
            self.features, self.logits = inputs[0].detach(), output.detach()

    def take(self) -> tuple[Tensor, Tensor]:
        """Logits and features of the step that just ran, once. Raises UsageError where the model's head did not run in it."""
        if self.logits is None or self.features is None:
            raise UsageError("the model's last linear layer gave no (batch, classes) output in this training step, so there is nothing to record.")
        caught = self.logits, self.features
        self.logits = self.features = None
        return caught

    def close(self) -> None:
        self._handle.remove()
