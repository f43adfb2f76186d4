"""What `evaluate` measures beside accuracy, that it goes on after an interrupt, and that harm to a class is seen."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import draw_shapes
from PIL import Image

from clprune import pipeline
from clprune.corruptions import BRIGHTNESS, CONTRAST, CORRUPTIONS, NOISE, corrupted
from clprune.errors import DataError, GuardError, IntegrityError, StorageError, UsageError
from clprune.evaluation import _comparison, calibration_error, evaluate, t_975
from clprune.harm import harm_by_class
from clprune.sources import open_source
from clprune.storage import SEAL, write_json
from clprune.terminal import evaluation_table

TIMES = {SEAL, "seconds", "test_seconds", "total_seconds", "seconds_mean", "energy_kwh", "test_energy_kwh", "energy_method"}
TIMES |= {f"{what}_{unit}" for what in ("trainings", "trainings_before") for unit in ("seconds", "kwh")}


def without_times(value: Any) -> Any:
    """A document without what a clock or a meter wrote."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def evaluated(folder: Path, **options: Any) -> dict[str, Any]:
    """evaluation.json after `evaluate`, whatever its verdict."""
    try:
        pipeline.evaluate(folder, **options)
    except GuardError:
        pass
    return dict(json.loads((folder / "evaluation.json").read_text()))


@pytest.fixture
def manifest(shapes_run: Path, tmp_path: Path) -> Path:
    pipeline.select(shapes_run, tmp_path / "m", keep="0.5")
    return tmp_path / "m"


