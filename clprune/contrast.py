"""Features without any label: the proxy learns, for a short while, that two views of one image are the same and those of two images are not; texts are taken by their words."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32, UInt8
from safetensors.numpy import load, save
from torch import Tensor

from clprune.datatypes import Embeddings, Source
from clprune.embeddings import embed
from clprune.energy import EnergyMeter
from clprune.errors import IntegrityError, UsageError
from clprune.latent import latent_features
from clprune.proxies import build_proxy
from clprune.storage import write_bytes
from clprune.training import (
    DeviceData,
    FeatureTap,
    Recipe,
    TrainingState,
    new_state,
    pick_device,
    pixel_statistics,
    rate_at,
    seed_everything,
    to_device,
)

N_EPOCHS = 10
BATCH, PROJECTION, TEMPERATURE = 256, 64, 0.5  # temperature as in SimCLR's experiments with small batches
LEAST_SIDE = 0.5  # of a crop, as a share of the image's side
JITTER = 0.4  # brightness and contrast of a view change by up to this share


def learn_without_labels(
    source: Source,
    images: UInt8[np.ndarray, "N H W C"] | Int32[np.ndarray, "N L"],
    *,
    proxy: str = "small_cnn",
    seed: int = 0,
    device: str = "auto",
    n_epochs: int = N_EPOCHS,
    checkpoint: Path | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[Embeddings, dict[str, Any]]:
    """Train `proxy` by contrast (SimCLR, Chen et al., 2020, arXiv:2002.05709) and give the input of its last layer, and the facts of the run.

    An image's views are random crops, mirrored, brighter or darker; its last linear layer is the projection. With `checkpoint` (a folder) every epoch is
    committed, and an interrupted run of the same arguments goes on. Rows are worked on in the order of ids. Texts have no views to learn from:
    their features are those of `latent.latent_features`, and nothing is trained. Raises UsageError for a proxy without a linear layer.
    """
    target, order, started = pick_device(device), source.canonical_order, time.perf_counter()
    if images.ndim == 2:
        vectors = latent_features(images[order], seed=seed)[np.argsort(order)]
        return Embeddings(vectors, "latent semantic analysis"), nothing_learned(
            seed, "latent semantic analysis of n-grams", time.perf_counter() - started
        )
    statistics = pixel_statistics(images[np.sort(order[:: max(1, len(order) // 5000)])])
    data = to_device(images, np.zeros(len(source), dtype=np.int64), target, statistics=statistics)
    assert isinstance(data, DeviceData)
    seed_everything(seed)
    recipe = Recipe(batch_size=BATCH, schedule="cosine")
    state = new_state(build_proxy(proxy, PROJECTION, data.input_shape), target, recipe)
    layer = FeatureTap(state.model)
    layer.close()
    if layer.layer is None:
        raise UsageError(f"proxy {proxy} has no linear layer, so it gives no features. Choose another one, or label some samples first.")
    key = json.dumps([source.fingerprint, proxy, seed, n_epochs, torch.get_num_threads(), torch.__version__])
    before = _resumed(checkpoint, key, state) if checkpoint is not None else 0.0
    meter = EnergyMeter()
    with meter:
        while state.epochs_done < n_epochs:
            rng = np.random.default_rng((seed, state.epochs_done, 5))
            draws = torch.Generator(device="cpu").manual_seed(int(rng.integers(1 << 31)))
            batches = np.array_split(rng.permutation(order), max(1, len(order) // BATCH))
            state.model.train()
            for number, rows in enumerate(batches):
                at = torch.from_numpy(np.concatenate([rows, rows])).to(target)
                for group in state.optimizer.param_groups:
                    group["lr"] = rate_at(state.steps_done * BATCH, (state.epochs_done + number / len(batches)) / n_epochs, recipe)
                with torch.autocast(target.type, torch.bfloat16):
                    projected = state.model(_views(data, at, draws))
                loss = contrastive_loss(projected.float())
                state.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                state.optimizer.step()
                state.steps_done += 1
            state.epochs_done += 1
            if checkpoint is not None:
                _commit(checkpoint, key, state, before + time.perf_counter() - started)
            if on_progress:
                on_progress({"stage": "contrast", "done": state.epochs_done, "total": n_epochs, "message": f"loss {float(loss.detach()):.3f}"})
        features = embed(state.model, data, order)
    assert features is not None  # there is a linear layer
    facts = {
        "proxy": proxy,
        "seed": seed,
        "device": str(target),
        "threads": torch.get_num_threads(),
        "seconds": before + time.perf_counter() - started,
        "seconds_before": before,
    }
    facts |= {"recipe": {"contrastive": True, "batch_size": BATCH, "epochs": n_epochs, "temperature": TEMPERATURE}, "n_epochs": n_epochs}
    facts |= {"energy_kwh": None if before else meter.kwh, "energy_method": "not measured: the run was interrupted" if before else meter.method}
    return Embeddings(features.vectors, layer.layer), facts


def nothing_learned(seed: int, features: str = "embeddings given", seconds: float = 0.0) -> dict[str, Any]:
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


def contrastive_loss(projected: Float[Tensor, "2B P"], temperature: float = TEMPERATURE) -> Float[Tensor, ""]:
    """NT-Xent: cross-entropy of finding the other view of each image among all other views, by cosine; rows i and i + B belong together."""
    unit = F.normalize(projected, dim=1)
    n = len(unit) // 2
    likeness = unit @ unit.T / temperature
    likeness.fill_diagonal_(float("-inf"))
    return F.cross_entropy(likeness, torch.arange(2 * n, device=unit.device).roll(n))


def _views(data: DeviceData, rows: Tensor, draws: torch.Generator) -> Float[Tensor, "B C H W"]:
    """Random crops of at least LEAST_SIDE of each side, mirrored half of the time, with another brightness and contrast."""
    n, device = len(rows), data.device
    images = data.batch(rows, shifts=None, flips=None, dtype=torch.float32)
    uniform = torch.rand(n, 6, generator=draws).to(device)
    side = LEAST_SIDE + (1 - LEAST_SIDE) * uniform[:, 0]
    mirror = torch.where(uniform[:, 1] < 0.5, -1.0, 1.0)
    room = 1 - side
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = side * mirror, side
    theta[:, 0, 2], theta[:, 1, 2] = room * (2 * uniform[:, 2] - 1), room * (2 * uniform[:, 3] - 1)
    seen = F.grid_sample(images, F.affine_grid(theta, list(images.shape), align_corners=False), padding_mode="reflection", align_corners=False)
    contrast, brightness = 1 + JITTER * (2 * uniform[:, 4] - 1), JITTER * (2 * uniform[:, 5] - 1)
    return seen * contrast.view(-1, 1, 1, 1) + brightness.view(-1, 1, 1, 1)


def _commit(folder: Path, key: str, state: TrainingState, seconds: float) -> None:
    tensors = {f"model.{name}": value.detach().cpu().contiguous().numpy() for name, value in state.model.state_dict().items()}
    for number, slot in enumerate(state.optimizer.state_dict()["state"].values()):
        tensors[f"momentum.{number}"] = slot["momentum_buffer"].detach().cpu().contiguous().numpy()
    tensors["done"] = np.array([state.epochs_done, state.steps_done, seconds])
    tensors["key"] = np.frombuffer(key.encode(), dtype=np.uint8)
    content = save({name: np.ascontiguousarray(value) for name, value in tensors.items()})
    path = folder / f"contrast-{state.epochs_done:04d}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    write_bytes(path, content)
    for old in folder.glob("contrast-*.safetensors"):
        if old != path:
            old.unlink()


def _resumed(folder: Path, key: str, state: TrainingState) -> float:
    """Load what an interrupted run of the same arguments had committed; returns the seconds it had taken."""
    path = max(folder.glob("contrast-*.safetensors"), default=None)  # the last one, where an interruption came before the one before it was removed
    if path is None:
        return 0.0
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest()[:16] != path.stem.split("-")[2]:
        raise IntegrityError(f"{path} of the interrupted run was changed. Pass --force to start anew.")
    arrays: Mapping[str, np.ndarray] = load(content)
    if arrays["key"].tobytes().decode() != key:
        return 0.0
    device = next(state.model.parameters()).device
    state.model.load_state_dict({name[6:]: torch.from_numpy(value.copy()) for name, value in arrays.items() if name.startswith("model.")})
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    for number, parameter in enumerate(parameters):
        buffer = torch.empty_like(parameter)
        buffer.copy_(torch.from_numpy(arrays[f"momentum.{number}"].copy()).to(device))
        state.optimizer.state[parameter]["momentum_buffer"] = buffer
    state.epochs_done, state.steps_done = int(arrays["done"][0]), int(arrays["done"][1])
    return float(arrays["done"][2])
