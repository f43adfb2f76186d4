"""k-means, assignment and group means against plain versions."""

import itertools

import numpy as np
import pytest

from clprune.errors import DataError
from clprune.neighbors import BLOCK, assign, kmeans, means_of, require_finite


def squares(points: np.ndarray, centroids: np.ndarray) -> float:
    """Sum over all points of the squared distance to the nearest centroid."""
    return sum(min(float(((p - c) ** 2).sum()) for c in centroids) for p in points.astype(np.float64))


def test_a_vector_is_given_to_its_nearest_centroid_and_ties_to_the_smaller_number() -> None:
    rng = np.random.default_rng(0)
    points, centroids = rng.normal(size=(200, 5)) + 100, rng.normal(size=(7, 5)) + 100
    plain = [min(range(7), key=lambda c: float(((p - centroids[c]) ** 2).sum())) for p in points]
    assert assign(points, centroids).tolist() == plain
    assert assign(np.zeros((3, 2)), np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])).tolist() == [0, 0, 0]


def test_group_means_are_those_of_a_plain_sum_over_several_blocks() -> None:
    rng = np.random.default_rng(1)
    points, group = rng.normal(size=(BLOCK + 100, 3)).astype(np.float16), rng.integers(0, 6, BLOCK + 100)
    group[group == 4] = 5  # a number without members is left out
    plain = [points[group == g].astype(np.float64).mean(axis=0) for g in (0, 1, 2, 3, 5)]
    np.testing.assert_allclose(means_of(points, group), plain, rtol=1e-5)


def test_rounds_bring_the_vectors_nearer_until_every_centroid_is_the_mean_of_its_own() -> None:
    points = np.random.default_rng(2).normal(size=(300, 3)).astype(np.float32)
    errors = [squares(points, kmeans(points, 8, np.random.default_rng(5), n_rounds=n)) for n in (0, 1, 2, 4, 60)]
    assert all(a >= b for a, b in itertools.pairwise(errors)) and errors[-1] < 0.9 * errors[0]
    settled = kmeans(points, 8, np.random.default_rng(5), n_rounds=60)
    np.testing.assert_allclose(means_of(points, assign(points, settled)), settled, atol=1e-5)


def test_a_seed_decides_and_few_or_equal_vectors_give_fewer_centroids(tmp_path) -> None:  # type: ignore[no-untyped-def]
    points = np.random.default_rng(3).normal(size=(6000, 4)).astype(np.float16)
    np.save(tmp_path / "points.npy", points)
    mapped = np.load(tmp_path / "points.npy", mmap_mode="r")
    a, b, c = (kmeans(source, 9, np.random.default_rng(seed)) for source, seed in ((points, 1), (mapped, 1), (points, 2)))
    assert a.tobytes() == b.tobytes() != c.tobytes() and a.shape == (9, 4)
    assert kmeans(np.ones((50, 2)), 5, np.random.default_rng(0)).tolist() == [[1.0, 1.0]]
    assert kmeans(np.array([[2.0]]), 5, np.random.default_rng(0)).tolist() == [[2.0]]


def test_the_first_broken_row_is_named_also_beyond_the_first_block() -> None:
    vectors = np.zeros((BLOCK + 10, 2), dtype=np.float16)
    require_finite(vectors)
    vectors[BLOCK + 3, 1] = np.inf
    vectors[BLOCK + 5, 0] = np.nan
    with pytest.raises(DataError, match=rf"2 of {BLOCK + 10} .*first: row {BLOCK + 3}\)"):
        require_finite(vectors)
