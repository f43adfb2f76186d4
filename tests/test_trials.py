"""`--keep auto` and `--strategy auto`: what short trainings on held-out training samples decide."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import draw_shapes
from numpy.dtypes import StringDType
from test_cli import clprune, refused

from clprune import pipeline
from clprune.datatypes import Neighborhood, ScoreTable
from clprune.errors import FingerprintError, GuardError, UsageError
from clprune.manifest import read_manifest
from clprune.probe import RIDGE, lifted, ridge_accuracy
from clprune.repeating import how_to_repeat
from clprune.selection import DEFAULT_FOR_LOSSES, DEFAULT_FOR_TEXTS
from clprune.storage import SEAL
from clprune.subject import read_subject
from clprune.trials import CANDIDATES, _judging, held_out, shrunk


def table_of(n: int, n_classes: int = 4) -> ScoreTable:
    return ScoreTable(np.array([f"{i:05d}" for i in range(n)], dtype=StringDType()), np.arange(n) % n_classes, {}, {})


def hood_of(pointers: np.ndarray, suspicion: np.ndarray | None = None) -> Neighborhood:
    n = len(pointers)
    return Neighborhood(pointers, np.full(n, np.nan), np.zeros(n) if suspicion is None else suspicion, np.zeros(n, dtype=np.int64))


def test_held_out_samples_and_their_repeats_are_never_trained_on() -> None:
    rng, n = np.random.default_rng(0), 1000
    repeats = np.full(n, -1)
    later = rng.permutation(np.arange(500, n))[:200]
    repeats[later] = later - 500
    pool, judges = held_out(table_of(n), hood_of(repeats), seed=0)
    group = np.where(repeats >= 0, repeats, np.arange(n))
    assert not set(group[pool]) & set(group[judges])
    assert (repeats[judges] == -1).all()
    assert np.abs(np.bincount(judges % 4) - 40).max() <= 1  # a fifth of the 200 groups of each class
    assert (np.isin(group, group[pool]) == np.isin(np.arange(n), pool)).all()  # groups of the pool stay whole
    turned = table_of(n)
    order = rng.permutation(n)
    back = np.argsort(order)
    moved = ScoreTable(turned.sample_ids[order], turned.labels[order], {}, {})
    pointers = np.where(repeats[order] >= 0, back[np.maximum(repeats[order], 0)], -1)
    assert [set(order[rows].tolist()) for rows in held_out(moved, hood_of(pointers), seed=0)] == [set(pool.tolist()), set(judges.tolist())]


def test_suspects_neither_judge_nor_move_from_the_pool() -> None:
    n = 1000
    suspicion, alone = np.where(np.arange(n) % 5 == 0, 0.95, 0.1), np.full(n, -1)
    pool, judges = held_out(table_of(n), hood_of(alone, suspicion), seed=0)
    same_pool, all_judges = held_out(table_of(n), hood_of(alone), seed=0)
    assert set(judges) == set(all_judges[all_judges % 5 > 0]) and len(judges) < len(all_judges)
    np.testing.assert_array_equal(pool, same_pool)


def test_too_few_samples_to_judge_on_are_refused() -> None:
    with pytest.raises(GuardError, match="held out"):
        held_out(table_of(100), hood_of(np.full(100, -1)), seed=0)


def test_equal_candidates_are_shrunk_to_one_and_different_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    raw_error = shrunk_error = 0.0
    for between in (0.0, 0.002, 0.01):
        for _ in range(100):
            truth = 0.9 + between * rng.normal(size=6)
            results = [value + 0.004 * rng.normal(size=rng.integers(1, 4)) for value in truth]
            raw_error += float(np.square(np.array([values.mean() for values in results]) - truth).sum())
            shrunk_error += float(np.square(shrunk(results)[0] - truth).sum())
    assert shrunk_error < 0.8 * raw_error
    far = [np.array([0.5, 0.5]), np.array([0.9, 0.9]), np.array([0.7])]
    means, sds = shrunk(far)
    assert np.allclose(means, [0.5, 0.9, 0.7], atol=0.001)
    assert sds[2] > sds[0] > 0
    assert shrunk([np.array([0.5]), np.array([0.5])])[0].argmax() == 0  # of equals the first, which is the default


def test_few_judges_make_no_trial_sure() -> None:
    rng = np.random.default_rng(0)
    for n_judges in (50, 400):  # equal strategies, each right on a half of the samples by chance: what parts them is which samples judge
        right = rng.random((2000, 4, n_judges)) < 0.5
        assert np.mean([_judging(some) for some in right]) == pytest.approx(right.mean(axis=2).var(axis=1, ddof=1).mean(), rel=0.05)
    few, many = (_judging(rng.random((5, n)) < 0.7) for n in (100, 10_000))
    results = [np.array([value]) for value in (0.70, 0.68, 0.75)]
    assert shrunk(results, judging=few)[0].std() < 0.5 * shrunk(results, judging=many)[0].std()


@pytest.fixture(scope="module")
def copies_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of which 40 % are exact copies of others."""
    folder = tmp_path_factory.mktemp("copies")
    x, y = draw_shapes(1500, 3)
    rng = np.random.default_rng(1)
    again = rng.choice(1500, 1000)
    order = rng.permutation(2500)
    np.savez(folder / "copies.npz", x_train=np.concatenate([x, x[again]])[order], y_train=np.concatenate([y, y[again]])[order])
    pipeline.score(str(folder / "copies.npz"), folder / "run", max_epochs=3)
    return folder / "run"


