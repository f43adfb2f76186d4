"""The live file of a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clprune import live, pipeline
from clprune.errors import DataError, IntegrityError, SchemaError
from clprune.recorder import Recorder


def observe_an_epoch(recorder: Recorder, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for part in torch.randperm(recorder.n_samples, generator=rng).split(20):
        recorder.observe(part, torch.randn(len(part), 4, generator=rng), part % 4, torch.randn(len(part), 6, generator=rng))


def test_it_is_there_before_the_first_epoch_and_holds_all_points_after_each(tmp_path: Path) -> None:
    recorder = Recorder(range(80), live_folder=tmp_path / "run")
    first = json.loads((tmp_path / "run" / "live.json").read_text())
    assert (first["epochs_done"], first["curves"], first["state"], first["title"], first["kind"]) == (0, {}, "running", "run", "live")
    for epoch in range(3):
        observe_an_epoch(recorder, epoch)
        recorder.end_epoch()
        seen = json.loads((tmp_path / "run" / "live.json").read_text(), parse_constant=pytest.fail)  # no NaN, which browsers refuse
        assert seen["epochs_done"] == epoch + 1 and seen["curve_epochs"] == recorder.curve_epochs and set(seen["curves"]) == set(recorder.curves)
        for name, values in recorder.curves.items():
            np.testing.assert_array_equal(np.array(seen["curves"][name], dtype=float), np.array(values))
        assert seen["waiting_for"] == recorder.live.waiting_for and seen["pid"] == os.getpid() and live.is_alive(seen)
    assert None in seen["curves"]["retention"]  # there is no epoch before the first
    recorder.finish()
    assert live.read_live(tmp_path / "run")["state"] == "stopped"


def test_a_folder_that_cannot_be_written_is_a_warning_and_the_training_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match="live file was not written"):
        recorder = Recorder(range(80), live_folder=tmp_path / "file" / "run")
    observe_an_epoch(recorder, 0)
    with pytest.warns(RuntimeWarning, match="live file was not written"):
        assert not recorder.end_epoch()
    assert len(recorder.epochs) == 1


def test_a_finished_run_says_stopped_and_no_digest_covers_the_file(shapes_run: Path) -> None:
    document = json.loads((shapes_run / "run.json").read_text())
    seen = live.read_live(shapes_run)
    assert seen["state"] == "stopped" and seen["epochs_done"] == 3 == seen["max_epochs"] and seen["n_samples"] == 600
    assert "live.json" not in document["files"]
    assert pipeline.verify(shapes_run) == []


def test_a_start_anew_shows_nothing_old_and_a_resumed_one_keeps_its_curves(shapes_run: Path, tmp_path: Path) -> None:
    old = (shapes_run / "live.json").read_text().replace('"stopped"', '"running"')
    for name, goes_on in (("anew", False), ("on", True)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "live.json").write_text(old)
        live.announce(tmp_path / name, goes_on=goes_on, title="t", n_samples=600, max_epochs=9)
        seen = live.read_live(tmp_path / name)
        assert seen["max_epochs"] == 9 and seen["pid"] == os.getpid() and seen["state"] == "running"
        assert (seen["epochs_done"], len(seen["curve_epochs"])) == ((3, 12) if goes_on else (0, 0))
    (tmp_path / "on" / "live.json").write_text(old[:100])
    live.announce(tmp_path / "on", goes_on=True, title="t", n_samples=600, max_epochs=9)
    assert live.read_live(tmp_path / "on")["epochs_done"] == 0


def test_whether_its_process_runs() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        of_child = {"host": os.uname().nodename, "pid": child.pid, "process_started": live._process(child.pid)[1]}
        assert live.is_alive(of_child)
        assert live.is_alive(of_child | {"process_started": 1}) is (False if Path("/proc/self/stat").exists() else True)
        assert live.is_alive(of_child | {"host": "elsewhere"}) is None
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended and nobody has collected it
        if Path("/proc/self/stat").exists():
            assert live.is_alive(of_child) is False
    assert live.is_alive(of_child) is False


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"curves": "none"}, IntegrityError),
        ({"curves": {"a": [1.0]}}, IntegrityError),
        ({"curves": {"a": [True] * 12}}, IntegrityError),
        ({"curve_epochs": [[1]]}, IntegrityError),
        ({"epochs_done": "3"}, IntegrityError),
        ({"title": {}}, IntegrityError),
        ({"state": "dancing"}, IntegrityError),
        ({"fired_epoch": float("inf")}, IntegrityError),
        ({"schema_version": 999}, SchemaError),
    ],
)
def test_what_cannot_be_drawn_is_refused(shapes_run: Path, tmp_path: Path, change: dict[str, object], error: type[DataError]) -> None:
    document = json.loads((shapes_run / "live.json").read_text())
    (tmp_path / "live.json").write_text(json.dumps(document))
    assert live.read_live(tmp_path)["epochs_done"] == 3
    (tmp_path / "live.json").write_text(json.dumps(document | change))
    with pytest.raises(error):
        live.read_live(tmp_path)
