"""Copies of training samples that were put into a test set, and little else, are named."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from clprune import pipeline
from clprune.cli import app
from clprune.errors import DataError
from clprune.inputs import held_out_inputs, inputs_of
from clprune.leakage import leakage, leaked
from clprune.run import read_run
from clprune.sources import open_source


def images(n: int, seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).random((n, 7, 7, 3))
    return (np.kron(coarse, np.ones((1, 4, 4, 1)))[:, :24, :24] * 255).astype(np.uint8)


def test_planted_copies_are_named_with_their_originals_and_repeats_inside_a_part_are_not(tmp_path: Path) -> None:
    train, test = images(300, 0), images(80, 1)
    train[41] = train[40]  # the test image that equals both is said to repeat the first
    test[5], test[6] = train[40], train[7]
    test[7] = test[6]  # two test images of one training image
    test[9] = test[8]  # a repeat inside the test part alone
    test[10:20] = np.roll(train[100:110].astype(int)[:, :, ::-1] * 0.95 + 4, (1, -1), (1, 2)).astype(np.uint8)
    test[20] = (test[10] * 0.97 + 2).astype(np.uint8)  # nearer to another test image than to the training image that both show
    np.savez(tmp_path / "d.npz", x_train=train, y_train=np.arange(300) % 3, x_test=test, y_test=np.arange(80) % 3)
    told = json.loads(CliRunner().invoke(app, ["leakage", str(tmp_path / "d.npz"), "--json"]).stdout)
    source = open_source(str(tmp_path / "d.npz"))
    assert source.load_test is not None
    ids, test_ids = source.sample_ids.tolist(), source.load_test().sample_ids.tolist()
    found = {(pair["test_id"], pair["train_id"]): pair for pair in told["pairs"]}
    exact = {(test_ids[5], ids[40]), (test_ids[6], ids[7]), (test_ids[7], ids[7])}
    near = {(test_ids[10 + k], ids[100 + k]) for k in range(10)} | {(test_ids[20], ids[100])}
    assert {pair for pair, line in found.items() if line["distance"] == 0} == exact and told["n_exact"] == 3
    assert (test_ids[20], ids[100]) in found and len(near & set(found)) >= 10 and len(found) <= 15 and told["n_near"] == len(found) - 3
    assert found[test_ids[6], ids[7]]["same_label"] == (6 % 3 == 7 % 3) and told["n_test"] == 80


def test_mirrored_and_darker_copies_are_near_and_not_equal() -> None:
    shown = images(300, 0)
    shown = np.concatenate([shown, shown[:20], shown[20:40, :, ::-1], shown[40:60] // 2 * 2])
    train, distance, equal = leaked(shown, np.arange(360) % 3, 300)
    same = np.array([train[row] >= 0 and bool((shown[300 + row] == shown[train[row]]).all()) for row in range(60)])
    assert (distance == 0).sum() >= equal.sum() and equal.tolist() == same.tolist() and 20 <= equal.sum() < 60


def test_texts_are_compared_for_equality_and_data_without_a_test_part_are_refused(tmp_path: Path) -> None:
    train, distance, equal = leaked(np.array([[1, 2], [3, 4], [3, 5], [3, 4], [1, 2], [9, 9]]), np.array([0, 1, -1, 0, 1, 0]), 3)
    assert train.tolist() == [1, 0, -1] and distance[:2].tolist() == [0, 0] and np.isnan(distance[2]) and equal.tolist() == [True, True, False]
    np.savez(tmp_path / "d.npz", x_train=images(4, 0), y_train=np.arange(4))
    with pytest.raises(DataError, match="no test part"):
        leakage(open_source(str(tmp_path / "d.npz")))
    with pytest.raises(DataError, match="--image-size"):
        np.savez(tmp_path / "e.npz", x_train=images(4, 0)[:, :20], y_train=np.arange(4))
        leakage(open_source(str(tmp_path / "d.npz")), open_source(str(tmp_path / "e.npz")))


def test_labels_of_other_test_data_are_compared_by_name(tmp_path: Path) -> None:
    pixels, names = images(60, 0), np.array(list("abc"))[np.arange(60) % 3]
    np.savez(tmp_path / "d.npz", x_train=pixels, y_train=names)
    np.savez(
        tmp_path / "e.npz", x_train=pixels[names != "a"], y_train=np.where(names == "b", "x", names)[names != "a"]
    )  # c is number 0 here, x no class there
    told = leakage(open_source(str(tmp_path / "d.npz")), open_source(str(tmp_path / "e.npz")))
    assert told["n_exact"] == 40 and [pair["same_label"] for pair in told["pairs"]] == [False, True] * 20


def words_csv(path: Path, texts: list[str], n_train: int) -> str:
    lines = [f"{text},{'ab'[row % 2]},{'train' if row < n_train else 'test'}\n" for row, text in enumerate(texts)]
    path.write_text("text,label,split\n" + "".join(lines))
    return str(path)


def different_texts(n: int) -> dict[str, list[str]]:
    """Names, of which many share a bucket of the hash by chance, and long texts that differ behind what is read of them."""
    rng, head = np.random.default_rng(0), " ".join(f"w{i}" for i in range(300))
    return {"names": [f"{'klmn'[row % 4]}{row:x}{rng.integers(10**6):x}" for row in range(n)], "long": [f"{head} {row}" for row in range(n)]}


@pytest.mark.parametrize("kind", ["names", "long"])
def test_texts_of_other_words_are_no_copies(tmp_path: Path, kind: str) -> None:
    texts = different_texts(600)[kind]
    texts[550] = texts[7].upper()
    (pair,) = leakage(open_source(words_csv(tmp_path / "t.csv", texts, 500)))["pairs"]
    assert (pair["test_id"], pair["train_id"], pair["distance"]) == ("50", "007", 0)


@pytest.mark.parametrize("kind", ["names", "long"])
@pytest.mark.parametrize("labels", ["all", "some", "none"])
def test_texts_of_other_words_repeat_nothing(tmp_path: Path, kind: str, labels: str) -> None:
    texts = different_texts(400)[kind]
    texts[350] = texts[7].upper()
    known = [labels == "all" or (labels == "some" and row % 4 < 2) for row in range(400)]
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"{text},{'ab'[row % 2] if known[row] else ''}\n" for row, text in enumerate(texts)))
    pipeline.score(str(tmp_path / "t.csv"), tmp_path / "run", max_epochs=1)
    duplicate_of = read_run(tmp_path / "run").neighborhood.duplicate_of
    assert (duplicate_of >= 0).sum() == 1 and {int(duplicate_of.max()), int(np.flatnonzero(duplicate_of >= 0)[0])} == {7, 350}


@pytest.mark.parametrize(("train", "val"), [("RGB", "L"), ("L", "RGB")])
def test_a_test_part_that_alone_is_gray_or_in_colour_is_brought_to_the_form_of_training(tmp_path: Path, train: str, val: str) -> None:
    shown = images(40, 0)
    for row, pixels in enumerate(shown):
        gray = Image.fromarray(pixels).convert("L").resize((24, 24))
        for part, mode in (("train", train), ("val", val)):
            folder = tmp_path / "set" / part / "ab"[row % 2]
            folder.mkdir(parents=True, exist_ok=True)
            if part == "train" or row < 10:
                gray.convert(mode).save(folder / f"{row:02d}.png")
    source = open_source(str(tmp_path / "set"))
    told = leakage(source)
    assert told["n_exact"] == 10 and all(pair["test_id"] == pair["train_id"] for pair in told["pairs"])
    np.savez(tmp_path / "d.npz", x_train=shown, y_train=np.arange(40) % 2, x_test=shown[:10, :, :, 0], y_test=np.arange(10) % 2)
    source = open_source(str(tmp_path / "d.npz"))
    assert source.load_test is not None
    inputs, rule = inputs_of(source, None)
    assert held_out_inputs(source.load_test(), rule).shape == (10, *inputs.shape[1:])
