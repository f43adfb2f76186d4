"""Laws that strategies on vectors keep, what they do above the size at which they are exact, and odd data."""

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
from numpy.dtypes import StringDType

from clprune import families
from clprune.datatypes import Budget, ScoreTable
from clprune.errors import DataError, UsageError
from clprune.neighbors import LARGEST, clusters, kmeans
from clprune.products import _libraries, one_thread
from clprune.selection import select
from clprune.strategies import _local
from clprune.strategies._local import farthest_first, greedy_by_cell
from clprune.strategies._quota import proportional_quota
from clprune.strategies.beta_sampling import beta_sampling
from clprune.strategies.cluster_prototypes import cluster_prototypes
from clprune.strategies.d2 import d2
from clprune.strategies.diverse import diverse
from clprune.strategies.facility_location import facility_location
from clprune.strategies.herding import herding
from clprune.strategies.k_center import k_center

ON_VECTORS = [name for name in families.names("strategies") if "vectors" in families.facts(families.find("strategies", name))["needs"]]


def blobs(n: int, d: int, seed: int, n_blobs: int = 12) -> np.ndarray:
    """Clusters of unequal size and width."""
    rng = np.random.default_rng(seed)
    of = rng.choice(n_blobs, n, p=rng.dirichlet(np.full(n_blobs, 0.7)))
    return (rng.normal(size=(n_blobs, d))[of] * 2 + rng.uniform(0.1, 1.5, n_blobs)[of, None] * rng.normal(size=(n, d))).astype(np.float32)


