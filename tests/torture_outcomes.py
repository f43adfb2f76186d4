"""Rows of torture.py whose outcome is written down beforehand: labels and numbers at their limits, samples that count exactly once, folders of earlier versions."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from conftest import draw_shapes

from clprune import distributed, pipeline
from clprune.errors import ClpruneError, GuardError
from clprune.sources import open_source
from clprune.storage import SCHEMA_VERSION
from clprune.training import epoch_rows

# ---- labels and numbers


def _npz(folder: Path, n: int = 24, **arrays: Any) -> str:
    """An .npz of `n` drawn images of four classes, with other arrays where they are given."""
    images, labels = draw_shapes(n, 0) if n else (np.zeros((0, 16, 16, 1), np.uint8), np.zeros(0, np.int64))
    path = folder / f"{len(list(folder.iterdir()))}.npz"
    np.savez(path, **({"x_train": images, "y_train": labels} | arrays))
    return str(path)


def _text(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def _labels(*first: Any) -> np.ndarray:
    """Labels of 24 samples, the first ones as given."""
    return np.array([*first, *(np.arange(24) % 4)[len(first) :]])


def outcomes(folder: Path) -> list[tuple[str, Callable[[], Any], type[ClpruneError] | None, str | Callable[[Any], bool]]]:
    """What is given, the call, the error that is documented (None: it works), and what the message says or what must be true of the result."""
    from clprune.errors import DataError, LabelError, TrainingError, UsageError
    from clprune.manifest import read_manifest
    from clprune.recorder import Recorder
    from clprune.scored_arrays import score_arrays

    rng = np.random.default_rng(0)
    y, losses, logits = np.arange(24) % 4, rng.random((3, 24)), rng.normal(size=(3, 24, 4))
    log = folder / "log"
    score_arrays(y, losses=np.ones((3, 24)), out=log)
    torch = __import__("torch")

    def having(array: np.ndarray, at: Any, value: float) -> np.ndarray:
        changed = array.astype(float)
        changed[at] = value
        return changed

    def opened(**arrays: Any) -> Callable[[], Any]:
        return lambda: open_source(_npz(folder, **arrays))

    def kept(keep: str, strategy: str = "hardest(score='mean_loss')", **more: Any) -> Callable[[], list[str]]:
        return lambda: read_manifest(pipeline.select(log, folder / "kept", keep=keep, strategy=strategy, force=True, **more).folder).kept_ids.tolist()

    def first(n: int) -> Callable[[Any], bool]:
        return lambda ids: ids == [f"{row:02d}" for row in range(n)]

    def observed(*calls: Any, n: int = 24) -> Callable[[], Any]:
        def run() -> Any:
            recorder = Recorder(range(n))
            for index, values, labels in calls:
                recorder.observe(torch.as_tensor(index), torch.as_tensor(values), torch.as_tensor(labels))
            return recorder.end_epoch()

        return run

    def twins() -> Any:
        images = np.zeros((24, 16, 16, 1), np.uint8)
        pipeline.score(_npz(folder, x_train=images), folder / "twins", max_epochs=1)
        return pipeline.select(folder / "twins", folder / "twins-kept", keep="0.5", force=True).n_kept

    noted = lambda text: lambda source: any(text in note for note in source.facts["notes"])  # noqa: E731
    unknown = lambda n: lambda source: int((source.labels < 0).sum()) == n  # noqa: E731
    trained = lambda **more: lambda: pipeline.score(_npz(folder), folder / "trained", force=True, **({"max_epochs": 1} | more))  # noqa: E731
    some, batch = np.arange(8), rng.normal(size=(8, 4)).astype(np.float32)
    return [
        ("labels -1", opened(y_train=_labels(-1, -1)), None, unknown(2)),
        ("a label below -1", opened(y_train=_labels(-2)), LabelError, "row 0: -2"),
        ("whole numbers as floats", opened(y_train=_labels(0.0)), None, lambda source: source.labels.dtype == np.int64),
        ("half a label", opened(y_train=_labels(1.5)), LabelError, "row 0: 1.5"),
        ("a label that is NaN", opened(y_train=_labels(np.nan)), None, unknown(1)),
        ("a label that is infinite", opened(y_train=_labels(np.inf)), LabelError, "not whole numbers"),
        ("a label of a million millions", opened(y_train=_labels(10**12)), LabelError, "row 0"),
        ("no sample of a class", opened(y_train=np.where(y == 2, 3, y)), None, noted("no samples of 2")),
        ("one sample of a class", opened(y_train=_labels(7)), None, noted("a single sample of 7")),
        ("names as labels", opened(y_train=np.array(["b", "a"] * 12)), None, lambda source: source.class_names == ("a", "b")),
        ("truth values as labels", opened(y_train=y % 2 == 0), None, lambda source: source.class_names == ("false", "true")),
        ("Python objects as labels", opened(y_train=np.array([{}] * 24, dtype=object)), DataError, "readable|Python objects"),
        ("complex labels", opened(y_train=y + 1j), LabelError, "whole numbers"),
        ("soft labels", opened(y_train=np.eye(4)[y]), DataError, "label"),
        ("one class only", opened(y_train=np.zeros(24, np.int64)), LabelError, "one class"),
        ("too few labels", opened(y_train=y[:23]), DataError, "23"),
        ("no sample", opened(n=0), DataError, "images must be"),
        ("one sample", opened(n=1), LabelError, "one class"),
        ("two samples", opened(n=2), None, lambda source: len(source) == 2),
        ("no label anywhere", opened(y_train=np.full(24, -1)), None, noted("no sample has a label")),
        ("images that are NaN", opened(x_train=np.full((24, 16, 16, 1), np.nan)), DataError, "NaN or infinity"),
        ("images without sides", opened(x_train=np.zeros(24, np.uint8)), DataError, "shape"),
        ("images without pixels", opened(x_train=np.zeros((24, 0, 16, 1), np.uint8)), DataError, "shape|pixels"),
        ("a table without labels", lambda: open_source(_text(folder, "a.csv", "text\na\nb\n")), DataError, "label"),
        ("a table with an empty label", lambda: open_source(_text(folder, "b.csv", "text,label\na,x\nb,\nc,y\n")), None, unknown(1)),
        ("an id with NUL", lambda: score_arrays(y, losses=losses, ids=["a\0b"] + [str(row) for row in range(23)]), DataError, "row 0: 'a.x00b'"),
        ("the same id twice", lambda: open_source(_text(folder, "c.csv", "id,text,label\n1,a,x\n1,b,y\n")), DataError, "more than once: 1"),
        ("half a line of JSON", lambda: open_source(_text(folder, "d.jsonl", '{"text": "a", "label": 1}\n{"text": "b')), DataError, "d.jsonl"),
        ("a table without rows", lambda: open_source(_text(folder, "e.csv", "text,label\n")), DataError, "no samples|rows"),
        ("losses NaN from an epoch on", lambda: score_arrays(y, losses=having(losses, slice(1, None), np.nan)), DataError, "epoch 1"),
        ("an infinite loss", lambda: score_arrays(y, losses=having(losses, (2, 5), np.inf)), DataError, r"epoch 2 .*05"),
        (
            "one loss that is NaN",
            lambda: score_arrays(y, losses=having(losses, (1, 3), np.nan)),
            None,
            lambda got: np.isfinite(got.table.values["mean_loss"][3]),
        ),
        ("never seen", lambda: score_arrays(y, losses=having(losses, (slice(None), 3), np.nan)), DataError, "03|never"),
        ("half a row of NaN logits", lambda: score_arrays(y, logits=having(logits, (0, 0, 1), np.nan)), DataError, "00"),
        ("infinite logits", lambda: score_arrays(y, logits=having(logits, (0, 0, 1), -np.inf)), DataError, "finite"),
        (
            "huge logits",
            lambda: score_arrays(y, logits=logits * 1e12),
            None,
            lambda got: bool(np.isfinite(got.table.values["dual"]).all()),
        ),
        (
            "logits all equal",
            lambda: score_arrays(y, logits=np.zeros((3, 24, 4))),
            None,
            lambda got: len(set(got.table.values["el2n"].round(6))) == 1,
        ),
        ("logits of one class", lambda: score_arrays(np.zeros(24, int), logits=logits[..., :1]), DataError, "two or more"),
        ("logits and losses", lambda: score_arrays(y, logits=logits, losses=losses), UsageError, "both"),
        ("neither", lambda: score_arrays(y), UsageError, "neither"),
        ("logits without labels", lambda: score_arrays(None, logits=logits), LabelError, "need labels"),
        ("a label as large as the number of classes", lambda: score_arrays(_labels(4), logits=logits), LabelError, "row 0: 4"),
        ("no label beside logits", lambda: score_arrays(_labels(-1), logits=logits), LabelError, "row 0: -1|missing"),
        ("embeddings that are NaN", lambda: score_arrays(y, losses=losses, embeddings=np.full((24, 3), np.nan)), DataError, "NaN"),
        ("too few embeddings", lambda: score_arrays(y, losses=losses, embeddings=np.ones((23, 3))), DataError, "23 entries"),
        ("losses of three axes", lambda: score_arrays(y, losses=logits), DataError, "shape"),
        ("losses that are words", lambda: score_arrays(y, losses=losses.astype(str)), DataError, "type"),
        ("ids twice", lambda: score_arrays(y, losses=losses, ids=["a"] * 24), DataError, "more than once"),
        ("one epoch", lambda: score_arrays(y, losses=losses[:1]), None, lambda got: got.period.end_epoch == 1),
        ("keep 0", kept("0"), UsageError, "from 1 to 24"),
        ("keep 0.0", kept("0.0"), UsageError, "0.0"),
        ("keep 1.5", kept("1.5"), UsageError, "1.5"),
        ("keep -0.5", kept("-0.5"), UsageError, "-0.5"),
        ("keep NaN", kept("nan"), UsageError, "nan"),
        ("keep a word", kept("half"), UsageError, "half"),
        ("keep one more than there are", kept("25"), UsageError, "from 1 to 24"),
        ("keep all of it", kept("1.0"), None, lambda ids: len(ids) == 24),
        ("keep everything by number", kept("24"), None, lambda ids: len(ids) == 24),
        ("keep less than a sample of each class", kept("3"), GuardError, "would vanish"),
        ("keep one sample, classes may vanish", kept("1", min_per_class=0), None, first(1)),
        ("keep a share of next to nothing", kept("1e-9", min_per_class=0), None, first(1)),
        ("ties go to the smaller id", kept("12"), None, first(12)),
        ("more of each class than it has", kept("24", min_per_class=1000), None, lambda ids: len(ids) == 24),
        ("a strategy that is not there", kept("0.5", "wisest"), UsageError, "wisest"),
        ("a score that is not there", kept("0.5", "hardest(score='wisdom')"), ClpruneError, "wisdom"),
        ("only twins", twins, None, lambda n: n == 12),
        ("a rate that breaks the training", trained(learning_rate=1e30, max_epochs=3), TrainingError, "Lower the learning rate"),
        ("a rate that is NaN", trained(learning_rate=float("nan")), UsageError, "rate"),
        ("no epoch", trained(max_epochs=0), UsageError, "epoch"),
        ("batches of nothing", trained(batch_size=0), UsageError, "batch"),
        ("batches larger than the data", trained(batch_size=1000), None, lambda document: document["epochs_run"] == 1),
        ("a loop whose loss is NaN", observed((some, batch * np.nan, some % 4)), DataError, "finite|NaN"),
        ("a loop that observes nothing", observed(), UsageError, "nothing was observed"),
        ("a loop over nothing", observed(n=0), DataError, "empty"),
        ("a row that is not there", observed((some + 20, batch, some % 4)), UsageError, "row"),
        ("a label in a loop that is not a class", observed((some, batch, some)), ClpruneError, "label|class"),
        ("labels of half a batch", observed((some, batch, some[:4] % 4)), UsageError, "shape|labels"),
    ]


def labels_and_numbers(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    """Labels, numbers and sizes at their limits: each has the outcome that is documented, and an error says what was seen."""
    failures = []
    cases = outcomes(folder)
    for at in rng.permutation(len(cases))[:count].tolist():
        name, call, error, expected = cases[at]
        try:
            got = call()
        except ClpruneError as raised:
            if error is None or not isinstance(raised, error) or not re.search(str(expected), str(raised)):
                failures.append(f"{name}: {type(raised).__name__}: {raised}")
        except Exception as raised:
            failures.append(f"{name}: {type(raised).__name__} instead of a message: {raised}")
        else:
            if error is not None or not callable(expected) or not expected(got):
                failures.append(f"{name}: ended with {got!r:.200}")
    return min(count, len(cases)), failures


# ---- exactly once, and what earlier versions wrote


def exactly_once(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    """Samples, processes, batch sizes and epochs at random: over all processes every sample counts once an epoch, and every process takes part in as many steps."""
    failures = []
    for number in range(count):
        n, world, batch_size, epoch, seed = (int(rng.integers(low, high)) for low, high in ((1, 200), (1, 10), (1, 70), (0, 50), (0, 10)))
        visits = np.zeros(n, dtype=int)
        for batch in epoch_rows(np.arange(n), epoch, seed, batch_size):
            parts = [distributed.shard_rows(batch, rank, world) for rank in range(world)]
            if len({len(rows) for rows, _ in parts}) != 1:
                failures.append(f"{number}: {n} samples, {world} processes: steps of different sizes")
            for rows, real in parts:
                np.add.at(visits, rows[real], 1)
        if (visits != 1).any():
            failures.append(
                f"{number}: {n} samples, {world} processes, batches of {batch_size}: {int((visits == 0).sum())} missing, {int((visits > 1).sum())} twice"
            )
    return count, failures


GOLDEN = Path(__file__).parents[1] / "data"


def old_data(count: int, rng: np.random.Generator, folder: Path) -> tuple[int, list[str]]:
    """What each earlier schema version wrote is read, verified and worked with; what a later one will write is refused, with what to do."""
    tried, failures = 0, []
    for version in range(1, SCHEMA_VERSION + 1):
        golden = folder / f"schema-{version}"
        shutil.copytree(GOLDEN / golden.name, golden)
        data = str(golden / "data.npz")
        steps: dict[str, Callable[[], Any]] = {
            "verify the run": lambda: pipeline.verify(golden / "run", data=data) == [],  # noqa: B023
            "verify the manifest": lambda: pipeline.verify(golden / "subset", data=data) == [],  # noqa: B023
            "select": lambda: pipeline.select(golden / "run", golden / "again", keep="0.5", strategy="hardest(score='dual')").n_kept == 20,  # noqa: B023
            "export": lambda: pipeline.export(golden / "subset", "indices", golden / "rows", data=data)["n_samples"] == 20,  # noqa: B023
            "savings": lambda: len(pipeline.savings(golden / "subset").lines) > 5,  # noqa: B023
            "score": lambda: pipeline.score(data, golden / "fresh", max_epochs=1)["schema_version"] == SCHEMA_VERSION,  # noqa: B023
            "kept": lambda: np.array_equal(np.load(golden / "again" / "kept.npy"), np.load(golden / "subset" / "kept.npy")),  # noqa: B023
        }
        for name, step in steps.items():
            tried += 1
            try:
                if not step():
                    failures.append(f"version {version}, {name}: not as it was")
            except Exception as error:
                failures.append(f"version {version}, {name}: {type(error).__name__}: {error}")
        for name, read in (
            ("run/run.json", pipeline.verify),
            ("subset/manifest.json", pipeline.verify),
            ("subset/evaluation.json", pipeline.savings),
        ):
            for other, remedy in ((SCHEMA_VERSION + 1, "Upgrade clprune"), (0, "again")):
                tried += 1
                path = golden / name
                before = path.read_bytes()
                path.write_text(json.dumps(json.loads(before) | {"schema_version": other}))
                try:
                    read(path.parent)
                    failures.append(f"version {version}, {name} of version {other} is read")
                except ClpruneError as error:
                    if f"schema version {other}" not in str(error) or remedy not in str(error) or path.name not in str(error):
                        failures.append(f"version {version}, {name} of version {other}: {error}")
                path.write_bytes(before)
    return tried, failures
