"""Above which suspicion labels are suspect, judged by what is known of how they were drawn."""

import numpy as np
import pytest
import reference

from clprune.suspects import for_rare, regardless_of_size, suspect_above


def of_odds(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + odds)


def test_of_evenly_spread_odds_hardly_any_is_suspect() -> None:
    shares = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        suspicion = of_odds(rng.uniform(0, 3, 3000))
        shares.append((suspicion > suspect_above(suspicion)).sum())
    assert np.mean(shares) < 5 and max(shares) < 60, (np.mean(shares), max(shares))


@pytest.mark.parametrize("n_wrong", [100, 400, 2000])
def test_the_limit_lies_where_wrong_labels_are_as_dense_as_right_ones(n_wrong: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        right, wrong = rng.uniform(0, 4, 8000), rng.exponential(0.08, n_wrong)
        suspicion = of_odds(np.concatenate([right, wrong]))
        flagged = suspicion > suspect_above(suspicion)
        as_dense = 0.08 * np.log(n_wrong / 0.08 / 2000)  # odds at which n_wrong exp(-r / 0.08) / 0.08 is 8000 / 4
        best = of_odds(np.concatenate([right, wrong])) > 1 / (1 + max(0.0, as_dense))
        is_wrong = np.arange(len(suspicion)) >= 8000
        mistakes, fewest = (flagged != is_wrong).sum(), (best != is_wrong).sum()
        assert mistakes <= fewest + 0.05 * n_wrong + 30, (mistakes, fewest)


def test_it_agrees_with_a_slow_plain_version_and_neither_order_nor_those_below_a_half_matter() -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        suspicion = np.round(rng.beta(*rng.uniform(0.3, 3, 2), rng.integers(1, 120)), rng.integers(1, 6))
        found = suspect_above(suspicion)
        assert found == pytest.approx(reference.suspect_limit(suspicion), abs=1e-12)
        assert suspect_above(rng.permutation(suspicion)) == found
    assert suspect_above(np.zeros(0)) == suspect_above(np.full(9, 0.5)) == 1.0


def test_a_model_that_doubts_most_labels_is_not_believed() -> None:
    assert suspect_above(np.repeat([1.0, 0.0], [50, 50])) == pytest.approx(0.75)
    assert suspect_above(np.repeat([1.0, 0.0], [51, 49])) == 1.0


def test_what_sizes_had_added_is_taken_back_where_another_class_is_suggested() -> None:
    rng = np.random.default_rng(5)
    labels, rivals = rng.choice(4, 3000, p=[0.6, 0.3, 0.08, 0.02]), rng.integers(0, 4, 3000)
    own, other = rng.random((2, 3000))
    as_told = other / (other + own * for_rare(labels, rivals, np.bincount(labels)))
    suggested = np.where(other > own, rivals, labels)
    back = regardless_of_size(as_told, labels, suggested)
    np.testing.assert_allclose(back[other > own], (other / (other + own))[other > own], atol=1e-12)
    np.testing.assert_array_equal(back[other <= own], as_told[other <= own])
    assert (as_told <= other / (other + own) + 1e-12).all() and (back <= 0.5).sum() == (other <= own).sum()
