"""Gradient noise scale (McCandlish et al., 2018, arXiv:1812.06162) of the last layer, as log10 of the batch size at which noise equals signal."""

import numpy as np
from jaxtyping import Float

from clprune.families import indicator


@indicator("batch_size", "sample_gradient_sq", "batch_gradient_sq", decides=True)
def noise_scale(batch_size: Float[np.ndarray, "S"], sample_gradient_sq: Float[np.ndarray, "S"], batch_gradient_sq: Float[np.ndarray, "S"]) -> float:
    """log10 of B_s = tr(Sigma) / |G|^2, both unbiased within each batch (one weight state) and averaged over the window's batches.

    With b samples in a batch, a = mean |g_i|^2 and |g|^2 of their mean: tr(Sigma) = (a - |g|^2) b / (b - 1), |G|^2 = |g|^2 - tr(Sigma) / b.
    NaN where the window's gradients hold no signal (|G|^2 <= 0) or batches have one sample. The expected cosine of two batch
    gradients of size b is 1 / (1 + B_s / b): the batch size drops out of B_s.
    """
    many = batch_size > 1
    b, a, g = batch_size[many], sample_gradient_sq[many], batch_gradient_sq[many]
    noise = (a - g) * b / (b - 1)
    signal, spread = (g - noise / b).mean() if len(b) else 0.0, noise.mean() if len(b) else 0.0
    return float(np.log10(spread / signal)) if signal > 0 and spread > 0 else float("nan")
