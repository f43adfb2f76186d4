"""The arithmetic of savings against a worked example and laws."""

from pathlib import Path
from typing import Any

import pytest

from clprune.datatypes import SavingsLine
from clprune.errors import UsageError
from clprune.manifest import Manifest
from clprune.savings import savings


def manifest(n: int, kept: int, **changes: Any) -> Manifest:
    document: dict[str, Any] = {"n_samples": n, "n_kept": kept, "kept_bytes": 1000 * kept, "dropped_bytes": 1000 * (n - kept)}
    document["run"] = {"epochs_run": 10, "device": "cpu", "share_of_full_training": 10 / 90, "share_is_of_epochs": 90}
    document["timings"] = {"score_seconds": 100.0, "select_seconds": 1.0, "energy_kwh": 0.5, "energy_method": "meter"}
    return Manifest(Path("x"), document | changes)


def lines(record: Manifest, **prices: Any) -> dict[str, SavingsLine]:
    return {line.name: line for line in savings(record, **prices).lines}


def value(found: dict[str, SavingsLine], name: str) -> float:
    number = found[name].value
    assert number is not None
    return number


def test_imagenet_at_seventy_percent_worked_by_hand() -> None:
    n = 1_281_167
    found = lines(manifest(n, n - 384_350), label_price=0.012, labelers_per_item=3)
    assert value(found, "labels avoidable") == 384_350 * 3
    assert value(found, "labelling money avoidable") == pytest.approx(13_836.6)  # 384,350 x 3 x 0.012
    assert value(found, "net time saved, equal epochs") == pytest.approx(0.30 - 10 / 90, abs=1e-4)  # 18.9 % of a training
    stored = lines(manifest(n, n - 384_350, dropped_bytes=43_800_000_000))
    assert value(stored, "storage money a month") == pytest.approx(1.0074)  # 43.8 GB x 0.023
    hours = lines(manifest(10, 5), training_seconds=3600, training_kwh=84.1 * 2 + 1, pue=1.0, carbon=475)
    assert value(hours, "net CO2e saved") == pytest.approx(39.95, abs=0.05)


def test_keeping_all_saves_nothing_and_costs_the_scoring() -> None:
    found = lines(manifest(100, 100), training_seconds=1000, training_kwh=2, gpu_price=3.6)
    assert value(found, "labels avoidable") == value(found, "bytes of dropped samples") == value(found, "storage money a month") == 0
    assert value(found, "net time saved") == -101
    assert value(found, "net energy saved") == -0.5
    assert value(found, "net compute money") == pytest.approx(-0.101)
    assert found["trainings until it pays"].value is None


@pytest.mark.parametrize(
    ("price", "name"),
    [
        ("label_price", "labelling money avoidable"),
        ("storage_price", "storage money a month"),
        ("gpu_price", "net compute money"),
        ("carbon", "net CO2e saved"),
    ],
)
def test_doubling_a_price_doubles_its_line(price: str, name: str) -> None:
    given = {"training_seconds": 1000.0, "training_kwh": 3.0, "gpu_price": 1.0}
    once, twice = (lines(manifest(100, 40), **(given | {price: factor * 2.0})) for factor in (1, 2))
    assert value(twice, name) == pytest.approx(2 * value(once, name))
    assert once[name].price_source == "given by the user"


def test_what_was_not_measured_is_not_zero() -> None:
    record = manifest(100, 50)
    record.document["timings"]["energy_kwh"] = None
    found = lines(record)
    for name in ("cost of pruning: energy", "net energy saved", "net time saved"):
        assert found[name].value is None and found[name].method == "not measured"


def test_labels_that_are_owned_are_not_counted_as_saved_now() -> None:
    assert value(lines(manifest(100, 50), labels_owned=True), "labels avoided now") == 0
    assert value(lines(manifest(100, 50), labels_owned=False, labelers_per_item=1), "labels avoided now") == 50


def test_it_pays_after_the_trainings_that_make_up_for_the_scoring() -> None:
    found = lines(manifest(100, 50), training_seconds=101)
    assert value(found, "trainings until it pays") == pytest.approx(2)
    assert value(lines(manifest(100, 50), training_seconds=101, trainings=2), "net time saved") == pytest.approx(0)


def test_every_assumed_line_has_a_price_with_date_and_source() -> None:
    for line in savings(manifest(100, 50), training_kwh=1.0, training_seconds=1.0).lines:
        if line.method == "assumed":
            assert line.price is not None and line.price_date and line.price_source, line.name


def test_negative_prices_are_refused() -> None:
    with pytest.raises(UsageError, match="label_price is -1"):
        savings(manifest(100, 50), label_price=-1)
