"""k-means, assignment and group means against plain versions."""

import itertools
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from clprune import neighbors
from clprune.errors import DataError
from clprune.neighbors import BLOCK, assign, kmeans, means_of, nearest, require_finite


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


def test_a_search_by_cells_finds_nearly_what_a_search_of_all_finds() -> None:
    rng = np.random.default_rng(4)
    of = rng.choice(40, 6000, p=rng.dirichlet(np.full(40, 0.7)))
    points = (rng.normal(size=(40, 8))[of] + rng.uniform(0.1, 1, 40)[of, None] * rng.normal(size=(6000, 8))).astype(np.float32)
    (far, all_of_them), (_, by_cells) = nearest(points, 10), nearest(points, 10, exact_up_to=0)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(all_of_them.tolist(), by_cells.tolist(), strict=True)]) > 9.5
    np.testing.assert_allclose(far[:, 0], np.linalg.norm(points.astype(float) - points[all_of_them[:, 0]], axis=1), rtol=1e-12)


def test_equal_vectors_are_neighbours_by_position_however_many_there_are() -> None:
    points = np.array([[0.0], [1.0], [-0.0], [1.0], [0.0], [5.0], [1.0]])
    plain = [sorted((j for j in range(7) if j != i), key=lambda j: (abs(points[i, 0] - points[j, 0]), j))[:4] for i in range(7)]
    assert nearest(points, 4)[1].tolist() == plain
    many = np.repeat(np.arange(3.0), 2000)[:, None]
    assert nearest(many, 3, exact_up_to=0)[1][[0, 1, 1999, 2000]].tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 2], [2001, 2002, 2003]]


def test_torch_stands_in_for_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(6).normal(size=(500, 7)) + 100
    distances, at = nearest(points, 5)
    monkeypatch.setattr(neighbors, "_top", lambda base, queries, k, n_threads: neighbors._top_by_torch(base, queries, k))
    again, there = nearest(points, 5)
    assert at.tobytes() == there.tobytes() and distances.tobytes() == again.tobytes()


@pytest.mark.parametrize("told", [None, "Nehalem"])
@pytest.mark.parametrize(("can", "name"), [("AVX512", "SkylakeX"), ("AVX2", "Haswell"), ("DEFAULT", None)])
@pytest.mark.parametrize("there", [True, False])
def test_while_faiss_is_loaded_its_blas_is_told_what_the_processor_can_do_unless_somebody_told_it(
    can: str, name: str | None, told: str | None, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module in faiss's place writes down what it was told when it was loaded, so that this holds on any processor; it may then be there or not."""
    written = f"import os, pathlib\npathlib.Path({str(tmp_path / 'told')!r}).write_text(str(os.environ.get('OPENBLAS_CORETYPE')))\n"
    (tmp_path / "faiss.py").write_text(written + ("" if there else "raise ImportError"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "faiss", None)  # what was loaded before comes back after the test
    del sys.modules["faiss"]
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: can)
    monkeypatch.setenv("OPENBLAS_CORETYPE", told or "")
    if told is None:
        monkeypatch.delenv("OPENBLAS_CORETYPE")
    with nullcontext() if there else pytest.raises(ImportError):
        neighbors._faiss()
    assert (tmp_path / "told").read_text() == str(told or name) and os.environ.get("OPENBLAS_CORETYPE") == told


def test_the_real_faiss_finds_the_same_whatever_its_blas_was_told() -> None:
    code = """
import numpy as np
from clprune.neighbors import nearest
print(*nearest(np.random.default_rng(0).normal(size=(300, 40)), 5)[1].ravel())
"""
    env = os.environ | {"OPENBLAS_CORETYPE": "Nehalem"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout.split()
    assert found == [str(row) for row in nearest(np.random.default_rng(0).normal(size=(300, 40)), 5)[1].ravel()]
