"""A network made for wide batches on a GPU: frozen decorrelating filters, three wide blocks that start as the identity, one linear layer.

After the ideas of Jordan (2024, arXiv:2404.00498): a first layer that whitens patches, convolutions that first pass their input on, batch normalisation without a
scale. There the filters come from the training images. Here they come from a law that natural images follow well, correlation RHO between neighbouring pixels and
COLOUR between channels, whose principal components need no data: a resumed run and every process has the same filters at once.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from clprune.families import proxy

RHO, COLOUR = 0.95, 0.9
WIDTHS = (64, 256, 256)
LOGIT_SCALE = 1 / 9  # of the linear layer's output, as in the paper: keeps the first steps small


def whitening_filters(channels: int, side: int = 2) -> Float[np.ndarray, "F C side side"]:
    """Filters (2 C side^2, C, side, side) that turn a patch of the law above into uncorrelated values of variance 1, each with both signs."""
    line = RHO ** np.abs(np.subtract.outer(np.arange(side), np.arange(side)))
    colour = COLOUR + (1 - COLOUR) * np.eye(channels)
    values, vectors = np.linalg.eigh(np.kron(colour, np.kron(line, line)))
    vectors = vectors * np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(values))] < 0, -1, 1)  # a sign that no library chooses
    filters = (vectors / np.sqrt(values + 1e-2)).T.reshape(-1, channels, side, side)
    return np.concatenate([filters, -filters]).astype(np.float32)


class SpeedCNN(nn.Module):
    """(B, C, H, W) to logits (B, n_classes); the widths are those of the three blocks."""

    def __init__(self, n_classes: int, channels: int, side: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        filters = whitening_filters(channels)
        first = nn.Conv2d(channels, len(filters), filters.shape[-1])
        first.weight = nn.Parameter(torch.from_numpy(filters), requires_grad=False)
        nn.init.zeros_(first.bias)  # type: ignore[arg-type]
        layers: list[nn.Module] = [first, nn.GELU()]
        before = len(filters)
        for number, width in enumerate(widths):
            pool = side >= 4 * 2**number  # a small image is not halved away
            layers += [_identity(before, width), nn.MaxPool2d(2) if pool else nn.Identity(), _norm(width), nn.GELU()]
            layers += [_identity(width, width), _norm(width), nn.GELU()]
            before = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(before, n_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return LOGIT_SCALE * self.head(torch.amax(self.body(images), dim=(2, 3)))


def _identity(before: int, after: int) -> nn.Conv2d:
    layer = nn.Conv2d(before, after, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[: min(before, after)])  # the channels that come in go through; those above start at random
    return layer


def _norm(width: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(width, momentum=0.4)
    layer.weight.requires_grad_(False)
    return layer


@proxy
def speed_cnn(n_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """About two million weights, for images (C, H, W) of 16 to 96 pixels; meant for batches of 1,000 and more on a GPU."""
    return SpeedCNN(n_classes, input_shape[0], min(input_shape[1:]))
