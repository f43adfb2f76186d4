"""Near-duplicates and suspected labels, planted and counted; neighbours against a plain search."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.dtypes import StringDType
from threadpoolctl import threadpool_limits

from clprune import neighborhood
from clprune.errors import DataError
from clprune.neighborhood import find_neighborhood
from clprune.neighbors import matcher, nearest
from clprune.products import by_threads
from clprune.sources.embedded import sample_folder
from clprune.suspects import suspect_above


def plain_nearest(points: np.ndarray, k: int) -> list[list[int]]:
    result = []
    for i, a in enumerate(points):
        distances = [(float(((a - b) ** 2).sum()), j) for j, b in enumerate(points) if j != i]
        result.append([j for _, j in sorted(distances)[:k]])
    return result


@pytest.mark.parametrize("d", [1, 5])
def test_neighbours_are_those_of_a_plain_search(d: int) -> None:
    points = np.random.default_rng(0).normal(size=(60, d)).astype(np.float32)
    distances, at = nearest(points, 4)
    assert at.tolist() == plain_nearest(points, 4)
    np.testing.assert_allclose(distances[:, 0], [np.linalg.norm(points[i] - points[j]) for i, j in enumerate(at[:, 0])], rtol=1e-3, atol=1e-4)


def test_few_equal_and_broken_vectors_have_a_stated_outcome() -> None:
    assert nearest(np.zeros((1, 3)), 5)[1].shape == (1, 0)
    assert nearest(np.eye(3), 5)[1].shape == (3, 2)
    at = nearest(np.ones((30, 4)), 3)[1]
    assert all(i not in row for i, row in enumerate(at.tolist()))
    with pytest.raises(DataError, match="row 2"):
        nearest(np.array([[0.0], [1.0], [np.nan]]), 1)


def test_a_view_of_another_row_is_matched_to_it() -> None:
    base = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    view = base[np.roll(np.arange(50), 1)] + 0.01
    assert matcher(base, 1)(view)[:, 0].tolist() == np.roll(np.arange(50), 1).tolist()


def world(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (n, 24, 24, 3) unlike each other, their vectors by class, and labels."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((n, 7, 7, 3))
    images = np.kron(coarse, np.ones((1, 4, 4, 1)))[:, :24, :24] * 255
    labels = np.arange(n) % 4
    vectors = np.eye(4)[labels] * 3 + rng.normal(0, 0.4, (n, 4))
    return images.astype(np.uint8), vectors, labels


def test_what_threads_give_is_in_the_order_of_what_they_were_given() -> None:
    with threadpool_limits(4, user_api="blas"):
        assert by_threads(lambda item: (time.sleep(0.02 * (3 - item)), item)[1], range(4)) == [0, 1, 2, 3]


def test_threads_that_share_the_views_change_nothing() -> None:
    gray = world(200, 3)[0].mean(axis=3).astype(np.float32)
    told = []
    for n_threads in (1, 4):
        with threadpool_limits(n_threads, user_api="blas"):
            told.append(neighborhood._compared(gray))
    assert all(one.tobytes() == several.tobytes() for one, several in zip(*told, strict=True))


def test_compared_images_are_remembered_and_what_is_left_out_of_it_decides_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLPRUNE_CACHE", str(tmp_path))
    gray = world(300, 5)[0].mean(axis=3).astype(np.float32)
    pairs, distances = neighborhood._compared(gray)
    plain, compared = neighborhood._at_ranks(pairs, distances, 300, (1, 12)), neighborhood._compared
    monkeypatch.setattr(neighborhood, "REMEMBERED_FROM", 300)
    for again in (False, True):
        if again:
            monkeypatch.setattr(neighborhood, "_compared", None)  # would fail if it were called
        fewer, their = neighborhood._compared_once(gray)
        assert len(fewer) < len(pairs)
        np.testing.assert_array_equal(neighborhood._at_ranks(fewer, their, 300, (1, 12)), plain)
        near = distances < plain[1][pairs].max(axis=1)
        assert {tuple(pair) for pair in pairs[near].tolist()} <= {tuple(pair) for pair in fewer.tolist()}
    monkeypatch.setattr(neighborhood, "_compared", compared)
    gray[0, 0, 0] += 1
    assert len(list((tmp_path / "near-pairs").iterdir())) == 1
    neighborhood._compared_once(gray)
    assert len(list((tmp_path / "near-pairs").iterdir())) == 2


def test_of_many_equal_samples_exactly_one_stands_for_all_others() -> None:
    images, vectors, labels = world(60, 2)
    rows = np.random.default_rng(3).permutation(np.repeat(np.arange(60), 5))
    ids = np.array([f"{i:04d}" for i in range(300)], dtype=StringDType())
    random = np.random.default_rng(4)  # any of the five copies may be the least suspect
    p_label, predicted = random.uniform(0.2, 1.0, (3, 300)), random.integers(0, 4, (3, 300))
    for shown in (images[rows], None):
        exact = vectors[rows].astype(np.float32)
        found = find_neighborhood(ids, labels[rows], p_label, predicted, vectors=exact, images=shown)
        leads = np.flatnonzero(found.duplicate_of < 0)
        assert sorted(rows[leads].tolist()) == list(range(60))
        for lead in leads:
            others = np.flatnonzero(found.duplicate_of == lead)
            assert (rows[others] == rows[lead]).all() and len(others) == 4
            assert (found.suspicion[others] >= found.suspicion[lead]).all()


def test_planted_copies_are_found_and_little_else() -> None:
    images, vectors, labels = world(400, 0)
    rng = np.random.default_rng(1)
    copies = []
    for k in range(60):
        image = images[k].astype(float)
        if k % 3 == 0:
            image = np.roll(image, (1, -2), (0, 1))
        if k % 3 == 1:
            image = image[:, ::-1]
        copies.append(np.clip(image * 1.05 + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8))
    copies[59] = images[59]
    every, every_labels = np.concatenate([images, np.stack(copies)]), np.concatenate([labels, labels[:60]])
    ids = np.array([f"{i:04d}" for i in range(460)], dtype=StringDType())
    p, predicted = np.full((3, 460), 0.9), np.tile(every_labels, (3, 1)).astype(float)
    hood = find_neighborhood(ids, every_labels, p, predicted, vectors=np.concatenate([vectors, vectors[:60]]), images=every)
    found = {(row, at) for row, at in enumerate(hood.duplicate_of.tolist()) if at >= 0}
    planted = {(400 + k, k) for k in range(60)}
    assert len(found & planted) >= 57 and len(found - planted) <= 3
    assert hood.duplicate_of[459] == 59 and hood.duplicate_distance[459] == 0


@pytest.mark.parametrize(("n", "n_copies"), [(300, 1), (200, 4), (150, 14)])
def test_a_set_in_which_every_image_has_copies_is_brought_back_to_its_originals(n: int, n_copies: int) -> None:
    images, _, labels = world(n, 0)
    rng = np.random.default_rng(1)

    def changed(image: np.ndarray) -> np.ndarray:
        moved = np.roll(image[:, ::-1] if rng.random() < 0.5 else image, rng.integers(-1, 2, 2), (0, 1))
        return np.clip(moved * rng.uniform(0.9, 1.1) + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)

    every = np.concatenate([images, *(np.stack([changed(image) for image in images]) for _ in range(n_copies))])
    ids = np.array([f"{i:05d}" for i in range(len(every))], dtype=StringDType())
    hood = find_neighborhood(ids, np.tile(labels, 1 + n_copies), None, None, vectors=None, images=every)
    leader = np.where(hood.duplicate_of >= 0, hood.duplicate_of, np.arange(len(every)))
    assert (hood.duplicate_of[leader] < 0).all()  # what stands for a group repeats nothing
    assert (leader[n:] == leader[np.arange(n, len(every)) % n]).mean() > 0.95
    assert (leader % n != np.arange(len(every)) % n).mean() < 0.01


def test_the_dimension_of_evenly_spread_points_is_found_at_every_rank() -> None:
    drawn = np.sort(np.random.default_rng(0).random((200_000, neighborhood.RANK - 1)), axis=1)
    ranks = np.array(list(neighborhood.TOLD_BY)) - 1
    np.testing.assert_allclose(np.quantile(drawn[:, ranks], 0.75, axis=0), list(neighborhood.TOLD_BY.values()), atol=2e-3)
    for dimension in (2, 10, 30):
        once_in_chance = (drawn[:, 0] ** (1 / dimension) < neighborhood._threshold(drawn[:, ranks] ** (1 / dimension))).mean()
        assert once_in_chance == pytest.approx(1 / neighborhood.CHANCE, rel=0.3)


def test_wrong_labels_are_suspect_and_the_true_one_is_suggested_whatever_the_row_order() -> None:
    images, vectors, true = world(400, 3)
    rng = np.random.default_rng(4)
    labels, wrong = true.copy(), rng.choice(400, 30, replace=False)
    labels[wrong] = (true[wrong] + 1) % 4
    p = np.where(labels == true, rng.uniform(0.5, 1, (5, 400)), rng.uniform(0, 0.2, (5, 400)))
    predicted = np.tile(true, (5, 1)).astype(float)
    p[0, :7] = predicted[0, :7] = np.nan
    ids = np.array([f"{i:04d}" for i in range(400)], dtype=StringDType())
    hood = find_neighborhood(ids, labels, p, predicted, vectors=vectors, images=None)
    assert set(np.argsort(-hood.suspicion)[:30].tolist()) == set(wrong.tolist())
    assert (hood.suspicion[wrong] > suspect_above(hood.suspicion)).mean() > 0.9 and ((hood.suspicion >= 0) & (hood.suspicion <= 1)).all()
    assert (hood.suggested_label[wrong] == true[wrong]).mean() > 0.95
    order = rng.permutation(400)
    again = find_neighborhood(ids[order], labels[order], p[:, order], predicted[:, order], vectors=vectors[order], images=images[order])
    np.testing.assert_array_equal(again.suspicion, hood.suspicion[order])


def test_against_a_larger_class_support_counts_by_the_root_of_how_much_larger_it_is() -> None:
    rng = np.random.default_rng(3)
    labels = rng.permutation(np.repeat([0, 1, 2], [400, 90, 10]))
    n, n_epochs = len(labels), 6
    p_label, predicted = rng.random((n_epochs, n)), rng.integers(0, 3, (n_epochs, n)).astype(float)
    p_label[2, ::7] = predicted[2, ::7] = np.nan
    hood = find_neighborhood(np.array([f"{at:04d}" for at in range(n)]), labels, p_label, predicted, vectors=None, images=None)
    sizes = [400, 90, 10]
    for at in range(n):
        own, label = np.nanmean(p_label[:, at]), int(labels[at])
        votes = [float(v) for v in predicted[:, at] if not np.isnan(v)]
        support = {c: votes.count(c) / len(votes) for c in range(3) if c != label}
        rival = max(support, key=lambda c: support[c])
        odds = own * max(1.0, sizes[rival] / sizes[label]) ** 0.5 / max(support[rival], 1e-12)
        assert hood.suspicion[at] == pytest.approx(1 / (1 + odds), abs=1e-9)
        assert hood.suggested_label[at] == (rival if support[rival] > own else label), "what has most support, whatever the sizes"


def test_a_rare_class_that_is_hardly_learned_is_not_taken_for_wrong_labels() -> None:
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1], [4500, 500])
    rare = np.clip(rng.normal(0.15, 0.05, (5, 5000)), 0.01, 0.99)  # p(rare) of everything: little more than its share
    rare[:, 4500:] += 0.05
    p_label = np.where(labels == 1, rare, 1 - rare)
    hood = find_neighborhood(np.array([f"{at:04d}" for at in range(5000)]), labels, p_label, (rare > 0.5).astype(float), vectors=None, images=None)
    flagged = hood.suspicion > suspect_above(hood.suspicion)
    assert flagged[labels == 1].mean() < 0.1, flagged.sum()


def test_a_class_with_one_sample_and_equal_images_have_a_stated_outcome() -> None:
    ids = np.array(["a", "b", "c", "d"], dtype=StringDType())
    labels, images = np.array([0, 0, 0, 1]), np.zeros((4, 24, 24, 1), dtype=np.uint8)
    p, predicted = np.full((2, 4), 0.5), np.zeros((2, 4))
    p[:, 2] = 0.9  # the least suspect of the equal ones stays
    hood = find_neighborhood(ids, labels, p, predicted, vectors=np.ones((4, 3)), images=images)
    assert (hood.duplicate_of >= 0).sum() == 3 and np.isfinite(hood.suspicion).all()
    assert find_neighborhood(ids, labels, p, predicted, vectors=None, images=None).duplicate_of.tolist() == [-1] * 4


def test_the_truth_file_lists_what_the_embedded_sample_holds() -> None:
    from clprune.sources import open_source

    truth, source = json.loads((sample_folder() / "truth.json").read_text()), open_source("fashion-mnist-sample")
    label = dict(zip(source.sample_ids.tolist(), source.labels.tolist(), strict=True))
    assert len(truth["wrong_labels"]) == len(truth["duplicates"]) == 360
    assert all(label[name] != true for name, true in truth["wrong_labels"].items())
    assert all(label[a] == label[b] for a, b in truth["duplicates"].items())
    assert not set(truth["wrong_labels"]) & (set(truth["duplicates"]) | set(truth["duplicates"].values()))
    assert sum(path.stat().st_size for path in sample_folder().iterdir()) < 8_000_000


def test_the_embedded_sample_is_read_by_hugging_face_datasets(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import datasets

    read = datasets.Dataset.from_parquet(str(sample_folder() / "test.parquet"), cache_dir=str(tmp_path))
    assert len(read) == 2000 and read.features["label"].names[9] == "Ankle boot" and read[0]["image"].size == (28, 28)


def test_gray_and_small_images_are_means_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    images, rows = rng.integers(0, 256, (50, 21, 18, 3), dtype=np.uint8), rng.permutation(50)[:37]
    plain = np.stack([images[row].mean(axis=2) for row in rows]).astype(np.float32)
    for at_once in (1, 7, 256):
        monkeypatch.setattr(neighborhood, "GRAY_AT_ONCE", at_once)
        np.testing.assert_array_equal(neighborhood._gray(images, rows), plain)
    small = plain[:, :20, :16].reshape(37, 5, 4, 4, 4).mean(axis=(2, 4)).reshape(37, -1)
    small -= small.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(neighborhood._small(plain), small / np.linalg.norm(small, axis=1, keepdims=True), atol=1e-5)
