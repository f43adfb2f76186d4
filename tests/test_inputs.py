"""Inputs that a command loads, and that what was trained on other inputs is not taken for what these would give."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import draw_shapes

from clprune import pipeline
from clprune.errors import GuardError
from clprune.inputs import digest_of_inputs
from clprune.labelling import evaluate_pool

PROGRAM = """import numpy as np

class Shapes:
    def __init__(self, images, targets):
        self.images, self.targets = images, targets
    def __len__(self):
        return len(self.targets)
    def __getitem__(self, row):
        return self.images[row], int(self.targets[row])

def both(labels="y_train"):
    held = np.load({path!r})
    return Shapes(held["x_train"], held[labels]), Shapes(held["x_test"], held["y_test"])

def pool():
    return both("y_known")
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Any]:
    """The name of a module whose data sets are those of a file, and a function that blackens the images of `x_train` or `x_test` in it."""
    (x, y), (x_test, y_test) = draw_shapes(300, 0), draw_shapes(100, 1)
    held = {"x_train": x, "y_train": y, "y_known": np.where(np.arange(300) < 60, y, -1), "x_test": x_test, "y_test": y_test}
    name = f"shapes_{os.path.basename(tmp_path)}"
    (tmp_path / f"{name}.py").write_text(PROGRAM.format(path=str(tmp_path / "held.npz")))
    monkeypatch.syspath_prepend(str(tmp_path))

    def blacken(*parts: str) -> None:
        np.savez(tmp_path / "held.npz", **held | {part: np.zeros_like(held[part]) for part in parts})

    blacken()
    return name, blacken


@pytest.mark.parametrize("part", ["x_train", "x_test"])
def test_a_training_on_other_images_of_the_same_ids_and_labels_is_done_again(program: tuple[str, Any], tmp_path: Path, part: str) -> None:
    name, blacken = program
    pipeline.score(f"{name}:both", tmp_path / "run", max_epochs=1)
    pipeline.select(tmp_path / "run", tmp_path / "m", keep="0.5")

    def taken() -> list[bool]:
        said: list[str] = []
        with suppress(GuardError):
            pipeline.evaluate(tmp_path / "m", seeds=1, epochs=1, against="full", on_progress=lambda report: said.append(report["message"]))
        return ["interrupted" in message for message in said]

    assert taken() == [False] * 2 and taken() == [True] * 2
    blacken(part)
    assert taken() == [False] * 2 and taken() == [True] * 2
    blacken()
    assert taken() == [True] * 2


def test_a_round_is_not_measured_by_trainings_on_other_images(program: tuple[str, Any], tmp_path: Path) -> None:
    name, blacken = program
    pipeline.score(f"{name}:pool", tmp_path / "run", max_epochs=1)
    pipeline.select(tmp_path / "run", tmp_path / "m", label_budget=20, strategy="random")
    found = []
    for parts in ((), ("x_train",), ("x_test",)):
        blacken(*parts)
        said: list[str] = []
        with suppress(GuardError):
            evaluate_pool(tmp_path / "m", f"{name}:both", seeds=1, epochs=1, on_progress=lambda report: said.append(report["message"]))  # noqa: B023
        found.append(sum("interrupted" in message for message in said))
    assert found == [0, 0, 0] and len(said) == 6


def test_auto_does_not_decide_by_trials_on_other_images(program: tuple[str, Any], tmp_path: Path) -> None:
    name, blacken = program
    pipeline.score(f"{name}:both", tmp_path / "run", max_epochs=1)
    counts = []
    for number, parts in enumerate(((), (), ("x_train",), ("x_train",))):
        blacken(*parts)
        with suppress(GuardError):
            pipeline.select(tmp_path / "run", tmp_path / f"m{number}", keep="auto", trials=4, trial_epochs=1)
        counts.append(len(list((tmp_path / "run" / "trials").iterdir())))
    assert counts[0] == counts[1] < counts[2] == counts[3]


def test_a_digest_is_of_what_the_inputs_hold_and_not_of_how_they_are_stored(tmp_path: Path) -> None:
    images, _ = draw_shapes(50, 0)
    np.save(tmp_path / "x.npy", images)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r", allow_pickle=False)
    order = np.random.default_rng(0).permutation(50)
    whole = digest_of_inputs(images)
    assert whole == digest_of_inputs(mapped) == digest_of_inputs(np.asfortranarray(images)) == digest_of_inputs(images[order], np.argsort(order))
    assert whole == digest_of_inputs(images, block_bytes=1000) == digest_of_inputs(images, block_bytes=1)
    changed = images.copy()
    changed[49, 15, 15, 0] ^= 1
    others = [changed, images[order], images[:49], images.reshape(50, 8, 32, 1), images.astype(np.int16), images.reshape(25, 32, 16, 1)]
    assert len({whole, *map(digest_of_inputs, others)}) == 7
