"""What a run would take, before it is started: from the data's listing and a few timed steps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from clprune.budget import epochs_of_trial
from clprune.datatypes import EVALUATION_EPOCHS, FULL_TRAINING_EPOCHS, UNLABELLED, Source
from clprune.decoding import planned_form
from clprune.embeddings import require_logits
from clprune.errors import UsageError
from clprune.latent import latent_features
from clprune.patches import patch_features
from clprune.pool import LOOKS
from clprune.proxies import build_proxy, proxy_for
from clprune.texts import N_BUCKETS, load_texts
from clprune.training import Recipe, finishing_steps, new_state, pick_device, to_device, train

N_TRIALS, TRIAL_POOL = 12, 0.9  # of --keep auto: trainings, and the share of the data that they train on
JUDGING_EPOCHS = 9 * EVALUATION_EPOCHS  # of `evaluate` as it comes: three seeds, three arms
TIMED_PIXELS = 6 * 64 * 64  # times a batch: of larger images fewer steps are timed, one at least
LEAST_EPOCHS = 4  # no run ended earlier so far; the live rule looks from the third epoch on


def plan(
    source: Source,
    *,
    proxy: str = "small_cnn",
    max_epochs: int = 30,
    device: str = "auto",
    image_size: int | None = None,
    exact: bool = False,
) -> dict[str, Any]:
    """What scoring `source` would take in epochs, minutes, MB of memory and of disk, timed on random images of the form that it trains on. Raises UsageError for logged numbers and for a proxy that cannot take such inputs, DataError that names an image which cannot be opened."""
    recipe = Recipe(exact=exact)
    if source.logged is not None:
        raise UsageError(f"{source.locator} holds logged numbers: scoring them trains nothing, and takes seconds. Leave out --dry-run.")
    dtype: type[np.generic]
    rng, target, n_steps = np.random.default_rng(0), pick_device(device), 6
    if source.kind == "text":
        width, decoded = load_texts(source)[0].shape[1], True
        form, n_bytes, high, dtype = [width], 4 * width, N_BUCKETS, np.int32
    else:
        (*sides, channels), decoded = planned_form(source, image_size)
        form, n_bytes, high, dtype = [*sides, channels], math.prod(sides) * channels, 256, np.uint8
        n_steps = max(1, min(n_steps, TIMED_PIXELS // math.prod(sides)))
    sample = rng.integers(0, high, (recipe.batch_size * n_steps, *form), dtype=dtype)
    n_classes = max(1, source.n_classes)  # where nothing is labelled there is none
    probe = to_device(sample, rng.integers(0, n_classes, len(sample)), target)
    proxy = proxy_for(source.kind, proxy)
    with torch.random.fork_rng(devices=[]):
        state = new_state(build_proxy(proxy, n_classes, probe.input_shape), target, recipe)
    require_logits(state.model, probe, np.arange(2), n_classes, proxy)
    kept: dict[int, int] = {}  # bytes that the first step keeps in this machine's memory for the way back, by where they lie
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: _noted(tensor, kept), lambda tensor: tensor):
        train(state, probe, recipe, n_epochs=1, n_steps=1, seed=0)
    train(state, probe, recipe, n_epochs=1, n_steps=2, seed=0)
    run = train(state, probe, recipe, n_epochs=1, n_steps=n_steps + 2, seed=0)
    seen, features = _seen(source), 0.0
    per_step, per_epoch = run.seconds / run.steps, run.seconds / run.samples_seen * seen
    if len(source.labelled) < len(source) and (seen == 0 or source.kind == "image"):  # features without labels are made of all
        took = []
        for part in (sample[: len(sample) // 4], sample):
            at = time.perf_counter()
            _ = latent_features(part) if source.kind == "text" else patch_features(part, np.arange(len(part)), device=target)
            took.append(time.perf_counter() - at)
        each = max(0.0, took[1] - took[0]) / (len(sample) - len(sample) // 4)
        features = took[1] + each * (len(source) - len(sample))  # the patterns are found once, however many images there are
    steps, finishing = -(-seen // recipe.batch_size) * max_epochs, 0
    if 0 < seen and len(source.labelled) < len(source):
        finishing = finishing_steps(-(-len(source.labelled) // recipe.batch_size) * max_epochs, recipe.batch_size)
    pixels = len(source) * n_bytes
    compared = 0 if source.kind == "text" else 12 * len(source) * math.prod(sides)  # grey, smoothed and standardised, to find near-duplicates
    held = pixels if source.images is None else source.images.nbytes * (source.images.base is None)
    return {
        "source": source.locator,
        "n_samples": len(source),
        "n_classes": source.n_classes,
        "n_unlabelled": len(source) - len(source.labelled),
        "image": form,
        "skipped": len(source.skipped),
        "max_epochs": max_epochs,
        "max_steps": steps + finishing,
        "seconds_per_epoch": per_epoch,
        "max_minutes": (per_epoch * max_epochs + per_step * finishing + features) / 60,
        "memory_mb": (held + max(compared, sum(kept.values())) + len(source) * 8 * 4 * (max_epochs + 4)) / 1e6 + 900,
        "disk_mb": (disk_bytes(len(source), max_epochs) + (pixels if decoded else 0)) / 1e6,
        "device": str(target),
        "export_form": "hf" if source.locator.startswith("hf:") else "parquet" if source.kind == "text" else "imagefolder",
    }


def _noted(tensor: torch.Tensor, kept: dict[int, int]) -> torch.Tensor:
    """The tensor itself; its bytes are put down where it lies in this machine's memory."""
    if tensor.device.type == "cpu":
        kept[tensor.data_ptr()] = tensor.nbytes
    return tensor