def run(name: str, vectors: np.ndarray, n_keep: int, order: np.ndarray | None = None, labels: np.ndarray | None = None, **options) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Kept positions; difficulty, labels and so on belong to the rows, also where these are in another `order`."""
    n, rng = len(vectors), np.random.default_rng(77)
    inputs = {"difficulty": rng.random(n), "labels": rng.integers(0, 3, n) if labels is None else labels, "suspicion": rng.random(n)}
    inputs |= {"duplicate_of": np.full(n, -1), "value:confidence": rng.random(n), "value:typicality": rng.random(n), "vectors": vectors}
    member = families.find("strategies", name)
    given = [inputs[need] if order is None else inputs[need][order] for need in families.facts(member)["needs"]]
    return member(*given, n_keep, np.random.default_rng(0), **options)


@pytest.mark.parametrize(
    "name", sorted(set(ON_VECTORS) - {"cluster_medoids", "cluster_prototypes", "random_in_clusters", "typical_clusters", "uncertain_clusters"})
)
def test_row_order_has_no_influence_where_nothing_ties(name: str) -> None:
    vectors, order = blobs(200, 6, 1), np.random.default_rng(2).permutation(200)
    assert set(order[run(name, vectors, 70, order)].tolist()) == set(run(name, vectors, 70).tolist())


@pytest.mark.parametrize("name", sorted(set(ON_VECTORS) - {"moderate"}))  # whose centre is the median of each feature
def test_turning_the_vectors_has_no_influence(name: str) -> None:
    vectors = blobs(200, 6, 3)
    turn, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(6, 6)))
    assert set(run(name, (vectors @ turn).astype(np.float32), 70).tolist()) == set(run(name, vectors, 70).tolist())


@pytest.mark.parametrize("name", ON_VECTORS)
def test_scaling_the_vectors_has_no_influence(name: str) -> None:
    vectors = blobs(200, 6, 5)
    assert run(name, vectors * 3.7, 70).tolist() == run(name, vectors, 70).tolist()


@pytest.mark.parametrize("name", ON_VECTORS)
@pytest.mark.parametrize("n_keep", [1, 3, 4000, 8999])
def test_above_the_exact_size_the_budget_still_holds(name: str, n_keep: int) -> None:
    vectors = blobs(9000, 4, 6)
    vectors[:3000] = vectors[0]  # more equal vectors than a cluster may hold
    picked = run(name, vectors, n_keep)
    assert len(picked) == n_keep == len(np.unique(picked))


@pytest.mark.parametrize("name", ON_VECTORS)
def test_odd_data_have_a_stated_outcome(name: str) -> None:
    assert run(name, np.ones((1, 3), np.float32), 1).tolist() == [0]
    assert sorted(run(name, np.arange(7, dtype=np.float32)[:, None], 7).tolist()) == list(range(7))
    one_each = run(name, blobs(6, 2, 0), 6, labels=np.arange(6))
    assert sorted(one_each.tolist()) == list(range(6))
    equal = run(name, np.full((12, 3), 0.3, np.float32), 5, labels=np.zeros(12, dtype=int))
    assert len(set(equal.tolist())) == 5
    assert len(set(run(name, np.zeros((7000, 2), np.float16), 6000).tolist())) == 6000


@pytest.mark.parametrize("name", ["k_center", "facility_location", "herding", "cluster_prototypes"])
@pytest.mark.parametrize("value", [0.0, 0.3, 1e4])
def test_equal_vectors_go_by_position(name: str, value: float) -> None:
    assert run(name, np.full((501, 37), value, np.float32), 9, labels=np.zeros(501, dtype=int)).tolist() == list(range(9))


@pytest.mark.parametrize("name", ON_VECTORS)
def test_a_broken_vector_is_refused_and_its_row_named(name: str) -> None:
    vectors = blobs(30, 3, 0)
    vectors[17, 1] = np.nan
    ids = np.array([f"{(i * 7) % 30:02d}" for i in range(30)], dtype=StringDType())  # rows are not in the order of the ids
    scores = {score: np.linspace(0, 1, 30) for score in (*families.names("scores"), "uncertainty", "typicality")}
    table = ScoreTable(ids, np.arange(30) % 3, scores, {score: "hard" for score in scores})
    with pytest.raises(DataError, match="first: row 17"):
        select(table, Budget(0.5, 15, "given"), strategy=name, vectors=vectors)


def test_repeats_of_a_vector_come_after_all_others_by_position() -> None:
    vectors = np.tile(np.random.default_rng(21).normal(size=(40, 19)).astype(np.float32) + 7, (5, 1))
    picked = k_center(vectors, 60, np.random.default_rng(0))
    assert set(picked[:40].tolist()) == set(range(40)) and picked[40:].tolist() == list(range(40, 60))


# ---- what each one promises


def radius(vectors: np.ndarray, kept: list[int]) -> float:
    return max(min(math.dist(v, vectors[j]) for j in kept) for v in vectors)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_k_center_covers_within_twice_the_best_radius(seed: int, k: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(11, 2))
    best = min(radius(vectors, list(kept)) for kept in itertools.combinations(range(11), k))
    got = radius(vectors, k_center(vectors, k, np.random.default_rng(0)).tolist())
    assert best <= got + 1e-5 and got <= 2 * best + 1e-5


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_facility_location_reaches_its_share_of_the_best_value(seed: int, k: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(10, 3))
    best = max(reference.facility_value(vectors, list(kept)) for kept in itertools.combinations(range(10), k))
    got = reference.facility_value(vectors, facility_location(vectors, k, np.random.default_rng(0)).tolist())
    assert (1 - 1 / math.e) * best <= got <= best + 1e-9


@pytest.mark.parametrize("n", [300, 12_000])
def test_the_mean_of_a_herd_is_nearer_to_the_class_mean_than_that_of_random_draws(n: int) -> None:
    vectors, labels, rng = blobs(n, 8, 7), np.random.default_rng(8).integers(0, 2, n), np.random.default_rng(9)
    kept = herding(labels, vectors, n // 10, np.random.default_rng(0))
    for c in (0, 1):
        mine, herd = np.flatnonzero(labels == c), kept[labels[kept] == c]
        miss = np.linalg.norm(vectors[herd].mean(axis=0) - vectors[mine].mean(axis=0))
        draws = [vectors[rng.choice(mine, len(herd), replace=False)].mean(axis=0) - vectors[mine].mean(axis=0) for _ in range(50)]
        assert miss < 0.5 * min(np.linalg.norm(draw) for draw in draws)


def plain_k_center(vectors: np.ndarray, n_keep: int) -> np.ndarray:
    """Exact greedy in float64, one column of distances at a time."""
    points = vectors.astype(np.float64)
    path = [int(((points - points.mean(axis=0)) ** 2).sum(axis=1).argmin())]
    gap = ((points - points[path[0]]) ** 2).sum(axis=1)
    while len(path) < n_keep:
        path.append(int(gap.argmax()))
        gap = np.minimum(gap, ((points - points[path[-1]]) ** 2).sum(axis=1))
    return np.array(path)


def gaps(vectors: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Distance of each dropped row to the nearest kept one."""
    dropped = np.setdiff1d(np.arange(len(vectors)), kept)
    points, held = vectors[dropped].astype(np.float64), vectors[kept].astype(np.float64)
    squared = (points**2).sum(axis=1)[:, None] + (held**2).sum(axis=1) - 2 * points @ held.T
    return np.sqrt(np.maximum(squared.min(axis=1), 0))


