"""Where a manifest may be written: not over the run it is made from, nor over what somebody else put there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from clprune import pipeline
from clprune.errors import DataError, UsageError


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("force", [False, True])
def test_a_run_is_not_replaced_by_a_manifest(shapes_run: Path, tmp_path: Path, force: bool) -> None:
    before = contents(shapes_run)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("{}")
    for out in (shapes_run, shapes_run.parent, shapes_run / ".." / shapes_run.name, tmp_path / "other"):
        with pytest.raises(UsageError, match="is, or holds, the folder of a run"):
            pipeline.select(shapes_run, out, keep="0.5", force=force)
    assert contents(shapes_run) == before


def test_force_replaces_a_manifest_and_nothing_else(shapes_run: Path, tmp_path: Path) -> None:
    out, own = tmp_path / "m", tmp_path / "own"
    out.mkdir()
    for keep in ("0.5", "0.25"):  # an empty folder, then a manifest
        assert pipeline.select(shapes_run, out, keep=keep, force=True).n_kept == 600 * float(keep)
    own.mkdir()
    for name in ("thesis.tex", "manifest.json"):  # the second alone could be anybody's
        (own / name).write_text("{}")
    (tmp_path / "file").write_text("mine")
    for place, said in ((own, "manifest.json, thesis.tex"), (tmp_path / "file", "holds no manifest, but file")):
        with pytest.raises(UsageError, match=said):
            pipeline.select(shapes_run, place, keep="0.5", force=True)
    assert set(contents(own)) == {"thesis.tex", "manifest.json"} and (tmp_path / "file").read_text() == "mine"


def test_a_prune_that_was_killed_after_selecting_ends_as_an_uninterrupted_one(shapes_npz: Path, tmp_path: Path) -> None:
    out = tmp_path / "p"
    command = [sys.executable, "-m", "clprune", "prune", str(shapes_npz), "--keep", "0.5", "--out", str(out), "--max-epochs", "1", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (out / "manifest" / "manifest.json").exists():
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (out / "report.html").exists()
    selected = contents(out / "manifest")
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    finished = contents(out)
    assert {"report.html", "manifest/savings.json"} <= set(finished) and selected.items() <= contents(out / "manifest").items()
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0  # and what is finished stays as it is
    assert {name: content for name, content in contents(out).items() if name != "report.html"} == {
        name: content for name, content in finished.items() if name != "report.html"
    }


def test_a_prune_goes_on_with_its_own_question_only(shapes_npz: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"keep": "0.5", "max_epochs": 1, "seed": 3}
    pipeline.prune(str(shapes_npz), tmp_path / "p", **asked)
    pipeline.savings(tmp_path / "p" / "manifest", label_price=7.0)
    before = contents(tmp_path / "p" / "manifest")
    for other in ({"keep": "300"}, {"seed": 4}, {"strategy": "random"}, {"strategy": "auto"}):
        with pytest.raises(UsageError, match="exists already"):
            pipeline.prune(str(shapes_npz), tmp_path / "p", **asked | other)
    with pytest.raises(DataError, match="a run of other options"):
        pipeline.prune(str(shapes_npz), tmp_path / "p", **asked | {"max_epochs": 2})
    pipeline.prune(str(shapes_npz), tmp_path / "p", **asked)
    assert contents(tmp_path / "p" / "manifest") == before  # with the prices that were asked for since
    pipeline.score(str(shapes_npz), tmp_path / "p" / "run", max_epochs=1, seed=4, force=True)
    with pytest.raises(UsageError, match="exists already"):  # of another run
        pipeline.prune(str(shapes_npz), tmp_path / "p", **asked)
