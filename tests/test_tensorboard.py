"""Event files of the curves."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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
