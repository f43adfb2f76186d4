"""The default: suspected wrong labels and repeats out, then part by early uncertainty and part at random, class by class."""

import numpy as np
from jaxtyping import Bool, Float, Int

from clprune.families import require_range, strategy
from clprune.strategies._quota import by_class, capped_quota, clean_first, floor_of
from clprune.suspects import believed, limit_of, regardless_of_size

COVERING = 2_500  # samples at random are enough to cover what is easy: the rest of a larger choice is scored
DOUBTED, AGAINST = 0.3, 1 / 9  # how much of what is scored may be doubted: `_most_doubted`
GUESSES = 0.8  # a class doubted as often as this share of a guess among the classes would be: from here on it is known less and less


@strategy("difficulty", "labels", "suspicion", "suggested_label", "duplicate_of")
def blend(
    difficulty: Float[np.ndarray, "N"],
    labels: Int[np.ndarray, "N"],
    suspicion: Float[np.ndarray, "N"],
    suggested: Int[np.ndarray, "N"],
    duplicate_of: Int[np.ndarray, "N"],
    n_keep: int,
    rng: np.random.Generator,
    *,
    score: str = "dual",
    suspect_above: float | None = None,
    too_hard: float = 0.3,
    most_doubted: float | None = None,
    scored_share: float | None = None,
) -> Int[np.ndarray, "K"]:
    """Spend `scored_share` of each class's budget on the highest `score`, the rest at random among what is left of the class.

    By default the scored share is 1.5 times the kept share, at most 1: choosing by difficulty pays where much is kept and costs coverage where little is
    (Sorscher et al., 2022; Ayed & Hayou, 2023, arXiv:2302.06960), and a random share keeps the choice near random's accuracy. But no more than COVERING samples in all are drawn at random: how many easy
    samples a model needs to see depends little on how many there are.
    Samples with a suspicion above `suspect_above` (None: above it labels are estimated to be more often wrong than right) and near-duplicates are used last, least suspect first. So are samples that are
    too hard for a small part: those whose label has less than `too_hard` times (1 - 1.5 times the kept share) of the support that another class has; from two thirds kept on there are none. Where
    COVERING makes the scored share larger, `too_hard` grows by as much. And so are the most suspect of all, as many as it takes until at most a share `most_doubted` of what is scored is doubted, that is
    nearer to another class than to its own (None: as `_most_doubted` has it). Early scores are highest where the proxy is wrong: of two classes that
    are hard to tell apart half of the highest ones are doubted, and what is learned from those may be the contrary of what all say.
    A class that the proxy tells from the others hardly better than by a guess is not scored, only its suspects are left out, and of the other classes as large a part is not scored as has to be told from it
    (`_known`; a `scored_share` that is given holds for all).
    Classes keep their share of the samples that repeat nothing, as far as they have clean ones; as far as the choice is scored, hard classes get more, as many as there
    are among the highest scores of all, and easy ones less, but at least half of their share, and all of it where they are small (below half of the mean class): equal shares leave the worst class behind (DRoP, Vysogorets et al., 2024,
    arXiv:2404.05579). Less is for easy classes only: one that the proxy has hardly begun to learn has low scores too, and keeps its share, known by a mean suspicion above that of all. Raises UsageError for a negative `too_hard`, and for a `scored_share`, a `suspect_above` or a `most_doubted` outside 0 to 1.
    """
    require_range("blend", 0, too_hard=too_hard)
    require_range("blend", 0, 1, scored_share=scored_share, suspect_above=suspect_above, most_doubted=most_doubted)
    n = len(labels)
    usual = min(1.0, 1.5 * n_keep / n)
    share = max(usual, 1 - COVERING / max(1, n_keep)) if scored_share is None else scored_share
    hard_first = np.argsort(-difficulty, kind="stable")
    suspect = suspicion > limit_of(suspicion, suspect_above)
    doubt = regardless_of_size(suspicion, labels, suggested)
    alone = (duplicate_of < 0) & ~suspect
    known = _known(labels, doubt, alone) if scored_share is None else np.ones(int(labels.max()) + 1)
    # where a class is known, what lies with a larger one is left out too, wrong or not
    contrary = limit_of(doubt, None) if suspect_above is None else 1.0
    in_order = doubt[hard_first[(alone & (doubt <= contrary))[hard_first]]]
    most = _most_doubted(in_order, len(np.unique(labels))) if most_doubted is None else most_doubted
    hardest_odds = (too_hard + (share - usual if scored_share is None else 0.0)) * (1 - usual)
    limit = min(contrary, believed(doubt, 1 / (1 + hardest_odds)), believed(doubt, _no_more_doubted(in_order, round(share * n_keep), most)))
    clean, quota, reserve = clean_first(labels, doubt, duplicate_of, suspect | ((doubt > limit) & (known[labels] > 0)), n_keep)
    hard_first = hard_first[clean[hard_first]]
    of_hardest = np.bincount(labels[hard_first[: quota.sum()]], minlength=len(quota))
    of_class = np.bincount(labels[clean], doubt[clean], len(quota)) / np.maximum(np.bincount(labels[clean], minlength=len(quota)), 1)
    usual_doubt = doubt[clean].sum() / max(1, clean.sum())
    floor = np.where(of_class > usual_doubt + 1e-9, quota, floor_of(quota))  # not by rounding, where all are equally suspect
    scored_of = share * known  # of each class
    above = np.maximum((1 - scored_of) * quota + scored_of * of_hardest - floor, 0)
    room = np.bincount(labels[clean], minlength=len(quota)) - floor
    quota = floor + capped_quota(np.round(1000 * above).astype(np.int64) + 1, room, int(quota.sum() - floor.sum()))
    n_scored = np.round(scored_of * quota).astype(np.int64)
    scored = by_class(hard_first, labels, n_scored)
    rest = clean.copy()
    rest[scored] = False
    shuffled = rng.permutation(n)
    drawn = by_class(shuffled[rest[shuffled]], labels, quota - n_scored)
    return np.concatenate([scored, drawn, reserve[: n_keep - quota.sum()]])


