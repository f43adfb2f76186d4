"""Two processes against one: who visits what, what is recorded, what is written, and what is left when one is killed."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pytest
import torch
from conftest import draw_shapes
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.dtypes import StringDType

from clprune import distributed, pipeline
from clprune.batch_norm import over_all_processes
from clprune.datatypes import ScoreTable, Source
from clprune.errors import DistributedError, GuardError, UsageError
from clprune.proxies import build_proxy
from clprune.selection import budget_for, select
from clprune.training import Recipe, epoch_rows, new_state, to_device, train
from clprune.trajectory import _features, record_trajectory

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["test_distributed", "clprune.cli", "clprune.neighborhood", "clprune.selection", "clprune.evaluation"])
CPU = torch.device("cpu")
SIZES = (1, 2, 3, 31, 1003)
SCORE = ["--max-epochs", "3", "--json"]


# ---- what a process does


def drawn_source(n: int) -> Source:
    """`n` drawn images of at most four classes as a Source."""
    images, labels = draw_shapes(n, 0)
    ids = np.array([f"{row:04d}" for row in range(n)], dtype=StringDType())
    return Source("drawn", ids, labels, tuple("abcd"), np.full(n, 256), lambda row: images[row], images=images)


def observed_rows(n: int, together: bool) -> list[list[int]]:
    """How often `observe` was given each row, in each of two epochs of a training on `n` images; zeros in a process that does not record."""
    source = drawn_source(n)
    data, counts, model = to_device(source.images, source.labels, CPU), [], build_proxy("small_cnn", 4, (1, 16, 16))
    counts.append(np.zeros(n, dtype=int))

    def observe(rows: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, features: torch.Tensor | None) -> None:
        assert features is not None and len(rows) == len(logits) == len(labels) == len(features)
        np.add.at(counts[-1], rows.numpy(), 1)

    def end_epoch(state: object) -> bool:
        counts.append(np.zeros(n, dtype=int))
        return False

    recipe = Recipe(exact=True, batch_size=400)
    state = new_state(over_all_processes(model) if together else model, CPU, recipe)
    train(state, data, recipe, n_epochs=2, seed=3, observe=observe, end_epoch=end_epoch, together=together)
    return [count.tolist() for count in counts[:-1]]


def recorded(learning_rate: float) -> dict[str, np.ndarray] | None:
    """Signals and curves of two epochs in float32, in process 0."""
    source = drawn_source(203)
    run = record_trajectory(source, source.images, max_epochs=2, exact=True, batch_size=70, learning_rate=learning_rate)
    return None if run is None else dict(run.trajectory.signals) | {f"curve {name}": values for name, values in run.trajectory.curves.items()}


def after_one_step(together: bool) -> dict[str, np.ndarray]:
    """Weights and running statistics after one step on 31 images: 16 rows a process, one of them padding."""
    torch.manual_seed(0)
    source, model = drawn_source(31), build_proxy("small_cnn", 4, (1, 16, 16))
    state = new_state(over_all_processes(model) if together else model, CPU, recipe := Recipe(exact=True, warmup_samples=0))
    train(state, to_device(source.images, source.labels, CPU), recipe, n_epochs=1, seed=1, together=together)
    return {name: value.numpy() for name, value in state.model.state_dict().items()}


def features_of_fixed_weights() -> np.ndarray | None:
    torch.manual_seed(0)
    source = drawn_source(1300)
    state = new_state(build_proxy("small_cnn", 4, (1, 16, 16)), CPU, Recipe())
    found = _features(state, to_device(source.images, source.labels, CPU), source.canonical_order, False, None, None, "")
    return None if found is None else found.vectors


def miscounted() -> str:
    """The error where process 1 has visited row 5 twice and process 0 too."""
    visits = np.zeros(9, dtype=np.int32)
    visits[5] = 1
    try:
        distributed.require_visits(visits, np.ones(9, dtype=np.int32))
    except DistributedError as error:
        return str(error)
    return ""


def only_in_the_second() -> None:
    if distributed.rank() == 1:
        raise GuardError("mine alone")


def choices() -> dict[str, list[int]]:
    """What strategies that work cluster by cluster keep of 11,000 vectors, one class of which is too large for one greedy run."""
    rng = np.random.default_rng(0)
    n, labels = 11_000, np.repeat(np.arange(3), [6_000, 3_000, 2_000])
    vectors = rng.normal(size=(n, 8)).astype(np.float16) + rng.integers(0, 4, n)[:, None]
    table = ScoreTable(np.array([f"{row:05d}" for row in range(n)], dtype=StringDType()), labels, {"dual": rng.random(n)}, {"dual": "hard"})
    budget = budget_for("0.2", n)
    return {
        name: select(table, budget, strategy=name, vectors=vectors).kept_indices.tolist()
        for name in ("k_center", "diverse", "diverse(n_strata=1)", "herding")
    }


def several_checks(folder: Path) -> dict[str, Any]:
    """Everything that needs two processes and no kill, in one start of them."""
    with distributed.joined():
        result: dict[str, Any] = {f"visits {n}": observed_rows(n, True) for n in SIZES}
        result["step"] = after_one_step(True)
        result |= {"fixed": recorded(0.0), "trained": recorded(0.05), "features": features_of_fixed_weights(), "miscounted": miscounted()}
        with distributed.sharing():
            result |= {"choices": choices(), "worked on by": distributed.share_out(range(5), lambda item: (item, distributed.rank()))}
        result["alone"] = distributed.share_out(range(2), lambda item: (item, distributed.rank()))
        result["select"] = pipeline.select(folder / "run", folder / "selected-2", keep="0.4").n_kept
        try:
            pipeline.select(folder / "run", folder / "selected-2", keep="0.4")
        except Exception as error:
            result["refused"] = (type(error).__name__, error.exit_code, str(error))  # type: ignore[attr-defined]
        for name, act in (("too few", lambda: pipeline.select(folder / "run", folder / "few", keep="1")), ("one's own", only_in_the_second)):
            try:
                distributed.alike(act)
            except Exception as error:
                result[name] = (type(error).__name__, error.exit_code, str(error))  # type: ignore[attr-defined]
        try:
            result["evaluated"] = pipeline.evaluate(folder / "manifest", seeds=1, against="random", epochs=1)["arms"]
        except GuardError:  # the selection is not better after one epoch: the numbers are written all the same
            result["evaluated"] = json.loads((folder / "manifest" / "evaluation.json").read_text())["arms"] if distributed.is_first() else None
    return result


def score_by_command(folder: Path, *, out: str, kill_after: int | None = None) -> None:
    """`clprune score`; with `kill_after` process 1 kills itself when so many epochs are committed."""
    from clprune import cli

    if kill_after is not None and distributed.world_size() and int(os.environ["RANK"]) == 1:
        counted, calls = distributed.require_visits, [0]

        def require_visits(visits: np.ndarray, expected: np.ndarray) -> None:
            calls[0] += 1
            if calls[0] > kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            counted(visits, expected)

        distributed.require_visits = require_visits  # type: ignore[assignment]
    sys.argv = ["clprune", "score", str(folder / "shapes.npz"), "--out", str(folder / out), *SCORE]
    cli.main()


def _process(number: int, world: int, port: int, folder: Path, cache: str, task: str, options: dict[str, Any]) -> None:
    os.environ |= {"RANK": str(number), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CLPRUNE_CACHE": cache}
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        os.dup2(os.open(folder / f"{task}.{number}.{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), stream.fileno())
    sys.modules["codecarbon"] = None  # type: ignore[assignment]  # meters are dear to start, and are tested elsewhere
    torch.set_num_threads(1)
    distributed.enable()
    result = globals()[task](folder, **options)
    (folder / f"{task}.{number}.pickle").write_bytes(pickle.dumps(result))


def run_together(folder: Path, task: str, world: int = 2, **options: Any) -> list[tuple[int | None, float]]:
    """Run `task` in `world` processes; exit code of each, and the seconds from the end of the first to its own end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cache = os.environ["CLPRUNE_CACHE"]
    processes = [CONTEXT.Process(target=_process, args=(number, world, port, folder, cache, task, options)) for number in range(world)]
    for process in processes:
        process.start()
    ended: dict[int, float] = {}
    limit = time.monotonic() + 600
    while len(ended) < world and time.monotonic() < limit:
        ended |= {number: time.monotonic() for number, process in enumerate(processes) if number not in ended and process.exitcode is not None}
        time.sleep(0.05)
    for process in processes:
        process.kill()
        process.join()
    return [(process.exitcode, ended.get(number, np.inf) - min(ended.values(), default=0)) for number, process in enumerate(processes)]


