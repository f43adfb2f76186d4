"""Samples without a label: what is recorded of them, what is asked for, and that nothing is asked for twice."""

import csv
import html
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw_shapes
from numpy.dtypes import StringDType
from typer.testing import CliRunner

import clprune.plan
from clprune import pipeline
from clprune.cli import app
from clprune.datatypes import Embeddings, Neighborhood, ScoreTable, Source
from clprune.errors import DataError, FingerprintError, GuardError, LabelError, UsageError
from clprune.evaluation import labels_saved
from clprune.kernel_ridge import class_probabilities
from clprune.labels import add_answers, read_answers, with_answers
from clprune.manifest import Manifest, read_manifest
from clprune.pool import PoolWatcher, as_sure_as, candidates, labelled_first, nearness_scores, pool_scores
from clprune.proxies import build_proxy
from clprune.run import read_run
from clprune.savings import savings
from clprune.sources import open_source
from clprune.training import finishing_steps, pick_device, predict, to_device

N, LABELLED = 300, 60


@pytest.fixture(scope="module", autouse=True)
def short_finish() -> Iterator[None]:
    """A watched model is trained on for 50 steps instead of 400: enough for 60 shapes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clprune.training.FINISHING_SAMPLES", 50 * 128)
        yield


def pool_file(folder: Path, **more: Any) -> Path:
    """300 shapes of which 60 have a label; y_all holds all of them."""
    images, labels = draw_shapes(N, 0)
    test_images, test_labels = draw_shapes(100, 1)
    known = np.where(np.arange(N) < LABELLED, labels, -1)
    np.savez(folder / "pool.npz", **({"x_train": images, "y_train": known, "y_all": labels, "x_test": test_images, "y_test": test_labels} | more))
    return folder / "pool.npz"


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    pipeline.score(str(pool_file(folder)), folder / "run", max_epochs=6)
    return folder


def answers_to(record: Manifest, path: Path, *, leave_out: int = 0) -> Path:
    """A CSV with the true labels of what was asked for."""
    truth = np.load(record.document["source"])["y_all"]
    rows = record.samples.filter(record.samples["kept"]).to_pylist()
    text = "sample_id,label\n" + "".join(f"{row['sample_id']},{truth[row['index']]}\n" for row in rows[leave_out:])
    path.write_text(text)
    return path


def test_the_labelled_part_is_scored_as_it_would_be_alone(scored: Path, tmp_path: Path) -> None:
    held = np.load(scored / "pool.npz")
    ids = np.array([f"{row:03d}" for row in range(LABELLED)])
    np.savez(tmp_path / "alone.npz", x_train=held["x_train"][:LABELLED], y_train=held["y_train"][:LABELLED], ids=ids)
    pipeline.score(str(tmp_path / "alone.npz"), tmp_path / "run", max_epochs=6)
    alone, both = read_run(tmp_path / "run").table, read_run(scored / "run").table
    for name, values in alone.values.items():
        np.testing.assert_array_equal(both.values[name][:LABELLED], values)
        assert np.isnan(both.values[name][LABELLED:]).all()
    assert np.isfinite(both.values["uncertainty"][LABELLED:]).all() and np.isnan(both.values["uncertainty"][:LABELLED]).all()


def test_looking_costs_half_of_learning_at_most_but_for_the_last_look(scored: Path) -> None:
    pool = read_run(scored / "run").document["pool"]
    assert (pool["n_labelled"], pool["n_unlabelled"], pool["round"]) == (LABELLED, N - LABELLED, 1)
    *before, last = pool["watched_after_epochs"]
    assert before and before[-1] <= 6
    assert last == 6 + finishing_steps(6, 128) == 56  # 60 labelled samples are one batch
    for number, epoch in enumerate(before, 1):
        assert number * (N - LABELLED) <= 1.5 * LABELLED * epoch  # a visit of training costs about three of a look
    assert pool["finishing_epochs"] == 50 and read_run(scored / "run").document["share_of_full_training"] == 56 / 200


def test_pool_scores_agree_with_loops() -> None:
    rng = np.random.default_rng(0)
    signals = {"predicted": rng.integers(0, 3, (4, 20)).astype(np.float32), "p_top": rng.random((4, 20)), "margin": rng.random((4, 20))}
    found = pool_scores(signals)
    for at in range(20):
        classes = signals["predicted"][:, at].tolist()
        assert found["prediction_changes"][at] == pytest.approx(sum(a != b for a, b in itertools.pairwise(classes)) / 3)
        assert found["uncertainty"][at] == pytest.approx(1 - signals["margin"][3, at])
    vectors, held = rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    near = nearness_scores(vectors, held)
    unit, other = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (vectors, held))
    np.testing.assert_allclose(near["novelty"], [min(np.linalg.norm(u - v) for v in other) for u in unit], rtol=1e-4)
    assert (nearness_scores(vectors, held[:0])["novelty"] == 2).all()
    np.testing.assert_allclose(near["typicality"], [1 / np.mean(sorted(np.linalg.norm(u - unit, axis=1))[1:21]) for u in unit], rtol=1e-3)


def test_what_was_looked_at_before_an_interruption_is_taken_back(tmp_path: Path) -> None:
    source = open_source(str(pool_file(tmp_path)))
    model = build_proxy("small_cnn", 4, (1, 16, 16))
    first = PoolWatcher(source, source.images, folder=tmp_path / "c")
    for epoch in (3, 6):
        first(model, None, epoch)
    torch.manual_seed(1)
    second = PoolWatcher(source, source.images, folder=tmp_path / "c")
    second(model, None, 9, last=True)
    assert first.epochs == [3, 6] and second.epochs == [3, 6, 9]
    np.testing.assert_array_equal(second.signals["margin"][:2], first.signals["margin"])
    broken = next((tmp_path / "c").glob("pool-0003-*"))
    broken.write_bytes(broken.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="was changed"):
        PoolWatcher(source, source.images, folder=tmp_path / "c")(model, None, 9)


def test_a_guess_is_that_of_the_model_and_of_a_kernel_machine_together_and_uncertainty_is_the_models(tmp_path: Path) -> None:
    source = open_source(str(pool_file(tmp_path)))
    assert source.images is not None
    model, labels = build_proxy("small_cnn", 4, (1, 16, 16)), np.load(tmp_path / "pool.npz")["y_train"]
    known, rows = np.flatnonzero(labels >= 0), np.flatnonzero(labels < 0)
    vectors = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)
    vectors[:, 0] += 3 * draw_shapes(N, 0)[1]
    alone = predict(model, to_device(source.images, np.zeros(N, dtype=np.int64), pick_device("cpu")), rows=rows)[0].astype(np.float64)
    alone = np.exp(alone) / np.exp(alone).sum(axis=1, keepdims=True)
    other = class_probabilities(vectors[known], labels[known], vectors[rows], n_classes=4)
    both = as_sure_as(other, alone) * other
    assert (both.argmax(axis=1) != alone.argmax(axis=1)).mean() > 0.2
    own, ranked = Embeddings(vectors, "given"), np.sort(alone, axis=1)
    cases: list[tuple[dict[str, Any], np.ndarray]] = [({}, alone), ({"features": lambda: (own, {})}, both)]
    for told, expected in (*cases, ({"embeddings": own, "features": None}, both)):
        watcher = PoolWatcher(source, source.images, **told)
        watcher(model, None, 3, last=True)
        assert watcher.guess is not None and (watcher.guess == expected.argmax(axis=1)).mean() > 0.99
        np.testing.assert_allclose(watcher.signals["margin"][-1], ranked[:, -1] - ranked[:, -2], atol=1e-3)


def test_a_run_suggests_what_is_guessed_with_features_that_no_label_has_formed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    telling = Embeddings(np.eye(4, dtype=np.float32)[draw_shapes(N, 0)[1]] + 0.01, "told")
    monkeypatch.setattr("clprune.embeddings.without_labels", lambda images, order, **more: (telling, {}))
    monkeypatch.setattr("clprune.training.FINISHING_SAMPLES", 128)
    pipeline.score(str(pool_file(tmp_path)), tmp_path / "run", max_epochs=1)
    run = read_run(tmp_path / "run")
    assert (run.neighborhood.suggested_label[LABELLED:] == draw_shapes(N, 0)[1][LABELLED:]).mean() > 0.95


def test_an_interrupted_first_round_is_charged_with_what_it_had_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("clprune.embeddings.REMEMBERED_FROM", 0)
    monkeypatch.setattr("clprune.patches.FITTED_ON", 100)
    monkeypatch.setattr("clprune.patches.PART", 50)
    file = str(unlabelled_file(tmp_path))

    def stop(event: dict[str, Any]) -> None:
        if event["stage"] == "features":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.score(file, tmp_path / "run", on_progress=stop)
    stopped, alone = (pipeline.score(file, tmp_path / name) for name in ("run", "other"))
    assert stopped["energy_kwh"] is None and "interrupted" in stopped["energy_method"] and "interrupted" not in alone["energy_method"]
    np.testing.assert_array_equal(read_run(tmp_path / "run").vectors, read_run(tmp_path / "other").vectors)


def test_what_is_made_as_sure_as_another_ranks_the_classes_as_before() -> None:
    rng = np.random.default_rng(3)
    p, honest = (rng.dirichlet(np.full(5, size), 400) for size in (0.1, 0.8))
    for target in (honest, p, p**3 / (p**3).sum(axis=1, keepdims=True)):
        made = as_sure_as(target, p)
        assert made.max(axis=1).mean() == pytest.approx(target.max(axis=1).mean(), abs=1e-3)
        np.testing.assert_allclose(made.sum(axis=1), 1)
        np.testing.assert_array_equal(made.argmax(axis=1), p.argmax(axis=1))
    even = np.full((400, 5), 0.2)
    np.testing.assert_allclose(as_sure_as(even, p), even, atol=1e-3)


def test_all_vectors_are_of_one_model_and_an_interruption_before_the_last_look_changes_nothing(tmp_path: Path) -> None:
    images = draw_shapes(N, 0)[0]
    images[-1] = images[0]  # labelled, and as one without a label
    file = str(pool_file(tmp_path, x_train=images))

    def stop(event: dict[str, Any]) -> None:
        if event["stage"] == "finish":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.score(file, tmp_path / "stopped", max_epochs=3, on_progress=stop)
    told: list[str] = []
    pipeline.score(file, tmp_path / "stopped", max_epochs=3, on_progress=lambda event: told.append(event["stage"]))
    assert "embed" in told and told.count("train") == 1  # that it goes on
    pipeline.score(file, tmp_path / "run", max_epochs=3)
    whole, resumed = read_run(tmp_path / "run"), read_run(tmp_path / "stopped")
    for name, values in whole.table.values.items():
        np.testing.assert_array_equal(resumed.table.values[name], values)
    assert whole.vectors is not None and resumed.vectors is not None
    np.testing.assert_array_equal(resumed.vectors, whole.vectors)
    np.testing.assert_allclose(whole.vectors[-1].astype(float), whole.vectors[0].astype(float), rtol=0.02, atol=0.02)
    assert np.abs(whole.vectors[1].astype(float) - whole.vectors[0].astype(float)).max() > 0.2


def test_only_unlabelled_samples_are_asked_for_and_only_labelled_ones_kept(scored: Path, tmp_path: Path) -> None:
    asked = pipeline.select(scored / "run", tmp_path / "m", label_budget=40)
    rows = asked.samples.filter(asked.samples["kept"])
    assert asked.document["kept_bytes"] + asked.document["dropped_bytes"] == asked.samples["bytes"].to_numpy().sum()
    assert len(rows) == 40 and set(rows["label"].to_pylist()) == {-1} and set(rows["reason"].to_pylist()) == {"to be labelled"} and asked.asks
    kept = pipeline.select(scored / "run", tmp_path / "k", keep="0.5")
    rows = kept.samples.filter(kept.samples["kept"])
    assert len(rows) == LABELLED // 2 and min(rows["label"].to_pylist()) >= 0 and not kept.asks
    assert kept.document["samples_seen_by_scoring"] == (6 + 50) * LABELLED
    (cost,) = [line for line in savings(kept).lines if line.name == "cost of pruning: time"]
    assert "6 proxy epochs and 50 more before the last look" in cost.note
    told = {line.name: line for line in savings(kept, training_seconds=1000.0).lines}  # of the samples that have a label half are dropped
    assert told["labels already paid for"].value == 3 * (LABELLED - LABELLED // 2) and told["training time saved, equal epochs"].value == 0.5
    assert told["samples kept"].note == f"50.0% of {LABELLED} that have a label"
    spent = told["cost of pruning: time"].value
    assert spent is not None and told["net time saved"].value == pytest.approx(500 - spent)
    sizes = kept.samples.filter(kept.samples["label"].to_numpy() >= 0)["bytes"].to_numpy().sum()
    assert kept.document["kept_bytes"] + kept.document["dropped_bytes"] == sizes
    with pytest.raises(GuardError, match="only 2"):
        pipeline.select(scored / "run", tmp_path / "n", label_budget=N)
    with pytest.raises(UsageError, match="either --keep"):
        pipeline.select(scored / "run", tmp_path / "n", keep="0.5", label_budget=3)


def test_rounds_ask_for_nothing_twice_and_point_to_their_parent(scored: Path, tmp_path: Path) -> None:
    first = pipeline.select(scored / "run", tmp_path / "m1", label_budget=30)
    told = add_answers(tmp_path / "m1", [answers_to(first, tmp_path / "a.csv", leave_out=5)])
    assert (told["added"], told["open"], told["repeated"]) == (25, 5, 0)
    run = pipeline.score(str(scored / "pool.npz"), tmp_path / "run2", max_epochs=2, answers=tmp_path / "m1")
    assert run["pool"]["n_labelled"] == LABELLED + 25 and run["pool"]["round"] == 2 and run["pool"]["parent"]["n_answers"] == 25
    second = pipeline.select(tmp_path / "run2", tmp_path / "m2", label_budget=30)
    assert not set(first.kept_ids.tolist()) & set(second.kept_ids.tolist())
    assert second.fingerprint == first.fingerprint
    truth = np.load(scored / "pool.npz")["y_all"]
    labels = second.samples["label"].to_numpy()
    assert (labels >= 0).sum() == LABELLED + 25 and (labels == truth)[labels >= 0].all()
    add_answers(tmp_path / "m2", [answers_to(second, tmp_path / "b.csv")])
    source, still_open, parent = with_answers(open_source(str(scored / "pool.npz")), read_manifest(tmp_path / "m2"))
    assert len(source.labelled) == LABELLED + 25 + 30 and still_open.sum() == 5 and parent["round"] == 2
    told = pipeline.export(pipeline.select(tmp_path / "run2", tmp_path / "k", keep="1.0").folder, "imagefolder", tmp_path / "out")
    assert told["n_samples"] == LABELLED + 25 and sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == list("0123")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sample_id,label\nnobody,1\n", "1 answer is for ids that these data do not have .a.csv row 2: nobody"),
        ("sample_id,label\n{0},cat\n", "unknown classes .known: 0, 1, 2, 3. .a.csv row 2: cat for {0}"),
        ("sample_id,label\n{0},1\n{1},1\n{0},2\n", "a.csv row 4: {0} is 2, but was 1"),
        ("sample_id,label\n000,{wrong}\n", "000 is {wrong}, but was"),
        ("name,label\nx,1\n", "row 2 has no sample_id"),
    ],
)
def test_bad_answers_are_refused_with_their_rows_and_nothing_changes(scored: Path, tmp_path: Path, text: str, said: str) -> None:
    record = pipeline.select(scored / "run", tmp_path / "m", label_budget=10)
    add_answers(tmp_path / "m", [answers_to(record, tmp_path / "good.csv", leave_out=8)])
    before = (tmp_path / "m" / "answers.json").read_bytes()
    wrong = (int(np.load(scored / "pool.npz")["y_all"][0]) + 1) % 4
    names = record.kept_ids.tolist()
    (tmp_path / "a.csv").write_text(text.format(*names, wrong=wrong))
    with pytest.raises(LabelError, match=said.format(*names, wrong=wrong).replace("[", ".")):
        add_answers(tmp_path / "m", [tmp_path / "a.csv"])
    assert (tmp_path / "m" / "answers.json").read_bytes() == before
    told = add_answers(tmp_path / "m", [tmp_path / "good.csv"])
    assert (told["added"], told["repeated"], told["answered"]) == (0, 2, 2)


def test_label_studio_answers_come_back(scored: Path, tmp_path: Path) -> None:
    record = pipeline.select(scored / "run", tmp_path / "m", label_budget=4)
    pipeline.export(tmp_path / "m", "label-studio", tmp_path / "queue")
    tasks = json.loads((tmp_path / "queue" / "tasks-00000.json").read_text())
    assert [task["data"]["sample_id"] for task in tasks] == record.kept_ids.tolist() and {task["data"]["label"] for task in tasks} == {""}
    for number, task in enumerate(tasks):
        result = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [str(number)]}}
        task["annotations"] = [{"result": [result], "was_cancelled": number == 3}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    assert add_answers(tmp_path / "m", [tmp_path / "export.json"])["added"] == 3
    pipeline.export(tmp_path / "m", "labels-csv", tmp_path / "table")
    rows = list(csv.DictReader((tmp_path / "table" / "to_label.csv").read_text().splitlines()))
    assert [row["sample_id"] for row in rows] == record.kept_ids.tolist() and all(row["guess"] in "0123" and not row["label"] for row in rows)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", "[1, 2]", "a.jsonl row 1 is [1, 2], not an object"),
        ("a.jsonl", '{"sample_id": "100", "label": "1"}\n\nnot json\n', "a.jsonl row 3 is not readable as JSON"),
        ("a.jsonl", '{"sample_id": "100", "label": ["1", "2"]}', "a.jsonl row 1 has"),
        ("a.json", '[{"data": {"sample_id": "100"}, "annotations": "no"}]', "a.json task 1 is no annotation"),
        (
            "a.json",
            '[{"data": {"sample_id": "100"}}, {"data": {"sample_id": "101"}, "annotations": [{"result": [{"value": null}]}]}]',
            "a.json task 2 is",
        ),
        ("a.json", '[{"data": {"sample_id": "100"}, "annotations": [{"result": [{"value": {"choices": [1]}}]}]}]', "choices in"),
        ("a.json", '[{"data": {"sample_id": "100"}, "annotations": [1]}]', "annotations in"),
        ("a.json", "[" * 100_000, "a.json is not readable"),
    ],
)
def test_a_file_of_answers_of_another_form_is_refused_with_its_row(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(LabelError, match=re.escape(said)):
        read_answers(tmp_path / name)


def test_labels_that_were_added_are_not_replaced(scored: Path, tmp_path: Path) -> None:
    asked = pipeline.select(scored / "run", tmp_path / "m", label_budget=5)
    pipeline.select(scored / "run", tmp_path / "m", label_budget=6, force=True)  # without answers nothing is lost
    asked = read_manifest(tmp_path / "m")
    add_answers(tmp_path / "m", [answers_to(asked, tmp_path / "a.csv")])
    before = (tmp_path / "m" / "answers.json").read_bytes()
    for wanted in ({"label_budget": 5}, {"keep": "0.5"}):
        with pytest.raises(GuardError, match="holds 6 labels that were added"):
            pipeline.select(scored / "run", tmp_path / "m", force=True, **wanted)  # type: ignore[arg-type]
    assert (tmp_path / "m" / "answers.json").read_bytes() == before


def test_a_labelled_repeat_stays_and_its_group_is_not_asked_for() -> None:
    ids = np.array(list("abcdef"), dtype=StringDType())
    labels = np.array([-1, 1, -1, 0, -1, -1])
    source = Source("x", ids, labels, ("p", "q"), np.ones(6, dtype=np.int64), lambda index: None)
    duplicate_of, distance = np.array([-1, 0, 0, -1, 3, -1]), np.array([np.nan, 0.1, 0.2, np.nan, 0.3, np.nan])
    found, gaps = labelled_first(Neighborhood(duplicate_of, distance, np.zeros(6), labels), source)
    assert found.tolist() == [1, -1, 1, -1, 3, -1]
    np.testing.assert_array_equal(gaps, [0.1, np.nan, 0.2, np.nan, 0.3, np.nan])


def test_labels_saved_are_read_off_the_axis_of_labels() -> None:
    counts, accuracy = [50, 100, 200], np.array([0.5, 0.7, 0.6])
    assert labels_saved(counts, accuracy, 0.6, 50) == (25, "")
    assert labels_saved(counts, accuracy, 0.4, 100) == (-50, "at most") and labels_saved(counts, accuracy, 0.5, 100) == (-50, "")
    assert labels_saved(counts, accuracy, 0.71, 100) == (100, "at least")


def test_the_worth_of_a_round_is_measured_against_random_ones(scored: Path, tmp_path: Path) -> None:
    from clprune.labelling import evaluate_pool

    pipeline.select(scored / "run", tmp_path / "m", label_budget=20, strategy="random")
    with pytest.raises(GuardError, match=r"Asking for these 20 labels is (not clearly better|worse) than asking for as many random ones"):
        evaluate_pool(tmp_path / "m", f"{scored / 'pool.npz'}?labels=y_all", seeds=2, epochs=1)
    found = json.loads((tmp_path / "m" / "pool.json").read_text())
    assert found["sentence"].endswith("So short a training (1 step) may not show what a longer one would: --epochs 1500 gives 1,500.")
    (place,) = (tmp_path / "m" / "evaluation").iterdir()
    assert len(list(place.iterdir())) == 2 * 6 and pipeline.verify(tmp_path / "m") == []
    (place / "random-30-1.json").unlink()  # as if it had been interrupted there
    told: list[str] = []
    with pytest.raises(GuardError):
        evaluate_pool(
            tmp_path / "m", f"{scored / 'pool.npz'}?labels=y_all", seeds=2, epochs=1, on_progress=lambda event: told.append(event["message"])
        )
    assert sum("taken from the interrupted" in message for message in told) == 11 and len(told) == 12
    again = json.loads((tmp_path / "m" / "pool.json").read_text())
    assert again["random_accuracy"] == found["random_accuracy"] and again["asked_accuracy"] == found["asked_accuracy"]
    assert found["random_counts"] == [15, 20, 30, 40, 60] and np.shape(found["random_accuracy"]) == (2, 5)
    with pytest.raises(DataError, match="with all its labels"):
        evaluate_pool(tmp_path / "m", str(scored / "pool.npz"))
    pipeline.select(scored / "run", tmp_path / "other", label_budget=10, strategy="random")
    shutil.copy(tmp_path / "m" / "pool.json", tmp_path / "other")
    (problem,) = pipeline.verify(tmp_path / "other")
    assert problem.startswith("pool.json: ") and "is of another selection" in problem
    with pytest.raises(DataError, match="holds another selection than"):
        evaluate_pool(
            tmp_path / "m", f"{scored / 'pool.npz'}?labels=y_all", seeds=1, epochs=1,
            on_progress=lambda event: event["done"] == 1 and pipeline.select(scored / "run", tmp_path / "m", label_budget=10, force=True),
        )  # fmt: skip
    assert not (tmp_path / "m" / "pool.json").exists()


def unlabelled_file(folder: Path) -> Path:
    return pool_file(folder, y_train=np.full(N, -1))


def test_without_any_label_a_representative_part_is_asked_for_and_answers_make_the_classes(tmp_path: Path) -> None:
    pool = unlabelled_file(tmp_path)
    run = pipeline.score(str(pool), tmp_path / "run", max_epochs=2)
    assert (run["n_classes"], run["pool"]["n_labelled"], run["clp"]["settled"]) == (0, 0, False)
    first = pipeline.select(tmp_path / "run", tmp_path / "m1", label_budget=40)
    assert first.document["strategy"] == "cluster_medoids"
    truth = np.load(pool)["y_all"]
    rows = first.samples.filter(first.samples["kept"]).to_pylist()
    (tmp_path / "a.csv").write_text("sample_id,label\n" + "".join(f"{row['sample_id']},shape{truth[row['index']]}\n" for row in rows))
    add_answers(tmp_path / "m1", [tmp_path / "a.csv"])
    second = pipeline.score(str(pool), tmp_path / "run2", max_epochs=2, answers=tmp_path / "m1")
    assert second["class_names"] == [f"shape{c}" for c in range(4)] and second["pool"]["n_labelled"] == 40
    pipeline.report([tmp_path / "run2"], tmp_path / "page.html")
    page = html.unescape((tmp_path / "page.html").read_text())
    assert (
        " --answers ASKED</code>" in page
        and f"ASKED stands for the manifest that asked for labels, with the answers that were added to it, which was {tmp_path / 'm1'}" in page
    )
    assert run["notes"][0] == "no sample has a label" and [note for note in second["notes"] if "label" in note] == [
        note for note in second["notes"] if note.startswith("260 of 300 samples have no label")
    ]
    with pytest.raises(GuardError, match="no sample has a label"):
        pipeline.select(tmp_path / "run", tmp_path / "k", keep="0.5", strategy="random")


def test_answers_of_one_class_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    pool = unlabelled_file(tmp_path)
    pipeline.score(str(pool), tmp_path / "run", max_epochs=1)
    first = pipeline.select(tmp_path / "run", tmp_path / "m", label_budget=8)
    (tmp_path / "a.csv").write_text("sample_id,label\n" + "".join(f"{name},bar\n" for name in first.kept_ids))
    add_answers(tmp_path / "m", [tmp_path / "a.csv"])
    with pytest.raises(LabelError, match=r"all 8 labels that are known with the 8 answers .* are of one class .bar., and at least two"):
        pipeline.score(str(pool), tmp_path / "run2", answers=tmp_path / "m")
    assert not (tmp_path / "run2").exists()
    other = next(name for name in first.samples["sample_id"].to_pylist() if name not in first.kept_ids.tolist())
    (tmp_path / "b.csv").write_text(f"sample_id,label\n{other},dot\n")
    add_answers(tmp_path / "m", [tmp_path / "b.csv"])
    assert len(with_answers(open_source(str(pool)), read_manifest(tmp_path / "m"))[0].labelled) == 9


def test_a_first_round_can_be_measured_and_few_labels_are_trained_on_for_long_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clprune.labelling import evaluate_pool

    monkeypatch.setattr("clprune.budget.TRIAL_STEPS", 40)  # instead of 1,500
    file = str(unlabelled_file(tmp_path))
    pipeline.score(file, tmp_path / "run")
    pipeline.select(tmp_path / "run", tmp_path / "m", label_budget=20)
    with suppress(GuardError):  # whether they are worth more than random ones is not asked here
        evaluate_pool(tmp_path / "m", f"{file}?labels=y_all", seeds=1)
    found = json.loads((tmp_path / "m" / "pool.json").read_text())
    assert (found["proxy"], found["n_labelled"], found["steps"]) == ("small_cnn", 0, 40)


def test_a_round_is_measured_where_a_class_had_no_label_yet(tmp_path: Path) -> None:
    from clprune.labelling import evaluate_pool

    kinds = ["apple", "bread", "cider"]  # no apple has a label, so that bread is class 0 of the pool and class 1 of all data
    rows = [(f"{kind} {i} {kind}", kind, "test" if i >= 40 else "train") for i in range(60) for kind in kinds]
    for name, known in (("pool", lambda i, kind: i >= 120 or (kind != "apple" and i < 60)), ("all", lambda i, kind: True)):
        lines = [f"{text},{kind if known(i, kind) else ''},{split}" for i, (text, kind, split) in enumerate(rows)]
        (tmp_path / f"{name}.csv").write_text("text,label,split\n" + "\n".join(lines) + "\n")
    pipeline.score(str(tmp_path / "pool.csv"), tmp_path / "run", max_epochs=1)
    pipeline.select(tmp_path / "run", tmp_path / "m", label_budget=10)
    with suppress(GuardError):
        evaluate_pool(tmp_path / "m", str(tmp_path / "all.csv"), seeds=1, epochs=1)
    assert json.loads((tmp_path / "m" / "pool.json").read_text())["n_labelled"] == 40
    wrong = (tmp_path / "all.csv").read_text().replace(",bread,train", ",cider,train", 1)
    (tmp_path / "wrong.csv").write_text(wrong)
    with pytest.raises(FingerprintError, match="the known labels unchanged"):
        evaluate_pool(tmp_path / "m", str(tmp_path / "wrong.csv"), seeds=1, epochs=1)


def test_a_plan_counts_what_a_pool_makes_to_be_seen(scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = clprune.plan.patch_features

    def counted(images: np.ndarray, order: np.ndarray, **more: Any) -> np.ndarray:
        made.append(len(order))
        return real(images, order, **more)

    monkeypatch.setattr(clprune.plan, "patch_features", counted)
    some = pipeline.plan(str(scored / "pool.npz"), max_epochs=5)
    assert (some["n_classes"], some["max_steps"]) == (
        4,
        55,
    )  # 60 labelled, and the looks at the others for half as much again: one batch of 128 an epoch; then it is finished
    searched = pipeline.plan(str(scored / "pool.npz"), max_epochs=5, trainings=1)
    stages = searched["stages"]
    assert searched["auto_seconds"] is None and searched["by_keep"]["0.5"]["pays_after_trainings_auto"] is None  # trials need every label
    commands = [command for stage in stages for command in stage["commands"]]
    assert "clprune select run --label-budget N --out asked" in commands and not [command for command in commands if "auto" in command]
    del made[2:]
    assert len(made) == 2  # features without labels are made of a pool, too
    np.savez(tmp_path / "open.npz", x_train=np.load(scored / "pool.npz")["x_train"], y_train=np.full(N, -1))
    none = pipeline.plan(str(tmp_path / "open.npz"), max_epochs=5)
    assert (none["n_classes"], none["max_steps"]) == (0, 0) and none["max_minutes"] > 0  # features are made, nothing is trained
    dry = ["select", str(scored / "run"), "--out", str(tmp_path / "m"), "--dry-run"]
    assert "would keep 30 of 60 samples" in CliRunner().invoke(app, [*dry, "--keep", "0.5"]).stdout
    assert "would ask for 20 of 240 samples" in CliRunner().invoke(app, [*dry, "--label-budget", "20"]).stdout
    assert "auto" not in CliRunner().invoke(app, ["plan", str(scored / "pool.npz")]).stdout
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "open.npz")])
    assert done.exit_code == 0 and "no sample has a label" in done.stdout and "kept" not in done.stdout


def test_the_page_of_a_run_says_which_samples_have_no_label(scored: Path, tmp_path: Path) -> None:
    pipeline.report([scored / "run"], tmp_path / "pool.html")
    page = (tmp_path / "pool.html").read_text()
    held = json.loads(re.search(r'id="search-data"[^>]*>(.*?)</script>', page, re.S)[1])
    assert sorted(label for _, label, *_ in held["records"]) == sorted(np.load(scored / "pool.npz")["y_train"].tolist())
    images = np.load(scored / "pool.npz")["x_train"].copy()
    images[-1] = images[0]  # equal ones are shown side by side
    np.savez(tmp_path / "open.npz", x_train=images, y_train=np.full(N, -1))
    pipeline.score(str(tmp_path / "open.npz"), tmp_path / "open", max_epochs=1)
    pipeline.report([tmp_path / "open"], tmp_path / "open.html")
    assert "No sample has a score: none has a label." in (tmp_path / "open.html").read_text()
    assert set(re.findall(r"<dt>(?:given|label)</dt><dd>(.*?)</dd>", (tmp_path / "open.html").read_text())) == {"unlabelled"}


def test_the_page_counts_what_is_kept_among_the_samples_that_have_a_label(scored: Path, tmp_path: Path) -> None:
    shutil.copytree(scored, tmp_path / "pool")
    pipeline.select(tmp_path / "pool" / "run", tmp_path / "pool" / "m", keep="0.5")
    for name, title in (("run", "Hardest"), ("m", "Hardest kept")):
        pipeline.report([tmp_path / "pool" / name], tmp_path / f"{name}.html")
        page = html.unescape((tmp_path / f"{name}.html").read_text())
        infinite = int(np.isinf(read_run(tmp_path / "pool" / "run").table.values["learned_epoch"]).sum())
        assert re.findall(r"([\d,]+) samples have an infinite learned epoch", page) == ([str(infinite)] if infinite else [])
        assert f"Map of {LABELLED} of {N} samples" in page and f"Drawn are the {LABELLED} of {N} samples that have the score" in page
        gallery = page[page.index(f">{title}<") : page.index(f">{title.replace('Hardest kept', 'Easiest dropped').replace('Hardest', 'Easiest')}<")]
        assert len(re.findall(r"<dd>dual [\d.]+", gallery)) == 24 and "dual nan" not in page
        assert name == "m" or "60 of 300 samples have a label and are scored" in page
    assert "Kept 30 of 60 samples that have a label (50.0 %), of 300 in all" in page
    assert "50.0 % of the 60 that have a label" in page
    told = pipeline.report([tmp_path / "pool" / "m", tmp_path / "pool" / "run"], tmp_path / "both.html")
    assert told["bytes"] and re.search(r">50\.0<", (tmp_path / "both.html").read_text())


@pytest.mark.parametrize("sample_id", ["a\nb", "a\r\nb", "a\u2028b", "a\x85b", "a\x0cb", 'a"b', "plain"])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_answers_come_back_under_ids_of_any_kind(tmp_path: Path, sample_id: str, form: str) -> None:
    path = tmp_path / f"a.{form}"
    with path.open("w", encoding="utf-8", newline="") as file:
        if form == "csv":
            csv.writer(file).writerows([["sample_id", "label"], [sample_id, "cat"], ["z", "dog"]])
        else:
            file.writelines(
                json.dumps({"sample_id": name, "label": label}, ensure_ascii=False) + "\n" for name, label in ((sample_id, "cat"), ("z", "dog"))
            )
    assert [(answer.sample_id, answer.label) for answer in read_answers(path)] == [(sample_id, "cat"), ("z", "dog")]


def test_what_nearly_repeats_an_open_question_is_not_asked() -> None:
    ids, labels = np.array(list("abcdefg"), dtype=StringDType()), np.array([-1, -1, -1, -1, -1, -1, 2])
    hood = Neighborhood(np.array([-1, 0, 0, -1, 3, -1, -1]), np.full(7, np.nan), np.zeros(7), labels)
    still_open = np.array([False, True, False, False, False, False, False])
    rows, reasons = candidates(ScoreTable(ids, labels, {}, {}), hood, still_open, ask=True)
    assert rows.tolist() == [3, 4, 5]
    assert [reasons[row] for row in (0, 1, 2)] == ["repeats what was asked for already", "asked for already", "repeats what was asked for already"]


def test_a_repeat_without_a_label_has_no_other_label(tmp_path: Path) -> None:
    images, labels = draw_shapes(200, 0)
    images[100:110], images[50:52] = images[:10], images[10:12]  # without a label; with one
    known = np.where(np.arange(200) < 100, labels, -1)
    known[50], known[51] = (known[10] + 1) % 4, known[11]
    np.savez(tmp_path / "pool.npz", x_train=images, y_train=known)
    told = pipeline.score(str(tmp_path / "pool.npz"), tmp_path / "run", max_epochs=1)["duplicates"]
    assert told["n"] == 12 and told["n_duplicates_with_another_label"] == 1


def test_what_has_no_label_yet_is_on_no_removal_list(scored: Path, tmp_path: Path) -> None:
    kept = pipeline.select(scored / "run", tmp_path / "kept", keep="0.5")
    pipeline.export(tmp_path / "kept", "removal_list", tmp_path / "gone")
    rows = kept.samples.to_pylist()
    dropped = [row["sample_id"] for row in rows if row["index"] < LABELLED and not row["kept"]]
    assert (tmp_path / "gone" / "dropped_ids.txt").read_text().split() == dropped and len(dropped) == LABELLED // 2
    assert json.loads((tmp_path / "gone" / "removal-list.json").read_text())["dropped_bytes"] == kept.document["dropped_bytes"]  # those of savings
    pipeline.select(scored / "run", tmp_path / "asked", label_budget=10)
    with pytest.raises(UsageError, match="no label yet, and removal_list needs one"):  # what asks drops nothing, least of all what has a label
        pipeline.export(tmp_path / "asked", "removal_list", tmp_path / "all")


@pytest.mark.parametrize("budget", [0, -3])
def test_no_labels_at_all_cannot_be_asked_for(scored: Path, tmp_path: Path, budget: int) -> None:
    with pytest.raises(UsageError, match=f"--label-budget is {budget}; at least 1"):
        pipeline.select(scored / "run", tmp_path / "m", label_budget=budget)