def test_k_center_by_cluster_covers_nearly_as_well_as_the_exact_greedy() -> None:
    vectors = blobs(6000, 24, 10, n_blobs=40)
    local, exact = (gaps(vectors, kept) for kept in (k_center(vectors, 3000, np.random.default_rng(0)), plain_k_center(vectors, 3000)))
    drawn = gaps(vectors, np.random.default_rng(1).permutation(6000)[:3000])
    assert local.max() <= 1.1 * exact.max() < drawn.max() and local.mean() <= 1.05 * exact.mean() < 1.05 * drawn.mean()


def test_facility_location_by_cluster_is_worth_nearly_as_much_as_the_exact_greedy() -> None:
    from clprune.strategies.facility_location import _lazy_greedy

    vectors = blobs(5200, 16, 11, n_blobs=40)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def value(kept: np.ndarray) -> float:
        return float(((1 + unit @ unit[kept].T) / 2).max(axis=1).sum())

    local, exact = facility_location(vectors, 520, np.random.default_rng(0)), _lazy_greedy(vectors, 520)[0]
    assert value(exact) >= value(local) >= 0.98 * value(exact)
    assert value(exact) > value(np.random.default_rng(1).permutation(5200)[:520])


def test_clusters_hold_every_row_once_and_no_more_than_they_may() -> None:
    for vectors in (blobs(20_000, 5, 12), np.zeros((5000, 2)), np.repeat(np.eye(3), 2500, axis=0)):
        rows = np.flatnonzero(np.arange(len(vectors)) % 3 != 1)
        parts = clusters(vectors, rows, np.random.default_rng(0))
        assert sorted(np.concatenate(parts).tolist()) == rows.tolist() and max(map(len, parts)) <= LARGEST
        assert all((np.diff(part) > 0).all() for part in parts)


def test_d2_takes_difficult_samples_of_different_neighbourhoods() -> None:
    vectors = np.concatenate([np.zeros((20, 2)), np.full((20, 2), 50.0)]) + np.random.default_rng(0).normal(0, 0.1, (40, 2))
    difficulty = np.concatenate([np.full(20, 1.0), np.full(20, 0.8)]) + np.arange(40) * 1e-3
    difficulty[0] = np.inf  # never learned: as hard as the hardest
    without = d2(difficulty, vectors, 10, np.random.default_rng(0), n_neighbors=0, cutoff=0.0)
    assert (without < 20).all(), "without messages it is hardest first"
    spread = d2(difficulty, vectors, 10, np.random.default_rng(0), cutoff=0.0)
    assert 3 <= (spread < 20).sum() <= 7
    many, hard = blobs(600, 20, 8) * 30, np.random.default_rng(9).random(600)  # on such features exp(-d^2) is nothing
    taken = d2(hard, many, 120, np.random.default_rng(0), cutoff=0.0)
    assert len(np.intersect1d(taken, np.argsort(-hard)[:120])) < 110, "messages matter on features of any scale"
    hardest = set(np.argsort(-difficulty, kind="stable")[:8].tolist())
    assert not hardest & set(d2(difficulty, vectors, 10, np.random.default_rng(0), cutoff=0.2).tolist())
    assert len(set(d2(difficulty, vectors, 39, np.random.default_rng(0), cutoff=0.2).tolist())) == 39, "the cut shrinks where too few would be left"


