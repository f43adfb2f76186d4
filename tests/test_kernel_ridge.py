"""Kernel ridge regression: what is left out is what a regression without it says, and classes that lie apart are told apart."""

import numpy as np
import pytest

from clprune import kernel_ridge
from clprune.kernel_ridge import class_probabilities


def test_what_is_said_of_a_row_left_out_is_what_a_regression_without_it_says() -> None:
    rng = np.random.default_rng(0)
    basis, targets = rng.normal(size=(30, 7)), rng.normal(size=(30, 3))
    for ridge, (weights, left_out) in zip(kernel_ridge.RIDGES, kernel_ridge._regressions(basis, targets), strict=True):
        np.testing.assert_allclose(weights, np.linalg.solve(basis.T @ basis + ridge * np.eye(7), basis.T @ targets))
        for row in range(30):
            others = np.delete(np.arange(30), row)
            plain = np.linalg.solve(basis[others].T @ basis[others] + ridge * np.eye(7), basis[others].T @ targets[others])
            np.testing.assert_allclose(left_out[row], basis[row] @ plain)


def test_on_all_its_samples_it_is_the_kernel_machine_of_the_textbook(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    points, labels = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    points[:, 0] += 2 * labels
    for name, value in (("BANDWIDTHS", (2.0,)), ("RIDGES", (0.1,)), ("SHARPNESSES", (5.0,))):
        monkeypatch.setattr(kernel_ridge, name, value)
    found = class_probabilities(points[:40], labels[:40], points[40:], n_classes=3)
    gaps = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    kernel = np.exp(-2 * gaps / np.median(gaps[:40, :40]))
    values = 5 * kernel[40:, :40] @ np.linalg.solve(kernel[:40, :40] + 0.1 * np.eye(40), np.eye(3)[labels[:40]] - 1 / 3)
    np.testing.assert_allclose(found, np.exp(values) / np.exp(values).sum(axis=1, keepdims=True), atol=1e-4)


def test_features_that_tell_nothing_give_even_odds_and_telling_ones_do_not() -> None:
    rng = np.random.default_rng(2)
    labels, noise = rng.integers(0, 4, 900), rng.normal(size=(900, 6))
    telling = noise + 6 * np.eye(6)[labels]
    unsure, sure = (class_probabilities(values[:600], labels[:600], values[600:], n_classes=4) for values in (noise, telling))
    assert unsure.max() < 0.5 and (sure.argmax(axis=1) == labels[600:]).mean() > 0.99 and sure.max(axis=1).mean() > 0.9
    for p in (unsure, sure):
        np.testing.assert_allclose(p.sum(axis=1), 1)


@pytest.mark.parametrize("n", [1, 2, 1_300])
def test_few_equal_and_many_samples_have_probabilities(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_ridge, "CENTRES", 50)
    rng = np.random.default_rng(3)
    for points in (rng.normal(size=(n + 5, 1)).astype(np.float16), np.ones((n + 5, 3), dtype=np.float32)):
        p = class_probabilities(points[:n], np.arange(n) % 2, points[n:], n_classes=5)
        assert p.shape == (5, 5) and np.isfinite(p).all()
        np.testing.assert_allclose(p.sum(axis=1), 1)
    assert class_probabilities(points[:n], np.arange(n) % 2, points[:0], n_classes=5).shape == (0, 5)