def digests(folder: Path) -> dict[str, str]:
    names = [*(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".npy", ".parquet", ".csv"))]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sorted(names)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """What is computed here is compared with processes of one thread each: rounding depends on the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patched:
        yield patched


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch_module: pytest.MonkeyPatch) -> Path:
    """Data, a run of one process and a manifest."""
    folder = tmp_path_factory.mktemp("together")
    monkeypatch_module.setitem(sys.modules, "codecarbon", None)  # type: ignore[arg-type]
    (x, y), (x_test, y_test) = draw_shapes(203, 0), draw_shapes(60, 1)
    np.savez(folder / "shapes.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    pipeline.score(str(folder / "shapes.npz"), folder / "run", max_epochs=2)
    pipeline.select(folder / "run", folder / "manifest", keep="0.4")
    return folder


@pytest.fixture(scope="module")
def together(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What `several_checks` gave in each of two processes."""
    os.environ.setdefault("CLPRUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    assert run_together(folder, "several_checks") == [(0, pytest.approx(0, abs=30))] * 2, (folder / "several_checks.0.err").read_text()
    return [pickle.loads((folder / f"several_checks.{number}.pickle").read_bytes()) for number in range(2)]


# ---- the sampler alone


@settings(max_examples=1500, deadline=None)  # 5,000 in `make torture`
@given(n=st.integers(0, 120), world=st.integers(1, 9), batch_size=st.integers(1, 64), epoch=st.integers(0, 50), seed=st.integers(0, 9))
def test_over_all_processes_every_row_counts_exactly_once_an_epoch(n: int, world: int, batch_size: int, epoch: int, seed: int) -> None:
    visits = np.zeros(n, dtype=int)
    for batch in epoch_rows(np.arange(n), epoch, seed, batch_size) if n else []:
        parts = [distributed.shard_rows(batch, rank, world) for rank in range(world)]
        assert len({len(rows) for rows, _ in parts}) == 1  # the same number of collective operations everywhere
        for rows, real in parts:
            np.add.at(visits, rows[real], 1)
            assert real.sum() >= len(batch) // world and (np.diff(real.astype(int)) <= 0).all()  # padding comes last
    assert (visits == 1).all()


@pytest.mark.parametrize("world", [2, 7, 64])
def test_no_row_of_sixty_thousand_is_lost_or_doubled(world: int) -> None:
    seen = [
        rows[real]
        for batch in epoch_rows(np.arange(60_000), 1, 0, 128)
        for rows, real in (distributed.shard_rows(batch, r, world) for r in range(world))
    ]
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(60_000))


