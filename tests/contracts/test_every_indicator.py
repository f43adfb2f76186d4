"""What every indicator keeps, also those that are added later."""

import numpy as np
import pytest

from clprune import families

RECORDS = ("batch_size", "fisher_trace", "sample_gradient_sq", "batch_gradient_sq", "mean_cosine", "min_cosine")
RECORDS += ("weight_cosines", "correct_now", "correct_before", "correct_after", "margin_before", "margin_after")
RECORDS += ("weight_cosines_before", "epochs_between", "doubt_before", "doubt_after", "network_fisher")
RECORDS += ("probe_before", "probe_after", "probe_neighbors_before", "probe_neighbors_after")


def records(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {name: rng.random(30) for name in RECORDS}
    found |= {name: (rng.random(30) < 0.6).astype(float) for name in RECORDS if name.startswith("correct")}
    found |= {name: rng.normal(size=(30, 6)) for name in ("probe_before", "probe_after")}
    found |= {name: np.stack([rng.permutation(20)[:5] for _ in range(30)]) for name in ("probe_neighbors_before", "probe_neighbors_after")}
    return found | {"batch_size": np.full(30, 128.0), "sample_gradient_sq": 2 + found["sample_gradient_sq"], "epochs_between": np.full(30, 0.25)}


@pytest.mark.parametrize("name", families.names("indicators"))
def test_is_one_finite_number_from_known_records(name: str) -> None:
    member = families.find("indicators", name)
    assert set(families.facts(member)["needs"]) <= set(RECORDS)
    assert np.isfinite(member(*(records(0)[need] for need in families.facts(member)["needs"])))


@pytest.mark.parametrize("name", families.names("indicators"))
def test_the_order_of_batches_or_samples_has_no_influence(name: str) -> None:
    member, found, order = families.find("indicators", name), records(1), np.random.default_rng(2).permutation(30)
    inputs = [found[need] for need in families.facts(member)["needs"]]
    assert member(*(values[order] for values in inputs)) == pytest.approx(member(*inputs), abs=1e-12)
