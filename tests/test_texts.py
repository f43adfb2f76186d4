"""Texts go the same path as images: score, select, evaluate, export."""

import csv
import json
import os
import random
import subprocess
import sys
import zlib
from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

import clprune
from clprune import pipeline
from clprune.errors import UsageError
from clprune.labels import add_answers
from clprune.latent import latent_features
from clprune.sources import open_source
from clprune.texts import N_BUCKETS, WIDEST, load_texts
from clprune.training import TokenData, to_device

THINGS, GOOD, BAD = ("film", "meal", "book", "song", "trip", "play"), ("fine", "bright", "warm", "lovely"), ("dull", "cold", "stale", "dreary")


def opinions(n: int, seed: int, wrong: float = 0.0) -> list[dict[str, str]]:
    """Short opinions whose adjective tells the class, unless `not` stands before it; a share of the labels is wrong."""
    draw, rows = random.Random(seed), []
    for i in range(n):
        good, turned = i % 2 == 0, draw.random() < 0.25
        word = draw.choice(GOOD if good != turned else BAD)
        text = f"the {draw.choice(THINGS)} and the {draw.choice(THINGS)} were {'not ' if turned else ''}{word} , said number {draw.randrange(40)}"
        flip = draw.random() < wrong
        rows.append({"id": f"{seed}-{i:04d}", "text": text, "label": "pos" if good != flip else "neg", "wrong": str(int(flip))})
    return rows


def write(path: Path, train: list[dict[str, str]], test: list[dict[str, str]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "text", "label", "wrong", "split"])
        writer.writeheader()
        writer.writerows([row | {"split": split} for split, rows in (("train", train), ("test", test)) for row in rows])
    return path


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]]]:
    train = opinions(1200, 0, wrong=0.08)
    folder = tmp_path_factory.mktemp("texts")
    path = write(folder / "said.csv", train, opinions(200, 1))
    clprune.score(str(path), folder / "run", max_epochs=12)
    return path, train


def test_ngrams_are_words_then_pairs_hashed_alike_everywhere(tmp_path: Path) -> None:
    source = open_source([("Not bad, not bad!", 1), ("bad", 0), ("", 0)])
    tokens, rule = load_texts(source)
    words = ["not", "bad", ",", "not", "bad", "!"]
    expected = [1 + zlib.crc32(g.encode()) % N_BUCKETS for g in [*words, *(f"{a} {b}" for a, b in pairwise(words))]]
    assert tokens.dtype == np.int32 and tokens[0].tolist() == expected and tokens[1].tolist() == [expected[1]] + [0] * 10 and not tokens[2].any()
    assert rule["width"] == 11 and load_texts(source, width=3)[0].shape == (3, 3)
    assert load_texts(open_source([("a " * 900, 1), ("b", 0)]))[0].shape[1] == WIDEST


def test_a_row_on_the_device_is_a_text_whatever_the_augmentation_draws() -> None:
    tokens = np.arange(12, dtype=np.int32).reshape(4, 3)
    data = to_device(tokens, np.zeros(4, dtype=np.int64), torch.device("cpu"))
    assert isinstance(data, TokenData) and data.input_shape == (3,)
    picked = data.batch(torch.tensor([2, 0]), shifts=torch.ones(2, 2, dtype=torch.int64), flips=torch.ones(2, dtype=torch.bool), dtype=torch.bfloat16)
    assert picked.tolist() == [[6, 7, 8], [0, 1, 2]]


def test_the_record_and_the_scores_of_texts_are_the_same_values_as_those_of_images(said: tuple[Path, list[dict[str, str]]], shapes_run: Path) -> None:
    run, images = clprune.read_run(said[0].parent / "run"), clprune.read_run(shapes_run)
    assert run.document["proxy"] == "text_bag" and set(run.table.values) == set(images.table.values)
    assert set(run.document["files"]) == set(images.document["files"]) and run.vectors is not None


