"""Rate of layer rotation (after Carbonnelle & De Vleeschouwer, 2019, arXiv:1806.01603): how fast the weights still turn."""

import numpy as np
from jaxtyping import Float

from clprune.families import indicator


@indicator("weight_cosines_before", "weight_cosines", "epochs_between")
def layer_rotation_rate(
    weight_cosines_before: Float[np.ndarray, "L"], weight_cosines: Float[np.ndarray, "L"], epochs_between: Float[np.ndarray, "1"]
) -> float:
    """Change of the mean of 1 - cos(w, w_initial) over the weight matrices, an epoch; negative where the weights turn back.

    >>> layer_rotation_rate(np.array([1.0]), np.array([0.9]), np.array([0.25])).__round__(6)
    0.4
    """
    return float((weight_cosines_before - weight_cosines).mean() / epochs_between[0])