def test_prototypes_near_and_far_are_each_others_reverse_and_other_words_are_refused() -> None:
    vectors, labels = blobs(60, 3, 13), np.arange(60) % 4
    far, near = (cluster_prototypes(labels, vectors, 60, np.random.default_rng(0), prefer=word) for word in ("far", "near"))
    assert far.tolist() == near[::-1].tolist()
    for options in ({"prefer": "middle"}, {"n_clusters": 0}):
        with pytest.raises(UsageError, match=r"Give prefer as one of 'far', 'near'|Give n_clusters of at least 1"):
            cluster_prototypes(labels, vectors, 5, np.random.default_rng(0), **options)


def test_diverse_keeps_the_share_of_every_class_and_level_and_uses_suspects_last() -> None:
    rng, n = np.random.default_rng(14), 2000
    labels, difficulty, vectors = rng.integers(0, 4, n), rng.random(n), blobs(n, 6, 15)
    suspicion, duplicate_of = np.where(np.arange(n) < 200, 0.9, 0.1), np.full(n, -1)
    kept = diverse(difficulty, labels, vectors, suspicion, duplicate_of, 600, np.random.default_rng(0))
    assert kept.min() >= 200
    for c in range(4):
        mine = np.flatnonzero((labels == c) & (np.arange(n) >= 200))
        levels = np.array_split(mine[np.argsort(-difficulty[mine])], 5)
        shares = [np.isin(level, kept).sum() - len(level) / 3 for level in levels]
        assert max(map(abs, shares)) <= 2, shares
    more = diverse(difficulty, labels, vectors, suspicion, duplicate_of, 1900, np.random.default_rng(0))
    assert set(range(200, n)) <= set(more.tolist())


def test_beta_sampling_draws_in_turn_in_proportion_to_its_weights() -> None:
    difficulty, confidence = np.array([0.2, 0.1, 0.05, 0.15, 0.0]), np.array([0.3, 0.5, 0.9, 0.6, 0.5])
    weights = np.array(reference.beta_weights(difficulty, confidence, 2))
    expected = np.zeros(5)  # probability of being among the two, by all pairs
    for i, j in itertools.permutations(range(5), 2):
        p = weights[i] / weights.sum() * (weights[j] / (weights.sum() - weights[i]) if weights.sum() > weights[i] else 0)
        expected[[i, j]] += p
    rng, n_draws = np.random.default_rng(16), 4000
    seen = sum(np.bincount(beta_sampling(difficulty, confidence, 2, rng), minlength=5) for _ in range(n_draws)) / n_draws
    assert expected[4] == 0 and seen[4] == 0, "no score, no weight"
    assert (np.abs(seen - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / n_draws) + 1e-9).all(), (seen, expected)


def test_beta_sampling_takes_easier_samples_the_less_is_kept() -> None:
    rng = np.random.default_rng(17)
    confidence = rng.beta(2, 1, 5000)
    difficulty = confidence * (1 - confidence)
    means = [confidence[beta_sampling(difficulty, confidence, n, np.random.default_rng(0))].mean() for n in (100, 500, 1500, 2500)]
    assert means == sorted(means, reverse=True) and means[0] > means[-1] + 0.1
    late = confidence[beta_sampling(difficulty, confidence, 1500, np.random.default_rng(0), c_d=11.0)].mean()
    assert late < means[2], "a larger c_d turns to easy samples later"


