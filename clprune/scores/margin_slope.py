"""Slope of the margin (the margin of AUM, Pleiss et al., 2020, arXiv:2001.10528): how fast the label's logit gains its lead."""

import numpy as np
from jaxtyping import Float

from clprune.families import score


@score("margin", high_means="easy")
def margin_slope(margin: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """Least-squares slope of the margin over the epochs that saw the sample, logits an epoch, any real number; 0 where only one did.

    A sample that is learned has a high slope, one with a wrong label a low or negative one. It does not tell a sample that was right from
    the start from one that never will be: both are flat.

    >>> margin_slope(np.array([[0.0, 1.0], [1.0, 1.0], [2.0, -2.0]]))
    array([ 1. , -1.5])
    """
    seen = ~np.isnan(margin)
    count = seen.sum(axis=0)
    epochs = np.arange(len(margin), dtype=np.float64)[:, None]
    away = np.where(seen, epochs - (epochs * seen).sum(axis=0) / count, 0)
    return (away * np.where(seen, margin, 0)).sum(axis=0) / np.where(count > 1, (away * away).sum(axis=0), 1)