def _seen(source: Source) -> int:
    """Samples that an epoch passes, at most: looking at unlabelled ones costs a third of LOOKS of what learning from the others does, rounded up."""
    n_labelled = int((source.labels != UNLABELLED).sum())
    return n_labelled if n_labelled == len(source) else math.ceil((1 + LOOKS / 3) * n_labelled)


def search_plan(
    told: Mapping[str, Any],
    data: str,
    *,
    trainings: int = 1,
    training_seconds: float | None = None,
    gpu_price: float | None = None,
    label_price: float | None = None,
) -> dict[str, Any]:
    """What a search costs, the range of what it can save, when it pays, and its stages, from what `plan` timed.

    Scoring takes between LEAST_EPOCHS and `max_epochs`. A training on all data takes `training_seconds`, or is taken as FULL_TRAINING_EPOCHS of the proxy. A subset
    saves its dropped share of each training at equal epochs and nothing at equal steps: the range. That is where the share is given; under the keys that end in `_auto` the trials of `--keep auto`
    are counted too (null where there is a pool: trials need every label). `gpu_price` USD an hour; `label_price` USD a sample whose label is
    not bought yet. Raises UsageError for negative numbers.
    """
    for name, number in (("training_seconds", training_seconds), ("gpu_price", gpu_price), ("label_price", label_price)):
        if number is not None and not (np.isfinite(number) and number >= 0):
            raise UsageError(f"{name} is {number}; it must be a number of at least 0.")
    each, pool = told["seconds_per_epoch"], max(1, round(TRIAL_POOL * told["n_samples"]))
    cost = [min(LEAST_EPOCHS, told["max_epochs"]) * each, told["max_epochs"] * each]
    one = FULL_TRAINING_EPOCHS * each if training_seconds is None else training_seconds
    trials = None if told["n_unlabelled"] else N_TRIALS * TRIAL_POOL * epochs_of_trial(pool, Recipe.batch_size)  # epochs
    auto = None if trials is None else [seconds + trials * each for seconds in cost]
    shares: dict[str, dict[str, Any]] = {}
    for keep in (0.7, 0.5, 0.3):
        saved, shares[str(keep)] = (1 - keep) * one, {}
        for ending, spent in (("", cost), ("_auto", auto)):
            net = None if spent is None else [-spent[1], trainings * saved - spent[0]]
            shares[str(keep)] |= {
                f"net_seconds{ending}": net,
                f"pays_after_trainings{ending}": spent and [max(1, math.ceil(seconds / saved)) if saved else None for seconds in spent],
                f"net_money{ending}": None if gpu_price is None or net is None else [seconds / 3600 * gpu_price for seconds in net],
            }
        shares[str(keep)]["label_money"] = None if label_price is None else (1 - keep) * told["n_samples"] * label_price
    pilot = _round_of_labels(data, cost) if auto is None else _pilot(data, auto)
    stages = [
        {
            "stage": "prototype",
            "what": "PART: a tenth to a quarter of the data with every class, and a test split; you put it together",
            "seconds": [part * (seconds + JUDGING_EPOCHS * each) for part, seconds in zip((0.1, 0.25), cost, strict=True)],
            "commands": [
                "clprune score PART --out part",
                "clprune select part --keep 0.5 --out part-half",
                "clprune evaluate part-half --against random,full",
            ],
            "go_on_if": "the critical period's end is settled, and evaluate ends with exit code 0 (better than random beyond the spread)",
        },
        {"stage": "pilot"} | pilot,
        {
            "stage": "production",
            "what": "your own training on the subset",
            "seconds": [0.3 * one, one],
            "commands": [f"clprune export subset --to {told['export_form']} pruned", "clprune savings subset --training-seconds MEASURED"],
            "go_on_if": "your own accuracy, worst class and worst group hold; score again when a tenth of the data is new",
        },
    ]
    return {
        "trainings": trainings,
        "scoring_seconds": cost,
        "auto_seconds": auto,
        "training_seconds": one,
        "training_seconds_how": "given"
        if training_seconds is not None
        else f"taken as {FULL_TRAINING_EPOCHS} epochs of the proxy; give --training-seconds of your own",
        "by_keep": shares,
        "stages": stages,
        "share_is_of_epochs": FULL_TRAINING_EPOCHS,
        "most_cost_in_full_trainings": told["max_epochs"] / FULL_TRAINING_EPOCHS,
        "most_cost_in_full_trainings_auto": None if trials is None else (told["max_epochs"] + trials) / FULL_TRAINING_EPOCHS,
        "cost_over_saving_by_keep": _over_saving(cost, one, trainings, shares),
        "cost_over_saving_by_keep_auto": auto and _over_saving(auto, one, trainings, shares),
    }


