"""The outside contract: commands, files, JSON, exit codes."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from clprune import pipeline
from clprune.budget import epochs_of_trial
from clprune.cli import app
from clprune.errors import UsageError
from clprune.proxies import build_proxy
from clprune.storage import SEAL

COMMAND = [sys.executable, "-m", "clprune"]


def clprune(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL)


def refused(exit_code: int, said: str, *arguments: object) -> None:
    done = clprune(*arguments)
    assert done.returncode == exit_code, (done.returncode, done.stderr)
    assert said in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_help_is_quick_and_does_not_load_torch() -> None:
    clprune("--help")
    code = "import sys, time; t = time.process_time(); sys.argv = ['clprune', '--help']\nimport clprune.cli\ntry: clprune.cli.main()\nexcept SystemExit: pass\n"
    code += "print('torch' in sys.modules, 'faiss' in sys.modules, 'datasets' in sys.modules, file=sys.stderr); print(time.process_time() - t, file=sys.stderr)"
    done = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(3)]
    assert all("prune" in run.stdout and run.stderr.splitlines()[0] == "False False False" for run in done), done[0].stderr
    assert min(float(run.stderr.splitlines()[1]) for run in done) < 0.6


def test_the_path_by_commands(shapes_npz: Path, tmp_path: Path) -> None:
    began = time.perf_counter()
    done = clprune("score", shapes_npz, "--out", tmp_path / "run", "--max-epochs", 2, "--json")
    wall_seconds = time.perf_counter() - began
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert 0.6 * wall_seconds < run["seconds"] < wall_seconds  # all of the process is charged; training alone is a fifth of it
    assert run["seconds"] == pytest.approx(sum(value for name, value in run["timings"].items() if name.endswith("seconds")))
    expected = {
        "schema_version",
        "fingerprint",
        "n_samples",
        "n_classes",
        "proxy",
        "seed",
        "epochs_run",
        "clp",
        "seconds",
        "energy_kwh",
        "energy_method",
    }
    assert expected | {"versions", "files"} <= set(run)
    assert {"start_epoch", "end_epoch", "settled", "confidence", "indicators"} <= set(run["clp"])
    assert run == {k: v for k, v in json.loads((tmp_path / "run" / "run.json").read_text()).items() if k != SEAL}
    assert pq.read_table(tmp_path / "run" / "scores.parquet").column_names[:3] == ["sample_id", "index", "label"]

    done = clprune("select", tmp_path / "run", "--keep", "0.5", "--out", tmp_path / "m", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["n_kept"] == 300, done.stderr
    columns = pq.read_table(tmp_path / "m" / "samples.parquet").column_names
    assert columns[:10] == ["sample_id", "index", "label", "class_name", "bytes", "kept", "rank", "weight", "reason", "duplicate_of"]
    kept = np.load(tmp_path / "m" / "kept.npy")
    assert kept.dtype == np.int64 and (np.diff(kept) > 0).all() and len(kept) == 300

    assert clprune("verify", tmp_path / "m", "--data", shapes_npz).returncode == 0
    assert clprune("export", tmp_path / "m", "--to", "indices", tmp_path / "out").returncode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "kept.npy"), kept)
    saved = json.loads(clprune("savings", tmp_path / "m", "--label-price", 0.1, "--json").stdout)
    assert {line["name"] for line in saved["lines"]} >= {"labels avoidable", "bytes of dropped samples", "cost of pruning: time"}
    detected = json.loads(clprune("detect", tmp_path / "run", "--json").stdout)
    assert detected["settled"] is False and "not established" in detected["reason"]
    assert json.loads(clprune("compare", tmp_path / "run", tmp_path / "run", "--json").stdout)["scores"]["aum"]["rank_correlation"] == pytest.approx(
        1
    )

    content = bytearray((tmp_path / "m" / "samples.parquet").read_bytes())
    content[100] ^= 1
    (tmp_path / "m" / "samples.parquet").write_bytes(content)
    refused(3, "samples.parquet: its content changed", "verify", tmp_path / "m")
    refused(3, "samples.parquet: its content changed", "export", tmp_path / "m", "--to", "indices", tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_same_seed_gives_the_same_bytes_through_the_commands(shapes_npz: Path, tmp_path: Path) -> None:
    documents = []
    for name in ("a", "b"):
        assert clprune("score", shapes_npz, "--out", tmp_path / name / "run", "--max-epochs", 2).returncode == 0
        assert clprune("select", tmp_path / name / "run", "--keep", "0.3", "--out", tmp_path / name / "m").returncode == 0
        documents.append({k: v for k, v in json.loads((tmp_path / name / "m" / "manifest.json").read_text()).items() if k not in ("timings", SEAL)})
    assert documents[0] == documents[1]
    for path in ("run/scores.parquet", "m/samples.parquet", "m/kept.npy"):
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_python_takes_plain_strings_for_folders(shapes_npz: Path, tmp_path: Path) -> None:
    import clprune as package

    run, subset = str(tmp_path / "run"), str(tmp_path / "subset")
    package.score(str(shapes_npz), run, max_epochs=1)
    assert package.select(run, subset, keep="0.5").n_kept == package.read_manifest(subset).n_kept == 300
    assert package.verify(run) == package.verify(subset) == []
    assert package.read_run(run).document["epochs_run"] == package.detect(run)["end_epoch"] == 1
    assert package.compare(run, run)["same_data"]


def test_dry_runs_write_nothing(shapes_npz: Path, shapes_run: Path, tmp_path: Path) -> None:
    plan = json.loads(clprune("score", shapes_npz, "--out", tmp_path / "run", "--dry-run", "--json").stdout)
    assert {"n_samples", "max_steps", "max_minutes", "memory_mb", "disk_mb"} <= set(plan)
    assert clprune("select", shapes_run, "--keep", "0.5", "--out", tmp_path / "m", "--dry-run").returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_selection_says_how_many_trainings_would_decide_what(shapes_run: Path, tmp_path: Path) -> None:
    for keep, strategy, most, said in (
        ("auto", None, 10, "up to 10 short trainings would decide what share of 600 samples is kept"),
        ("0.5", "auto", 10, "would keep 300 of 600 samples, by the strategy that up to 10 short trainings find"),
        ("auto", "auto", 20, "up to 10 short trainings would decide by which strategy, and up to 10 more what share of 600 samples is kept"),
        ("0.5", None, 0, "would keep 300 of 600 samples"),
    ):
        asked = ["select", shapes_run, "--keep", keep, "--out", tmp_path / "m", "--trials", 10, "--dry-run"] + (
            [] if strategy is None else ["--strategy", strategy]
        )
        done = CliRunner().invoke(app, [str(part) for part in asked])
        assert done.exit_code == 0 and done.stdout.strip() == f"{said}; nothing was written"
        assert json.loads(CliRunner().invoke(app, [str(part) for part in [*asked, "--json"]]).stdout)["trials"] == most


def test_dry_runs_refuse_what_would_be_refused(shapes_run: Path, tmp_path: Path) -> None:
    refused(2, "nonsense", "select", shapes_run, "--keep", "0.5", "--strategy", "nonsense", "--out", tmp_path / "m", "--dry-run")
    refused(2, "holds, the folder of a run", "select", shapes_run, "--keep", "0.5", "--out", shapes_run, "--dry-run")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("")
    refused(2, "exists already", "select", shapes_run, "--keep", "0.5", "--out", tmp_path / "there", "--dry-run")
    assert clprune("select", shapes_run, "--keep", "0.5", "--out", tmp_path / "m").returncode == 0
    refused(2, "are two things", "select", shapes_run, "--keep", "0.5", "--label-budget", 3, "--out", tmp_path / "n", "--dry-run")
    refused(2, "no samples without a label", "select", shapes_run, "--label-budget", 3, "--out", tmp_path / "n", "--dry-run")
    refused(4, "some would vanish", "select", shapes_run, "--keep", 3, "--out", tmp_path / "n", "--dry-run")
    refused(2, "exists already", "export", tmp_path / "m", "--to", "indices", tmp_path / "there", "--dry-run")
    refused(2, "nonsense", "export", tmp_path / "m", "--to", "nonsense", tmp_path / "e", "--dry-run")
    assert not (tmp_path / "e").exists()


def test_prune_refuses_a_selection_that_cannot_be_written_before_anything_is_trained(shapes_npz: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "manifest").mkdir(parents=True)
    (tmp_path / "out" / "manifest" / "mine").write_text("")
    refused(2, "exists already", "prune", shapes_npz, "--keep", "0.5", "--out", tmp_path / "out")
    refused(2, "there is no 'nope' among the strategies", "prune", shapes_npz, "--keep", "0.5", "--strategy", "nope", "--out", tmp_path / "new")
    for more in ((), ("--dry-run",)):
        refused(4, "some would vanish", "prune", shapes_npz, "--keep", "3", "--out", tmp_path / "new", *more)
        refused(2, "keep is 100000", "prune", shapes_npz, "--keep", "100000", "--out", tmp_path / "new", *more)
    refused(2, "exists already", "prune", shapes_npz, "--keep", "0.5", "--out", tmp_path / "out", "--dry-run")
    assert not (tmp_path / "out" / "run").exists() and not (tmp_path / "new").exists()
    done = clprune("prune", shapes_npz, "--keep", "3", "--min-per-class", 0, "--max-epochs", 2, "--out", tmp_path / "few", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["manifest"]["unique_samples_kept"] == 3
    again = ["prune", shapes_npz, "--keep", "3", "--min-per-class", 0, "--out", tmp_path / "few", "--dry-run", "--json"]
    before = sorted(tmp_path.rglob("*"))
    assert json.loads(clprune(*again).stdout)["max_steps"] > 0 and sorted(tmp_path.rglob("*")) == before, "what is finished would be gone on with"
    refused(2, "exists already", *again[:2], "--keep", "4", *again[4:-1])


@pytest.mark.parametrize("keep", ["0", "1.5", "-0.1", "half"])
def test_a_bad_share_is_a_usage_error_before_anything_is_read(keep: str, tmp_path: Path) -> None:
    refused(2, "--keep is", "select", tmp_path / "nowhere", f"--keep={keep}", "--out", tmp_path / "m")
    refused(2, "--keep is", "prune", tmp_path / "nowhere", f"--keep={keep}", "--out", tmp_path / "m")


def test_bad_input_has_its_exit_code_and_leaves_nothing(shapes_npz: Path, shapes_run: Path, tmp_path: Path) -> None:
    refused(3, "there is no file", "score", tmp_path / "missing.npz", "--out", tmp_path / "run")
    refused(2, "not a form of data", "score", "nonsense", "--out", tmp_path / "run")
    (tmp_path / "empty").mkdir()
    refused(3, "no class folders", "score", tmp_path / "empty", "--out", tmp_path / "run")
    Image.new("RGB", (20, 20)).save(tmp_path / "cut.png")
    (tmp_path / "folder" / "a").mkdir(parents=True)
    (tmp_path / "folder" / "a" / "x.png").write_bytes((tmp_path / "cut.png").read_bytes()[:50])
    refused(3, "a/x.png", "score", tmp_path / "folder", "--strict", "--out", tmp_path / "run")
    refused(2, "there is no 'nope' among the proxies", "score", shapes_npz, "--proxy", "nope", "--out", tmp_path / "run2")
    refused(2, "not available", "score", shapes_npz, "--device", "cuda:9", "--out", tmp_path / "run2")
    refused(3, "there is no run", "select", tmp_path / "nowhere", "--keep", "0.5", "--out", tmp_path / "m")
    refused(4, "some would vanish", "select", shapes_run, "--keep", "3", "--out", tmp_path / "m")
    refused(2, "there is no 'nope' among the strategies", "select", shapes_run, "--keep", "0.5", "--strategy", "nope", "--out", tmp_path / "m")
    refused(2, "Missing option", "select", shapes_run, "--out", tmp_path / "m")
    refused(3, "other options", "score", shapes_npz, "--out", shapes_run, "--seed", "5")
    assert not (tmp_path / "m").exists() and not (tmp_path / "run" / "run.json").exists()


def test_a_seed_below_zero_and_a_proxy_that_cannot_be_made_are_usage_errors(shapes_npz: Path, shapes_run: Path, tmp_path: Path) -> None:
    refused(2, "--seed", "score", shapes_npz, "--out", tmp_path / "x", "--seed", -1)
    for seed in (-1, 1.5, True, 2**63):
        for call in (
            lambda seed: pipeline.score(str(shapes_npz), tmp_path / "x", seed=seed),
            lambda seed: pipeline.select(shapes_run, tmp_path / "x", keep="0.5", seed=seed),
        ):
            with pytest.raises(UsageError, match="the seed is"):
                call(seed)
    (tmp_path / "mine.py").write_text("def short(n_classes): ...\ndef broken(n_classes, input_shape): raise KeyError('depth')\nnumber = 3\n")
    (tmp_path / "unreadable.py").write_text("def (")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        for choice, said in (
            ("mine:short", "TypeError"),
            ("mine:broken", "KeyError: 'depth'"),
            ("mine:number", "not callable"),
            ("unreadable:f", "SyntaxError"),
        ):
            with pytest.raises(UsageError, match=f"proxy '{choice}' .*{said}"):
                build_proxy(choice, 4, (1, 16, 16))
    assert not (tmp_path / "x").exists()


def test_runs_of_different_data_are_compared_with_a_warning(shapes_npz: Path, shapes_run: Path, tmp_path: Path) -> None:
    held = dict(np.load(shapes_npz))
    np.savez(tmp_path / "other.npz", **(held | {"y_train": np.roll(held["y_train"], 1)}))
    pipeline.score(str(tmp_path / "other.npz"), tmp_path / "other", max_epochs=1)
    for run, warned in ((tmp_path / "other", True), (shapes_run, False)):
        done = CliRunner().invoke(app, ["compare", str(shapes_run), str(run)])
        assert done.exit_code == 0 and ("WARNING the runs are of different data" in done.stdout) is warned, done.stdout
        assert ("b: not established within epoch 1 (" in done.stdout) is warned, done.stdout  # after one epoch no end is known


def test_files_of_a_newer_schema_and_other_data_are_refused(shapes_npz: Path, shapes_run: Path, tmp_path: Path) -> None:
    assert clprune("select", shapes_run, "--keep", "0.5", "--out", tmp_path / "m").returncode == 0
    held = dict(np.load(shapes_npz))
    held["x_train"] = held["x_train"][::-1]
    np.savez(tmp_path / "other.npz", **held)
    refused(3, "is not the data set", "verify", tmp_path / "m", "--data", tmp_path / "other.npz")
    refused(3, "is not the data set", "export", tmp_path / "m", "--to", "hf", tmp_path / "out", "--data", tmp_path / "other.npz")
    document = json.loads((tmp_path / "m" / "manifest.json").read_text())
    (tmp_path / "m" / "manifest.json").write_text(json.dumps(document | {"schema_version": 99}))
    refused(3, "schema version 99", "verify", tmp_path / "m")
    done = clprune("verify", tmp_path / "m", "--json")
    assert json.loads(done.stdout)["exit_code"] == done.returncode == 3


def test_data_named_from_another_folder_can_be_given_anew(shapes_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    shutil.copy(shapes_npz, here / "set.npz")
    monkeypatch.chdir(here)
    pipeline.score("set.npz", "run", max_epochs=1)
    pipeline.select("run", "m", keep="0.5")
    monkeypatch.chdir(there)
    for asked in (
        ["export", "../here/m", "--to", "indices", "out"],
        ["evaluate", "../here/m"],
        ["select", "../here/run", "--keep", "auto", "--out", "m"],
    ):
        refused(3, "recorded as set.npz", *asked)
    assert clprune("export", "../here/m", "--to", "indices", "out", "--data", "../here/set.npz").returncode == 0


def test_evaluating_without_a_test_split_says_so(tmp_path: Path, shapes_npz: Path) -> None:
    held = np.load(shapes_npz)
    np.savez(tmp_path / "x.npz", x_train=held["x_train"], y_train=held["y_train"])
    assert clprune("prune", tmp_path / "x.npz", "--keep", "0.5", "--out", tmp_path / "p", "--max-epochs", 1).returncode == 0
    refused(3, "no test part", "evaluate", tmp_path / "p" / "manifest")


def test_options_that_evaluate_could_not_follow_are_refused(shapes_npz: Path, shapes_run: Path, tmp_path: Path) -> None:
    assert clprune("select", shapes_run, "--keep", "0.5", "--strategy", "random", "--out", tmp_path / "m").returncode == 0
    for option, value in (("--against", "random,full"), ("--budget", "equal-steps"), ("--group", "hospital")):  # also where they are the defaults
        refused(2, f"--pool does not take {option}", "evaluate", tmp_path / "m", "--pool", "--data", "pool.npz", option, value)
    refused(2, "--pool does not take --against, --group", "evaluate", tmp_path / "m", "--pool", "--group", "x", "--against", "full")
    refused(2, "asks for no labels", "evaluate", tmp_path / "m", "--pool", "--data", shapes_npz)  # of what was not given nothing is said
    refused(2, "--label-price needs --pool", "evaluate", tmp_path / "m", "--label-price", 1)
    for nothing in ("", " , "):
        refused(2, f"--against is {nothing!r}", "evaluate", tmp_path / "m", "--seeds", 1, "--epochs", 1, "--against", nothing)
    refused(2, "not pruned", "evaluate", tmp_path / "m", "--seeds", 1, "--epochs", 1, "--against", "pruned")
    assert not (tmp_path / "m" / "evaluation.json").exists()
    shown = " ".join(clprune("evaluate", "--help").stdout.replace("│", " ").split())
    assert "[default: (random,full)]" in shown and "[default: (equal-steps)]" in shown, shown


def test_evaluate_compares_with_random_at_equal_steps(shapes_run: Path, tmp_path: Path) -> None:
    assert clprune("select", shapes_run, "--keep", "0.5", "--strategy", "random", "--out", tmp_path / "m").returncode == 0
    done = clprune("evaluate", tmp_path / "m", "--seeds", 2, "--epochs", 2)
    assert done.returncode == 4 and re.search("is (not clearly better|worse) than a random one", done.stderr), done.stderr
    evaluation = json.loads((tmp_path / "m" / "evaluation.json").read_text())
    for arm, result in evaluation["arms"].items():  # a no shows what was measured, too
        assert f"{100 * result['accuracy_mean']:.2f} ± " in next(line for line in done.stdout.splitlines() if line.startswith(arm)), done.stdout
    again = json.loads(clprune("evaluate", tmp_path / "m", "--seeds", 2, "--epochs", 2, "--json", "--quiet").stdout)
    assert (again["exit_code"], again["arms"]) == (4, evaluation["arms"]) and again["error"] == evaluation["comparison"]["sentence"]
    assert {run["steps"] for arm in evaluation["arms"].values() for run in arm["runs"]} == {10}
    assert {arm: result["runs"][0]["n_samples"] for arm, result in evaluation["arms"].items()} == {"pruned": 300, "random": 300, "full": 600}


def test_interrupting_leaves_a_run_that_goes_on(shapes_npz: Path, tmp_path: Path) -> None:
    # A shell that runs the tests in the background hands down an ignored SIGINT: undo that, as a terminal would.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from clprune.cli import main; main()"
    arguments = [sys.executable, "-c", code, "score", str(shapes_npz), "--out", str(tmp_path / "run"), "--max-epochs", "200"]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "checkpoint" / "checkpoint.json").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on" in said, said
    done = clprune("score", shapes_npz, "--out", tmp_path / "run", "--max-epochs", "200")
    assert done.returncode == 0 and "resumed after epoch" in done.stderr, done.stderr


def test_no_space_is_said_before_anything_is_lost(shapes_npz: Path, shapes_run: Path, tmp_path: Path) -> None:
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    code += f"sys.argv = ['clprune', 'select', {str(shapes_run)!r}, '--keep', '0.5', '--out', {str(tmp_path / 'm')!r}]\nfrom clprune.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 1 and "no space" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_version_and_the_module_form() -> None:
    assert clprune("--version").stdout.strip() == "0.1.0"


def test_the_demo_finds_what_was_planted(tmp_path: Path) -> None:
    done = clprune("demo", "--out", tmp_path / "demo", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["problems"] == [] and result["run"]["clp"]["settled"]
    assert result["found"]["wrong_labels"]["recall_in_top_5_percent"] >= 0.8
    assert result["found"]["duplicates"]["recall"] >= 0.8


def test_the_demo_replaces_nothing_but_a_demo(shapes_run: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes_run, tmp_path / "run")
    refused(2, "is not of the demo", "demo", "--out", tmp_path)
    assert (tmp_path / "run" / "run.json").read_bytes() == (shapes_run / "run.json").read_bytes()


def test_the_smallest_class_is_one_that_has_samples(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "gap.npz", x_train=rng.integers(0, 256, (60, 8, 8), dtype=np.uint8), y_train=np.arange(60) % 2 * 3)  # no class 1 or 2
    assert clprune("score", tmp_path / "gap.npz", "--out", tmp_path / "run", "--max-epochs", 1).returncode == 0
    assert clprune("select", tmp_path / "run", "--keep", "0.5", "--out", tmp_path / "m").stdout.strip().endswith("smallest class 15")


def test_a_terminal_without_a_sign_is_no_reason_to_fail(shapes_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.select(shapes_run, tmp_path / "m", keep="0.5")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    shown = clprune("export", tmp_path / "m", "--to", "indices", tmp_path / "été")
    assert shown.returncode == 0 and "\\xe9t\\xe9" in shown.stdout, shown.stderr
    document = clprune("export", tmp_path / "m", "--to", "indices", tmp_path / "hiver ❄", "--json")
    assert document.returncode == 0 and json.loads(document.stdout)["destination"] == str(tmp_path / "hiver ❄"), document.stderr


def test_a_missing_library_is_named_with_its_pip_line(tmp_path: Path) -> None:
    (tmp_path / "datasets.py").write_text("raise ImportError('not here')\n")
    done = subprocess.run(
        [*COMMAND, "score", "hf:anything", "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 5 and "pip install datasets" in done.stderr, done.stderr


def test_neighbours_are_found_without_faiss(shapes_npz: Path, tmp_path: Path) -> None:
    (tmp_path / "faiss.py").write_text("raise ImportError('not here')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    kept = []
    for name, env in (("with", os.environ), ("without", environment)):
        done = subprocess.run(
            [*COMMAND, "score", str(shapes_npz), "--out", str(tmp_path / name), "--max-epochs", "1"], capture_output=True, text=True, env=env
        )
        assert done.returncode == 0, done.stderr
        kept.append(pq.read_table(tmp_path / name / "samples.parquet")["suspicion"].to_numpy())
    np.testing.assert_allclose(kept[0], kept[1], atol=0.11)  # a near-tie among the ten neighbours may fall either way
    assert np.abs(kept[0] - kept[1]).mean() < 1e-3


def test_a_plan_tells_cost_before_anything_is_spent(shapes_npz: Path, tmp_path: Path) -> None:
    told = json.loads(clprune("plan", shapes_npz, "--trainings", 2, "--gpu-price", 3.6, "--label-price", 0.5, "--json").stdout)
    assert told["trainings"] == 2 and told["cost_over_saving_by_keep"]["0.5"] == pytest.approx(0.15)
    half, each = told["by_keep"]["0.5"], told["seconds_per_epoch"]
    assert half["net_seconds"] == pytest.approx([-30 * each, 2 * 100 * each - 4 * each])
    assert half["net_money"] == pytest.approx([seconds / 1000 for seconds in half["net_seconds"]])
    assert half["label_money"] == 150 and half["pays_after_trainings"] == [1, 1]
    assert [stage["stage"] for stage in told["stages"]] == ["prototype", "pilot", "production"]
    assert told["stages"][0]["seconds"] == pytest.approx([0.1 * (4 + 270) * each, 0.25 * (30 + 270) * each])  # score and evaluate of a part
    trials = 12 * 0.9 * epochs_of_trial(540, 128)  # the dozen trainings that the pilot prescribes, in epochs of all data
    assert told["auto_seconds"] == pytest.approx([(4 + trials) * each, (30 + trials) * each]) == told["stages"][1]["seconds"]
    assert half["pays_after_trainings_auto"] == [math.ceil(seconds / (100 * each)) for seconds in told["auto_seconds"]]
    assert half["net_seconds_auto"] == pytest.approx([-told["auto_seconds"][1], 2 * 100 * each - told["auto_seconds"][0]])
    assert half["net_money_auto"] == pytest.approx([seconds / 1000 for seconds in half["net_seconds_auto"]])
    assert told["most_cost_in_full_trainings_auto"] == pytest.approx((30 + trials) / 200)
    assert told["cost_over_saving_by_keep_auto"]["0.5"] == pytest.approx((30 + trials) / 200)
    shown = clprune("plan", shapes_npz, "--training-seconds", 7200, cwd=tmp_path)
    assert "pays after" in shown.stdout and "with --keep auto" in shown.stdout and "2.00 h (given)" in shown.stdout and list(tmp_path.iterdir()) == []
    refused(2, "gpu_price", "plan", shapes_npz, "--gpu-price=-1")


def test_a_plan_for_trainings_that_take_no_time_is_a_document_too(shapes_npz: Path) -> None:
    told = json.loads(clprune("plan", shapes_npz, "--training-seconds", 0, "--json").stdout)
    assert told["by_keep"]["0.5"]["pays_after_trainings"] == [None, None]
    assert told["cost_over_saving_by_keep"]["0.5"] is told["cost_over_saving_by_keep_auto"]["0.5"] is None