def test_beta_sampling_needs_the_confidence() -> None:
    table = ScoreTable(np.array(["a", "b"], dtype=StringDType()), np.array([0, 1]), {"dual": np.ones(2)}, {"dual": "hard"})
    with pytest.raises(DataError, match=r"needs the score 'confidence', which this run does not hold .it has: dual"):
        select(table, Budget(1.0, 2, "given"), strategy="beta_sampling")


PROGRAM = """
import hashlib, sys, numpy as np
sys.path.insert(0, sys.argv[1])
import test_diversity as t
from clprune.neighborhood import find_neighborhood
from clprune.products import product, solution
vectors = t.blobs(6500, 33, 20)
for name in t.ON_VECTORS:
    print(name, hashlib.md5(t.run(name, vectors, 2500).tobytes()).hexdigest())
wide, rng = t.blobs(1500, 300, 22), np.random.default_rng(23)
hood = find_neighborhood(np.arange(1500), rng.integers(0, 9, 1500), rng.random((3, 1500)), rng.integers(0, 9, (3, 1500)), vectors=wide, images=rng.integers(0, 255, (1500, 16, 16, 1), dtype=np.uint8))
for shape in ((9000, 33, 50), (999, 300, 77), (5000, 128, 10)):
    for kind in (np.float32, np.float64):
        a, b = rng.normal(size=shape[:2]).astype(kind), rng.normal(size=shape[1:]).astype(kind)
        assert np.allclose(product(a, b), np.einsum("lm,mr->lr", a, b), atol=1e-3)
        print("product", shape, hashlib.md5(product(a, b).tobytes() + product(a.T, a).tobytes() + solution(product(a.T, a), b).tobytes()).hexdigest())
print("neighborhood", hashlib.md5(hood.suspicion.tobytes() + hood.duplicate_of.tobytes() + hood.duplicate_distance.tobytes()).hexdigest())
"""


def test_the_number_of_threads_has_no_influence() -> None:
    told = []
    for threads in ("1", "2"):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", PROGRAM, os.path.dirname(__file__)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    assert told[0] == told[1] and len(told[0].splitlines()) == len(ON_VECTORS) + 1 + 6


def test_libraries_with_different_numbers_of_threads_do_no_harm() -> None:
    libraries = [library for library in _libraries().lib_controllers if library.user_api == "blas"]
    before = [library.num_threads for library in libraries]
    try:
        for at, library in enumerate(libraries):
            library.set_num_threads(1 + at % 2)
        with one_thread() as n_threads:
            assert n_threads == (2 if len(libraries) > 1 else 1) and all(library.num_threads == 1 for library in libraries)
        assert [library.num_threads for library in libraries] == [1 + at % 2 for at in range(len(libraries))]
    finally:
        for library, number in zip(libraries, before, strict=True):
            library.set_num_threads(number)


@pytest.mark.parametrize("n_keep", [1, 4, 15, 60])
def test_the_middle_or_the_most_typical_of_each_cluster_leads_as_in_a_loop(n_keep: int) -> None:
    vectors, repeats = blobs(90, 3, 8), np.where(np.arange(90) < 10, 20, -1)
    typicality = np.random.default_rng(1).integers(0, 9, 90).astype(float)  # with ties
    alone = np.arange(10, 90)
    centroids = kmeans(vectors[alone], min(n_keep, 16), np.random.default_rng(0))  # of five or more each
    distance = np.linalg.norm(vectors[alone][:, None] - centroids, axis=2)
    at = distance.argmin(axis=1)
    quota = proportional_quota(np.bincount(at), n_keep)
    for name, worth in (("cluster_medoids", -distance.min(axis=1)), ("typical_clusters", typicality[alone])):
        needs = (vectors, repeats) if name == "cluster_medoids" else (typicality, vectors, repeats)
        picked = families.find("strategies", name)(*needs, n_keep, np.random.default_rng(0)).tolist()
        assert len(set(picked)) == n_keep and not set(picked) & set(range(10))
        assert np.bincount(at[np.array(picked) - 10], minlength=len(quota)).tolist() == quota.tolist()
        leaders = [max(np.flatnonzero(at == c), key=lambda row: (round(float(worth[row]), 4), -row)) + 10 for c in np.flatnonzero(quota)]
        assert set(picked[: len(leaders)]) == set(leaders)
        everything = families.find("strategies", name)(*needs, 90, np.random.default_rng(0))
        assert sorted(everything[80:].tolist()) == list(range(10))  # near-duplicates come last


