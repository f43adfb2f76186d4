"""Agreement of two runs, where scores tie; ranks and places."""

import numpy as np
import pytest
from numpy.dtypes import StringDType

from clprune.comparison import compare
from clprune.datatypes import ScoreTable
from clprune.indicators.ranking_stability import ranking_stability
from clprune.ranking import mean_ranks

RUN = {"source": "x", "clp": {"end_epoch": 5, "settled": True}, "n_samples": 2_000, "fingerprint": "f"}


def table(values: np.ndarray, order: np.ndarray) -> ScoreTable:
    ids = np.array([f"s{row:05d}" for row in range(len(values))], dtype=StringDType())
    return ScoreTable(ids[order], np.zeros(len(values), dtype=np.int64), {"forgetting": values[order]}, {"forgetting": "hard"})


def test_independent_scores_with_many_ties_do_not_agree() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.binomial(5, 0.05, (2, 2_000)).astype(float)
    found = compare(table(a, np.arange(2_000)), RUN, table(b, rng.permutation(2_000)), RUN)["scores"]["forgetting"]
    assert abs(found["rank_correlation"]) < 0.06 and abs(found["hard_half_overlap"] - 0.5) < 0.03
    same = compare(table(a, np.arange(2_000)), RUN, table(a, rng.permutation(2_000)), RUN)["scores"]["forgetting"]
    assert same["rank_correlation"] == pytest.approx(1) and same["hard_half_overlap"] < 1  # half of what ties is a matter of luck
    flat = np.zeros(2_000)
    assert compare(table(a, np.arange(2_000)), RUN, table(flat, np.arange(2_000)), RUN)["scores"]["forgetting"]["rank_correlation"] is None
    assert compare(table(flat, np.arange(2_000)), RUN, table(flat, np.arange(2_000)), RUN)["scores"]["forgetting"]["rank_correlation"] == 1


def test_samples_without_a_score_take_no_part_in_it() -> None:
    """Looked at by hand: the rows that have the score in both tables, as a table of their own."""
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 6, (2, 600)).astype(float)
    a[:400], b[:350], b[590:] = np.nan, np.nan, np.inf  # as without a label in most rows, and never learned in some
    order = rng.permutation(600)
    found = compare(table(a, np.arange(600)), RUN, table(b, order), RUN)["scores"]["forgetting"]
    those = compare(table(a[400:], np.arange(200)), RUN, table(b[400:], rng.permutation(200)), RUN)["scores"]["forgetting"]
    assert found == pytest.approx(those | {"n_samples": 200}) and abs(found["rank_correlation"]) < 0.2 and "n_samples" not in those
    a[402:] = np.nan  # two are left
    nothing = compare(table(a, np.arange(600)), RUN, table(b, order), RUN)["scores"]["forgetting"]
    assert nothing == {"rank_correlation": None, "hard_half_overlap": None, "n_samples": 2}


def test_ranks_share_their_mean_and_the_order_of_rows_has_no_influence() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 20, 300).astype(float)
    assert mean_ranks(values).tolist() == [((values < v).sum() + (values <= v).sum() + 1) / 2 for v in values]
    before, after, order = values, values + rng.integers(0, 5, 300), rng.permutation(300)
    assert ranking_stability(before[order], after[order]) == pytest.approx(ranking_stability(before, after), abs=1e-12)
    assert np.isnan(ranking_stability(np.zeros(5), np.arange(5.0)))
