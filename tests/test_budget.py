"""How little is safe to keep: simulated trainings whose true loss is known judge the answer."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest

from clprune.budget import Trial, loss_curve, safe_budget
from clprune.errors import UsageError

N_JUDGED = 5_000


def trainings(loss: Callable[[float], float], seed: int) -> Callable[[float], Trial]:
    """Trainings of 90 % accuracy less loss(share), with a noise of 0.4 points; samples differ in how hard they are, and in what they lose when less is kept."""
    rng = np.random.default_rng(seed)
    lasting, moved = rng.normal(size=N_JUDGED), rng.normal(size=N_JUDGED)

    def train_with(share: float) -> Trial:
        limit = NormalDist().inv_cdf(0.9 - loss(share) + rng.normal() * 0.004)
        shift = 0.4 * (1 - share)
        latent = 0.95 * lasting + math.sqrt(1 - 0.95**2) * rng.normal(size=N_JUDGED) + shift * moved
        return Trial(share, latent < limit * math.sqrt(1 + shift**2))

    return train_with


GAIN = 0.03  # by giving up the wrong labels of "wrong labels"
LOSSES: dict[str, tuple[Callable[[float], float], float]] = {
    "falls slowly": (lambda s: 0.01 * (s**-0.5 - 1), 0.0),
    "falls fast": (lambda s: 0.1 * (s**-0.5 - 1), 0.0),
    "not a power law": (lambda s: max(0.0, 0.5 - s) * 0.1, 0.0),
    "copies": (lambda s: 0.08 * ((min(s, 0.6) / 0.6) ** -0.5 - 1), 0.4),
    "wrong labels": (lambda s: 0.05 * ((min(s, 0.8) / 0.8) ** -0.5 - 1) - GAIN * min(1.0, (1 - s) / 0.2), 0.2),
}


def spent(name: str, share: float) -> float:
    """What must not be above the tolerance: the loss, or what dropping useful samples costs of it."""
    loss, useless = LOSSES[name]
    return loss(share) + (GAIN * min(1.0, (1 - share) / useless) if name == "wrong labels" else 0.0)


@pytest.mark.parametrize("name", LOSSES)
def test_the_true_loss_stays_within_the_tolerance_as_often_as_was_asked(name: str) -> None:
    loss, useless = LOSSES[name]
    found = [safe_budget(trainings(loss, seed), 1000, useless_share=useless) for seed in range(20)]
    assert sum(spent(name, budget.keep_fraction) <= 0.005 + 1e-9 for budget in found) >= 17
    if name != "not a power law":
        assert sum(budget.evidence["interval"][0] <= loss(budget.keep_fraction) <= budget.evidence["interval"][1] for budget in found) >= 17
    smallest = min(s for s in np.arange(0.02, 1.0, 0.01) if spent(name, float(s)) <= 0.005)
    assert np.median([budget.keep_fraction for budget in found]) <= smallest + 0.25  # and it is not safe by keeping everything


def test_copies_are_dropped_though_every_useful_sample_counts() -> None:
    loss, useless = LOSSES["copies"]
    shares = [safe_budget(trainings(loss, seed), 1000, useless_share=useless).keep_fraction for seed in range(10)]
    assert max(shares) <= 0.62


def test_everything_is_kept_where_every_sample_counts() -> None:
    budget = safe_budget(trainings(lambda s: 0.3 * (s**-0.5 - 1), 0), 1000, tolerance=0.001)
    assert (budget.keep_fraction, budget.n_keep) == (1.0, 1000)
    assert "keep everything" in budget.evidence["sentence"]
    assert budget.evidence["predicted_loss"] == 0


@pytest.mark.parametrize("guessing", [0.1, 0.5, 0.95])
def test_what_is_no_better_than_guessing_says_nothing(guessing: float) -> None:
    rng = np.random.default_rng(0)

    def kept(accuracy: float) -> list[float]:
        """The share that is kept where every training has this accuracy, whatever share it was on: a loss of nothing."""
        return [
            safe_budget(lambda share: Trial(share, rng.random(500) < accuracy), 1000, guessing=guessing, tolerance=0.05).keep_fraction
            for _ in range(40)
        ]

    assert np.mean([share == 1 for share in kept(guessing)]) >= 0.85
    assert np.mean([share < 0.9 for share in kept(min(1.0, guessing + 5 * math.sqrt(guessing * (1 - guessing) / 500)))]) >= 0.85


def test_a_larger_tolerance_or_a_smaller_confidence_never_keeps_more() -> None:
    trials = [trainings(lambda s: 0.02 * (s**-0.5 - 1), 3)(share) for share in (1.0, 1.0, 0.8, 0.6, 0.4, 0.2)]
    curve = loss_curve(trials, 0.0)
    assert (curve.below(0.01) >= curve.below(0.005)).all()
    assert curve.quantile(0.975, 40) > curve.quantile(0.5, 40) > curve.quantile(0.025, 40)
    assert curve.below(curve.quantile(0.9, 40))[40] == pytest.approx(0.9, abs=1e-6)


def test_the_posterior_is_that_of_a_sum_over_a_fine_grid() -> None:
    """The Gaussian algebra against brute force: a, b and A on a grid, for one exponent and one noise."""
    import clprune.budget as module

    rng = np.random.default_rng(0)
    trials = [Trial(share, rng.random(400) < p) for share, p in ((1.0, 0.9), (0.7, 0.88), (0.5, 0.9), (0.3, 0.8))]
    exponent, noise, useless, width, at = 0.5, 0.01, 0.2, 0.05, 0.4
    top, drop, gain = np.meshgrid(np.linspace(0.75, 1.0, 120), np.linspace(-0.3, 0.3, 241), np.linspace(-0.25, 0.25, 201), indexing="ij")

    def shape(s: float) -> tuple[float, float]:
        return ((min(s, 1 - useless) / (1 - useless)) ** -exponent - 1) / (2**exponent - 1), min(1.0, (1 - s) / useless)

    log = -0.5 * ((top - 0.5) ** 2 + (drop / 0.1) ** 2 + (gain / width) ** 2)
    for trial in trials:
        falls, cleaned = shape(trial.keep_fraction)
        log = log - 0.5 * ((trial.accuracy - top + drop * falls - gain * cleaned) / noise) ** 2
    weight = np.exp(log - log.max())
    loss = drop * shape(at)[0] - gain * shape(at)[1]
    mean = float((weight * loss).sum() / weight.sum())
    sd = math.sqrt(float((weight * (loss - mean) ** 2).sum() / weight.sum()))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("EXPONENTS", [exponent]), ("NOISES", [noise]), ("USELESS", (width,))):
            patch.setattr(module, name, value)
        patch.setattr(module, "_sampling_variance", lambda trials, shares: np.zeros(shares.shape))
        curve = loss_curve(trials, useless, np.array([at]))
    assert curve.mean[0] == pytest.approx(mean, abs=2e-4)
    assert curve.sds[0, 0] == pytest.approx(sd, rel=0.02)
    useful = drop * shape(at)[0]
    assert curve.useful_means[0, 0] == pytest.approx(float((weight * useful).sum() / weight.sum()), abs=2e-4)


@pytest.mark.parametrize(("options", "said"), [({"tolerance": 0.0}, "tolerance"), ({"confidence": 1.0}, "confidence"), ({"n_trials": 3}, "trials")])
def test_what_cannot_work_is_refused_by_name(options: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        safe_budget(trainings(lambda s: 0.0, 0), 100, **options)  # type: ignore[arg-type]
