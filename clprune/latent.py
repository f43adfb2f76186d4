"""Features of texts without any label and without any training: what their words have in common."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int32

WIDTH = 64  # of the features, at most
POWERS = 4  # rounds of power iteration: with fewer the weaker directions of word counts, whose spectrum is flat, are not found


def latent_features(tokens: Int32[np.ndarray, "N L"], *, seed: int = 0, width: int = WIDTH) -> Float[np.ndarray, "N D"]:
    """Latent semantic analysis (Deerwester et al., 1990): TF-IDF of the n-grams, rows of length 1, on its D = min(width, N, n-grams) largest singular directions.

    `tokens` are bucket numbers from 1, 0 for none. The count of an n-gram enters as 1 + log, its weight is log(N / texts that have it), so that what stands in every text counts nothing; a text
    without any other n-gram is all zero. The singular value decomposition is a randomised one (Halko et al., 2011, arXiv:0909.4061), of time linear in the n-grams, with the draws of `seed`.
    """
    n = len(tokens)
    row, place = np.nonzero(tokens)
    pairs, counts = np.unique(np.stack([row, tokens[row, place]], axis=1), axis=0, return_counts=True)
    texts, buckets = pairs.T
    _, column = np.unique(buckets, return_inverse=True)
    spread = np.bincount(column)
    weight = (1 + np.log(counts)) * np.log(n / spread[column])
    length = np.sqrt(np.bincount(texts, weight**2, minlength=n))
    weight = weight / np.maximum(length[texts], 1e-12)
    shape = (n, max(1, len(spread)))
    matrix = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([texts, column])), torch.from_numpy(weight.astype(np.float32)), shape, check_invariants=True
    )
    width = min(width, *shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        left, sizes, _ = torch.svd_lowrank(matrix, q=min(width + 8, *shape), niter=POWERS)
    features = (left * sizes)[:, :width].numpy()
    features[length == 0] = 0  # not the rounding of zero, which would have a direction
    return features