def _known(labels: Int[np.ndarray, "N"], suspicion: Float[np.ndarray, "N"], counted: Bool[np.ndarray, "N"]) -> Float[np.ndarray, "C"]:
    """In [0, 1] for each class, how far the proxy tells it from the others and the others from it: the share of its scores that can be relied on.

    A class of C of which (C - 1) / C are doubted is known no better than by a guess among the classes, and GUESSES of that still leaves it known. What is hard in such a class nobody can say, and what looks hard in
    the others is what looks like it: kept alone, it would outvote the class. So it counts by its own share and by that of the samples outside it that are of known classes.

    >>> labels = np.repeat([0, 1], [8, 2])
    >>> _known(labels, np.where(labels == 1, 0.9, 0.1), np.full(10, True))
    array([0., 0.])
    >>> _known(np.repeat([0, 1, 2], [8, 2, 2]), np.repeat([0.1, 0.9, 0.1], [8, 2, 2]), np.full(12, True))
    array([0.5, 0. , 0.8])
    """
    n_classes = int(labels.max()) + 1
    sizes = np.bincount(labels[counted], minlength=n_classes)
    others = np.count_nonzero(sizes) - 1
    if others < 1:
        return np.ones(n_classes)
    doubted = np.bincount(labels[counted & (suspicion > 0.5)], minlength=n_classes) / np.maximum(sizes, 1)
    rest = sizes.sum() - sizes
    known = np.clip((1 - doubted * (others + 1) / others) / (1 - GUESSES), 0, 1)
    return known * ((sizes * known).sum() - sizes * known) / np.maximum(rest, 1)


def _most_doubted(suspicion: Float[np.ndarray, "M"], n_classes: int) -> float:
    """Which share of what is scored may be doubted, from the suspicions of all clean samples: DOUBTED, or as much as of all where that is more, but of few classes less.

    Of two classes a doubted sample says the contrary of the others; of C classes it speaks against one of C - 1. So a share d says d / (C - 1) against 1 - d, and AGAINST is the most that it may say: of two classes a tenth may be
    doubted, of four a quarter (chosen on other images than those of examples/benchmarks/unlike_data.py). A proxy that is wrong as often as a guess among the classes cannot judge: as many may be doubted as there are in all,
    times how near that is to a guess's share.

    >>> [round(_most_doubted(np.zeros(10), n_classes), 3) for n_classes in (2, 3, 4, 10)]
    [0.1, 0.182, 0.25, 0.3]
    >>> [round(_most_doubted(np.array([0.9, 0.9, 0.1, 0.1, 0.1]), n_classes), 3) for n_classes in (2, 10)]
    [0.32, 0.4]
    """
    doubted, others = float((suspicion > 0.5).mean()) if len(suspicion) else 0.0, n_classes - 1
    bearable = AGAINST * others / (1 + AGAINST * others)
    return max(min(max(DOUBTED, doubted), bearable), doubted**2 * n_classes / others if others else 0.0)


def _no_more_doubted(suspicion: Float[np.ndarray, "M"], n: int, most: float) -> float:
    """The greatest suspicion such that of the first `n` samples at or below it a share of at most `most` is doubted, above one half; 1 where all M are at or below it.

    >>> _no_more_doubted(np.array([0.9, 0.7, 0.1, 0.6, 0.2, 0.1, 0.1, 0.1]), 3, 0.4)
    0.6
    """
    steps = np.concatenate([[0.5], np.unique(suspicion[suspicion > 0.5])])
    low, high = 0, len(steps) - 1  # the share falls with the step: what goes makes room for one that may be doubted or not
    while low < high:
        middle = (low + high + 1) // 2
        first = suspicion[suspicion <= steps[middle]][:n]
        low, high = (middle, high) if (first > 0.5).sum() <= most * len(first) + 1e-9 else (low, middle - 1)
    return float(steps[low]) if low < len(steps) - 1 else 1.0
