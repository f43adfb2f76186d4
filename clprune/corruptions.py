"""Five common corruptions of test images, of one moderate severity, in the spirit of Hendrycks & Dietterich (2019, arXiv:1903.12261).

Written anew and not comparable with published corruption errors: they are for comparing models of one evaluation with each other. Noise depends on
the seed only; the other four are deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, UInt8

SEVERITY = "noise of 0.10 of the range, blur of 1/28 of the side, contrast and brightness changed by 0.5 and 0.25, pixels merged to 60 % of the side"
NOISE = 0.10  # standard deviation, share of the range 0..255
BLUR = 1 / 28  # standard deviation, share of the longer side: one pixel at 28
CONTRAST = 0.5  # what is left of the distance to the image's mean
BRIGHTNESS = 0.25  # added, share of the range
PIXELATE = 0.6  # of the side, before it is brought back by the nearest pixel
BLOCK = 2048  # images at once, so that float copies stay small


def gaussian_noise(images: Float[np.ndarray, "B H W C"], rng: np.random.Generator) -> Float[np.ndarray, "B H W C"]:
    """Independent normal noise on every value."""
    return images + rng.normal(0, 255 * NOISE, images.shape).astype(np.float32)


def blur(images: Float[np.ndarray, "B H W C"], rng: np.random.Generator) -> Float[np.ndarray, "B H W C"]:
    """A Gaussian blur, borders repeated."""
    sigma = BLUR * max(images.shape[1:3])
    reach = max(1, int(np.ceil(3 * sigma)))
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        size = images.shape[axis]
        images = sum(  # type: ignore[assignment]
            np.float32(weight) * np.take(images, np.clip(np.arange(size) + offset, 0, size - 1), axis=axis)
            for weight, offset in zip(weights, offsets, strict=True)
        )
    return images


def contrast(images: Float[np.ndarray, "B H W C"], rng: np.random.Generator) -> Float[np.ndarray, "B H W C"]:
    """Every value closer to its image's mean."""
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return mean + CONTRAST * (images - mean)


def brightness(images: Float[np.ndarray, "B H W C"], rng: np.random.Generator) -> Float[np.ndarray, "B H W C"]:
    """Every value raised, white cut off."""
    return images + np.float32(255 * BRIGHTNESS)


def pixelate(images: Float[np.ndarray, "B H W C"], rng: np.random.Generator) -> Float[np.ndarray, "B H W C"]:
    """Fewer pixels: sampled to PIXELATE of each side and back, nearest both ways."""
    for axis in (1, 2):
        size = images.shape[axis]
        small = max(1, round(PIXELATE * size))
        cell = np.arange(size) * small // size
        images = np.take(images, ((cell + 0.5) * size / small).astype(np.int64), axis=axis)
    return images


CORRUPTIONS: dict[str, Callable[..., np.ndarray]] = {f.__name__: f for f in (gaussian_noise, blur, contrast, brightness, pixelate)}


def corrupted(images: UInt8[np.ndarray, "M H W C"], seed: int = 0) -> Iterator[tuple[str, UInt8[np.ndarray, "M H W C"]]]:
    """Each corruption by name with all images corrupted by it, rounded and cut to 0..255; one copy at a time."""
    for name, corrupt in CORRUPTIONS.items():
        rng = np.random.default_rng((seed, 11))
        result = np.empty_like(images)
        for start in range(0, len(images), BLOCK):
            block = corrupt(np.asarray(images[start : start + BLOCK], dtype=np.float32), rng)
            result[start : start + BLOCK] = np.clip(np.rint(block), 0, 255)
        yield name, result