def test_without_torchrun_there_is_one_process_and_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with distributed.joined():  # a program of the user's own that runs under torchrun is left alone
        assert (distributed.rank(), distributed.world_size(), distributed.on_first(lambda: 3), distributed.gather_values(4)) == (0, 1, 3, [4])
    monkeypatch.setattr(distributed, "_enabled", True)
    assert (distributed.rank(), distributed.world_size()) == (1, 2)
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="WORLD_SIZE is 'two'"):
        distributed.world_size()


# ---- two processes


@pytest.mark.parametrize("n", SIZES)
def test_two_processes_visit_every_id_exactly_once_an_epoch(together: list[dict[str, Any]], n: int) -> None:
    first, second = (result[f"visits {n}"] for result in together)
    assert first == [[1] * n] * 2 == observed_rows(n, False)
    assert second == [[0] * n] * 2  # process 1 trains, and records nothing


def test_a_wrong_number_of_visits_is_an_error_that_names_rows(together: list[dict[str, Any]]) -> None:
    assert all("9 samples" in result["miscounted"] and "row 5: 2 instead of 1" in result["miscounted"] for result in together)


def test_statistics_of_fixed_weights_are_those_of_one_process(together: list[dict[str, Any]]) -> None:
    mine, alone = together[0]["fixed"], recorded(0.0)
    assert alone is not None and together[1]["fixed"] is None
    for name, values in alone.items():
        if not name.startswith("curve"):
            np.testing.assert_allclose(mine[name], values, rtol=1e-4, atol=1e-4, err_msg=name)
    assert np.array_equal(together[0]["features"], features_of_fixed_weights())  # bit for bit


def test_a_step_of_two_processes_is_that_of_one_also_with_padding_and_normalisation(together: list[dict[str, Any]]) -> None:
    alone = after_one_step(False)
    for name, values in alone.items():
        np.testing.assert_array_equal(together[0]["step"][name], together[1]["step"][name], err_msg=name)
        np.testing.assert_allclose(together[0]["step"][name], values, rtol=1e-4, atol=2e-6, err_msg=name)


