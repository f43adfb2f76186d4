"""Retention of representations: linear CKA (Kornblith et al., 2019, arXiv:1905.00414) of a fixed probe's features with those of the epoch before."""

import numpy as np
from jaxtyping import Float

from clprune.families import indicator


@indicator("probe_before", "probe_after")
def cka(probe_before: Float[np.ndarray, "M D"], probe_after: Float[np.ndarray, "M D"]) -> float:
    """||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F) of the centred features, in [0, 1]; 1 where they are the same up to rotation and scale. NaN without variation.

    Each feature is taken when its sample is trained on, augmented and with the weights of that step, so that it costs no forward pass.

    >>> round(cka(np.array([[0.0, 1], [1, 0], [2, 5]]), np.array([[2.0, 0], [0, 2], [10, 4]])), 6)
    1.0
    """
    before, after = (probe - probe.mean(axis=0) for probe in (probe_before, probe_after))
    scale = np.linalg.norm(before.T @ before) * np.linalg.norm(after.T @ after)
    return float(np.linalg.norm(after.T @ before) ** 2 / scale) if scale > 0 else float("nan")
