"""What a run would take, before it is started: from the data's listing and a few timed steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from clprune.datatypes import Source
from clprune.errors import UsageError
from clprune.proxies import build_proxy, proxy_for
from clprune.texts import N_BUCKETS, load_texts
from clprune.training import Recipe, new_state, pick_device, to_device, train


def plan(
    source: Source,
    *,
    proxy: str = "small_cnn",
    max_epochs: int = 30,
    device: str = "auto",
    image_size: int | None = None,
    exact: bool = False,
) -> dict[str, Any]:
    """What scoring `source` would take in epochs, minutes, MB of memory and of disk, timed on random images of its size. Raises UsageError for logged numbers."""
    recipe = Recipe(exact=exact)
    if source.logged is not None:
        raise UsageError(f"{source.locator} holds logged numbers: scoring them trains nothing, and takes seconds. Leave out --dry-run.")
    dtype: type[np.generic]
    rng, target, n_steps = np.random.default_rng(0), pick_device(device), 6
    if source.kind == "text":
        width = load_texts(source)[0].shape[1]
        form, n_bytes, high, dtype = [width], 4 * width, N_BUCKETS, np.int32
    else:
        first = np.asarray(source.images[0]) if source.images is not None else np.asarray(source.read_input(0))
        side = image_size or min(64, min(first.shape[:2]))
        channels = 1 if first.ndim == 2 else min(3, first.shape[2])
        form, n_bytes, high, dtype = [side, side, channels], side * side * channels, 256, np.uint8
    sample = rng.integers(0, high, (recipe.batch_size * n_steps, *form), dtype=dtype)
    probe = to_device(sample, rng.integers(0, source.n_classes, len(sample)), target)
    proxy = proxy_for(source.kind, proxy)
    with torch.random.fork_rng(devices=[]):
        state = new_state(build_proxy(proxy, source.n_classes, probe.input_shape), target, recipe)
    train(state, probe, recipe, n_epochs=1, n_steps=2, seed=0)
    run = train(state, probe, recipe, n_epochs=1, n_steps=n_steps + 2, seed=0)
    per_epoch = run.seconds / run.samples_seen * len(source)
    steps = -(-len(source) // recipe.batch_size) * max_epochs
    pixels = len(source) * n_bytes
    return {
        "source": source.locator,
        "n_samples": len(source),
        "n_classes": source.n_classes,
        "image": form,
        "skipped": len(source.skipped),
        "max_epochs": max_epochs,
        "max_steps": steps,
        "seconds_per_epoch": per_epoch,
        "max_minutes": per_epoch * max_epochs / 60,
        "memory_mb": (pixels * (source.images is None or source.images.base is None) + len(source) * 8 * 4 * (max_epochs + 4)) / 1e6 + 900,
        "disk_mb": (disk_bytes(len(source), max_epochs) + (pixels if source.images is None else 0)) / 1e6,
        "device": str(target),
    }


def disk_bytes(n_samples: int, n_epochs: int) -> int:
    """Upper bound of what a run writes: 8 signals of 4 bytes an epoch, twice while it runs, features and tables."""
    return n_samples * (2 * 8 * 4 * n_epochs + 512 * 2 + 300)
