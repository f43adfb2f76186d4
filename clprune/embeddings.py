"""Features of the samples: the proxy's at the end of the critical period, or the user's own; in half precision, block by block, on disk where a file is given."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Int32, UInt8
from torch import nn

from clprune.datatypes import Embeddings
from clprune.energy import EnergyMeter
from clprune.errors import DataError, UsageError
from clprune.latent import latent_features
from clprune.neighbors import LARGEST_HALF, in_half
from clprune.patches import patch_features
from clprune.storage import mapped_npy, read_npy, remembered
from clprune.training import DeviceData, TokenData, pick_device, predict

REMEMBERED_FROM = 5_000  # images: features of fewer are made in some seconds
BLOCK = 16_384  # samples; a multiple of the batch size, so that blocks have no influence on the features


def require_logits(
    model: nn.Module, data: DeviceData | TokenData, rows: Int[np.ndarray, "m"], n_classes: int, proxy: str, layer: str | None = None
) -> None:
    """Raise UsageError where the model cannot look at a few samples, gives something else than one number a class, or nothing comes of the `layer`."""
    wanted = f"It must map {' x '.join(map(str, ('B', *data.input_shape)))} inputs to (B, {n_classes})."
    try:
        logits, features = predict(model, data, rows=rows, layer=layer)
    except UsageError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise UsageError(f"proxy '{proxy}' failed on the first samples: {type(error).__name__}: {error}. {wanted}") from error
    if logits.shape != (len(rows), n_classes):
        raise UsageError(f"proxy '{proxy}' gave an array of shape {logits.shape} for {len(rows)} samples. {wanted}")
    if layer is not None and features is None:
        raise UsageError(f"layer {layer!r} has no part in what proxy '{proxy}' gives, so there are no features of it. Name another one.")


def embed(
    model: nn.Module,
    data: DeviceData | TokenData,
    rows: Int[np.ndarray, "N"],
    *,
    layer: str | None = None,
    exact: bool = False,
    file: Path | None = None,
) -> Embeddings | None:
    """Features of every sample, seen in the order of `rows`, in evaluation mode: the input of the last linear layer, or the output of the module called `layer`.

    What is beyond float16 is brought to its largest number. With `file` they are written there and come back as a memory map. None where the model has no linear layer.
    """
    first = predict(model, data, rows=rows[:BLOCK], exact=exact, layer=layer)[1]
    if first is None:
        return None
    shape = (len(data), first.shape[1])
    with mapped_npy(file, shape, np.float16) if file is not None else nullcontext(np.empty(shape, dtype=np.float16)) as out:
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            features = first if start == 0 else predict(model, data, rows=part, exact=exact, layer=layer)[1]
            assert features is not None
            out[part] = in_half(features)
    return Embeddings(read_npy(file, mapped=True) if file is not None else out, layer or "")


def given(vectors: np.ndarray | Path | str, sample_ids: np.ndarray) -> tuple[Embeddings, str]:
    """The user's own features, an array (N, D) of floats or the .npy file of one, row by row those of the samples, and their digest.

    Raises DataError for another kind of file, another shape or type, and for NaN or infinity, naming the samples.
    """
    what = "embeddings" if isinstance(vectors, np.ndarray) else str(vectors)
    array = vectors if isinstance(vectors, np.ndarray) else read_npy(Path(vectors), mapped=True)
    if not isinstance(array, np.ndarray):  # numpy opens archives, too
        with array:
            raise DataError(
                f"{what} is an archive of arrays ({', '.join(array.files)}); a .npy file with one array is needed. Write one with numpy.save."
            )
    if array.ndim != 2 or array.dtype.kind != "f" or array.shape[1] == 0:
        raise DataError(f"{what} has shape {array.shape} and type {array.dtype}; floats of shape (samples, width) are needed.")
    if len(array) != len(sample_ids):
        raise DataError(
            f"{what} has {len(array)} rows, but there are {len(sample_ids)} samples. Give one row a sample, in the order in which the data are read."
        )
    digest, broken, narrow = hashlib.sha256(f"{array.shape}{array.dtype}".encode()), [], True
    for start in range(0, len(array), BLOCK):
        block = np.ascontiguousarray(array[start : start + BLOCK])
        digest.update(block.data)
        broken += (start + np.flatnonzero(~np.isfinite(block).all(axis=1))).tolist()
        narrow = narrow and bool(np.abs(block).max() <= LARGEST_HALF)
    if broken:
        named = ", ".join(f"row {row} ({sample_ids[row]})" for row in broken[:3])
        raise DataError(
            f"{what} holds NaN or infinity in {len(broken)} of {len(array)} rows: {named}{', ...' if len(broken) > 3 else ''}. Mend them."
        )
    if array.dtype.itemsize > 2:
        array = _converted(array, np.float16 if narrow else np.float32)
    return Embeddings(array, "given"), digest.hexdigest()


def without_labels(
    images: UInt8[np.ndarray, "N H W C"] | Int32[np.ndarray, "N L"],
    order: Int[np.ndarray, "N"],
    *,
    seed: int = 0,
    device: str = "auto",
    goes_on: bool = False,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[Embeddings, dict[str, Any]]:
    """Features that need no label and no training, and the facts of their making: of images the patterns they are made of, of texts what their words have in common. `order` is that of the ids.

    Those of many images are kept in the cache part by part, and found there again after an interruption and in the next round. A run that `goes_on` after an interruption is charged with what they had taken.

    The input of a small CNN that had learned by contrast (SimCLR, 10 epochs) was measured before, and took about twelve times as long: of 15,000 CIFAR-10 images the ten nearest of others
    voted for the right class of 38 %, by the patterns of 67 %; of Fashion-MNIST of 81 % and 90 %.
    """
    started, meter, seconds_before = time.perf_counter(), EnergyMeter(), 0.0

    def held(name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """What `make` gave before, or gives now."""
        nonlocal seconds_before
        began, made = time.perf_counter(), []

        def timed() -> dict[str, np.ndarray]:
            made.append(make())
            return made[0] | {"seconds": np.array([time.perf_counter() - began])}

        found = timed() if len(order) < REMEMBERED_FROM else remembered("features", name, timed)
        seconds_before += 0.0 if made or not goes_on else float(found["seconds"][0])
        return found

    tell = (lambda done: on_progress({"stage": "features", "done": done, "total": len(order)})) if on_progress else None
    with meter:
        if images.ndim == 2:
            target, name, vectors = "cpu", "latent semantic analysis of n-grams", latent_features(images[order], seed=seed)[np.argsort(order)]
        else:
            on = pick_device(device)
            target, name, vectors = str(on), "patterns of patches", patch_features(images, order, seed=seed, device=on, held=held, on_block=tell)
    facts = nothing_trained(seed, name, seconds_before + time.perf_counter() - started) | {"device": target, "seconds_before": seconds_before}
    energy = (None, "not measured: the run was interrupted") if seconds_before else (meter.kwh, meter.method)
    return Embeddings(vectors, name), facts | dict(zip(("energy_kwh", "energy_method"), energy, strict=True))


def nothing_trained(seed: int, features: str = "embeddings given", seconds: float = 0.0) -> dict[str, Any]:
    """The facts of a run that trained no model, by where its features come from."""
    facts = {
        "proxy": f"none: {features}",
        "seed": seed,
        "device": "none",
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "recipe": {},
        "n_epochs": 0,
    }
    return facts | {"energy_kwh": None, "energy_method": "not measured: nothing was trained"}


def _converted(array: np.ndarray, dtype: type) -> np.ndarray:
    out: np.ndarray = np.empty(array.shape, dtype=dtype)
    for start in range(0, len(array), BLOCK):
        out[start : start + BLOCK] = array[start : start + BLOCK]
    return out