def test_a_training_of_two_processes_stays_near_that_of_one(together: list[dict[str, Any]]) -> None:
    alone = recorded(0.05)
    assert alone is not None
    for name in ("loss", "p_label"):
        away = np.abs(together[0]["trained"][name] - alone[name])
        assert away[0].max() < 0.005 and away[1].mean() < 0.005, name  # rounding flips a maximum of the pooling now and then
    for name in ("curve fisher_trace", "curve noise_scale"):
        np.testing.assert_allclose(together[0]["trained"][name], alone[name], rtol=0.05, err_msg=name)


def test_a_selection_by_two_processes_has_the_same_bytes(together: list[dict[str, Any]], folder: Path) -> None:
    assert [result["select"] for result in together] == [81, 81]
    assert digests(folder / "selected-2") == digests(folder / "manifest")


def test_clusters_are_shared_out_and_every_process_has_what_one_alone_chooses(together: list[dict[str, Any]]) -> None:
    alone = choices()
    for number, checks in enumerate(together):
        assert checks["choices"] == alone
        assert checks["worked on by"] == [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)]
        assert checks["alone"] == [(0, number), (1, number)]  # outside of `sharing` each works for itself


def test_an_error_in_what_all_do_alike_is_raised_in_all(together: list[dict[str, Any]]) -> None:
    for number, checks in enumerate(together):
        name, code, text = checks["too few"]
        assert code == GuardError.exit_code and "cannot hold 1 of each" in text and name == ("ClpruneError" if number else "GuardError")
        assert checks["one's own"] == (("GuardError", 4, "mine alone") if number else ("ClpruneError", 4, "process 1 stopped: mine alone"))


def test_an_error_of_the_first_process_is_raised_in_all(together: list[dict[str, Any]]) -> None:
    (kind, code, message), (other_kind, other_code, other_message) = (result["refused"] for result in together)
    assert (kind, code, other_kind, other_code) == ("UsageError", 2, "ClpruneError", 2)
    assert "exists already" in message and other_message == f"process 0 stopped: {message}"


def test_an_evaluation_shared_out_has_the_numbers_of_one_process(together: list[dict[str, Any]], folder: Path) -> None:
    (folder / "manifest" / "evaluation.json").unlink()
    import shutil

    shutil.rmtree(folder / "manifest" / "evaluation")
    try:
        alone = pipeline.evaluate(folder / "manifest", seeds=1, against="random", epochs=1)["arms"]
    except GuardError:
        alone = json.loads((folder / "manifest" / "evaluation.json").read_text())["arms"]
    for arm in ("pruned", "random"):
        for run, other in zip(alone[arm]["runs"], together[0]["evaluated"][arm]["runs"], strict=True):
            assert all(run[name] == other[name] for name in ("seed", "accuracy", "per_class", "calibration_error", "corruptions", "steps"))


def test_a_killed_process_ends_the_others_and_the_same_command_finishes_with_the_same_bytes(folder: Path) -> None:
    assert [code for code, _ in run_together(folder, "score_by_command", out="whole")] == [0, 0], (folder / "score_by_command.0.err").read_text()
    told = json.loads((folder / "score_by_command.0.out").read_text())
    assert told["processes"] == 2 and told["epochs_run"] == 3 and (folder / "score_by_command.1.out").read_text() == ""
    (code, after), (killed, _) = run_together(folder, "score_by_command", out="broken", kill_after=2)
    assert (code, killed) == (1, -signal.SIGKILL) and after < 30
    said = (folder / "score_by_command.0.err").read_text()
    assert "clprune: process 1 of 2 has gone" in said and "same command again" in said and "Traceback" not in said
    assert not (folder / "broken" / "run.json").exists() and len(list((folder / "broken" / "checkpoint").glob("epoch-*"))) == 2
    with pytest.raises(Exception, match=r"another .*processes"):
        pipeline.score(str(folder / "shapes.npz"), folder / "broken", max_epochs=3)
    assert [code for code, _ in run_together(folder, "score_by_command", out="broken")] == [0, 0]
    assert "resumed after epoch 2" in (folder / "score_by_command.0.err").read_text()
    assert digests(folder / "whole") == digests(folder / "broken")
