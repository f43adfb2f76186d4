"""Record a short proxy run that stops by itself when the critical learning period has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from safetensors.numpy import load_file, save

from clprune import distributed
from clprune.arithmetic import name_of_numbers
from clprune.batch_norm import over_all_processes
from clprune.critical_period import deciding_indicators
from clprune.datatypes import CriticalPeriod, Embeddings, Source, Trajectory
from clprune.embeddings import embed, require_logits
from clprune.energy import EnergyMeter
from clprune.errors import DataError, IntegrityError, UsageError
from clprune.labels import labels_digest
from clprune.neighbors import in_half
from clprune.proxies import build_proxy, code_of
from clprune.recorder import Recorder
from clprune.signals import network_fisher
from clprune.storage import SCHEMA_VERSION, digest_of_file, read_json, write_bytes, write_json
from clprune.training import (
    PREDICTED_AT_ONCE,
    DeviceData,
    FeatureTap,
    Recipe,
    TokenData,
    TrainingState,
    finishing_steps,
    new_state,
    pick_device,
    pixel_statistics,
    predict,
    seed_everything,
    to_device,
    train,
)

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class ProxyRun:
    """What a proxy run leaves: the recording, where the period ended, and the features at that moment."""

    trajectory: Trajectory
    period: CriticalPeriod
    embeddings: Embeddings | None


def record_trajectory(
    source: Source,
    images: UInt8[np.ndarray, "N H W C"] | Int[np.ndarray, "N L"],
    *,
    proxy: str = "small_cnn",
    max_epochs: int = 30,
    seed: int = 0,
    device: str = "auto",
    exact: bool = False,
    whole_network: bool = False,
    batch_size: int = Recipe.batch_size,
    learning_rate: float | None = None,
    layer: str | None = None,
    embeddings: Embeddings | None = None,
    embeddings_file: Path | None = None,
    checkpoint: Path | None = None,
    live_folder: Path | None = None,
    watch: Callable[..., None] | None = None,
    on_progress: Progress | None = None,
) -> ProxyRun | None:
    """Train `proxy` on the images (or the hashed n-grams of texts) until the live rule fires and the ranking has settled, else for `max_epochs`.

    The run depends on the ids of the samples, not on the order of the rows. With `checkpoint` (a folder) the state is committed after every
    epoch and an interrupted run with the same arguments goes on from there. The learning rate (of SGD with momentum 0.9) is 0.05 per 128 samples of a
    batch unless given, so that the pace in samples hardly depends on the batch size (Goyal et al., 2017, arXiv:1706.02677). `whole_network` records the
    Fisher trace of all weights too, by one backward pass over 256 samples an epoch. `live_folder` is where `live.json` goes. `watch(model, statistics, epochs_done)` is called before each
    epoch is committed; for it alone the model is trained on when the run is over (`finishing_steps`), and then it is called with `last=True`. Features are those of `layer` (see `embed`), kept in `embeddings_file`; where the user's own `embeddings` are given, none are taken.
    Where processes have `joined` they train together; process 0 records, watches, decides and writes, and the others get None. Raises UsageError, DataError or TrainingError.
    """
    if max_epochs < 1:
        raise UsageError(f"max_epochs is {max_epochs}; it must be at least 1.")
    target, order = pick_device(device), source.canonical_order
    numbers = name_of_numbers(target, exact=exact)
    n_processes, first = distributed.world_size(), distributed.is_first()
    rate = Recipe.learning_rate * batch_size / Recipe.batch_size if learning_rate is None else learning_rate
    if batch_size < 1 or not 0 <= rate < float("inf"):
        raise UsageError(f"batch_size is {batch_size} and learning_rate {rate}; a whole number from 1 on and a number from 0 on are needed.")
    recipe = Recipe(exact=exact, batch_size=batch_size, learning_rate=rate)
    started = time.perf_counter()
    statistics = pixel_statistics(images, order) if images.ndim == 4 else None
    data = to_device(images, source.labels, target, statistics=statistics)
    seed_everything(seed)
    model = build_proxy(proxy, source.n_classes, data.input_shape)
    if n_processes > 1:
        model = over_all_processes(model)
    state = new_state(model, target, recipe)
    tap = FeatureTap(model, layer)  # refuses a layer that is not there before anything is trained
    tap.close()
    require_logits(state.model, data, order[:2], source.n_classes, proxy, layer)
    recorder = Recorder(source, model=state.model)
    key = {
        "fingerprint": source.fingerprint,
        "image_shape": list(images.shape),
        "labels": labels_digest(source.labels),
        "proxy": proxy,
        "proxy_code": code_of(proxy),
        "seed": seed,
        "recipe": asdict(recipe),
        "whole_network": whole_network,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "number_format": numbers,
        "processes": n_processes,
    }
    seconds_before = distributed.on_first(lambda: _resume(checkpoint, key, state, recorder) if checkpoint is not None else 0.0)
    if n_processes > 1:
        distributed.same_start(state.model, state.optimizer)
        state.epochs_done, state.steps_done = distributed.on_first(lambda: (state.epochs_done, state.steps_done))
    if live_folder is not None and first:
        recorder.publish(live_folder, title=source.locator, max_epochs=max_epochs, resumable=checkpoint is not None)
    if seconds_before and on_progress:
        on_progress({"stage": "train", "done": state.epochs_done, "total": max_epochs, "message": f"resumed after epoch {state.epochs_done}"})
    meter, deciding, finishing = EnergyMeter(), deciding_indicators(), 0

    def end_epoch(now: TrainingState) -> bool:
        return distributed.on_first(lambda: record_epoch(now))

    def record_epoch(now: TrainingState) -> bool:
        if whole_network:
            some = torch.from_numpy(np.random.default_rng((seed, now.epochs_done, 3)).permutation(order)[:256]).to(target)
            pixels = data.batch(some, shifts=None, flips=None, dtype=torch.float32)
            recorder.observe_network(network_fisher(now.model, pixels, torch.Generator().manual_seed(seed + now.epochs_done)))
        if watch is not None:
            watch(now.model, statistics, now.epochs_done)
        ended = recorder.end_epoch()
        if checkpoint is not None:
            _commit(checkpoint, key, now, recorder, seconds_before + time.perf_counter() - started)
        if on_progress:
            on_progress(
                {"stage": "train", "done": now.epochs_done, "total": max_epochs, "epoch": now.epochs_done, "curves": recorder.curves}
                | {"curve_epochs": recorder.curve_epochs, "n_samples": recorder.n_samples, "deciding": deciding}
                | {"waiting_for": None if ended else recorder.live.waiting_for}
            )
        return ended

    with meter:
        if not distributed.on_first(lambda: recorder.live.fired) and state.epochs_done < max_epochs:
            observe, together = recorder.observe, n_processes > 1
            train(state, data, recipe, n_epochs=max_epochs, seed=seed, rows=order, observe=observe, end_epoch=end_epoch, together=together)
        if embeddings is None:
            if on_progress:
                on_progress({"stage": "embed", "done": 0, "total": 1})
            embeddings = _features(state, data, order, exact, layer, embeddings_file, tap.layer or "")
        if watch is not None:
            if on_progress:
                on_progress({"stage": "finish", "done": 0, "total": 1})
            n_steps = state.steps_done + finishing_steps(state.steps_done, batch_size)
            falling = replace(recipe, schedule="cosine")
            finishing = train(state, data, falling, n_epochs=1, n_steps=n_steps, seed=seed, rows=order, together=n_processes > 1).epochs
            if first:
                watch(state.model, statistics, state.epochs_done, last=True)
    if not first:
        return None
    seconds = seconds_before + time.perf_counter() - started
    facts = {
        "proxy": proxy,
        "seed": seed,
        "device": str(target),
        "recipe": asdict(recipe),
        "number_format": numbers,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "seconds_before": seconds_before,
        "energy_kwh": None if seconds_before else meter.kwh,
        "energy_method": "not measured: the run was interrupted" if seconds_before else meter.method,
        "max_epochs": max_epochs,
        "finishing_epochs": finishing,
        "processes": n_processes,
    }
    if n_processes > 1:  # the meter sees this process only
        facts |= {"energy_kwh": None, "energy_method": f"not measured: {n_processes} processes took part"}
    return ProxyRun(recorder.trajectory(**facts), recorder.critical_period(), embeddings)


def _features(
    state: TrainingState, data: DeviceData | TokenData, order: Int[np.ndarray, "N"], exact: bool, layer: str | None, file: Path | None, name: str
) -> Embeddings | None:
    """Features of all rows, in process 0. Of several processes each takes whole blocks of the rows in `order`, those of one process: the same numbers."""
    n_processes = distributed.world_size()
    if n_processes == 1:
        taken = embed(state.model, data, order, layer=layer, exact=exact, file=file)
        return None if taken is None else Embeddings(taken.vectors, name)
    blocks = [order[start : start + PREDICTED_AT_ONCE] for start in range(0, len(order), PREDICTED_AT_ONCE)]
    mine = np.concatenate([order[:0], *blocks[distributed.rank() :: n_processes]])
    _, features = predict(state.model, data, rows=mine if len(mine) else order[:1], exact=exact, layer=layer)  # the width must be known to all
    if features is None:
        return None
    found = distributed.rows_to_first(in_half(features[: len(mine)]), [len(block) for block in blocks])
    if found is None:
        return None
    vectors = np.empty_like(found)
    vectors[order] = found
    return Embeddings(vectors, name)


def _commit(folder: Path, key: Mapping[str, Any], state: TrainingState, recorder: Recorder, seconds: float) -> None:
    """Write the state after an epoch: the epoch's signals once, then weights and curves, then the JSON that names them."""
    signals, rest = recorder.state_after_last_epoch()
    last = state.epochs_done - 1
    write_bytes(folder / f"epoch-{last:04d}.safetensors", save(signals))
    tensors = {f"model.{name}": _as_array(value) for name, value in state.model.state_dict().items()}
    for number, slot in state.optimizer.state_dict()["state"].items():  # by parameter: one that is frozen has no state
        if slot.get("momentum_buffer") is not None:
            tensors[f"momentum.{number}"] = _as_array(slot["momentum_buffer"])
    name = f"state-{last:04d}.safetensors"
    write_bytes(folder / name, save({k: np.ascontiguousarray(v) for k, v in (tensors | rest).items()}))
    previous = read_json(folder / "checkpoint.json", what="checkpoint")["files"] if last else {}
    files = {k: v for k, v in previous.items() if k.startswith("epoch-")}
    files |= {path: digest_of_file(folder / path) for path in (name, f"epoch-{last:04d}.safetensors")}
    document = {
        "schema_version": SCHEMA_VERSION,
        "key": key,
        "epochs_done": state.epochs_done,
        "steps_done": state.steps_done,
        "seconds": seconds,
        "files": files,
        "state": name,
    }
    write_json(folder / "checkpoint.json", document)
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink()