def test_wrong_labels_of_texts_are_found(said: tuple[Path, list[dict[str, str]]]) -> None:
    path, train = said
    run = clprune.read_run(path.parent / "run")
    wrong = np.array([row["wrong"] == "1" for row in train])
    assert run.table.sample_ids.tolist() == [row["id"] for row in train]
    order = np.argsort(run.table.values["mean_loss"])
    ranks = np.empty(len(order))
    ranks[order] = np.arange(len(order))
    auc = (ranks[wrong].mean() - (wrong.sum() - 1) / 2) / (~wrong).sum()
    assert auc > 0.9


def test_difficulty_has_no_say_in_what_is_kept_of_texts_unless_asked(said: tuple[Path, list[dict[str, str]]], tmp_path: Path) -> None:
    run = clprune.read_run(said[0].parent / "run")
    kept = {}
    for name, strategy in (("default", None), ("blend", "blend")):
        manifest = clprune.select(run.folder, tmp_path / name, keep="0.3", strategy=strategy)
        kept[name] = manifest.indices(clprune.open_source(str(said[0])))
        assert ("scored_share=0.0" in manifest.document["strategy"]) == (name == "default")
    difficulty = run.table.difficulty("dual")
    rank = np.argsort(np.argsort(difficulty)) / len(difficulty)
    spread = np.sqrt(1 / 12 / len(kept["default"]))  # of the mean rank of as many drawn at random
    assert rank[kept["default"]].mean() < 0.5 + 3 * spread and rank[kept["blend"]].mean() > 0.5 + 3 * spread
    assert (run.neighborhood.suspicion[kept["default"]] <= run.document["suspects"]["above"]).all()


def test_the_commands_go_from_a_table_of_texts_to_an_evaluation_and_exports(said: tuple[Path, list[dict[str, str]]], tmp_path: Path) -> None:
    path, _ = said
    run, subset = str(path.parent / "run"), str(tmp_path / "m")
    for arguments, codes in (
        (["select", run, "--keep", "0.5", "--out", subset], (0,)),
        (["verify", subset, "--data", str(path)], (0,)),
        (["evaluate", subset, "--seeds", "1", "--epochs", "8", "--quiet"], (0, 4)),
        (["export", subset, "--to", "label-studio", str(tmp_path / "queue")], (0,)),
        (["score", str(path), "--out", str(tmp_path / "x"), "--dry-run"], (0,)),
    ):
        done = subprocess.run([sys.executable, "-m", "clprune", *arguments], capture_output=True, text=True)
        assert done.returncode in codes, (arguments, done.stderr)
    arms = json.loads((tmp_path / "m" / "evaluation.json").read_text())["arms"]
    assert set(arms) == {"pruned", "random", "full"} and arms["full"]["accuracy_mean"] > 0.6
    assert json.loads((tmp_path / "queue" / "tasks-00000.json").read_text())[0]["data"]["text"].startswith("the ")


def test_latent_features_have_the_likeness_of_the_full_decomposition() -> None:
    rng = np.random.default_rng(5)
    topic = rng.integers(0, 6, 300)
    tokens = np.where(rng.random((300, 30)) < 0.7, 1 + 50 * topic[:, None] + rng.integers(0, 50, (300, 30)), 301 + rng.integers(0, 200, (300, 30)))
    tokens[:, -6:] *= rng.random((300, 6)) < 0.5
    tokens = np.sort(tokens, axis=1)[:, ::-1].astype(np.int32)
    tokens[7] = 0
    counts = np.array([[(row == bucket).sum() for bucket in range(1, 501)] for row in tokens], dtype=float)
    weights = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * np.log(300 / np.maximum((counts > 0).sum(axis=0), 1))
    weights /= np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-12)
    left, sizes, _ = np.linalg.svd(weights, full_matrices=False)
    best = (left * sizes)[:, :5]
    found = latent_features(tokens, width=5)
    np.testing.assert_allclose(found @ found.T, best @ best.T, atol=0.02)
    assert not found[7].any() and latent_features(np.zeros((3, 2), dtype=np.int32)).shape == (3, 1)
    order = rng.permutation(300)
    np.testing.assert_allclose(np.abs(latent_features(tokens[order], width=5)), np.abs(found[order]), atol=1e-3)