def _over_saving(cost: Sequence[float], one: float, trainings: int, shares: Iterable[str]) -> dict[str, float | None]:
    """The most that a search costs, divided by what `trainings` on each share save; None where they save nothing."""
    return {keep: cost[1] / one / (trainings * (1 - float(keep))) if one else None for keep in shares}


def _pilot(data: str, cost: Sequence[float]) -> dict[str, Any]:
    """The second stage where every sample has a label: what is kept is found by trials."""
    return {
        "what": "all data; the share is found by a dozen short trainings",
        "seconds": cost,
        "commands": [
            f"clprune score {data} --out run",
            "clprune compare part run",
            "clprune select run --keep auto --out subset",
            "clprune report subset --out report.html",
        ],
        "go_on_if": "the ranking carried over (rank correlation of dual above 0.5), the predicted loss is within your tolerance, and the report flags no class",
    }


def _round_of_labels(data: str, cost: Sequence[float]) -> dict[str, Any]:
    """The second stage of a pool: trials need every label, so that N more are asked for, and what has one is chosen among after a second scoring."""
    return {
        "what": "all data; N samples without a label are labelled, and the data scored again",
        "seconds": [2 * seconds for seconds in cost],
        "commands": [
            f"clprune score {data} --out run",
            "clprune compare part run",
            "clprune select run --label-budget N --out asked",
            "clprune labels add asked ANSWERS.csv",
            f"clprune score {data} --answers asked --out run-2",
            "clprune select run-2 --keep 0.5 --out subset",
            "clprune report subset --out report.html",
        ],
        "go_on_if": "the ranking carried over (rank correlation of dual above 0.5), and the report flags no class; ask for more labels else",
    }


def disk_bytes(n_samples: int, n_epochs: int) -> int:
    """Upper bound of what a run writes: 8 signals of 4 bytes an epoch, twice while it runs, features and tables."""
    return n_samples * (2 * 8 * 4 * n_epochs + 512 * 2 + 300)
