"""Budgets, floors, ties and reasons."""

import re

import numpy as np
import pytest
from numpy.dtypes import StringDType

from clprune.datatypes import Budget, Neighborhood, ScoreTable
from clprune.errors import GuardError, UsageError
from clprune.selection import budget_for, select
from clprune.strategies._quota import capped_quota, proportional_quota
from clprune.strategies.blend import _no_more_doubted


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
        ("blend(too_hard=-1)", "too_hard of at least 0"),
        ("blend(most_doubted=-1)", "most_doubted from 0 to 1"),
        ("blend(scored_share=1.5)", "scored_share from 0 to 1"),
        ("window(", "cannot read"),
    ):
        with pytest.raises(UsageError, match=said):
            select(table([1, 2], [0, 1]), Budget(1.0, 2, "given"), strategy=strategy)


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("window(skip='x')", "window was given skip='x'. Give skip as a number."),
        ("window(skip=None)", "skip as a number."),
        ("window(skip=True)", "skip as a number."),
        ("window(skip=1e400)", "skip as a number."),
        ("window(skip=-0.5)", "Give skip from 0 to 1."),
        ("random(class_balanced='x')", "class_balanced as True or False."),
        ("random(class_balanced=1)", "class_balanced as True or False."),
        ("random(class_balanced={[]: 1})", "cannot read the choice"),
        ("hardest(score=1)", "score as text in quotes."),
        ("stratified(n_strata=0)", "n_strata of at least 1."),
        ("stratified(n_strata=1.5)", "n_strata as a whole number."),
        ("stratified(cutoff='x')", "cutoff as a number or None."),
        ("stratified(cutoff=1.5)", "cutoff from 0 to 1."),
        ("diverse(n_strata=-1)", "n_strata of at least 1."),
        ("diverse(suspect_above=-1)", "suspect_above from 0 to 1."),
        ("blend(most_doubted='x')", "most_doubted as a number or None."),
        ("blend(suspect_above=2)", "suspect_above from 0 to 1."),
        ("cluster_prototypes(n_clusters=1.5)", "n_clusters as a whole number or None."),
        ("d2(n_neighbors=-1)", "n_neighbors of at least 0."),
        ("d2(gamma_r=-1)", "gamma_r of at least 0."),
        ("d2(cutoff=-0.5)", "cutoff from 0 to 1."),
        ("beta_sampling(c_d=-1)", "c_d of at least 0."),
    ],
)
def test_an_option_of_the_wrong_kind_or_range_is_named(strategy: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        choose(strategy, 20, 6)


def test_whole_numbers_and_none_are_taken_where_they_mean_something() -> None:
    for strategy in ("window(skip=0)", "stratified(cutoff=None)", "stratified(cutoff=1)", "d2(gamma_f=2, cutoff=0)", "d2(n_neighbors=0)"):
        assert len(choose(strategy, 20, 6)) == 6


@pytest.mark.parametrize("name", ["diverse", "stratified"])
def test_more_strata_than_samples_are_one_a_sample_and_take_no_memory(name: str) -> None:
    finest = choose(f"{name}(n_strata=10000)", 20, 6)
    for n_strata in ("1000000000000", "1" + "0" * 400):
        assert choose(f"{name}(n_strata={n_strata})", 20, 6) == finest


def choose(strategy: str, n: int, n_keep: int) -> list[int]:
    """Rows that a strategy keeps of `n` samples of two classes, with evenly spread scores of every kind and vectors."""
    rng = np.random.default_rng(0)
    ids = np.array([f"s{i:03d}" for i in range(n)], dtype=StringDType())
    values = {name: rng.permutation(n) / n for name in ("el2n", "dual", "aum", "forgetting", "confidence")}
    scores = ScoreTable(ids, np.arange(n) % 2, values, dict.fromkeys(values, "hard"))
    return select(scores, Budget(n_keep / n, n_keep, "given"), strategy=strategy, vectors=rng.normal(size=(n, 3))).kept_indices.tolist()


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


def test_a_rare_class_keeps_its_share_however_suspect_it_looks_and_a_large_one_half_of_it() -> None:
    n, rng = 1000, np.random.default_rng(0)
    labels = np.where(np.arange(n) < 20, 1, 0)
    suspicion = np.zeros(n)
    suspicion[:10], suspicion[500:520] = np.linspace(0.99, 0.9, 10), 0.9
    scores = table(rng.random(n).tolist(), labels.tolist())

    def kept_of(keep: float, suspicion: np.ndarray, strategy: str = "blend(scored_share=0.0)") -> np.ndarray:
        hood = Neighborhood(np.full(n, -1), np.full(n, np.nan), suspicion, labels)
        return np.sort(select(scores, Budget(keep, round(keep * n), "given"), strategy=strategy, neighborhood=hood).kept_indices)

    for keep, rare in ((0.3, 6), (0.5, 10), (0.9, 18)):
        kept = kept_of(keep, suspicion)
        assert kept[labels[kept] == 1].min() == (2 if keep == 0.9 else kept[0]) and (labels[kept] == 1).sum() == rare
        assert (suspicion[kept] == 0).sum() == len(kept) - max(0, rare - 10), (
            "of the others none is a suspect, and of the rare ones the least suspect"
        )
    all_suspect = np.where(labels == 1, np.linspace(0.9, 0.99, n), suspicion)
    for strategy in ("blend", "blend(scored_share=0.0)", "diverse"):
        assert (labels[kept_of(0.5, all_suspect)] == 1).sum() == 10, strategy
    large = np.where(np.arange(n) % 2 == 0, 0.9 + np.arange(n) / n / 20, 0.0)  # half of all, class 0 nearly alone
    assert (large[kept_of(0.5, large)] > 0).sum() == 0 and (large[kept_of(0.9, large)] > 0).sum() == 400
    most = np.where(labels == 0, 0.9 + np.arange(n) / n / 20, 0.0)
    given = "blend(scored_share=0.0, suspect_above=0.8)"
    assert (labels[kept_of(0.3, most, given)] == 1).sum() == 20, "a class of suspects makes room for the clean ones of others, but not all of it"
    assert (labels[kept_of(0.3, most)] == 1).sum() == 6, "where most labels are doubted the doubt is not believed"


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("most", [None, 0.0, 0.2])
@pytest.mark.parametrize("n_doubted", [250, 800])
@pytest.mark.parametrize("n_classes", [2, 10])
def test_of_what_is_scored_so_much_is_doubted_at_most_or_as_much_as_of_all_where_the_model_guesses(
    n_classes: int, n_doubted: int, most: float | None, keep: float
) -> None:
    n, rng = 2000, np.random.default_rng(1)
    labels, suspicion = np.arange(n) % n_classes, rng.random(n) / 2
    suspicion[:n_doubted] = 1 / (1 + rng.uniform(0.05, 1.0, n_doubted))  # nearer to another class, as evenly spread as right labels are
    difficulty = 0.5 * rng.random(n) + suspicion  # where the proxy is wrong scores are highest
    order, usual = np.argsort(-difficulty), min(1, 1.5 * keep)
    n_keep = round(keep * n)
    n_scored = round(usual * n_keep)
    share = n_doubted / n
    allowed = {2: max(0.1, share * share / 0.5), 10: max(0.3, share)}[n_classes] if most is None else most
    worst, left = 1.0, order  # the plain way: one after another of the most suspect goes
    while (suspicion[left[:n_scored]] > 0.5).sum() > allowed * len(left[:n_scored]):
        left = left[suspicion[left] < suspicion[left].max()]
        worst = suspicion[left].max()
    of_all, too_hard = worst, 1 / (1 + 0.3 * (1 - usual))  # below two thirds some are too hard by themselves
    worst = min(worst, too_hard)
    strategy = "blend" if most is None else f"blend(most_doubted={most})"
    hood = Neighborhood(np.full(n, -1), np.full(n, np.nan), suspicion, labels)
    chosen = select(table(difficulty.tolist(), labels.tolist()), Budget(keep, n_keep, "given"), strategy=strategy, neighborhood=hood)
    hardest = suspicion[chosen.kept_indices].max()
    if (suspicion <= worst).sum() >= n_keep:
        assert worst - 0.1 < hardest <= worst or of_all == too_hard == 1, "so many go, and no more"
    else:  # what had to go comes back, least suspect first
        assert hardest <= np.sort(suspicion)[n_keep - 1]
    assert "label suspected wrong" not in chosen.reasons


def test_no_more_go_than_it_takes_also_where_suspicions_are_equal() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        suspicion = np.round(rng.random(rng.integers(0, 40)), int(rng.integers(1, 4)))
        n, most = int(rng.integers(0, 30)), float(rng.choice([0.0, 0.2, 0.5, 1.0]))
        plain, left = 1.0, suspicion
        while (left[:n] > 0.5).sum() > most * len(left[:n]):
            left = left[left < left.max()]
            plain = max(0.5, left.max(initial=0.0))
        assert _no_more_doubted(suspicion, n, most) == plain


def test_a_model_that_doubts_most_labels_is_not_believed() -> None:
    n, rng = 2000, np.random.default_rng(1)
    scores, labels = table(rng.random(n).tolist(), (np.arange(n) % 4).tolist()), np.arange(n) % 4
    hood = Neighborhood(np.full(n, -1), np.full(n, np.nan), np.where(np.arange(n) < 1100, 0.9, 0.1), labels)
    assert (select(scores, Budget(0.2, 400, "given"), neighborhood=hood).kept_indices < 1100).sum() > 100


def test_what_is_too_hard_is_left_out_of_small_parts_only() -> None:
    n, rng = 2000, np.random.default_rng(1)
    labels, suspicion = np.arange(n) % 4, rng.random(n) / 2
    suspicion[:200] = 1 / (1 + rng.uniform(0.05, 1.0, 200))  # hard, and as evenly spread as right labels are
    scores = table(rng.random(n).tolist(), labels.tolist())
    odds = (1 - suspicion) / np.maximum(suspicion, 1e-12)
    hood = Neighborhood(np.full(n, -1), np.full(n, np.nan), suspicion, labels)
    for keep in (0.1, 0.3, 0.5, 0.7, 0.9):
        kept = select(scores, Budget(keep, round(keep * n), "given"), neighborhood=hood).kept_indices
        easiest_left_out = 0.3 * max(0.0, 1 - 1.5 * keep)
        assert odds[kept].min() >= easiest_left_out, keep
        assert (odds[kept] < easiest_left_out + 0.2).any(), keep  # but no more than that
    with_all = select(scores, Budget(0.1, 200, "given"), strategy="blend(too_hard=0.0)", neighborhood=hood).kept_indices
    assert (odds[with_all] < 0.25).any()


@pytest.mark.parametrize(("n", "n_scored"), [(5_000, 300), (12_500, 750), (20_000, 1_500), (100_000, 17_500)])
def test_of_a_fifth_no_more_than_2500_samples_are_drawn_at_random(n: int, n_scored: int) -> None:
    difficulty = np.random.default_rng(0).permutation(n)
    kept = select(table(difficulty.astype(float).tolist(), [0] * n), Budget(0.2, n // 5, "given")).kept_indices
    from_top = np.sort(n - 1 - difficulty[kept])  # place among the hardest
    assert from_top[:n_scored].tolist() == list(range(n_scored))
    drawn = from_top[n_scored:]
    assert len(drawn) == min(2_500, round(0.7 * n / 5))
    spread = (drawn - n_scored) / (n - n_scored)
    assert abs(spread.mean() - 0.5) < 0.05 and abs((spread < 0.25).mean() - 0.25) < 0.05


def test_where_a_large_choice_is_scored_more_the_hardest_are_left_out_further() -> None:
    n, rng = 100_000, np.random.default_rng(1)
    labels, suspicion = np.arange(n) % 4, rng.random(n) / 2
    suspicion[:10_000] = 1 / (1 + rng.uniform(0.05, 1.0, 10_000))
    scores, hood = table(rng.random(n).tolist(), labels.tolist()), Neighborhood(np.full(n, -1), np.full(n, np.nan), suspicion, labels)
    odds = (1 - suspicion) / np.maximum(suspicion, 1e-12)

    def easiest_left_out(strategy: str) -> float:
        return float(odds[select(scores, Budget(0.2, n // 5, "given"), strategy=strategy, neighborhood=hood).kept_indices].min())

    as_scored = 1 - 2_500 / (n / 5)
    assert easiest_left_out("blend") == pytest.approx((0.3 + as_scored - 0.3) * 0.7, abs=0.01)
    assert easiest_left_out("blend(too_hard=0.1)") == pytest.approx((0.1 + as_scored - 0.3) * 0.7, abs=0.01)
    assert easiest_left_out(f"blend(scored_share={as_scored})") == pytest.approx(0.3 * 0.7, abs=0.01), (
        "a share that was asked for changes nothing else"
    )


def test_hard_classes_get_more_and_easy_ones_at_least_half_of_their_share() -> None:
    n, rng = 900, np.random.default_rng(0)
    labels = np.arange(n) % 3
    difficulty = rng.random(n) + 0.4 * labels  # class 2 is the hardest
    scores = table(difficulty.tolist(), labels.tolist())

    def sizes(keep: float, strategy: str = "blend") -> list[int]:
        return np.bincount(labels[select(scores, Budget(keep, round(keep * n), "given"), strategy=strategy).kept_indices], minlength=3).tolist()

    assert sizes(0.5)[0] < 150 < sizes(0.5)[2] and sizes(0.5)[0] >= 75
    assert sizes(0.5, "blend(scored_share=0.0)") == [150, 150, 150]
    assert abs(sizes(0.1)[2] - 30) < abs(sizes(0.5)[2] - 150)  # the less is kept, the more evenly
    assert sum(sizes(0.7)) == 630 and min(sizes(0.7)) >= 105
    small = np.arange(n) < 30  # whatever its scores are, a small class loses nothing
    rare = table(np.where(small, 0.0, difficulty).tolist(), np.where(small, 0, 1 + labels % 2).tolist())
    kept = select(rare, Budget(0.5, 450, "given")).kept_indices
    assert (kept < 30).sum() == 15


def test_a_class_hardly_begun_to_learn_keeps_its_share_though_its_scores_are_low() -> None:
    n, rng = 900, np.random.default_rng(0)
    labels = np.arange(n) % 3
    difficulty = np.where(labels == 1, 1.0, 0.4) * rng.random(n)  # 0 is easy, 2 too hard for the proxy so far; both have low scores
    scores = table(difficulty.tolist(), labels.tolist())

    def sizes(suspicion: np.ndarray, keep: float) -> list[int]:
        hood = Neighborhood(np.full(n, -1), np.full(n, np.nan), suspicion, labels)
        return np.bincount(labels[select(scores, Budget(keep, round(keep * n), "given"), neighborhood=hood).kept_indices]).tolist()

    suspicion = np.where(labels == 2, 0.4, 0.1) * (0.9 + 0.2 * rng.random(n))
    for keep in (0.5, 0.3, 0.1):
        share = round(keep * n / 3)
        assert sizes(suspicion, keep)[2] >= share > sizes(suspicion, keep)[0] >= share / 2, keep
        same = sizes(np.full(n, 0.1), keep)
        assert same == sizes(np.zeros(n), keep) and same[2] < share, "equal suspicion says nothing of any class"


def test_a_capped_quota_spends_everything_and_is_proportional_where_no_cap_is_met() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        sizes = rng.integers(0, 50, rng.integers(1, 8))
        caps = np.array([rng.integers(0, size + 1) for size in sizes])
        n_keep = int(rng.integers(0, caps.sum() + 3))
        quota = capped_quota(sizes, caps, n_keep)
        assert quota.sum() == min(n_keep, caps.sum()) and (quota <= caps).all() and (quota >= 0).all()
        if (proportional := proportional_quota(sizes, min(n_keep, int(sizes.sum())))).sum() == n_keep and (proportional <= caps).all():
            assert quota.tolist() == proportional.tolist()


def test_where_a_class_is_unknown_it_and_what_is_like_it_are_drawn_at_random() -> None:
    n, rng = 3000, np.random.default_rng(2)
    labels = (np.arange(n) % 10 == 0).astype(int)
    difficulty = rng.random(n)

    def mean_place(suspicion_of_rare: float, n_classes: int = 2, strategy: str = "blend(suspect_above=1.0)") -> np.ndarray:
        """Mean difficulty of what is kept of each class."""
        mine = labels if n_classes == 2 else np.where(labels == 1, n_classes - 1, np.arange(n) % (n_classes - 1))
        suspicion = np.where(labels == 1, suspicion_of_rare, 0.1)
        hood = Neighborhood(np.full(n, -1), np.full(n, np.nan), suspicion, mine)
        kept = select(table(difficulty.tolist(), mine.tolist()), Budget(0.5, n // 2, "given"), strategy=strategy, neighborhood=hood).kept_indices
        sizes = np.bincount(mine[kept])
        assert abs(int(sizes[-1]) - 150) <= 30
        return np.bincount(mine[kept], difficulty[kept]) / sizes

    assert (mean_place(0.1) > 0.6).all(), "known classes are scored"
    assert (np.abs(mean_place(0.9) - 0.5) < 0.06).all(), "of two classes nothing is known where one is unknown"
    many = mean_place(0.9, n_classes=10)
    assert abs(many[-1] - 0.5) < 0.08 and (many[:-1] > 0.58).all(), "of ten only the unknown one"
    assert (mean_place(0.7, strategy="blend(suspect_above=1.0, scored_share=0.75, most_doubted=1.0)") > 0.55).all(), (
        "a share that was asked for is spent"
    )


def test_what_lies_with_a_larger_class_is_left_out_where_its_own_is_known_and_is_not_called_wrong() -> None:
    n, rng = 3000, np.random.default_rng(6)
    labels = (np.arange(n) % 10 == 0).astype(int)
    scores = table(rng.random(n).tolist(), labels.tolist())
    for share, found in ((0.2, 0), (0.95, 142)):
        astray = (labels == 1) & (rng.permutation(n // 10)[np.arange(n) // 10] < share * n / 10)
        # odds of about 2/3, of 2/9 if the larger class did not count less: there all are suspect
        suspicion = np.where(astray, rng.uniform(0.55, 0.65, n), 0.05)
        hood = Neighborhood(np.full(n, -1), np.full(n, np.nan), suspicion, np.where(astray, 0, labels))
        chosen = select(scores, Budget(0.5, n // 2, "given"), neighborhood=hood)
        kept = chosen.kept_indices[astray[chosen.kept_indices]]
        assert abs(len(kept) - found) <= 25 * (found > 0)
        assert not found or abs(suspicion[kept].mean() - 0.6) < 0.01, "at random, not the least suspect"
        assert "label suspected wrong" not in chosen.reasons
