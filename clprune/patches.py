"""Features of images without any label and without any training: which small patterns they are made of, and where."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from clprune.neighbors import kmeans, unit_rows

SIDE = 32  # pixels: larger images are made so small
PATCH, FILTERS = 6, 256  # side of a patch in pixels, and how many patterns are told apart
CELLS = 3  # a side: where in the image a pattern is, this finely
PATCHES, FITTED_ON = 60_000, 10_000  # patches and images that filters and directions are found on
PATCHES_AN_IMAGE = 10
FLAT, SHRINKAGE, ABOVE = 10 / 255**2, 0.1, 0.5  # added to a patch's variance and to the eigenvalues of all; a response counts from here on
WIDTH = 128  # of the features, at most
POWERS = 6  # rounds of power iteration for the directions
BLOCK = 16  # images: their answers, 256 a place, are still near the processor
PART = 8_192  # images whose features are held together: what an interruption can lose, some ten seconds

Arrays = dict[str, np.ndarray]


def _nothing_held(name: str, make: Callable[[], Arrays]) -> Arrays:
    return make()


def patch_features(
    images: UInt8[np.ndarray, "N H W C"],
    order: Int[np.ndarray, "N"],
    *,
    seed: int = 0,
    device: torch.device | None = None,
    width: int = WIDTH,
    held: Callable[[str, Callable[[], Arrays]], Arrays] = _nothing_held,
    on_block: Callable[[int], None] | None = None,
) -> Float[np.ndarray, "N D"]:
    """Features (half precision, rows of length 1, in the order of the images) after Coates, Lee and Ng (2011, PMLR 15:215-223).

    Patches of 6 x 6 pixels, brightness and contrast removed and whitened, are put into clusters by the direction in which they lie; an image is told by how strongly it answers to each centre, on average over
    each of 3 x 3 cells, and these numbers by their `width` largest principal components, brought halfway to one size. Draws of `seed` are taken in `order` (that of the ids), so that row order has no influence. Time is linear in
    the images; `on_block` is told how many are done. What is found first, and then the features of each PART images, are asked of `held(name, make)`, which may give what `make()` gave for that name before: names
    hold a digest of the images in that order and of all that is set.
    """
    device = device or torch.device("cpu")
    settings = seed, width, SIDE, PATCH, FILTERS, CELLS, PATCHES, PATCHES_AN_IMAGE, FITTED_ON, FLAT, SHRINKAGE, ABOVE, POWERS, PART, images.shape
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
    for start in range(0, len(order), PART):
        digest.update(np.ascontiguousarray(images[order[start : start + PART]]).data)
    key = digest.hexdigest()
    fitted = held(f"{key}-patterns", lambda: find_patterns(images, order, seed=seed, width=width, device=device))
    some = fitted["rows"]
    features = np.empty((len(order), fitted["features"].shape[1]), dtype=np.float16)
    features[order[some]] = fitted["features"]
    rest = np.delete(order, some)
    for start in range(0, len(rest), PART):
        rows = rest[start : start + PART]
        features[rows] = held(f"{key}-{start // PART:05d}", partial(features_by, fitted, images, rows, device))["features"]
        if on_block is not None:
            on_block(len(some) + start + len(rows))
    return features


def find_patterns(
    images: UInt8[np.ndarray, "N H W C"], order: Int[np.ndarray, "N"], *, seed: int = 0, width: int = WIDTH, device: torch.device
) -> Arrays:
    """What all images are then seen with, found on FITTED_ON of them, the draws those of `seed`.

    `weights` (K, C, P, P) and `away` (K,): the likeness of a patch to each pattern is a product with the one less the other; `middle` and `spread` (F,) of the answers in all cells, and `project` (F, D), which makes features of them.
    `rows` (M,) are the places in `order` of those that it was found on, `features` (M, D) theirs, in half precision.
    """
    rng = np.random.default_rng((seed, 6))
    some = np.sort(rng.permutation(len(order))[:FITTED_ON])
    weights, away = _filters(images, order[some], rng, device)
    known = np.sqrt(np.concatenate(list(_answers(images, order[some], (weights, away), device))))
    middle, spread = known.mean(axis=0), known.std(axis=0) + 1e-3
    known = (known - middle) / spread
    width = min(width, *known.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ways, sizes, _ = torch.svd_lowrank(torch.from_numpy(known.T @ known / len(known)), q=min(width + 8, len(known.T)), niter=POWERS)
    # Halfway to all of one size: of 500 to 6,000 images better neighbours than either.
    project = (ways[:, :width] / (sizes[:width] + 1e-5) ** 0.25).numpy()
    found = {"rows": some, "weights": weights.cpu().numpy(), "away": away.cpu().numpy(), "middle": middle, "spread": spread, "project": project}
    return found | {"features": unit_rows(known @ project).astype(np.float16)}


def features_by(fitted: Arrays, images: UInt8[np.ndarray, "N H W C"], rows: Int[np.ndarray, "B"], device: torch.device) -> Arrays:
    """The `features` (B, D), half precision, rows of length 1, of the images of `rows`, by what `find_patterns` found on these or on others."""
    filters = torch.from_numpy(fitted["weights"]).to(device), torch.from_numpy(fitted["away"]).to(device)
    blocks = [((np.sqrt(part) - fitted["middle"]) / fitted["spread"]) @ fitted["project"] for part in _answers(images, rows, filters, device)]
    return {"features": unit_rows(np.concatenate(blocks)).astype(np.float16)}


def _filters(
    images: UInt8[np.ndarray, "N H W C"], rows: Int[np.ndarray, "M"], rng: np.random.Generator, device: torch.device
) -> tuple[Float[Tensor, "K C P Q"], Float[Tensor, "K"]]:
    """What a patch without brightness and contrast is multiplied by to give its likeness to each pattern, and what is taken off then."""
    found = []
    for block in _small(images, rows[: -(-PATCHES // PATCHES_AN_IMAGE)], torch.device("cpu")):
        size = min(PATCH, *block.shape[2:])
        every = np.lib.stride_tricks.sliding_window_view(block.numpy(), (size, size), axis=(2, 3))  # (B, C, H - P + 1, W - P + 1, P, P)
        down, across = np.divmod(rng.integers(0, every.shape[2] * every.shape[3], (len(every), PATCHES_AN_IMAGE)), every.shape[3])
        found.append(every[np.arange(len(every))[:, None], :, down, across].reshape(-1, every.shape[1] * size * size))
    patches = np.concatenate(found).astype(np.float64)
    patches -= patches.mean(axis=1, keepdims=True)
    patches /= np.sqrt(patches.var(axis=1, keepdims=True) + FLAT)
    middle = patches.mean(axis=0)
    sizes, ways = np.linalg.eigh(np.cov(patches - middle, rowvar=False).reshape(patches.shape[1], patches.shape[1]))
    whiten = ways / np.sqrt(np.maximum(sizes, 0) + SHRINKAGE) @ ways.T
    directions = unit_rows(((patches - middle) @ whiten).astype(np.float32))
    centres = unit_rows(kmeans(directions, min(FILTERS, len(directions)), rng))
    weights = centres @ whiten
    shape = (len(weights), images.shape[3], size, size)
    return torch.from_numpy(weights.reshape(shape).astype(np.float32)).to(device), torch.from_numpy((weights @ middle).astype(np.float32)).to(device)


def _answers(
    images: UInt8[np.ndarray, "N H W C"], rows: Int[np.ndarray, "M"], filters: tuple[Tensor, Tensor], device: torch.device
) -> Iterator[Float[np.ndarray, "B F"]]:
    """How strongly the images of `rows` answer to each filter in each cell, a block at a time."""
    weights, away = filters
    box = torch.full_like(weights[:1], 1 / weights[0].numel())
    centred = weights - weights.mean(dim=(1, 2, 3), keepdim=True)  # takes the brightness of a patch off
    centred = centred.contiguous(memory_format=torch.channels_last)
    for block in _small(images, rows, device):
        mean = F.conv2d(block, box)
        contrast = (F.conv2d(block * block, box) - mean * mean).clamp_min_(0).add_(FLAT).rsqrt_()
        likeness = F.conv2d(block, centred).mul_(contrast).sub_((away + ABOVE)[:, None, None]).relu_()  # in place: memory is what this takes
        yield F.adaptive_avg_pool2d(likeness, min(CELLS, *likeness.shape[2:])).flatten(1).cpu().numpy()


def _small(images: UInt8[np.ndarray, "N H W C"], rows: Int[np.ndarray, "M"], device: torch.device) -> Iterator[Float[Tensor, "B C H W"]]:
    """The images of `rows` in [0, 1], their smaller side at most SIDE pixels, a block at a time."""
    for start in range(0, len(rows), BLOCK):
        block = torch.from_numpy(np.ascontiguousarray(images[rows[start : start + BLOCK]])).to(device).permute(0, 3, 1, 2).float() / 255
        scale = SIDE / min(block.shape[2:])
        yield (F.interpolate(block, scale_factor=scale, mode="area") if scale < 1 else block).contiguous(memory_format=torch.channels_last)
