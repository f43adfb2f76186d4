"""The known ways in which per-sample numbers go wrong silently, one test each; the number is that of the trap."""

import json
import warnings
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import torchvision
from conftest import draw_shapes, manifest_of, write_shards
from PIL import Image

from clprune import pipeline
from clprune.datatypes import digest_of_ids
from clprune.errors import ClpruneError, FingerprintError, UsageError
from clprune.export import RECORD, export
from clprune.recorder import Recorder
from clprune.score_table import score_table
from clprune.scores.aum import aum
from clprune.sources import open_source


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """cls1, cls2, cls10 with 1.png, 2.png, 10.png: natural and plain order differ in classes and files."""
    for c, name in enumerate(("cls1", "cls2", "cls10")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in (1, 2, 10):
            Image.fromarray(np.full((16, 16), 20 * c + 70 + i, dtype=np.uint8)).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


def timm_dataset(root: Path) -> Any:
    """timm's own reader of a folder, which leaves it to the garbage collector to close files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm.data

        return timm.data.create_dataset("", root=str(root))


def shown(item: Any) -> tuple[int, int]:
    return int(np.asarray(item[0]).flat[0]), item[1]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_01_rows_of_one_loader_are_not_used_under_the_order_of_another(numbered: Path, tmp_path: Path) -> None:
    source = open_source(str(numbered))
    kept = [0, 4, 8]
    manifest = manifest_of(source, kept, tmp_path / "m")
    export(manifest, source, "indices", tmp_path / "rows")
    folder = torchvision.datasets.ImageFolder(str(numbered), loader=lambda path: Image.open(path).copy())
    of_torchvision = {shown(item) for item in manifest.subset(folder)}
    assert of_torchvision == {shown((source.read_input(row), int(source.labels[row]))) for row in kept}
    other = timm_dataset(numbered)
    rows = np.load(tmp_path / "rows" / "kept.npy")
    assert {shown(other[int(row)]) for row in rows} != of_torchvision  # the trap
    with pytest.raises(FingerprintError):
        manifest.subset(other)
    in_its_order = [Path(name).relative_to(numbered).as_posix() for name in other.filenames(absolute=True)]
    assert sorted(in_its_order) == sorted(source.sample_ids.tolist())
    assert digest_of_ids(np.array(in_its_order)) != json.loads((tmp_path / "rows" / "kept.json").read_text())["order_digest"]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_02_a_broken_image_is_listed_not_replaced_by_its_neighbour(numbered: Path) -> None:
    (numbered / "cls1" / "2.png").write_bytes(b"\x89PNG broken")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = timm_dataset(numbered)
        assert len({shown(other[row])[0] for row in range(9)}) == 8  # the trap: another image under its row
    source = open_source(str(numbered))
    assert [name for name, _ in source.skipped] == ["cls1/2.png"] and len(source) == 8


def test_03_a_class_of_which_nothing_is_kept_keeps_its_number(numbered: Path, tmp_path: Path) -> None:
    source = open_source(str(numbered))
    export(manifest_of(source, [0, 7], tmp_path / "m"), source, "imagefolder", tmp_path / "out")
    read = torchvision.datasets.ImageFolder(str(tmp_path / "out"), allow_empty=True)
    assert read.class_to_idx == {name: c for c, name in enumerate(source.class_names)}
    assert sorted(read.targets) == sorted(source.labels[[0, 7]].tolist())


def observed(rows: list[list[int]], n: int) -> Recorder:
    recorder = Recorder(range(n), n_classes=2)
    generator = torch.Generator().manual_seed(0)
    for part in rows:
        recorder.observe(torch.tensor(part), torch.randn(len(part), 2, generator=generator), torch.tensor(part) % 2)
    recorder.end_epoch()
    return recorder


def test_04_rows_that_a_distributed_sampler_repeats_count_once() -> None:
    parts = [list(torch.utils.data.DistributedSampler(range(10), num_replicas=4, rank=rank, shuffle=False)) for rank in range(4)]  # type: ignore[arg-type]
    assert sum(map(len, parts)) == 12  # the trap
    padded, first = observed(parts, 10), observed(parts[:2], 10)
    p_label = padded.trajectory().signal("p_label")[0]
    assert np.isfinite(p_label).all()
    np.testing.assert_array_equal(p_label[parts[0]], first.trajectory().signal("p_label")[0][parts[0]])  # repeated later, unchanged


def test_05_a_sample_that_an_epoch_did_not_see_is_missing_not_zero() -> None:
    recorder = observed([[0, 1, 2]], 4)
    recorder.observe(torch.arange(4), torch.ones(4, 2), torch.arange(4) % 2)
    recorder.end_epoch()
    signal = recorder.trajectory().signal("p_label")
    assert np.isnan(signal[0, 3]) and np.isfinite(signal[1]).all()
    values = score_table(recorder.trajectory(), type(recorder.critical_period())(0, 2, True, 1.0, None, None, None, {}, ""))[0].values
    assert values["confidence"][3] == pytest.approx(0.5)  # the mean of the one epoch that saw it


def test_06_soft_labels_are_refused() -> None:
    recorder = Recorder(range(4), n_classes=2)
    with pytest.raises(UsageError, match="label"):
        recorder.observe(torch.arange(4), torch.randn(4, 2), torch.full((4, 2), 0.5))


def test_07_losses_divided_for_accumulation_are_no_input_but_logits_are() -> None:
    logits, labels = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.arange(4) % 2
    recorder = Recorder(range(4), n_classes=2)
    recorder.observe(torch.arange(4), logits, labels)
    recorder.end_epoch()
    expected = logits.softmax(dim=1)[torch.arange(4), labels].numpy()
    np.testing.assert_allclose(recorder.trajectory().signal("p_label")[0], expected, rtol=1e-5)
    with pytest.raises(UsageError, match="losses"):
        Recorder(range(4)).observe(torch.arange(4), losses=torch.nn.functional.cross_entropy(logits, labels) / 4)


def test_08_the_area_under_the_margin_is_that_of_logits() -> None:
    scaled = []
    for factor in (1.0, 3.0):
        recorder = Recorder(range(4), n_classes=3)
        recorder.observe(torch.arange(4), factor * torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), torch.arange(4) % 3)
        recorder.end_epoch()
        scaled.append(aum(recorder.trajectory().signal("margin")))
    np.testing.assert_allclose(scaled[1], 3 * scaled[0], rtol=1e-3)  # a margin of softmax would not grow in proportion


def test_09_rows_are_whole_numbers_everywhere(shapes_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="whole numbers"):
        Recorder(range(4), n_classes=2).observe(torch.arange(4).float(), torch.randn(4, 2), torch.arange(4) % 2)
    pipeline.select(shapes_run, tmp_path / "m", keep="0.5")
    assert np.load(tmp_path / "m" / "kept.npy").dtype == np.int64


def test_10_the_manifest_says_with_which_augmentation_the_signals_were_taken(shapes_run: Path, tmp_path: Path) -> None:
    recipe = pipeline.select(shapes_run, tmp_path / "m", keep="0.5").document["run"]["recipe"]
    assert {"flip", "crop_padding", "label_smoothing", "copies"} <= set(recipe)


def test_11_a_choice_follows_the_ids_of_a_shuffled_hugging_face_set(tmp_path: Path) -> None:
    images, labels = draw_shapes(40, 0)
    rows = {"image": [Image.fromarray(image[..., 0]) for image in images], "label": labels.tolist(), "id": [f"s{i}" for i in range(40)]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=4), "id": datasets.Value("string")})
    whole = datasets.Dataset.from_dict(rows, features)
    whole.save_to_disk(str(tmp_path / "saved"))
    source = open_source(f"hf:{tmp_path / 'saved'}")
    kept = [3, 5, 21]
    manifest = manifest_of(source, kept, tmp_path / "m")
    turned = whole.shuffle(seed=1)
    assert set(turned.select(kept)["id"]) != {"s3", "s5", "s21"}  # the trap
    assert set(manifest.subset(turned)["id"]) == {"s3", "s5", "s21"}


def test_12_accuracy_and_what_it_took_come_from_the_same_training(shapes_run: Path, tmp_path: Path) -> None:
    pipeline.select(shapes_run, tmp_path / "m", keep="0.5")
    try:
        pipeline.evaluate(tmp_path / "m", seeds=1, epochs=1, against="full")
    except ClpruneError:
        pass
    for arm in json.loads((tmp_path / "m" / "evaluation.json").read_text())["arms"].values():
        assert {"accuracy", "steps", "samples_seen", "seconds", "energy_kwh"} <= set(arm["runs"][0])
    assert {arm["runs"][0]["steps"] for arm in json.loads((tmp_path / "m" / "evaluation.json").read_text())["arms"].values()} == {5}


def test_13_an_export_by_links_says_what_that_means(numbered: Path, tmp_path: Path) -> None:
    source = open_source(str(numbered))
    told = export(manifest_of(source, [0, 4], tmp_path / "m"), source, "imagefolder(link='hardlink')", tmp_path / "out")
    assert "edit the original" in told["note"] and told["bytes_written"] == sum(
        (tmp_path / "out" / name).stat().st_size for name in ("class_map.json", RECORD)
    )
    copied = export(manifest_of(source, [0, 4, 8], tmp_path / "m2"), source, "imagefolder(link='copy')", tmp_path / "copied")
    assert "note" not in copied


def test_14_keys_that_occur_in_every_shard_are_told_apart(tmp_path: Path) -> None:
    source = open_source(write_shards(tmp_path, *draw_shapes(20, 0)))
    assert len(set(source.sample_ids.tolist())) == 20


def test_15_energy_without_a_counter_is_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    import codecarbon

    from clprune.energy import EnergyMeter

    def broken(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("no counter")

    monkeypatch.setattr(codecarbon, "OfflineEmissionsTracker", broken)
    with EnergyMeter() as meter:
        pass
    assert meter.kwh is None and meter.method == "not measured"