def test_texts_without_any_label_are_asked_for_and_answers_make_the_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = opinions(600, 3)
    path = write(tmp_path / "open.csv", [row | {"label": ""} for row in rows], [])
    assert pipeline.plan(str(path))["max_minutes"] > 0  # the features' time
    run = clprune.score(str(path), tmp_path / "run")
    assert (run["n_classes"], run["epochs_run"], run["proxy"]) == (0, 0, "none: latent semantic analysis of n-grams")
    first = clprune.select(tmp_path / "run", tmp_path / "m", label_budget=100)
    asked = set(first.kept_ids.tolist())
    assert first.document["strategy"] == "cluster_medoids" and len(asked) == 100
    (tmp_path / "a.csv").write_text("sample_id,label\n" + "".join(f"{row['id']},{row['label']}\n" for row in rows if row["id"] in asked))
    add_answers(tmp_path / "m", [tmp_path / "a.csv"])
    monkeypatch.setattr("clprune.embeddings.without_labels", lambda *_, **__: pytest.fail("of texts the model alone guesses"))
    second = clprune.score(str(path), tmp_path / "run2", max_epochs=4, answers=tmp_path / "m")
    assert sorted(second["class_names"]) == ["neg", "pos"] and second["pool"]["n_labelled"] == 100
    more = clprune.select(tmp_path / "run2", tmp_path / "m2", label_budget=50)
    assert not asked & set(more.kept_ids.tolist())


def test_an_exact_run_on_texts_gives_the_same_scores_twice_and_in_any_order_of_rows(tmp_path: Path) -> None:
    rows = opinions(200, 3)
    write(tmp_path / "a.csv", rows, [])
    write(tmp_path / "b.csv", random.Random(1).sample(rows, len(rows)), [])
    tables = []
    for name in ("a", "b"):
        clprune.score(str(tmp_path / f"{name}.csv"), tmp_path / name, max_epochs=2, exact=True)
        table = clprune.read_run(tmp_path / name).table
        tables.append(dict(zip(table.sample_ids.tolist(), table.values["dual"].tolist(), strict=True)))
    assert tables[0] == tables[1]


def test_a_hugging_face_text_set_gives_the_scores_of_the_same_table(tmp_path: Path) -> None:
    rows = opinions(200, 3)
    write(tmp_path / "a.csv", rows, [])
    features = datasets.Features(
        {"id": datasets.Value("string"), "sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    held = {"id": [r["id"] for r in rows], "sentence": [r["text"] for r in rows], "label": [r["label"] for r in rows]}
    datasets.Dataset.from_dict(held, features=features).save_to_disk(str(tmp_path / "hf"))
    assert open_source(f"hf:{tmp_path / 'hf'}").fingerprint == open_source(str(tmp_path / "a.csv")).fingerprint


def test_a_proxy_of_images_is_refused_for_texts_and_the_other_way_round(
    said: tuple[Path, list[dict[str, str]]], shapes_npz: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="takes images, but the data are texts"):
        clprune.score(str(said[0]), tmp_path / "a", proxy="resnet18")
    with pytest.raises(UsageError, match="takes texts, but the data are images"):
        clprune.score(str(shapes_npz), tmp_path / "b", proxy="text_bag")


SST2 = Path(os.environ.get("CLPRUNE_TEST_DATA", "../shared/data")) / "sst2"


def test_sentences_of_the_treebank_are_read_and_scored_where_they_are_at_hand(tmp_path: Path) -> None:
    """Uses CLPRUNE_TEST_DATA/sst2 (default ../shared/data); without it the same path runs on opinions made here."""
    rows = opinions(1200, 5)
    if (SST2 / "train.txt").is_file():
        lines = (SST2 / "train.txt").read_text(encoding="utf-8").splitlines()[:1500]
        rows = [{"id": f"{i:05d}", "text": line[2:], "label": "pos" if line[0] == "1" else "neg", "wrong": "0"} for i, line in enumerate(lines)]
    write(tmp_path / "t.csv", rows, [])
    told = clprune.score(str(tmp_path / "t.csv"), tmp_path / "run", max_epochs=8)
    signals = np.load(tmp_path / "run" / "trajectory" / "correct.npy")
    assert told["n_samples"] == len(rows) and signals[-1].mean() > signals[0].mean() > 0.4