def test_an_interrupted_evaluation_goes_on_and_ends_as_if_nothing_had_happened(manifest: Path, tmp_path: Path) -> None:
    shutil.copytree(manifest, tmp_path / "whole")
    whole = evaluated(tmp_path / "whole", seeds=2, epochs=1)

    def interrupt(report: dict[str, Any]) -> None:
        if report["done"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.evaluate(manifest, seeds=2, epochs=1, on_progress=interrupt)
    assert not (manifest / "evaluation.json").exists()
    finished = {path.name: path.read_bytes() for path in (manifest / "evaluation").rglob("*.json")}
    assert set(finished) == {"pruned-0.json", "random-0.json", "full-0.json", "pruned-1.json"}
    said: list[str] = []
    document = evaluated(manifest, seeds=2, epochs=1, on_progress=lambda report: said.append(report["message"]))
    assert ["interrupted" in message for message in said] == [True] * 4 + [False] * 2
    assert without_times(document) == without_times(whole)
    assert {path.name: path.read_bytes() for path in (manifest / "evaluation").rglob("*.json") if path.name in finished} == finished
    assert pipeline.verify(manifest) == []


def test_results_are_not_written_beside_a_manifest_that_was_replaced_meanwhile(shapes_run: Path, manifest: Path) -> None:
    def replace_it(report: dict[str, Any]) -> None:
        if report["done"] == 1:
            pipeline.select(shapes_run, manifest, keep="0.25", force=True)

    with pytest.raises(DataError, match=r"holds another selection than .* began.*evaluate again"):
        pipeline.evaluate(manifest, seeds=1, epochs=1, against="full", on_progress=replace_it)
    assert not (manifest / "evaluation.json").exists() and pipeline.verify(manifest) == []
    assert evaluated(manifest, seeds=1, epochs=1, against="full")["arms"]["pruned"]["runs"][0]["n_samples"] == 150
    assert pipeline.verify(manifest) == [] and pipeline.savings(manifest)


def test_an_evaluation_of_another_manifest_is_noticed_wherever_it_is_read(shapes_run: Path, shapes_npz: Path, manifest: Path, tmp_path: Path) -> None:
    pipeline.select(shapes_run, tmp_path / "other", keep="0.25")
    held = dict(np.load(shapes_npz))
    np.savez(tmp_path / "turned.npz", **held | {"x_train": 255 - held["x_train"]})
    pipeline.score(str(tmp_path / "turned.npz"), tmp_path / "run", max_epochs=1)
    for folder in (manifest, tmp_path / "turned"):  # the same rows of other data
        pipeline.select(shapes_run if folder == manifest else tmp_path / "run", folder, keep="0.5", strategy="random", force=True)
    assert (manifest / "kept.npy").read_bytes() == (tmp_path / "turned" / "kept.npy").read_bytes()
    document = evaluated(manifest, seeds=1, epochs=1, against="full")
    for folder in (tmp_path / "other", tmp_path / "turned"):
        shutil.copy(manifest / "evaluation.json", folder)
        (problem,) = pipeline.verify(folder)
        assert problem.startswith("evaluation.json: ") and "is of another selection" in problem
        for read in (pipeline.savings, lambda folder: pipeline.report([folder], tmp_path / "page.html")):
            with pytest.raises(IntegrityError, match=r"evaluation.json is of another selection"):
                read(folder)
        write_json(folder / "evaluation.json", {name: value for name, value in document.items() if name != "selection"})  # as it was written before
        assert pipeline.verify(folder) == [] and pipeline.savings(folder) and pipeline.report([folder], tmp_path / "page.html", force=True)
        (tmp_path / "page.html").unlink()


def test_a_finished_training_is_not_taken_for_one_of_other_options_or_numbers(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated(manifest, seeds=1, epochs=1, against="random")

    def require_new(**options: Any) -> None:
        said: list[str] = []
        evaluated(manifest, seeds=1, against="random", on_progress=lambda report: said.append(report["message"]), **options)
        assert said and not [message for message in said if "interrupted" in message]

    require_new(epochs=2)
    require_new(epochs=1, budget="equal-epochs")
    monkeypatch.setattr("clprune.evaluation.name_of_numbers", lambda device: "float16")  # a machine of another kind
    require_new(epochs=1)


def test_equal_epochs_give_fewer_steps_to_fewer_samples(manifest: Path) -> None:
    document = evaluated(manifest, seeds=1, epochs=2, budget="equal-epochs", against="full")
    assert {arm: one["runs"][0]["steps"] for arm, one in document["arms"].items()} == {"pruned": 2 * 3, "full": 2 * 5}
    runs = [run for arm in document["arms"].values() for run in arm["runs"]]
    facts = document["facts"]
    assert facts["seconds"] > facts["trainings_seconds"] == pytest.approx(sum(run["total_seconds"] for run in runs))
    parts = [run[part] for run in runs for part in ("energy_kwh", "test_energy_kwh")]
    assert min(parts) > 0 and facts["energy_kwh"] > facts["trainings_kwh"] == pytest.approx(sum(parts))
    assert all(run["seconds"] + run["test_seconds"] <= run["total_seconds"] for run in runs)


def slow_calibration_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Bin by bin and sample by sample."""
    total = 0.0
    for b in range(15):
        members = []
        for row, label in zip(logits, labels, strict=True):
            p = np.exp(row - row.max())
            p /= p.sum()
            if b / 15 <= p.max() < (b + 1) / 15 or (b == 14 and p.max() == 1):
                members.append((p.max(), float(p.argmax() == label)))
        if members:
            confidence, right = np.mean(members, axis=0)
            total += len(members) / len(labels) * abs(confidence - right)
    return total


def test_calibration_error_agrees_with_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 2, (300, 5)), rng.integers(0, 5, 300)
    assert calibration_error(logits, labels) == pytest.approx(slow_calibration_error(logits, labels))
    assert calibration_error(logits + 1000.0, labels) == pytest.approx(calibration_error(logits, labels))
    sure = np.eye(5)[labels] * 500
    assert calibration_error(sure, labels) == pytest.approx(0) and calibration_error(sure, (labels + 1) % 5) == pytest.approx(1)


def test_corruptions_do_what_they_say() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(70, 180, (3000, 28, 28, 1), dtype=np.uint8)
    result = dict(corrupted(images))
    assert list(result) == list(CORRUPTIONS) and all(one.dtype == np.uint8 and one.shape == images.shape for one in result.values())
    again = dict(corrupted(images))
    for name, one in result.items():
        np.testing.assert_array_equal(one, again[name])
        assert not np.array_equal(one, images), name
    noise = result["gaussian_noise"].astype(float) - images
    assert noise.std() == pytest.approx(255 * NOISE, rel=0.02) and abs(noise.mean()) < 0.2
    np.testing.assert_allclose(result["contrast"].std(axis=(1, 2, 3)), CONTRAST * images.std(axis=(1, 2, 3)), rtol=0.02)
    np.testing.assert_array_equal(result["brightness"], np.minimum(255, np.rint(images + 255 * BRIGHTNESS)).astype(np.uint8))
    flat = dict(corrupted(np.full((2, 9, 12, 3), 100, dtype=np.uint8)))
    for name in ("blur", "pixelate", "contrast"):
        assert (flat[name] == 100).all(), name  # nothing to see, nothing to blur
    assert result["blur"].std() < 0.5 * images.std() and result["blur"].mean() == pytest.approx(images.mean(), abs=1)
    assert len(np.unique(result["pixelate"][0, :, :, 0], axis=0)) == 17  # 60 % of 28 rows are left


def test_blur_agrees_with_a_plain_loop() -> None:
    images = np.random.default_rng(2).integers(0, 256, (1, 7, 9, 1), dtype=np.uint8)
    sigma = 9 / 28
    weights = {k: np.exp(-0.5 * (k / sigma) ** 2) for k in (-1, 0, 1)}
    total = sum(weights.values())
    expected = np.zeros((7, 9))
    for y in range(7):
        for x in range(9):
            for dy, a in weights.items():
                for dx, b in weights.items():
                    expected[y, x] += a * b / total**2 * images[0, min(6, max(0, y + dy)), min(8, max(0, x + dx)), 0]
    np.testing.assert_allclose(dict(corrupted(images))["blur"][0, :, :, 0], np.rint(expected), atol=1)


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (29, 2.045), (1000, 1.962)])
def test_students_quantiles_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert t_975(degrees) == pytest.approx(quantile, abs=0.005)


def as_table(path: Path, seed: int) -> None:
    """Shapes as a table with a column `site` and a test part, in which site b is upside down and so harder."""
    rows: dict[str, list[Any]] = {"id": [], "image": [], "label": [], "site": [], "split": []}
    for split, n in (("train", 240), ("test", 80)):
        x, y = draw_shapes(n, seed + len(split))
        for i, (image, label) in enumerate(zip(x, y, strict=True)):
            site = "b" if split == "test" and i % 4 == 0 else "a"
            buffer = io.BytesIO()
            Image.fromarray(image[::-1, :, 0] if site == "b" else image[:, :, 0]).save(buffer, "PNG")
            for name, value in (("id", f"{split}{i:03d}"), ("image", buffer.getvalue()), ("label", int(label)), ("site", site), ("split", split)):
                rows[name].append(value)
    pq.write_table(pa.table(rows), path)


def test_the_worst_group_is_that_of_the_column(tmp_path: Path) -> None:
    as_table(tmp_path / "x.parquet", 0)
    pipeline.score(str(tmp_path / "x.parquet"), tmp_path / "run", max_epochs=1)
    pipeline.select(tmp_path / "run", tmp_path / "m", keep="0.5")
    document = evaluated(tmp_path / "m", seeds=1, epochs=4, against="full", group="site")
    for arm in document["arms"].values():
        run = arm["runs"][0]
        assert set(run["per_group"]) == {"a", "b"} and arm["worst_group_mean"] == min(run["per_group"].values())
        assert 0.75 * run["per_group"]["a"] + 0.25 * run["per_group"]["b"] == pytest.approx(run["accuracy"])  # by the sizes of the groups
        worst = min(run["per_group"], key=lambda name: run["per_group"][name])
        assert f"{100 * run['per_group'][worst]:.1f} ({worst})" in [str(cell) for cell in evaluation_table(document).columns[3].cells]
    with pytest.raises(UsageError, match=r"no such column \(there are: site\)"):
        pipeline.evaluate(tmp_path / "m", seeds=1, epochs=1, group="hospital")
    assert open_source(str(tmp_path / "x.parquet")).facts["columns"]["site"]() == ["a"] * 240
    told = pipeline.report([tmp_path / "m"], tmp_path / "r.html")
    assert told["bytes"] and "worst group, %" in (tmp_path / "r.html").read_text()


def harm_rows(page: str) -> str:
    table = re.search(r'<table class="sortable" id="table-harm">.*?</table>', page, flags=re.S)
    assert table is not None
    return table.group(0)


def test_trainings_are_the_same_however_the_rows_lie(tmp_path: Path) -> None:
    as_table(tmp_path / "t.parquet", 0)
    whole = pq.read_table(tmp_path / "t.parquet")
    pq.write_table(whole.take(np.random.default_rng(0).permutation(len(whole))), tmp_path / "shuffled.parquet")
    pipeline.score(str(tmp_path / "t.parquet"), tmp_path / "run", max_epochs=1)
    pipeline.select(tmp_path / "run", tmp_path / "m", keep="0.3")
    found = [
        {
            arm: result["runs"][0]["accuracy"]
            for arm, result in evaluated(tmp_path / "m", seeds=1, epochs=8, data=str(tmp_path / name))["arms"].items()
        }
        for name in ("t.parquet", "shuffled.parquet")
    ]
    assert found[0] == found[1]


def test_what_fewer_samples_did_is_told_apart_from_what_the_choice_did() -> None:
    full, fewer, far_fewer = ([{"per_class": [0.9, level]}] * 3 for level in (0.9, 0.7, 0.4))
    facts = {"test_per_class": [1000, 1000]}

    def flags(pruned: list[dict[str, list[float]]], **others: list[dict[str, list[float]]]) -> list[tuple[str, ...]]:
        arms = {name: {"runs": runs} for name, runs in ({"pruned": pruned} | others).items()}
        return [one.flags for one in harm_by_class("ab", np.array([100, 100]), np.array([50, 50]), {"arms": arms, "facts": facts})[0]]

    assert flags(fewer, full=full, random=fewer) == [(), ("less accurate, as with random samples",)]
    assert flags(far_fewer, full=full, random=fewer) == flags(fewer, full=full) == flags(far_fewer, random=fewer) == [(), ("less accurate",)]
    assert flags(fewer, full=full, random=far_fewer) == [(), ("less accurate, as with random samples",)]
    assert flags(full, full=full, random=far_fewer) == [(), ()]


def test_one_or_two_test_samples_damage_no_class() -> None:
    def flags_of(n_test: int) -> tuple[str, ...]:
        arms = {arm: {"runs": [{"per_class": [accuracy]}] * 3} for arm, accuracy in (("pruned", 0.0), ("full", 1.0))}
        (found,), _ = harm_by_class("a", np.array([100]), np.array([50]), {"arms": arms, "facts": {"test_per_class": [n_test]}})
        return found.flags

    assert flags_of(1) == flags_of(2) == () and flags_of(10) == ("less accurate",)


def test_the_verdict_says_no_more_than_the_seeds_show() -> None:
    def told(*gains: float, n_test: int = 10_000) -> dict[str, Any]:
        arms = {arm: {"runs": [{"accuracy": 0.5 + mine * gain} for gain in gains]} for arm, mine in (("pruned", 1), ("random", 0))}
        return _comparison(arms, n_test)

    one, below = told(0.0001), told(-0.01)
    assert one["not_better_than_random"] is None and "one seed, which alone decides nothing" in one["sentence"]
    assert below["not_better_than_random"] is True
    for gains, better, verb in (
        ((0.02, 0.021), True, "beats"),
        ((-0.02, 0.04), False, "is not clearly better than"),
        ((-0.02, -0.021), False, "is worse than"),
    ):
        assert told(*gains)["not_better_than_random"] is not better and verb in told(*gains)["sentence"]
    for gains in ((0.01, 0.01), (0.01, 0.01, 0.01), (-0.01, -0.01, -0.01)):  # one of 100 test samples more, or less: as often as not that is luck
        assert told(*gains, n_test=100)["not_better_than_random"] is True and "not clearly better" in told(*gains, n_test=100)["sentence"]
    assert told(0.05, 0.05, 0.05, n_test=100)["not_better_than_random"] is False


def test_where_everything_is_kept_there_is_nothing_to_tell_apart(shapes_run: Path, tmp_path: Path) -> None:
    pipeline.select(shapes_run, tmp_path / "all", keep="1.0")
    document = pipeline.evaluate(tmp_path / "all", seeds=2, epochs=1)  # and no exit code of a guard
    assert "Everything is kept" in document["comparison"]["sentence"] and set(document["comparison"]) == {"sentence", "to_full"}
    assert pipeline.report([tmp_path / "all"], tmp_path / "r.html")["status"] == "open"


def test_trainings_of_another_group_column_or_of_changed_code_are_not_taken_for_these(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images, labels), (test_images, test_labels) = draw_shapes(200, 0), draw_shapes(60, 1)
    halves = {"a": ["x", "y"] * 30, "b": ["x"] * 30 + ["y"] * 30}

    def done(column: str, **options: Any) -> Any:
        return evaluate(
            images,
            labels,
            test_images,
            test_labels,
            np.arange(100),
            n_classes=4,
            order=np.arange(200),
            seeds=1,
            epochs=1,
            against=[],
            test_groups=halves[column],
            **options,
        ).arms["pruned"]["runs"][0]

    place = tmp_path / "place"
    first, other = done("a", checkpoint=place), done("b", checkpoint=place)
    assert other["per_group"] == done("b")["per_group"] != first["per_group"]
    monkeypatch.chdir(tmp_path)
    code = "from torch import nn\ndef net(n_classes, shape):\n    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], n_classes))\n"
    (tmp_path / "my_net.py").write_text(code)
    seconds = done("a", checkpoint=place, proxy="my_net:net")["total_seconds"]
    assert done("a", checkpoint=place, proxy="my_net:net")["total_seconds"] == seconds  # taken
    (tmp_path / "my_net.py").write_text(code.replace("nn.Flatten(), ", "nn.Flatten(), nn.Dropout(0.5), "))
    assert done("a", checkpoint=place, proxy="my_net:net")["total_seconds"] != seconds


def test_a_class_damaged_by_hardest_is_flagged_and_the_default_damages_none(tmp_path: Path) -> None:
    (x, y), (x_test, y_test) = draw_shapes(1600, 0), draw_shapes(400, 1)
    keep = y != 3
    keep[np.flatnonzero(y == 3)[::5]] = True  # class 3 is five times rarer
    x, y = x[keep], y[keep]
    for images, labels in ((x, y), (x_test, y_test)):  # class 0 is easy: its bars are white on dark
        of_class = images[labels == 0].astype(int)
        images[labels == 0] = np.clip(of_class // 4 + (of_class > 110) * 190, 0, 255)
    np.savez(tmp_path / "x.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    pipeline.score(str(tmp_path / "x.npz"), tmp_path / "run", max_epochs=4)
    told = {}
    for name, strategy in (("hardest", "hardest"), ("default", None)):
        pipeline.select(tmp_path / "run", tmp_path / name, keep="0.3", strategy=strategy)
        evaluated(tmp_path / name, seeds=2, epochs=3 if strategy else 8)  # the default's classes are judged when they are learned
        told[name] = pipeline.report([tmp_path / name], tmp_path / f"{name}.html") | {"page": (tmp_path / f"{name}.html").read_text()}
    row = re.search(r'<tr><th scope="row">0</th>.*?</tr>', harm_rows(told["hardest"]["page"]), flags=re.S)
    assert row is not None and "starved, less accurate" in row.group(0), row
    assert told["hardest"]["status"] == "caution" and "classes are damaged" in told["hardest"]["page"]
    assert not re.search(r"starved|empty|less accurate(?!, as with random)", harm_rows(told["default"]["page"]))
    arms = evaluated(tmp_path / "default", seeds=2, epochs=8, against="random")["arms"]  # long enough that the rare class is learned
    worst = {arm: np.array([run["worst_class"] for run in one["runs"]]) for arm, one in arms.items()}
    error = np.sqrt(np.var(worst["pruned"] - worst["random"], ddof=1) / 2 + 2 * 0.25 / 100)  # of two seeds, and of 100 test samples
    assert min(worst["random"]) > 0.2 and worst["pruned"].mean() >= worst["random"].mean() - 0.02 - error


def test_other_test_data_are_taken_by_the_names_of_their_classes(tmp_path: Path) -> None:
    names, ((x, y), (x_test, y_test)) = np.array(list("abcd")), (draw_shapes(400, 0), draw_shapes(200, 1))
    np.savez(tmp_path / "x.npz", x_train=x, y_train=names[y])
    np.savez(tmp_path / "with.npz", x_train=x, y_train=names[y], x_test=x_test, y_test=names[y_test])
    np.savez(
        tmp_path / "t.npz", x_train=x_test[y_test > 0], y_train=names[y_test[y_test > 0]]
    )  # class a is not tested, so the others are numbered from 0
    np.savez(tmp_path / "whole.npz", x_train=x_test, y_train=names[y_test])
    np.savez(tmp_path / "more.npz", x_train=x_test, y_train=np.array(list("abxy"))[y_test])
    found = {}
    for data in ("x", "with"):
        pipeline.score(str(tmp_path / f"{data}.npz"), tmp_path / data, max_epochs=3)
        pipeline.select(tmp_path / data, tmp_path / f"m-{data}", keep="0.5")
    for data, test in (("with", None), ("x", "whole"), ("x", "t")):
        found[test] = evaluated(tmp_path / f"m-{data}", seeds=1, epochs=2, test=test and str(tmp_path / f"{test}.npz"))
    runs = {test: document["arms"]["pruned"]["runs"][0] for test, document in found.items()}
    assert runs["whole"]["per_class"] == runs[None]["per_class"] and runs["whole"]["accuracy"] == runs[None]["accuracy"]
    assert runs["t"]["per_class"][0] is None and runs["t"]["per_class"][1:] == runs[None]["per_class"][1:]
    assert found["t"]["test"].endswith("t.npz") and found[None]["test"] is None
    pipeline.report([tmp_path / "m-x"], tmp_path / "r.html")
    assert "t.npz" in (tmp_path / "r.html").read_text()  # the command that repeats it
    with pytest.raises(DataError, match=r"2 classes are not among those .* \(x, y\)"):
        pipeline.evaluate(tmp_path / "m-x", test=str(tmp_path / "more.npz"))
    with pytest.raises(DataError, match="--test"):
        pipeline.evaluate(tmp_path / "m-x")


def test_a_short_training_is_said_to_be_short_and_how_to_have_a_longer_one(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = evaluated(manifest, seeds=1, epochs=1, against="random")
    n_steps, said = short["arms"]["pruned"]["runs"][0]["steps"], short["comparison"]["sentence"]
    assert f"({n_steps} steps)" in said
    enough = int(said.split("--epochs ")[1].split()[0])
    assert (enough - 1) * n_steps < 1500 <= enough * n_steps and said.endswith(f"gives {enough * n_steps:,}.")
    monkeypatch.setattr("clprune.budget.TRIAL_STEPS", 20)  # as of many samples, of which 30 epochs are far more steps than these
    assert f"--epochs 30 gives {30 * n_steps:,}." in evaluated(manifest, seeds=1, epochs=1, against="random")["comparison"]["sentence"]
    monkeypatch.setattr("clprune.evaluation.TRIAL_STEPS", n_steps)
    assert "--epochs" not in evaluated(manifest, seeds=1, epochs=1, against="random")["comparison"]["sentence"]


def test_an_arm_that_is_named_twice_is_trained_once(manifest: Path) -> None:
    said: list[str] = []
    evaluated(manifest, seeds=1, epochs=1, against="random, random", on_progress=lambda report: said.append(f"{report['done']}/{report['total']}"))
    assert said == ["1/2", "2/2"]


def test_what_could_not_be_kept_is_not_trained(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clprune.storage.may_write", lambda folder: False)
    said: list[str] = []
    with pytest.raises(StorageError, match="no permission to write"):
        pipeline.evaluate(manifest, seeds=1, epochs=1, on_progress=lambda report: said.append(report["message"]))
    assert not said
