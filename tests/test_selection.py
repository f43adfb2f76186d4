"""Budgets, floors, ties and reasons."""

import numpy as np
import pytest
from numpy.dtypes import StringDType

from clprune.datatypes import Budget, Neighborhood, ScoreTable
from clprune.errors import GuardError, UsageError
from clprune.selection import budget_for, select


@pytest.mark.parametrize(("keep", "n_keep"), [("0.5", 50), ("1.0", 100), ("30", 30), (0.25, 25), (7, 7), ("1", 1), ("0.001", 1)])
def test_a_budget_is_a_share_or_a_number(keep: str | float, n_keep: int) -> None:
    assert budget_for(keep, 100).n_keep == n_keep


@pytest.mark.parametrize("keep", ["0", "0.0", "-0.5", "1.5", "101", "half", "", "nan", "inf", 0, 0.0])
def test_anything_else_is_a_usage_error(keep: str | float) -> None:
    with pytest.raises(UsageError, match="keep is"):
        budget_for(keep, 100)


def table(difficulty: list[float], labels: list[int]) -> ScoreTable:
    ids = np.array([f"s{i}" for i in range(len(labels))], dtype=StringDType())
    return ScoreTable(
        ids,
        np.array(labels),
        {"el2n": np.array(difficulty, dtype=float), "dual": np.array(difficulty, dtype=float)},
        {"el2n": "hard", "dual": "hard"},
    )


def test_ties_go_to_the_smaller_sample_id() -> None:
    selection = select(table([1, 1, 1, 1], [0, 1, 0, 1]), Budget(0.5, 2, "given"), strategy="hardest", min_per_class=0)
    assert selection.kept_ids.tolist() == ["s0", "s1"]


def test_a_class_that_would_vanish_keeps_its_hardest_in_place_of_the_last_chosen() -> None:
    difficulty, labels = [9, 8, 7, 6, 2, 1], [0, 0, 0, 0, 1, 1]
    assert select(table(difficulty, labels), Budget(0.5, 3, "given"), strategy="hardest").kept_ids.tolist() == ["s0", "s1", "s4"]
    assert select(table(difficulty, labels), Budget(0.5, 3, "given"), strategy="hardest", min_per_class=0).kept_ids.tolist() == ["s0", "s1", "s2"]
    with pytest.raises(GuardError, match="some would vanish"):
        select(table(difficulty, labels), Budget(1 / 6, 1, "given"), strategy="hardest")


def test_unknown_strategies_scores_and_options_are_named() -> None:
    for strategy, said in (
        ("nope", "there is no 'nope'"),
        ("hardest(score='x')", "no score 'x'"),
        ("window(jump=1)", "no option jump"),
        ("window(", "cannot read"),
    ):
        with pytest.raises(UsageError, match=said):
            select(table([1, 2], [0, 1]), Budget(1.0, 2, "given"), strategy=strategy)


def test_the_default_uses_suspects_and_repeats_last_and_says_why() -> None:
    n = 100
    scores, labels = table(list(np.linspace(0, 1, n)), [i % 2 for i in range(n)]), np.arange(n) % 2
    suspicion, duplicate_of = np.zeros(n), np.full(n, -1)
    suspicion[90:] = 0.95
    duplicate_of[:10] = np.arange(20, 30)
    hood = Neighborhood(duplicate_of, np.where(duplicate_of >= 0, 0.0, np.nan), suspicion, labels)
    selection = select(scores, Budget(0.8, 80, "given"), neighborhood=hood)
    assert set(selection.kept_indices.tolist()) == set(range(10, 90))
    assert selection.reasons[0] == "repeats s20" and selection.reasons[95] == "label suspected wrong"
    more = select(scores, Budget(0.95, 95, "given"), neighborhood=hood)
    assert set(more.kept_indices.tolist()) >= set(range(90)), "repeats come back before suspects"


def test_hard_first_on_what_is_easy_by_a_score_that_means_easy() -> None:
    scores = ScoreTable(np.array(["a", "b", "c"], dtype=StringDType()), np.array([0, 1, 0]), {"aum": np.array([3.0, -1.0, 1.0])}, {"aum": "easy"})
    assert select(scores, Budget(2 / 3, 2, "given"), strategy="hardest(score='aum')").kept_ids.tolist() == ["b", "c"]
    assert select(scores, Budget(2 / 3, 2, "given"), strategy="easiest(score='aum')", min_per_class=0).kept_ids.tolist() == ["a", "c"]
