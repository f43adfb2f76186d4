"""What single scores promise beyond their definition."""

import numpy as np
import reference

from clprune.scores.forgetting import forgetting
from clprune.scores.margin_drawdown import margin_drawdown
from clprune.scores.margin_slope import margin_slope
from clprune.scores.tdds import tdds


def paths(n_epochs: int, n: int, n_classes: int, seed: int) -> np.ndarray:
    """(E, N, C) class distributions that move from epoch to epoch."""
    logits = np.random.default_rng(seed).normal(0, 0.7, (n_epochs, n, n_classes)).cumsum(axis=0)
    e = np.exp(logits)
    return e / e.sum(axis=2, keepdims=True)


def test_tdds_is_the_papers_for_two_classes() -> None:
    p = paths(14, 30, 2, 0)
    whole = []
    for i in range(30):  # the paper's increments, of whole distributions
        steps, total = reference.kl_increments(p[:, i].tolist()), 0.0
        for k in range(5):  # 13 increments hold five windows of nine, those of ten epochs
            window = steps[k : k + 9]
            total += 0.9 * 0.1 ** (4 - k) * sum((v - sum(window) / 9) ** 2 for v in window) ** 0.5
        whole.append(total)
    np.testing.assert_allclose(tdds(p[:, :, 0]), whole, rtol=1e-9)


def test_a_probability_of_exactly_one_or_zero_is_borne() -> None:
    assert np.isfinite(tdds(np.array([[0.0, 1.0, 0.5], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]))).all()


def test_drawdown_parts_samples_with_equally_many_forgetting_events() -> None:
    correct = np.array([[1.0, 1], [0, 0], [1, 1]])
    margin = np.array([[2.0, 2], [-0.1, -4], [3, 3]])
    assert forgetting(correct).tolist() == [1, 1]
    assert margin_drawdown(margin, correct).tolist() == [2.1, 6.0]


def test_the_slope_of_a_straight_line_is_its_own_whatever_is_missing() -> None:
    margin = 0.3 * np.arange(9.0)[:, None] + np.array([5.0, -2.0, 0.0])
    margin[[1, 4, 5], 0] = margin[0, 1] = margin[1:, 2] = np.nan
    np.testing.assert_allclose(margin_slope(margin), [0.3, 0.3, 0.0], atol=1e-12)
