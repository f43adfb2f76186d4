"""What a choice of samples is worth, in a second: ridge regression on the proxy's features of what was kept, judged on samples that could not be chosen.

Two regressions look: one linear in the features (as many weights as a last layer), one in N_RANDOM random rectified combinations of them (a kernel machine, Rahimi & Recht, 2007).
Where they disagree neither is to be trusted alone: small kept sets of hard samples look bad to the first, easy ones good to the second. The features come from a proxy that has seen all the
samples; that is the same for every choice that is compared.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from clprune.products import product, solution

N_RANDOM = 512
RIDGE = {"linear": 1.0, "kernel": 10.0}  # in units of the features' variance: one sample's worth, and ten for many more weights


def lifted(vectors: Float[np.ndarray, "N D"]) -> dict[str, Float[np.ndarray, "N F"]]:
    """Features of the two regressions by name, float64: standardised with a constant, and random rectified combinations of these (the same for every call).

    A feature that does not vary is left at zero.
    """
    spread = vectors.std(axis=0, dtype=np.float64)
    linear = (vectors - vectors.mean(axis=0, dtype=np.float64)) / np.where(spread > 0, spread, 1)
    linear = np.concatenate([linear, np.ones((len(linear), 1))], axis=1)
    mixing = np.random.default_rng(0).normal(size=(linear.shape[1], N_RANDOM)) / np.sqrt(linear.shape[1])
    return {"linear": linear, "kernel": np.maximum(product(linear, mixing), 0)}


def ridge_accuracy(
    features: Float[np.ndarray, "N F"],
    labels: Int[np.ndarray, "N"],
    kept: Int[np.ndarray, "K"],
    judges: Int[np.ndarray, "M"],
    *,
    n_classes: int,
    ridge: float,
) -> float:
    """Share of the judges whose class has the highest score of the ridge regression from features to one-hot labels, fitted on `kept`."""
    basis = features[kept]
    targets = np.eye(n_classes)[labels[kept]]
    weights = solution(product(basis.T, basis) + ridge * np.eye(basis.shape[1]), product(basis.T, targets))
    return float((product(features[judges], weights).argmax(axis=1) == labels[judges]).mean())
