"""Event files of the curves."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from conftest import draw_shapes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clprune import pipeline
from clprune.integrations.tensorboard import CurveWriter
from clprune.recorder import Recorder


def scalars(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: ([e.step for e in events.Scalars(tag)], [e.value for e in events.Scalars(tag)]) for tag in events.Tags()["scalars"]}


def test_every_known_point_is_there_once_against_samples_seen_also_when_resumed(tmp_path: Path) -> None:
    recorder, rng = Recorder(range(80)), torch.Generator().manual_seed(0)
    assert not (tmp_path / "events").exists()
    for _ in range(2):  # the second writer begins as after a resumed run: it has all epochs before it
        with CurveWriter(tmp_path / "events") as writer:
            for _ in range(2):
                for part in torch.arange(80).split(20):
                    recorder.observe(part, torch.randn(20, 4, generator=rng), part % 4, torch.randn(20, 6, generator=rng))
                recorder.end_epoch()
                writer.follow(recorder)
                writer.follow(recorder)  # nothing new: nothing written
    found = scalars(tmp_path / "events")
    assert set(found) == {f"clprune/{name}" for name, values in recorder.curves.items() if np.isfinite(values).any()}
    for name, values in recorder.curves.items():
        known = np.isfinite(values)
        if known.any():
            assert found[f"clprune/{name}"][0] == np.round(np.array(recorder.curve_epochs)[known] * 80).astype(int).tolist()
            np.testing.assert_allclose(found[f"clprune/{name}"][1], np.array(values)[known], rtol=1e-6)


def test_the_command_writes_what_the_run_holds_and_says_what_to_install_and_runs_nothing_where_no_end_was_established(
    shapes_npz: Path, shapes_run: Path, tmp_path: Path
) -> None:
    arguments = ["score", str(shapes_npz), "--out", str(shapes_run), "--max-epochs", "3", "--quiet"]
    arguments += ["--on-clp-end", shlex.join(["touch", str(tmp_path / "ran")]), "--tensorboard", str(tmp_path / "events")]
    done = subprocess.run([sys.executable, "-m", "clprune", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()
    assert scalars(tmp_path / "events")["clprune/training_accuracy"][0] == [150 * quarter for quarter in range(1, 13)]
    code = "import sys; sys.modules['tensorboard'] = None; from clprune.cli import main; main()"
    arguments[-1] = str(tmp_path / "others")
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 5 and "pip install tensorboard" in done.stderr and not (tmp_path / "others").exists(), done.stderr


def test_the_steps_of_a_finished_run_are_samples_that_were_learned_from_and_without_a_label_there_are_none(tmp_path: Path) -> None:
    images, labels = draw_shapes(120, 0)
    for name, known in (("pool", 60), ("open", 0)):
        np.savez(tmp_path / f"{name}.npz", x_train=images, y_train=np.where(np.arange(120) < known, labels, -1))
        pipeline.score(str(tmp_path / f"{name}.npz"), tmp_path / name, max_epochs=2)
        arguments = ["score", str(tmp_path / f"{name}.npz"), "--out", str(tmp_path / name), "--max-epochs", "2", "--quiet"]
        arguments += ["--tensorboard", str(tmp_path / f"{name}-events")]
        done = subprocess.run([sys.executable, "-m", "clprune", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert scalars(tmp_path / "pool-events")["clprune/training_accuracy"][0] == [60, 120]  # one batch an epoch
    assert not (tmp_path / "open-events").exists()
