"""What every strategy keeps, also those that are added later."""

import numpy as np
import pytest
import reference
from numpy.dtypes import StringDType

from clprune import families
from clprune.datatypes import Budget, Neighborhood, ScoreTable
from clprune.selection import select

N, C = 300, 5


def table_of(seed: int, order: np.ndarray | None = None) -> tuple[ScoreTable, Neighborhood, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = np.array([f"s{i:04d}" for i in range(N)], dtype=StringDType())
    labels = rng.integers(0, C, N)
    values = {name: np.round(rng.random(N), 2) for name in (*families.names("scores"), "uncertainty", "typicality")}  # rounded: with ties
    duplicate_of = np.where(rng.random(N) < 0.1, rng.integers(0, N, N), -1)
    suspicion, vectors = rng.random(N), rng.normal(size=(N, 8))
    if order is not None:
        place = np.argsort(order)
        moved = duplicate_of[order]
        duplicate_of = np.where(moved >= 0, place[np.maximum(moved, 0)], -1)
        ids, labels, suspicion, vectors = ids[order], labels[order], suspicion[order], vectors[order]
        values = {name: value[order] for name, value in values.items()}
    hood = Neighborhood(duplicate_of, np.where(duplicate_of >= 0, 0.1, np.nan), suspicion, labels)
    return ScoreTable(ids, labels, values, {name: "hard" for name in values}), hood, vectors


@pytest.mark.parametrize("name", families.names("strategies"))
@pytest.mark.parametrize("n_keep", [C, 17, 150, N - 1, N])
def test_keeps_exactly_the_budget_without_repeats_and_every_class(name: str, n_keep: int) -> None:
    table, hood, vectors = table_of(0)
    selection = select(table, Budget(n_keep / N, n_keep, "given"), strategy=name, neighborhood=hood, vectors=vectors)
    assert len(set(selection.kept_ids.tolist())) == n_keep
    assert set(table.labels[selection.kept_indices].tolist()) == set(range(C))
    assert selection.reasons.count("kept") == n_keep
    assert selection.weights.mean() == pytest.approx(1)


@pytest.mark.parametrize("name", families.names("strategies"))
def test_row_order_has_no_influence(name: str) -> None:
    table, hood, vectors = table_of(1)
    shuffled, hood_shuffled, vectors_shuffled = table_of(1, np.random.default_rng(5).permutation(N))
    a = select(table, Budget(0.3, 90, "given"), strategy=name, neighborhood=hood, vectors=vectors)
    b = select(shuffled, Budget(0.3, 90, "given"), strategy=name, neighborhood=hood_shuffled, vectors=vectors_shuffled)
    assert a.kept_ids.tolist() == b.kept_ids.tolist()


@pytest.mark.parametrize("name", families.names("strategies"))
def test_the_same_seed_gives_the_same_choice(name: str) -> None:
    table, hood, vectors = table_of(2)
    a, b = (select(table, Budget(0.4, 120, "given"), strategy=name, seed=7, neighborhood=hood, vectors=vectors) for _ in range(2))
    assert a.kept_ids.tolist() == b.kept_ids.tolist()


@pytest.mark.parametrize("name", [name for name in families.names("strategies") if hasattr(reference, f"strategy_{name}")])
@pytest.mark.parametrize("n_keep", [1, 12, 40])
def test_agrees_with_its_plain_version(name: str, n_keep: int) -> None:
    rng = np.random.default_rng(9)
    n, member = 40, families.find("strategies", name)
    inputs = {"difficulty": np.round(rng.random(n), 1), "labels": rng.integers(0, 3, n), "vectors": rng.normal(size=(n, 4)).astype(np.float32)}
    inputs |= {"suspicion": np.round(rng.random(n), 1), "duplicate_of": np.where(rng.random(n) < 0.1, 0, -1), "value:confidence": rng.random(n)}
    given = [inputs[need] for need in families.facts(member)["needs"]]
    picked = member(*given, n_keep, np.random.default_rng(4))
    assert picked.tolist() == getattr(reference, f"strategy_{name}")(*given, n_keep, np.random.default_rng(4))
