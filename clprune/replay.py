"""Replay numbers that a training logged elsewhere through the Recorder, as if that training ran now."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from clprune.datatypes import CriticalPeriod, Embeddings, Source, Trajectory
from clprune.recorder import Recorder

ROWS_AT_ONCE = 8192  # of a memory-mapped log


def replay(source: Source, *, on_progress: Callable[[dict[str, Any]], None] | None = None) -> tuple[Trajectory, CriticalPeriod, Embeddings | None]:
    """What the Recorder makes of `source.logged`: the same signals, curves and end as if it had sat in that training's loop.

    All of an epoch counts as one moment, so a curve has one point an epoch, and fewer than eight epochs never settle. Samples are shown in the
    order of their ids. With losses only, the signal is `loss`.
    """
    assert source.logged is not None, "pipeline calls this for logged sources only"
    started = time.perf_counter()
    name = "logits" if "logits" in source.logged else "losses"
    values, order = source.logged[name], source.canonical_order
    recorder = Recorder(source, windows_per_epoch=1)
    for epoch in range(len(values)):
        for start in range(0, len(order), ROWS_AT_ONCE):
            rows = order[start : start + ROWS_AT_ONCE]
            part = np.asarray(values[epoch][rows], dtype=np.float32)
            seen = ~np.isnan(part.reshape(len(rows), -1)[:, 0])
            if not seen.any():
                continue
            index, shown = torch.from_numpy(rows[seen]), torch.from_numpy(part[seen])
            if name == "logits":
                recorder.observe(index, shown, torch.from_numpy(source.labels[rows[seen]]))
            else:
                recorder.observe(index, losses=shown)
        recorder.end_epoch()
        if on_progress:
            on_progress({"stage": "replay", "done": epoch + 1, "total": len(values), "curves": recorder.curves})
    vectors = source.logged.get("embeddings")
    facts = {
        "proxy": "logged",
        "seed": 0,
        "device": "the machine that logged them",
        "recipe": {},
        "threads": torch.get_num_threads(),
        "seconds": time.perf_counter() - started,
        "already_paid": True,  # the training is there whether anything is pruned or not
        "energy_kwh": None,
        "energy_method": "not measured: the numbers were logged elsewhere",
    }
    embeddings = None if vectors is None else Embeddings(np.asarray(vectors), "given")
    return recorder.trajectory(**facts), recorder.critical_period(), embeddings


def notes_on(source: Source, missing: Mapping[str, str], facts: Mapping[str, Any]) -> list[str]:
    """What a run from logged numbers cannot say, for people."""
    if source.logged is None:
        return []
    notes = ["the training that logged these numbers is not in the seconds and the energy"]
    if missing:
        notes.append("scores left out: " + "; ".join(f"{name} {reason}" for name, reason in sorted(missing.items())))
    return notes + ([f"suspicion of labels is {facts['suspicion']}"] if "suspicion" in facts else [])
