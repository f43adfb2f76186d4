"""Arms that see all data: what an epoch of each sees, by laws."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clprune import pipeline
from clprune.dynamic import ARMS, InfoBatch, dynamic_arm
from clprune.errors import GuardError, UsageError

ORDER = np.random.default_rng(0).permutation(103)


@pytest.mark.parametrize("n_keep", [1, 10, 50, 103])
def test_rs2_shows_every_sample_before_any_comes_again(n_keep: int) -> None:
    draw, observe = dynamic_arm("rs2", ORDER, n_keep, seed=3)
    assert callable(draw) and observe is None
    seen = np.concatenate([draw(epoch, 0.0)[0] for epoch in range(3 * 103 // n_keep + 1)])
    for lap in range(3):
        assert sorted(seen[103 * lap : 103 * (lap + 1)].tolist()) == list(range(103))
    assert seen[:103].tolist() != seen[103:206].tolist()
    assert all(len(draw(epoch, 0.0)[0]) == n_keep for epoch in (0, 7))
    assert draw(5, 0.0)[0].tolist() == dynamic_arm("rs2", ORDER, n_keep, seed=3)[0](5, 0.9)[0].tolist()  # type: ignore[operator]


def test_infobatch_leaves_the_expected_gradient_as_it_is() -> None:
    arm = InfoBatch(ORDER, 0)
    assert arm.draw(0, 0.0)[1] is None and len(arm.draw(0, 0.0)[0]) == 103  # nothing is known yet
    labels = torch.arange(103) % 2
    logits = torch.stack([torch.linspace(-3, 3, 103), torch.zeros(103)], dim=1)
    arm.observe(torch.arange(103), logits, labels, None)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none").numpy()
    total, shown = np.zeros(103), np.zeros(103)
    for epoch in range(400):
        rows, weights = arm.draw(epoch, 0.5)
        assert weights is not None
        total[rows] += weights[rows]
        shown[rows] += 1
    low = losses < losses.mean()
    assert (shown[~low] == 400).all() and np.abs(shown[low] / 400 - 0.5).max() < 0.12
    assert np.abs(total / 400 - 1).max() < 0.24 and abs(total[low].mean() / 400 - 1) < 0.01
    rows, weights = arm.draw(9, 0.9)
    assert sorted(rows.tolist()) == list(range(103)) and weights is None


@pytest.mark.parametrize(("n_steps", "batch"), [(40, 10), (23, 10), (100, 7)])
def test_infobatch_trains_the_last_eighth_on_all_data_wherever_that_begins(n_steps: int, batch: int) -> None:
    arm, done, last = InfoBatch(ORDER, 0), 0, 0
    for epoch in range(n_steps):
        rows, weights = arm.draw(epoch, done / n_steps)
        taken = min(-(-len(rows) // batch), n_steps - done)
        last += taken if weights is None and epoch else 0
        done += taken
        arm.observe(torch.arange(103), torch.stack([torch.linspace(-3, 3, 103), torch.zeros(103)], dim=1), torch.arange(103) % 2, None)
        if done == n_steps:
            break
    assert abs(last - n_steps / 8) <= 1


def test_arms_that_see_all_data_take_no_more_steps_than_the_subset(shapes_run: Path, tmp_path: Path) -> None:
    pipeline.select(shapes_run, tmp_path / "m", keep="0.5")
    try:
        pipeline.evaluate(tmp_path / "m", seeds=1, epochs=4, budget="equal-epochs", against=",".join(["random", "full", *ARMS]))
    except GuardError:
        pass
    arms = json.loads((tmp_path / "m" / "evaluation.json").read_text())["arms"]
    steps = {name: arm["runs"][0]["steps"] for name, arm in arms.items()}
    assert {steps[name] for name in ("pruned", "random", *ARMS)} == {4 * 3}
    assert steps["full"] == 4 * 5
    assert {arms[name]["runs"][0]["n_samples"] for name in ("full", *ARMS)} == {600}
    with pytest.raises(UsageError, match="infobatch"):
        pipeline.evaluate(tmp_path / "m", against="everything")
