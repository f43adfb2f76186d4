"""How little is safe to keep: a posterior over the loss of accuracy at every kept share, from a few trainings, and where to train next.

The model. Let u be the share of samples that a selection gives up first because they add nothing (repeats, suspected wrong labels). Keeping a share s costs

    loss(s) = a f(min(s, 1 - u) / (1 - u)) - b min(1, (1 - s) / u),      f(x) = (x^-c - 1) / (2^c - 1)

so a is what half of the useful samples cost, c how suddenly it comes (learning curves are power laws: Hestness et al., 2017, arXiv:1712.00409), and b what is gained, or
lost, by giving up the others. An accuracy is A - loss(s) + noise. For each c and each size of the noise on a grid the posterior of (A, a, b) is Gaussian and exact; the
grid is averaged over by marginal likelihood. Nothing is fitted per data set and no share is assumed to be safe.

What giving up wrong labels gains is not there to be spent: a share is safe where the loss is within the tolerance and the first term alone is, too. Else a training
that wrong labels had spoiled would be a reason to drop nearly everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from jaxtyping import Bool, Float

from clprune.datatypes import EVALUATION_EPOCHS, Budget
from clprune.errors import UsageError
from clprune.wording import counted, points

EXPONENTS = np.array([0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0])
NOISES = np.geomspace(0.0005, 0.1, 18)  # standard deviation of an accuracy over seeds, 0.05 to 10 points
USUAL_NOISE, NOISE_SPREAD = 0.004, 1.0  # log-normal prior of it: 0.4 points, times or over e
USELESS = (
    0.001,
    0.05,
)  # standard deviations of the prior of b, equally likely: giving up useless samples changes next to nothing, or does change something
WIDTHS = (1.0, 0.1)  # those of A, about a half, and of a, about 0
TRIAL_STEPS = 1_500  # at least, and EVALUATION_EPOCHS: after fewer, a training on everything is not done yet, and a small part of it looks as good
SURELY = 1.645  # standard deviations by which guessing exceeds its own accuracy once in twenty times
SMALLEST = 0.02  # no smaller share is proposed
SHARES = np.round(np.arange(0.02, 1.0001, 0.01), 2)


@dataclass(frozen=True)
class Trial:
    """One training: the share it kept, and which of the held-out samples it got right; these are the same samples in every trial."""

    keep_fraction: float
    right: Bool[np.ndarray, "M"]

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())


@dataclass(frozen=True)
class LossCurve:
    """The posterior of the loss of accuracy at `shares`, and of that part of it which comes from dropping useful samples: mixtures of Gaussians."""

    shares: Float[np.ndarray, "S"]
    weights: Float[np.ndarray, "G"]
    means: Float[np.ndarray, "G S"]
    sds: Float[np.ndarray, "G S"]
    useful_means: Float[np.ndarray, "G S"]
    useful_sds: Float[np.ndarray, "G S"]

    @property
    def mean(self) -> Float[np.ndarray, "S"]:
        return self.weights @ self.means

    def below(self, tolerance: float) -> Float[np.ndarray, "S"]:
        """Probability that the loss is at most `tolerance`, or that its useful part is, whichever is smaller; for each share."""
        return np.minimum(self._at_most(tolerance, self.means, self.sds), self._at_most(tolerance, self.useful_means, self.useful_sds))

    def _at_most(self, value: float, means: Float[np.ndarray, "G *S"], sds: Float[np.ndarray, "G *S"]) -> Float[np.ndarray, "*S"]:
        """Probability that a mixture of Gaussians is at most `value`."""
        probability: np.ndarray = self.weights @ (0.5 * (1 + _erf((value - means) / np.maximum(sds, 1e-12) / math.sqrt(2))))
        return probability

    def quantile(self, probability: float, at: int) -> float:
        """Quantile of the loss at share number `at`, by bisection."""
        low, high = float((self.means[:, at] - 8 * self.sds[:, at]).min()), float((self.means[:, at] + 8 * self.sds[:, at]).max())
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self._at_most(middle, self.means[:, at], self.sds[:, at]) < probability else (low, middle)
        return (low + high) / 2


def loss_curve(trials: Sequence[Trial], useless_share: float, shares: Float[np.ndarray, "S"] = SHARES) -> LossCurve:
    """The posterior given the trials, at least one of which kept everything.

    Beside the noise of trainings, the held-out samples are a sample too: the variance of a loss that comes from judging on these and not on others is added.
    """
    kept = np.array([trial.keep_fraction for trial in trials])
    accuracy = np.array([trial.accuracy for trial in trials])
    weights, means, sds = [], [], []  # (G,), and two (G, 2, S): of the loss, and of its useful part
    prior_mean = np.array([0.5, 0.0, 0.0])
    for exponent, width in product(EXPONENTS, USELESS if useless_share > 0 else USELESS[:1]):
        prior_precision = np.diag(1 / np.square([*WIDTHS, width]))
        falls, cleaned = _shape(kept, useless_share, exponent)
        design = np.stack([np.ones(len(kept)), -falls, cleaned], axis=1)
        falls, cleaned = _shape(shares, useless_share, exponent)
        wanted = np.stack([np.stack([falls, -cleaned], axis=1), np.stack([falls, np.zeros(len(shares))], axis=1)])
        for noise in NOISES:
            precision = prior_precision + design.T @ design / noise**2
            covariance = np.linalg.inv(precision)
            centre = covariance @ (prior_precision @ prior_mean + design.T @ accuracy / noise**2)
            residual, shift = accuracy - design @ centre, centre - prior_mean
            log_likelihood = -len(kept) * math.log(noise) - 0.5 * (residual @ residual / noise**2 + shift @ prior_precision @ shift)
            log_likelihood += 0.5 * (np.linalg.slogdet(prior_precision)[1] - np.linalg.slogdet(precision)[1])
            log_likelihood -= 0.5 * (math.log(noise / USUAL_NOISE) / NOISE_SPREAD) ** 2
            weights.append(log_likelihood)
            means.append(wanted @ centre[1:])
            sds.append(np.sqrt(np.einsum("wsi,ij,wsj->ws", wanted, covariance[1:, 1:], wanted)))
    weights = np.exp(np.array(weights) - max(weights))
    useful = np.minimum(shares, 1 - useless_share) / (1 - useless_share)
    sampled = np.sqrt(_sampling_variance(trials, np.stack([shares, useful])))
    of_each, spread = np.array(means), np.hypot(np.array(sds), sampled)
    return LossCurve(shares, weights / weights.sum(), of_each[:, 0], spread[:, 0], of_each[:, 1], spread[:, 1])


def _shape(shares: Float[np.ndarray, "S"], useless: float, exponent: float) -> tuple[Float[np.ndarray, "S"], Float[np.ndarray, "S"]]:
    """Loss by dropping useful samples (1 at half of them), and how much of the useless ones is gone (0 to 1)."""
    useful = np.minimum(shares, 1 - useless) / (1 - useless)
    cleaned = np.minimum(1, (1 - shares) / useless) if useless > 0 else np.zeros(len(shares))
    return (np.maximum(useful, 1e-3) ** -exponent - 1) / (2**exponent - 1), cleaned


def _sampling_variance(trials: Sequence[Trial], shares: Float[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
    """Variance of the loss at each share that comes from judging on M samples only: what differs between samples in the same way in every training.

    With two trainings on everything and two on less, the covariance over samples of two losses that share no training holds just that part (the noise of
    training is in the accuracies already); else the variance of one loss stands in, which is too large. Taken as proportional to 1 - share.
    """
    less = [trial for trial in trials if trial.keep_fraction < 1]
    whole = [trial.right.astype(np.float64) for trial in trials if trial.keep_fraction == 1]
    n_judged = len(trials[0].right)
    if not less:
        return np.zeros(shares.shape)
    if len(whole) > 1 and len(less) > 1:
        halves = np.mean(whole[::2], axis=0), np.mean(whole[1::2], axis=0)
        found = [
            (1 - (j.keep_fraction + k.keep_fraction) / 2, np.cov(halves[0] - j.right, halves[1] - k.right)[0, 1]) for j, k in combinations(less, 2)
        ]
    else:
        found = [(1 - trial.keep_fraction, float(np.var(whole[0] - trial.right))) for trial in less]
    gone, variance = np.array(found).T
    slope = max(0.0, float(gone @ variance) / float(gone @ gone))
    return slope * (1 - shares) / n_judged


def epochs_of_trial(n_samples: int, batch_size: int) -> int:
    """Epochs of `n_samples` that a trial takes unless told otherwise: EVALUATION_EPOCHS, or as many as TRIAL_STEPS batches are.

    >>> epochs_of_trial(50_000, 128), epochs_of_trial(1_280, 128)
    (30, 150)
    """
    return max(EVALUATION_EPOCHS, math.ceil(TRIAL_STEPS / math.ceil(n_samples / batch_size)))


def safe_budget(
    train_with: Callable[[float], Trial],
    n_samples: int,
    *,
    useless_share: float = 0.0,
    tolerance: float = 0.005,
    confidence: float = 0.9,
    n_trials: int = 12,
    n_epochs: int | None = None,
    least: int = 1,
    guessing: float = 0.0,
) -> Budget:
    """The smallest share of at least `least` samples whose loss of accuracy is at most `tolerance` with probability `confidence`, also against everything but useless samples; 1 where there is none.

    `train_with(share)` trains on that share of a pool and judges on samples outside it, with a new seed each time it is given the same share.
    Where the first one on everything is not surely better than the accuracy of `guessing`, the loss of a part cannot be seen, and everything is kept.
    Trainings are spent where they decide: on everything, and around the share at which the loss is as likely above the tolerance as below. The evidence of the
    result holds every trial, the predicted loss with its 95 % interval, and a sentence, which names the `n_epochs` of each training where they are given. Raises UsageError for a tolerance, confidence or number of trials that cannot work.
    """
    if not 0 < tolerance < 1:
        raise UsageError(f"--tolerance is {100 * tolerance:g} points; give a loss of accuracy in points above 0, such as 0.5.")
    if not 0.5 <= confidence < 1:
        raise UsageError(f"--confidence is {confidence:g}; give a probability from 0.5 to below 1, such as 0.9.")
    if n_trials < 4:
        raise UsageError(f"--trials is {n_trials}; at least 4 short trainings are needed to see where accuracy begins to fall.")
    shares = SHARES[[_n_of(float(share), n_samples) >= least for share in SHARES]]
    lowest, told = float(shares[0]), {"tolerance": tolerance, "confidence": confidence}
    if lowest == 1:
        return Budget(
            1.0, n_samples, "auto", told | {"trials": [], "sentence": f"keep everything: {least:,} of {n_samples:,} samples have to be kept"}
        )
    useless_share = min(useless_share, 0.95)  # the law needs something useful, also where nearly every label looks doubtful
    first = [1.0, max(0.05, round(0.6 * (1 - useless_share), 2)), max(SMALLEST, round(0.3 * (1 - useless_share), 2))]
    first += [round(1 - useless_share, 2)] if 0.02 <= useless_share <= 0.95 else [round(0.85, 2)]
    trials = [train_with(first[0])]
    if trials[0].accuracy <= guessing + SURELY * math.sqrt(guessing * (1 - guessing) / len(trials[0].right)):
        said = f"keep everything: a training on all of it is right on {trials[0].accuracy:.1%} of the samples that judge, no better than naming the largest class ({guessing:.1%}), so what a part loses cannot be seen"
        length = "" if n_epochs is None else f"; {counted(n_epochs, 'epoch')} may be too few (--trial-epochs)"
        return Budget(1.0, n_samples, "auto", told | {"trials": _told(trials), "sentence": said + length})
    trials += [train_with(max(lowest, share)) for share in first[1:]]
    while len(trials) < n_trials:
        everything = sum(trial.keep_fraction == 1 for trial in trials)
        if 3 * everything <= len(trials):
            trials.append(train_with(1.0))
            continue
        curve = loss_curve(trials, useless_share, shares)
        trials.append(train_with(max(lowest, float(curve.shares[_edge(curve, tolerance, 0.5)].clip(0.05, 0.95)))))
    curve = loss_curve(trials, useless_share, shares)
    at = _edge(curve, tolerance, confidence)
    share = float(curve.shares[at])
    low, high = curve.quantile(0.025, at), curve.quantile(0.975, at)
    loss, of_useful = (0.0, 0.0) if share == 1 else (float(curve.mean[at]), float(curve.weights @ curve.useful_means[:, at]))
    evidence = told | {
        "useless_share": useless_share,
        "predicted_loss": loss,
        "predicted_loss_of_useful": of_useful,
        "interval": [0.0, 0.0] if share == 1 else [low, high],
        "half_chance_share": float(curve.shares[_edge(curve, tolerance, 0.5)]),
        "trials": _told(trials),
    }
    length = "" if n_epochs is None else f" of {counted(n_epochs, 'epoch')}; a longer one may lose more"
    clean = f", {points(of_useful)} against all but the {useless_share:.0%} that add nothing" if useless_share >= 0.01 else ""
    if share == 1:
        said = f"keep everything: no smaller share loses at most {100 * tolerance:g} points with a probability of {confidence:.0%}"
    else:
        holds = "holds what has to be kept of every class and " if at == 0 and lowest > SMALLEST else ""
        said = (
            f"{share:.0%} is the smallest share that {holds}loses at most {100 * tolerance:g} points with a probability of {confidence:.0%}: "
            f"predicted loss {points(loss)} points (95 % interval {points(low)} to {points(high)}){clean}, {len(trials)} short trainings{length}"
        )
    return Budget(share, _n_of(share, n_samples), "auto", evidence | {"sentence": said})


def _told(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    return [{"keep_fraction": trial.keep_fraction, "accuracy": trial.accuracy, "n_judged": len(trial.right)} for trial in trials]


def _n_of(share: float, n_samples: int) -> int:
    return n_samples if share == 1 else max(1, math.ceil(round(share * n_samples, 6)))


def _edge(curve: LossCurve, tolerance: float, confidence: float) -> int:
    """Number of the smallest share from which on, up to 1, the loss is within the tolerance so surely."""
    unsafe = np.flatnonzero(curve.below(tolerance)[:-1] < confidence)
    return int(unsafe[-1]) + 1 if len(unsafe) else 0


def _erf(values: Float[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
    return np.vectorize(math.erf, otypes=[np.float64])(values)
