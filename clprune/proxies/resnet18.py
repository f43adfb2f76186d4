"""ResNet-18 (He et al., 2016, arXiv:1512.03385) with the stem for small images: a 3x3 convolution and no pooling."""

from __future__ import annotations

from torch import nn

from clprune.families import proxy


@proxy
def resnet18(n_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """ResNet-18; up to 96 pixels with the CIFAR stem (3x3, stride 1), above that with torchvision's own."""
    import torchvision

    channels, height, _ = input_shape
    model = torchvision.models.resnet18(num_classes=n_classes)
    if height <= 96:
        model.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
        model.maxpool = nn.Identity()
    elif channels != 3:
        model.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    model.capturable = True  # type: ignore[assignment]  # see `training.train`
    return model
