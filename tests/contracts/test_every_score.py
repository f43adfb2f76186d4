"""What every score keeps, also those that are added later."""

import numpy as np
import pytest
import reference

from clprune import families


def recorded(n_epochs: int, n: int, seed: int, *, gaps: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.random((n_epochs, n))
    signals = {"p_label": p, "margin": rng.normal(size=(n_epochs, n)), "correct": (p > 0.4).astype(float), "error_l2": np.sqrt(2) * (1 - p)}
    signals |= {"loss": -np.log(p), "entropy": rng.random((n_epochs, n)), "predicted": rng.integers(0, 9, (n_epochs, n)).astype(float)}
    signals["grad_norm"] = signals["error_l2"] * 3
    if gaps:
        hole = rng.random((n_epochs, n)) < 0.2
        hole[0] = False
        signals = {name: np.where(hole, np.nan, values) for name, values in signals.items()}
    return signals


@pytest.mark.parametrize("name", families.names("scores"))
@pytest.mark.parametrize("n_epochs", [1, 3, 14])
@pytest.mark.parametrize("gaps", [False, True])
def test_agrees_with_its_plain_version(name: str, n_epochs: int, gaps: bool) -> None:
    member, signals = families.find("scores", name), recorded(n_epochs, 50, 3, gaps=gaps)
    inputs = [signals[need] for need in families.facts(member)["needs"]]
    np.testing.assert_allclose(member(*inputs), getattr(reference, f"score_{name}")(*inputs), atol=1e-12)


@pytest.mark.parametrize("name", families.names("scores"))
def test_a_permutation_of_samples_permutes_the_score(name: str) -> None:
    member, signals = families.find("scores", name), recorded(6, 40, 1, gaps=True)
    order = np.random.default_rng(0).permutation(40)
    inputs = [signals[need] for need in families.facts(member)["needs"]]
    np.testing.assert_array_equal(member(*(values[:, order] for values in inputs)), member(*inputs)[order])


@pytest.mark.parametrize("name", families.names("scores"))
def test_a_sample_that_is_always_wrong_is_not_easier_than_one_that_is_always_right(name: str) -> None:
    member = families.find("scores", name)
    right = {"p_label": 0.99, "margin": 5.0, "correct": 1.0, "error_l2": 0.01, "loss": 0.01, "entropy": 0.05, "predicted": 1.0, "grad_norm": 0.02}
    wrong = {"p_label": 0.01, "margin": -5.0, "correct": 0.0, "error_l2": 1.4, "loss": 4.6, "entropy": 0.05, "predicted": 2.0, "grad_norm": 3.0}
    inputs = [np.array([[right[need], wrong[need]]] * 5) for need in families.facts(member)["needs"]]
    value = member(*inputs)
    sign = 1 if families.facts(member)["high_means"] == "hard" else -1
    assert sign * value[1] >= sign * value[0]
