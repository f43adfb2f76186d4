"""What a round of labelling was worth: the step of `clprune evaluate --pool`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clprune import distributed
from clprune.datatypes import UNLABELLED, rows_of
from clprune.errors import FingerprintError, GuardError, UsageError
from clprune.evaluation_record import write_result
from clprune.inputs import data_key, held_out_inputs, held_out_part, inputs_of, open_data, require_one_form, trainable
from clprune.manifest import read_manifest
from clprune.storage import SCHEMA_VERSION, ids_of, require_writable

Progress = Callable[[dict[str, Any]], None]


def evaluate_pool(
    manifest: Path | str,
    data: str,
    *,
    test: str | None = None,
    seeds: int = 3,
    proxy: str | None = None,
    epochs: int | None = None,
    device: str = "auto",
    label_price: float | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """What the labels that a manifest asks for are worth, where `data` are the same samples with all labels: write pool.json beside the manifest.
    Accuracy is that on the data set `test`, or else on the test part of `data`.

    Finished trainings are kept in the manifest folder, so that the same command goes on after an interruption; several processes share them out. Raises GuardError where
    training on what was asked for is not better than on random samples.
    """
    with distributed.joined():
        return _measured(Path(manifest), data, test, seeds, proxy, epochs, device, label_price, on_progress if distributed.is_first() else None)


def _measured(
    manifest: Path,
    data: str,
    test: str | None,
    seeds: int,
    proxy: str | None,
    epochs: int | None,
    device: str,
    label_price: float | None,
    on_progress: Progress | None,
) -> dict[str, Any]:
    from clprune.evaluation import evaluate_pool as compare_counts

    def read() -> tuple[Any, ...]:
        record, source = read_manifest(manifest), open_data(data, False)
        if not record.asks:
            raise UsageError(f"{manifest} asks for no labels. Make one with `clprune select RUN --label-budget N`, or evaluate without --pool.")
        if seeds < 1:
            raise UsageError(f"--seeds is {seeds}; at least 1 is needed.")
        at = rows_of(ids_of(record.samples["sample_id"]), source.sample_ids)
        known, number = record.samples["label"].to_numpy(), {name: at for at, name in enumerate(source.class_names)}
        here = np.array([*(number.get(name, UNLABELLED) for name in record.document["class_names"]), UNLABELLED])[known]  # it may have more classes
        if len(source) != len(at) or (at < 0).any() or (source.labels < 0).any() or (source.labels[at] != here)[known >= 0].any():
            raise FingerprintError(
                f"{data} is not the pool of {manifest} with all its labels: --pool needs the same ids, the known labels unchanged, and a label everywhere."
            )
        tested_on, image_size = held_out_part(source, test), record.document["run"]["asked"]["image_size"]
        images, rule = inputs_of(source, image_size)
        test_images = held_out_inputs(tested_on, rule)
        require_one_form(images, test_images)
        require_writable(record.folder)
        return record, source, at[known >= 0], at[record.samples["kept"].to_numpy()], images, test_images, tested_on

    record, source, labelled, asked, images, test_images, tested_on = distributed.alike(read)
    key, times = distributed.on_first(lambda: data_key(source, images, tested_on, test_images)), record.document["timings"]
    found = compare_counts(
        images, source.labels, test_images, tested_on.labels, labelled, asked, n_classes=source.n_classes,
        proxy=proxy or trainable(record.document["run"]["proxy"], source), seeds=seeds, epochs=epochs, device=device, order=source.canonical_order,
        choosing_seconds=times["score_seconds"] + times["select_seconds"], label_price=label_price,
        checkpoint=record.folder / "evaluation", data_key=key, on_progress=on_progress,
    )  # fmt: skip
    document = {"schema_version": SCHEMA_VERSION, "kind": "pool evaluation"} | found
    distributed.on_first(lambda: write_result(record, "pool.json", document))
    if found["not_better_than_random"]:
        raise distributed.everywhere(GuardError(str(found["sentence"]), found))
    return found
