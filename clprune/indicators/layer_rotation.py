"""Layer rotation (Carbonnelle & De Vleeschouwer, 2019, arXiv:1806.01603): how far the weights have turned from where they started."""

import numpy as np
from jaxtyping import Float

from clprune.families import indicator


@indicator("weight_cosines")
def layer_rotation(weight_cosines: Float[np.ndarray, "L"]) -> float:
    """Mean over weight matrices of 1 - cos(w, w_initial), in [0, 2].

    >>> layer_rotation(np.array([1.0, 0.5]))
    0.25
    """
    return float(1 - weight_cosines.mean())