def test_copies_are_found_useless_and_dropped(copies_run: Path, tmp_path: Path) -> None:
    done = clprune("select", copies_run, "--keep", "auto", "--trials", 6, "--trial-epochs", 20, "--tolerance", 3, "--out", tmp_path / "m", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    budget, n = document["budget"], document["n_samples"]
    assert document["n_kept"] <= 0.62 * n, budget["sentence"]
    assert budget["method"] == budget["asked"] == "auto" and len(budget["trials"]) == 6
    assert budget["useless_share"] == pytest.approx(0.4, abs=0.03)
    assert budget["interval"][0] <= budget["predicted_loss"] <= budget["interval"][1]
    assert clprune("verify", tmp_path / "m").returncode == 0
    lines = {line["name"]: line for line in json.loads(clprune("savings", tmp_path / "m", "--json").stdout)["lines"]}
    assert "short trainings" in lines["cost of pruning: time"]["note"]
    assert lines["cost of pruning: time"]["value"] >= document["timings"]["trial_seconds"]


def test_finished_trials_are_not_done_again_and_give_the_same_manifest(copies_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(copies_run, run)
    options: dict[str, Any] = {"keep": "auto", "trials": 4, "trial_epochs": 1}

    def interrupt(report: dict[str, Any]) -> None:
        if report["done"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.select(run, tmp_path / "a", **options, on_progress=interrupt)
    assert not (tmp_path / "a").exists()
    first = {path.name: path.read_bytes() for path in (run / "trials").iterdir()}
    with monkeypatch.context() as patched:  # in a run that can only be read the others are done and not kept
        patched.setattr("clprune.trials.may_write", lambda folder: False)
        pipeline.select(run, tmp_path / "not kept", **options)
    assert {path.name for path in (run / "trials").iterdir()} == set(first)
    documents = []
    for name in ("a", "b"):
        pipeline.select(run, tmp_path / name, **options)
        document = json.loads((tmp_path / name / "manifest.json").read_text())
        documents.append({key: value for key, value in document.items() if key not in ("timings", SEAL)})
    assert documents[0] == documents[1]
    assert {name: path.read_bytes() for name in first for path in [run / "trials" / name]} == first
    assert pipeline.verify(run) == []


def test_two_strategies_that_keep_the_same_are_trained_once_and_counted_once(copies_run: Path, tmp_path: Path) -> None:
    from clprune.run import read_run
    from clprune.trials import Trials

    scored, images = read_run(copies_run), np.load(copies_run.parent / "copies.npz")["x_train"]
    for folder in (None, tmp_path / "trials"):
        lab = Trials(
            images,
            scored.table,
            scored.neighborhood,
            scored.vectors,
            n_classes=scored.document["n_classes"],
            proxy="small_cnn",
            epochs=1,
            folder=folder,
        )
        one = lab.train("hardest", 0.3, 0)
        took = lab.seconds
        assert lab.train("hardest(score='el2n')", 0.3, 0).right.tolist() == one.right.tolist()
        assert (lab.done, lab.seconds, lab.seconds_before) == (1, took, 0.0)


def test_the_best_strategy_is_found_and_named(copies_run: Path, tmp_path: Path) -> None:
    document = read_manifest(pipeline.select(copies_run, tmp_path / "m", keep="0.2", strategy="auto", trials=5, trial_epochs=1).folder).document
    found = document["trials"]["strategy"]
    assert set(found["probed"]) == set(CANDIDATES) and found["winner"] in found["accuracies"]
    trained = set(found["accuracies"]) - {"blend", "random(class_balanced=True)"}
    assert len(trained) == 3 and min(found["probed"][name] for name in trained) >= max(
        value for name, value in found["probed"].items() if name not in found["accuracies"]
    )
    assert document["strategy"].startswith(found["winner"].split("(")[0])
    assert "probability" not in found and "short trainings" in found["sentence"]
    if found["winner"] != "random(class_balanced=True)":
        assert "how surely is not known" in found["sentence"]  # five trainings of five strategies
    repeated = read_manifest(pipeline.select(copies_run, tmp_path / "r", keep="0.2", strategy="auto", trials=7, trial_epochs=1).folder).document
    if repeated["trials"]["strategy"]["winner"] != "random(class_balanced=True)":
        assert 0 <= repeated["trials"]["strategy"]["probability"] <= 1
    with pytest.raises(UsageError, match="trials"):
        pipeline.select(copies_run, tmp_path / "n", keep="0.2", strategy="auto", trials=3)


def test_a_probe_sees_what_a_choice_leaves_out_and_a_run_without_features_is_trained_with_unprobed(copies_run: Path) -> None:
    from clprune.run import read_run
    from clprune.trials import Trials, contest

    scored = read_run(copies_run)
    images = np.load(copies_run.parent / "copies.npz")["x_train"]
    given: dict[str, Any] = {"n_classes": scored.document["n_classes"], "proxy": "small_cnn", "epochs": 1}
    lab = Trials(images, scored.table, scored.neighborhood, scored.vectors, **given)
    fair, easy = (lab.probe(strategy, 0.05).mean(axis=1) for strategy in ("random(class_balanced=True)", "easiest"))
    assert (fair > easy).all()  # the easiest twentieth is not even of all classes
    assert np.array_equal(lab.probe("easiest", 0.05), lab.probe("easiest", 0.05))
    blind = Trials(images, scored.table, scored.neighborhood, None, **given)
    _, evidence = contest(blind, ("random", "easiest"), 0.2, n_trials=2)
    assert evidence["probed"] == {} and set(evidence["accuracies"]) == {"random", "easiest"}


def test_ridge_regression_is_that_of_plain_least_squares_with_the_penalty_as_rows() -> None:
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(200, 6)).astype(np.float32), rng.integers(0, 3, 200)
    vectors[:, 2], kept, judges = 5.0, np.arange(0, 120), np.arange(120, 200)  # one feature does not vary
    for name, features in lifted(vectors).items():
        assert np.isfinite(features).all() and len(features) == 200
        width = features.shape[1]
        rows = np.concatenate([features[kept], np.sqrt(RIDGE[name]) * np.eye(width)])
        targets = np.concatenate([np.eye(3)[labels[kept]], np.zeros((width, 3))])
        weights = np.linalg.lstsq(rows, targets, rcond=None)[0]
        slow = float(((features[judges] @ weights).argmax(axis=1) == labels[judges]).mean())
        assert ridge_accuracy(features, labels, kept, judges, n_classes=3, ridge=RIDGE[name]) == slow


def test_rows_that_lie_in_another_order_by_now_keep_their_labels(copies_run: Path, tmp_path: Path) -> None:
    held, order = np.load(copies_run.parent / "copies.npz"), np.random.default_rng(0).permutation(2500)
    ids = np.array([f"{i:05d}" for i in range(2500)])
    found = []
    for name, rows in (("as-scored", np.arange(2500)), ("moved", order)):
        np.savez(tmp_path / f"{name}.npz", x_train=held["x_train"][rows], y_train=held["y_train"][rows], ids=ids[rows])
        if not found:
            pipeline.score(str(tmp_path / "as-scored.npz"), tmp_path / "run", max_epochs=2)
        chosen = pipeline.select(
            tmp_path / "run", tmp_path / name, keep="0.3", strategy="auto", trials=5, trial_epochs=1, data=str(tmp_path / f"{name}.npz")
        )
        found.append(chosen.document["trials"]["strategy"]["accuracies"])
        shutil.rmtree(tmp_path / "run" / "trials")
    assert found[0] == found[1]


def test_other_data_are_refused(copies_run: Path, shapes_npz: Path, tmp_path: Path) -> None:
    with pytest.raises(FingerprintError, match="--data"):
        pipeline.select(copies_run, tmp_path / "m", keep="auto", data=str(shapes_npz))
    refused(2, "--tolerance", "select", copies_run, "--keep", "auto", "--tolerance", 0, "--out", tmp_path / "m")
    refused(2, "--keep is", "select", copies_run, "--keep", "automatic", "--out", tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_logged_numbers_cannot_be_trained_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "logged.npz", labels=np.arange(300) % 3, logits=rng.normal(size=(4, 300, 3)).astype(np.float32))
    pipeline.score(str(tmp_path / "logged.npz"), tmp_path / "run")
    with pytest.raises(UsageError, match="logged numbers"):
        pipeline.select(tmp_path / "run", tmp_path / "m", keep="auto")


def test_a_run_of_ones_own_loop_and_many_small_classes_can_be_asked_too(tmp_path: Path) -> None:
    import torch

    from clprune.recorder import Recorder

    images, labels = draw_shapes(600, 5)
    labels[:112] = 4 + np.arange(112) % 56  # beside the four shapes, which can be learned
    np.savez(tmp_path / "many.npz", x_train=images, y_train=labels)
    recorder = Recorder(range(600), n_classes=60)
    for epoch in range(2):
        recorder.observe(torch.arange(600), torch.randn(600, 60, generator=torch.Generator().manual_seed(epoch)), torch.from_numpy(labels))
        recorder.end_epoch()
    pipeline.save_run(recorder, str(tmp_path / "many.npz"), tmp_path / "run")
    found = pipeline.select(tmp_path / "run", tmp_path / "m", keep="auto", trials=6, trial_epochs=15, tolerance=0.5, min_per_class=0).document[
        "budget"
    ]
    assert len(found["trials"]) == 6 and min(trial["keep_fraction"] for trial in found["trials"]) * 446 < 60  # fewer than one of each class


def test_a_contest_begins_with_the_default_of_its_run_and_needs_no_score_that_is_not_there(tmp_path: Path) -> None:
    import torch

    from clprune.recorder import Recorder

    images, labels = draw_shapes(300, 5)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels)
    recorder = Recorder(range(300))
    for epoch in range(3):
        recorder.observe(torch.arange(300), losses=10 + torch.rand(300, generator=torch.Generator().manual_seed(epoch)))  # no cross-entropy
        recorder.end_epoch()
    pipeline.save_run(recorder, str(tmp_path / "data.npz"), tmp_path / "losses")
    words = [f"{'fine' if row % 2 else 'dull'} thing number {row % 40} of {row % 7}" for row in range(300)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": word, "label": row % 2}) + "\n" for row, word in enumerate(words)))
    pipeline.score(str(tmp_path / "texts.jsonl"), tmp_path / "texts", max_epochs=2)
    for name, default in (("losses", DEFAULT_FOR_LOSSES), ("texts", DEFAULT_FOR_TEXTS)):
        chosen = pipeline.select(tmp_path / name, tmp_path / f"{name}-m", keep="0.5", strategy="auto", trials=6, trial_epochs=1)
        tried = list(chosen.document["trials"]["strategy"]["posterior"])
        assert tried[0] == default and "random(class_balanced=True)" in tried


def test_where_nothing_is_learned_no_part_is_said_to_be_safe(shapes_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(shapes_run, run)
    manifest = pipeline.select(run, tmp_path / "m", keep="auto", trials=4, trial_epochs=1)
    budget, n_trials = manifest.document["budget"], len(list((run / "trials").iterdir()))
    assert (
        manifest.n_kept == 600 and "no better than naming the largest class" in budget["sentence"] and "1 epoch may be too few" in budget["sentence"]
    )
    assert n_trials == len(budget["trials"]) == 1  # no other training could tell more
    assert (
        read_subject(tmp_path / "m")
        and clprune("savings", tmp_path / "m").returncode == clprune("report", tmp_path / "m", "--out", tmp_path / "r.html").returncode == 0
    )


def test_parts_of_the_tables_keep_every_pointer() -> None:
    from clprune.trials import _part_of

    n = 10
    pointers = np.full(n, -1)
    pointers[[7, 9]] = [2, 4]
    hood = Neighborhood(pointers, np.full(n, np.nan), np.linspace(0, 1, n), np.arange(n), {})
    table = ScoreTable(table_of(n).sample_ids, np.arange(n), {"dual": np.arange(n) / n}, {"dual": "hard"})
    part, near, vectors = _part_of(table, hood, np.arange(2 * n).reshape(n, 2), np.array([2, 3, 4, 7, 9]))
    assert part.sample_ids.tolist() == ["00002", "00003", "00004", "00007", "00009"]
    assert near.duplicate_of.tolist() == [-1, -1, -1, 0, 2]
    assert vectors is not None and vectors[:, 0].tolist() == [4, 6, 8, 14, 18]


def test_no_share_is_tried_that_could_not_be_written(shapes_run: Path, tmp_path: Path) -> None:
    run, options = tmp_path / "run", {"trials": 4, "trial_epochs": 15, "tolerance": 0.99, "confidence": 0.5}  # everything is good enough
    shutil.copytree(shapes_run, run)
    with pytest.raises(GuardError, match="Keep at least 240"):
        pipeline.select(run, tmp_path / "none", keep="0.3", strategy="auto", min_per_class=60, **options)
    assert not (run / "trials").exists()  # nothing was trained in vain
    budget = pipeline.select(run, tmp_path / "m", keep="auto", min_per_class=60, **options).document["budget"]
    assert budget["n_keep"] == 240 and "holds what has to be kept of every class" in budget["sentence"]
    assert min(trial["keep_fraction"] for trial in budget["trials"]) == 0.4
    both = pipeline.select(run, tmp_path / "b", keep="auto", strategy="auto", min_per_class=120, **options | {"trials": 5}).document
    assert both["n_kept"] == 480 and both["trials"]["strategy"]["keep_fraction"] == 0.8
    before = set((run / "trials").iterdir())
    whole = pipeline.select(run, tmp_path / "w", keep="auto", min_per_class=150, **options).document
    assert whole["n_kept"] == 600 and set((run / "trials").iterdir()) == before
    assert "--trials" not in how_to_repeat(read_subject(tmp_path / "w"))["commands"][1]