def test_a_representative_part_holds_each_region_by_its_size_and_repeats_come_last() -> None:
    from clprune.strategies.random_in_clusters import random_in_clusters

    vectors = np.concatenate([np.zeros((75, 2)), np.full((25, 2), 9.0)]) + np.random.default_rng(0).normal(0, 0.1, (100, 2))
    none, far = np.full(100, -1), np.repeat([0, 1], [75, 25])
    drawn = np.zeros(100)
    for seed in range(200):
        picked = random_in_clusters(vectors, none, 2, np.random.default_rng(seed))
        drawn[picked] += 1
        assert len(np.unique(picked)) == 2
        many = random_in_clusters(vectors, none, 40, np.random.default_rng(seed))
        assert abs(far[many].sum() - 10) <= 3  # of ten clusters each gives its share, rounded
    assert drawn[:75].min() > 0 and drawn.std() > 0  # at random inside
    repeats = np.where(np.arange(100) % 2, 0, -1)
    picked = random_in_clusters(vectors, repeats, 60, np.random.default_rng(0))
    assert set(picked[:50].tolist()) == set(range(0, 100, 2)) and len(np.unique(picked)) == 60


class Stopped(Exception):
    """As a killed process would be."""


def test_a_choice_among_many_goes_on_from_what_was_found_before_it_was_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    vectors, calls = blobs(9_000, 5, 3), [0, 10**9]

    def counted(points: np.ndarray, n_keep: int) -> tuple[np.ndarray, np.ndarray]:
        if calls[0] == calls[1]:
            raise Stopped
        calls[0] += 1
        return farthest_first(points, n_keep)

    cells, quotas = [np.arange(0, 400), np.arange(400, 9_000)], [90, 3_000]  # one small, one that is cut into clusters

    def chosen() -> list[bytes]:
        rng = np.random.default_rng(4)
        return [path.tobytes() for path in greedy_by_cell(counted, vectors, cells, quotas, rng)] + [rng.bytes(8)]

    plain, n_calls = chosen(), calls[0]
    monkeypatch.setenv("CLPRUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(_local, "REMEMBERED_FROM", 9_000)
    monkeypatch.setattr(_local, "PART", 1_500)
    calls[:] = [0, n_calls // 2]
    with pytest.raises(Stopped):
        chosen()
    calls[:] = [0, 10**9]
    assert chosen() == plain and 0 < calls[0] < n_calls
    calls[:] = [0, 0]
    assert chosen() == plain  # nothing is done twice
    quotas[1] = 2_000  # a cluster is ordered as a whole, so that another budget finds its orders
    assert chosen()[1] == plain[1][: 8 * 2_000]
    vectors[5_000] += 1
    with pytest.raises(Stopped):
        chosen()


@pytest.mark.parametrize("name", ["cluster_medoids", "typical_clusters", "random_in_clusters"])
def test_where_every_sample_repeats_another_some_are_still_taken(name: str) -> None:
    member, given = families.find("strategies", name), {"vectors": np.eye(4, dtype=np.float32), "duplicate_of": np.zeros(4, dtype=np.int64)}
    given["value:typicality"] = np.ones(4)
    picked = member(*(given[need] for need in families.facts(member)["needs"]), 2, np.random.default_rng(0))
    assert len(set(picked.tolist())) == 2