def _as_array(value: torch.Tensor) -> np.ndarray:
    """The numbers of a tensor; numpy has no bfloat16, whose numbers float32 holds exactly."""
    held = value.detach().cpu().contiguous()
    return (held.float() if held.dtype is torch.bfloat16 else held).numpy()


def _resume(folder: Path, key: Mapping[str, Any], state: TrainingState, recorder: Recorder) -> float:
    """Load the state of an interrupted run, if there is one; returns the seconds it had taken (its energy is not known)."""
    if not (folder / "checkpoint.json").exists():
        return 0.0
    document = read_json(folder / "checkpoint.json", what="checkpoint")
    if changed := [name for name in key if ({"processes": 1} | document["key"]).get(name) != key[name]]:
        raise DataError(
            f"{folder.parent} holds an interrupted run with another {', '.join(changed)}. Finish it with the same arguments on the same kind of machine, or pass --force to start anew."
        )
    for name, digest in document["files"].items():
        if not (folder / name).is_file() or digest_of_file(folder / name) != digest:
            raise IntegrityError(f"{folder / name} of the interrupted run is missing or changed. Pass --force to start anew.")
    arrays = load_file(folder / document["state"])
    device = next(state.model.parameters()).device
    state.model.load_state_dict({name[6:]: torch.from_numpy(value) for name, value in arrays.items() if name.startswith("model.")})
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    for number, parameter in enumerate(parameters):
        if f"momentum.{number}" in arrays:
            buffer = torch.empty_like(parameter)
            buffer.copy_(torch.from_numpy(arrays[f"momentum.{number}"]).to(device))
            state.optimizer.state[parameter]["momentum_buffer"] = buffer
    state.epochs_done, state.steps_done = document["epochs_done"], document["steps_done"]
    epochs = [load_file(folder / f"epoch-{e:04d}.safetensors") for e in range(state.epochs_done)]
    recorder.restore(epochs, {name: value for name, value in arrays.items() if not name.startswith(("model.", "momentum."))})
    return float(document["seconds"])
