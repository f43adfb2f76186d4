"""Any classification model of torchvision by name: `torchvision:mobilenet_v3_small`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clprune.errors import UsageError
from clprune.families import proxy


class _ThreeChannels(nn.Module):
    """Repeats a single channel three times, for models whose first layer wants colour."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images if images.shape[1] == 3 else images.expand(-1, 3, -1, -1))


@proxy
def torchvision(n_classes: int, input_shape: tuple[int, int, int], *, model: str = "mobilenet_v3_small") -> nn.Module:
    """A torchvision model without pretrained weights. Raises UsageError for an unknown name."""
    from torchvision import models

    if model not in models.list_models(module=models):
        raise UsageError(f"torchvision has no classification model '{model}'; torchvision.models.list_models() lists them.")
    one_output = {"aux_logits": False, "init_weights": True} if model in ("googlenet", "inception_v3") else {}  # else tuples while they train
    built = models.get_model(model, weights=None, num_classes=n_classes, **one_output)
    wrapped = _ThreeChannels(built) if input_shape[0] != 3 else built
    wrapped.eval()
    try:
        with torch.no_grad():
            wrapped(torch.zeros(1, *input_shape))
    except (RuntimeError, AssertionError) as error:  # transformers assert the size of the image
        raise UsageError(
            f"torchvision's {model} cannot take images of shape {input_shape} ({str(error).splitlines()[0]}). Set --image-size."
        ) from error
    return wrapped.train()
