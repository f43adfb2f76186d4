"""Features of images without any label: an answer to a pattern is what its definition says, row order has no influence, and the neighbours are of one class more often than those of the pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clprune import patches
from clprune.embeddings import without_labels
from clprune.inputs import inputs_of
from clprune.patches import patch_features
from clprune.sources import open_source


def test_an_answer_is_that_of_a_loop_over_patches() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 9, 10, 2)).astype(np.uint8)
    weights, away = rng.normal(size=(4, 2, 6, 6)), rng.normal(size=4)
    plain = np.zeros((3, 4, 3, 3))
    for row in range(3):
        likeness = np.empty((4, 4, 5))
        for y in range(4):
            for x in range(5):
                patch = images[row, y : y + 6, x : x + 6].transpose(2, 0, 1) / 255
                patch = (patch - patch.mean()) / np.sqrt(patch.var() + 10 / 255**2)
                likeness[:, y, x] = (weights * patch).sum(axis=(1, 2, 3)) - away
        above = np.maximum(likeness - 0.5, 0)
        for i, rows in enumerate(((0, 2), (1, 3), (2, 4))):  # cells of an adaptive mean overlap where the places cannot be shared out
            for j, columns in enumerate(((0, 2), (1, 4), (3, 5))):
                plain[row, :, i, j] = above[:, slice(*rows), slice(*columns)].mean(axis=(1, 2))
    filters = (torch.from_numpy(weights).float(), torch.from_numpy(away).float())
    found = np.concatenate(list(patches._answers(images, np.arange(3), filters, torch.device("cpu"))))
    np.testing.assert_allclose(found, plain.reshape(3, -1), rtol=1e-3, atol=1e-4)


def test_patterns_do_not_change_with_brightness_and_contrast_and_rows_may_stand_in_any_order() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(60, 130, (300, 12, 12, 1)).astype(np.uint8)
    images[7] = (images[5] - 60) * 2 + 20  # twice the contrast, and darker
    order = rng.permutation(300)
    features, moved = patch_features(images, np.arange(300), seed=3), patch_features(images[order], np.argsort(order), seed=3)
    np.testing.assert_allclose(moved.astype(float), features[order].astype(float), atol=2e-3)
    wide = features.astype(np.float64)
    assert wide[5] @ wide[7] > 0.95 > np.delete(wide[5] @ wide.T, [5, 7]).max()
    np.testing.assert_allclose(np.linalg.norm(wide, axis=1), 1, atol=2e-3)


@pytest.mark.parametrize("shape", [(1, 28, 28, 1), (5, 3, 4, 3), (30, 40, 90, 3), (2, 1, 1, 1)])
def test_any_number_and_size_of_images_has_finite_features(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(2).integers(0, 256, shape).astype(np.uint8)
    for given in (images, np.full(shape, 7, dtype=np.uint8)):
        features = patch_features(given, np.arange(shape[0]))
        assert len(features) == shape[0] and np.isfinite(features).all()


def test_near_ones_are_of_one_class_more_often_than_by_pixels() -> None:
    source = open_source("fashion-mnist-sample")
    source = source.part(np.sort(np.random.default_rng(0).permutation(len(source))[:1500]))
    images, labels = inputs_of(source, None)[0], source.labels

    def agreement(vectors: np.ndarray) -> float:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        likeness = unit @ unit.T
        np.fill_diagonal(likeness, -np.inf)
        return float((labels[np.argsort(-likeness, axis=1)[:, :5]] == labels[:, None]).mean())

    by_pixels = agreement(images.reshape(1500, -1).astype(np.float64))
    assert agreement(patch_features(images, np.arange(1500)).astype(np.float64)) > by_pixels + 0.03


def some_images() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (300, 12, 12, 1)).astype(np.uint8)


def test_an_interrupted_one_goes_on_with_the_parts_it_had_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "FITTED_ON", 100)
    monkeypatch.setattr(patches, "PART", 60)
    whole, facts = without_labels(images := some_images(), order := np.random.default_rng(5).permutation(300), seed=2, device="cpu")
    monkeypatch.setattr("clprune.embeddings.REMEMBERED_FROM", 300)
    monkeypatch.setenv("CLPRUNE_CACHE", str(tmp_path))
    seen: list[int] = []
    real = patches.features_by

    def counted(fitted: patches.Arrays, images: np.ndarray, rows: np.ndarray, device: torch.device) -> patches.Arrays:
        seen.append(len(rows))
        return real(fitted, images, rows, device)

    def killed(event: dict[str, Any]) -> None:
        if event["done"] > 200:
            raise KeyboardInterrupt

    monkeypatch.setattr(patches, "features_by", counted)
    with pytest.raises(KeyboardInterrupt):
        without_labels(images, order, seed=2, device="cpu", on_progress=killed)
    assert seen == [60, 60]
    (spoiled,) = (tmp_path / "features").glob("*-00001-*")
    spoiled.write_bytes(spoiled.read_bytes()[:-3] + b"abc")
    fitted = patches.find_patterns
    monkeypatch.setattr(patches, "find_patterns", None)  # must not be found again: another number of threads could find other signs
    again, after = without_labels(images, order, seed=2, device="cpu", goes_on=True)
    assert seen == [60, 60, 60, 60, 20]  # all but the first part, which was there and whole
    np.testing.assert_array_equal(again.vectors, whole.vectors)
    assert facts["seconds_before"] == 0 < after["seconds_before"] < after["seconds"]
    assert without_labels(images, order, seed=2, device="cpu")[1]["seconds_before"] == 0  # another round: paid for already
    assert (after["energy_kwh"], after["energy_method"]) == (None, "not measured: the run was interrupted")
    monkeypatch.setattr(patches, "find_patterns", fitted)
    images[order[299]] ^= 255  # another image
    other, _ = without_labels(images, order, seed=2, device="cpu")
    monkeypatch.setenv("CLPRUNE_CACHE", str(tmp_path / "empty"))
    np.testing.assert_array_equal(other.vectors, without_labels(images, order, seed=2, device="cpu")[0].vectors)
    assert (other.vectors[order[299]] != whole.vectors[order[299]]).any()
