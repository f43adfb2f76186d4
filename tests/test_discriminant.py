"""The discriminant against a plain version, and that no sample has a say in its own judgement."""

import numpy as np
import pytest

from clprune import neighborhood
from clprune.discriminant import N_FOLDS, SHRINKAGE, _sureness, held_out_posterior


def plain(labels: np.ndarray, points: np.ndarray, n_classes: int) -> np.ndarray:
    """Log density plus log share of each class, fold by fold, by its definition; rows with the largest at 0."""
    seen: dict[int, int] = {}
    fold = np.array([(seen.setdefault(y, 0), seen.update({y: seen[y] + 1}))[0] % N_FOLDS for y in labels.tolist()])
    told, width = np.empty((len(labels), n_classes)), points.shape[1]
    for f in range(N_FOLDS):
        x, y = points[fold != f], labels[fold != f]
        means = np.array([x[y == c].mean(axis=0) if (y == c).any() else points.mean(axis=0) for c in range(n_classes)])
        spread = sum(np.outer(a - means[c], a - means[c]) for a, c in zip(x, y, strict=True)) / len(y)
        inverse = np.linalg.inv((1 - SHRINKAGE) * spread + SHRINKAGE * np.trace(spread) / width * np.eye(width))
        for i in np.flatnonzero(fold == f):
            for c in range(n_classes):
                away = points[i] - means[c]
                told[i, c] = np.log(((y == c).sum() + 1) / (len(y) + n_classes)) - away @ inverse @ away / 2
    return told - told.max(axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_the_posterior_is_that_of_a_plain_discriminant_in_any_order_of_rows(dtype: type) -> None:
    rng = np.random.default_rng(0)
    labels = np.append(rng.integers(0, 3, 90), 3)  # one class with a single sample, one (4) with none
    points = (rng.normal(size=(5, 4))[labels] + rng.normal(size=(91, 4)) * [1, 2, 3, 4] + 10).astype(dtype)
    told = plain(labels, points.astype(np.float64), 5)
    expected = np.exp(_sureness(told, labels) * told)
    order = rng.permutation(91)
    got = held_out_posterior(labels, points[np.argsort(order)], order, 5)(np.arange(len(order)))
    np.testing.assert_allclose(got, expected / expected.sum(axis=1, keepdims=True), atol=1e-6)


def test_labels_that_mean_nothing_are_not_learned() -> None:
    rng = np.random.default_rng(1)
    labels, points = rng.integers(0, 2, 300), rng.normal(size=(300, 100))  # a discriminant that saw them would be right in four of five
    right = held_out_posterior(labels, points, np.arange(300), 2)(np.arange(300)).argmax(axis=1) == labels
    assert 0.4 < right.mean() < 0.6


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4])
def test_labels_drawn_at_random_do_not_make_it_less_sure_of_the_others(share: float) -> None:
    rng, n, n_classes = np.random.default_rng(2), 20_000, 4
    told = rng.normal(size=(n, n_classes)) * 8
    p = np.exp(0.5 * told)
    p = (1 - share) * p / p.sum(axis=1, keepdims=True) + share / n_classes
    labels = (p.cumsum(axis=1) < rng.random(n)[:, None]).sum(axis=1)
    assert abs(_sureness(told, labels) - 0.5) <= 0.051


def test_equal_vectors_and_a_width_of_one_have_a_stated_outcome() -> None:
    labels = np.array([0, 0, 0, 1])
    same = held_out_posterior(labels, np.full((4, 3), 0.3), np.arange(4), 2)(np.arange(4))
    assert (same == same[0]).all(axis=1)[:3].any() and np.isfinite(same).all() and np.allclose(same.sum(axis=1), 1)
    one = held_out_posterior(np.arange(40) % 2, np.arange(40)[:, None] % 2 * 5.0 + np.linspace(0, 1, 40)[:, None], np.arange(40), 2)(np.arange(40))
    assert (one.argmax(axis=1) == np.arange(40) % 2).all()
    few = held_out_posterior(np.arange(6), np.random.default_rng(3).normal(size=(6, 9)), np.arange(6), 6)(np.arange(6))  # one sample a class
    assert np.isfinite(few).all() and np.allclose(few.sum(axis=1), 1)


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 30, 500)
    vectors, dynamics = (
        rng.normal(size=(30, 8))[labels] + rng.normal(size=(500, 8)),
        (rng.random((4, 500)), rng.integers(0, 30, (4, 500)).astype(float)),
    )
    dynamics[0][2, 7], dynamics[1][2, 7] = np.nan, np.nan
    whole = neighborhood._suspicion(labels, dynamics, vectors, np.arange(500))
    monkeypatch.setattr(neighborhood, "rows_at_once", lambda n_classes: 64)
    parts = neighborhood._suspicion(labels, dynamics, vectors, np.arange(500))
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-12)
    assert parts[1].tolist() == whole[1].tolist()
