"""Proxy runs: reproducible, resumable, independent of the order of rows."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_shapes
from PIL import Image

from clprune import pipeline, run, trajectory
from clprune.decoding import planned_form
from clprune.errors import DataError, IntegrityError, TrainingError, UsageError
from clprune.inputs import inputs_of, open_data
from clprune.run import read_run
from clprune.sources import open_source
from clprune.training import pixel_statistics


def digests(folder: Path) -> dict[str, str]:
    names = ["scores.parquet", "samples.parquet", "embeddings.npy", "trajectory/p_label.npy", "trajectory/curves.csv"]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.parametrize("exact", [False, True])
def test_the_same_seed_gives_the_same_bytes(shapes_npz: Path, tmp_path: Path, exact: bool) -> None:
    for name in ("a", "b"):
        pipeline.score(str(shapes_npz), tmp_path / name, max_epochs=2, exact=exact)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    shapes_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    def stop(report: dict[str, object]) -> None:
        if report["stage"] == "train" and report["done"] == after:
            raise Stop

    pipeline.score(str(shapes_npz), tmp_path / "whole", max_epochs=4)
    with pytest.raises(Stop):
        pipeline.score(str(shapes_npz), tmp_path / "broken", max_epochs=4, on_progress=stop)
    assert not (tmp_path / "broken" / "run.json").exists()
    assert pipeline.verify(tmp_path / "broken") == []  # unfinished, but what is there is whole
    with pytest.raises(DataError, match="another seed"):
        pipeline.score(str(shapes_npz), tmp_path / "broken", max_epochs=4, seed=1)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(trajectory, "name_of_numbers", lambda device, exact: "float16")
        with pytest.raises(DataError, match=r"another number_format\. .*same kind of machine"):
            pipeline.score(str(shapes_npz), tmp_path / "broken", max_epochs=4)
    reports: list[dict[str, object]] = []
    pipeline.score(str(shapes_npz), tmp_path / "broken", max_epochs=4, on_progress=reports.append)
    assert digests(tmp_path / "whole") == digests(tmp_path / "broken")
    assert min(report["done"] for report in reports if report["stage"] == "train" and "curves" in report) == after + 1  # type: ignore[type-var]
    assert not (tmp_path / "broken" / "checkpoint").exists()


@pytest.mark.parametrize("proxy", ["speed_cnn", "test_trajectory:with_dropout", "test_trajectory:odd"])
def test_an_interrupted_run_of_a_proxy_with_frozen_weights_dropout_or_bfloat16_ends_with_the_same_bytes(
    shapes_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    def stop(report: dict[str, object]) -> None:
        if report["stage"] == "train" and report["done"] == 1:
            raise Stop

    monkeypatch.chdir(Path(__file__).parent)
    pipeline.score(str(shapes_npz), tmp_path / "whole", proxy=proxy, max_epochs=2, exact=True)
    with pytest.raises(Stop):
        pipeline.score(str(shapes_npz), tmp_path / "broken", proxy=proxy, max_epochs=2, exact=True, on_progress=stop)
    pipeline.score(str(shapes_npz), tmp_path / "broken", proxy=proxy, max_epochs=2, exact=True)
    assert digests(tmp_path / "whole") == digests(tmp_path / "broken")


def test_a_changed_checkpoint_is_refused_by_name(shapes_npz: Path, tmp_path: Path) -> None:
    def stop(report: dict[str, object]) -> None:
        if report["stage"] == "train" and report["done"] == 1:
            raise Stop

    with pytest.raises(Stop):
        pipeline.score(str(shapes_npz), tmp_path / "run", on_progress=stop)
    state = tmp_path / "run" / "checkpoint" / "epoch-0000.safetensors"
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    with pytest.raises(IntegrityError, match="epoch-0000"):
        pipeline.score(str(shapes_npz), tmp_path / "run")


def test_shuffled_rows_give_each_id_the_same_scores_and_the_same_kept_ids(tmp_path: Path) -> None:
    images, labels = draw_shapes(300, 0)
    ids, order = np.array([f"id{i}" for i in range(300)]), np.random.default_rng(1).permutation(300)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, ids=ids)
    np.savez(tmp_path / "b.npz", x_train=images[order], y_train=labels[order], ids=ids[order])
    kept = {}
    for name in ("a", "b"):
        pipeline.score(str(tmp_path / f"{name}.npz"), tmp_path / name, max_epochs=2)
        for strategy in ("stratified", "hardest", "blend"):
            kept[name, strategy] = pipeline.select(tmp_path / name, tmp_path / f"{name}-{strategy}", keep="0.4", strategy=strategy).kept_ids.tolist()
    for strategy in ("stratified", "hardest", "blend"):
        assert kept["a", strategy] == kept["b", strategy]
    a, b = (read_run(tmp_path / name).table for name in "ab")
    for name, values in a.values.items():
        assert values[order].tobytes() == b.values[name].tobytes(), name
    assert pipeline.compare(tmp_path / "a", tmp_path / "b")["scores"]["el2n"]["rank_correlation"] == pytest.approx(1)
    assert pipeline.verify(tmp_path / "a-hardest", data=str(tmp_path / "b.npz")) == []


def test_a_run_of_other_data_or_options_is_not_overwritten(shapes_npz: Path, shapes_run: Path) -> None:
    before = digests(shapes_run)
    with pytest.raises(DataError, match="other options"):
        pipeline.score(str(shapes_npz), shapes_run, max_epochs=3, seed=9)
    assert digests(shapes_run) == before
    assert pipeline.score(str(shapes_npz), shapes_run, max_epochs=3)["kind"] == "run"


def test_what_did_not_settle_says_so(shapes_run: Path) -> None:
    from clprune.run import read_run

    clp = read_run(shapes_run).document["clp"]
    assert clp["settled"] is False and clp["end_epoch"] == 3 and clp["reason"].startswith("not established")


def test_a_dry_run_counts_and_writes_nothing(shapes_npz: Path, tmp_path: Path) -> None:
    plan = pipeline.plan(str(shapes_npz), max_epochs=5)
    assert plan["n_samples"] == 600 and plan["max_steps"] == 25 and plan["max_minutes"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("shape", "image_size"), [((160, 160, 3), None), ((16, 96, 1), None), ((16, 96, 1), 32), ((20, 30, 1), 20)])
def test_a_dry_run_times_the_form_that_is_trained_on(tmp_path: Path, shape: tuple[int, int, int], image_size: int | None) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x_train=rng.integers(0, 255, (24, *shape), dtype=np.uint8), y_train=np.arange(24) % 2)
    told = pipeline.plan(str(tmp_path / "data.npz"), max_epochs=1, image_size=image_size)
    images, _ = inputs_of(open_data(str(tmp_path / "data.npz"), False), image_size)
    assert told["image"] == list(images.shape[1:])


def test_files_of_one_small_size_are_planned_unsquared_and_others_squared(tmp_path: Path) -> None:
    for name, sizes in (("equal", [(30, 20)] * 6), ("mixed", [(90, 40), (30, 20), (80, 100)] * 2)):
        for row, (width, height) in enumerate(sizes):
            (tmp_path / name / f"class{row % 2}").mkdir(parents=True, exist_ok=True)
            Image.new("L", (width, height)).save(tmp_path / name / f"class{row % 2}" / f"{row}.png")
        source = open_data(str(tmp_path / name), False)
        told = pipeline.plan(str(tmp_path / name), max_epochs=1)
        images, _ = inputs_of(source, None)
        assert told["image"] == list(images.shape[1:])
        assert planned_form(dataclasses.replace(source, shapes=None)) == (images.shape[1:], True)  # also where the listing read no heads


def test_large_images_are_planned_with_the_memory_of_a_batch(tmp_path: Path) -> None:
    for side in (32, 128):
        np.savez(tmp_path / f"{side}.npz", x_train=np.zeros((8, side, side, 1), dtype=np.uint8), y_train=np.arange(8) % 2)
    small, large = (pipeline.plan(str(tmp_path / f"{side}.npz"), max_epochs=1, device="cpu")["memory_mb"] for side in (32, 128))
    stem = 128 * 32 * (128 // 2) ** 2 * 4 / 1e6  # what a batch of the first layer gives is kept for the way back
    assert large > small + 2 * stem


def factory(n_classes: int, input_shape: tuple[int, int, int]) -> object:

    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(int(np.prod(input_shape)), n_classes))


def of_another_width(n_classes: int, input_shape: tuple[int, int, int]) -> object:
    return factory(7, input_shape)


def of_another_input(n_classes: int, input_shape: tuple[int, int, int]) -> object:
    return factory(n_classes, (1, 2, 3))


def with_dropout(n_classes: int, input_shape: tuple[int, int, int]) -> torch.nn.Module:
    """Its first layer is used by nobody, and every layer has the same shape but the last."""
    n_inputs = int(np.prod(input_shape))
    first, second, third = (torch.nn.Linear(n_inputs, n_inputs, bias=False) for _ in range(3))
    model = torch.nn.Sequential(torch.nn.Flatten(), second, torch.nn.ReLU(), torch.nn.Dropout(0.3), third, torch.nn.Linear(n_inputs, n_classes))
    first.weight.requires_grad_(False)
    model[1].register_parameter("unused", first.weight)
    return model


class Odd(torch.nn.Module):
    """Weights in bfloat16, a layer that gives a tuple, one that is not used; `pair` gives two outputs while it trains."""

    def __init__(self, n_classes: int, input_shape: tuple[int, int, int], pair: bool) -> None:
        super().__init__()
        self.wide, self.pair = torch.nn.Linear(int(np.prod(input_shape)), 8, dtype=torch.bfloat16), pair
        self.recurrent, self.unused, self.head = torch.nn.GRU(8, 8, batch_first=True), torch.nn.Identity(), torch.nn.Linear(8, n_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        logits = self.head(self.recurrent(self.wide(images.flatten(1).bfloat16()).float().unsqueeze(1))[0].squeeze(1))
        return (logits, logits) if self.pair and self.training else logits


def odd(n_classes: int, input_shape: tuple[int, int, int]) -> torch.nn.Module:
    return Odd(n_classes, input_shape, False)


def odd_pair(n_classes: int, input_shape: tuple[int, int, int]) -> torch.nn.Module:
    return Odd(n_classes, input_shape, True)


def not_a_model(n_classes: int, input_shape: tuple[int, int, int]) -> int:
    return 3


def test_a_model_of_the_users_own_is_a_proxy(shapes_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    run = pipeline.score(str(shapes_npz), tmp_path / "run", proxy="test_trajectory:factory", max_epochs=1)
    assert run["proxy"] == "test_trajectory:factory"
    with pytest.raises(UsageError, match="returned a int"):
        pipeline.score(str(shapes_npz), tmp_path / "other", proxy="test_trajectory:not_a_model", max_epochs=1)
    for made, layer, said in (
        ("odd", "recurrent", "'recurrent' gives a tuple"),
        ("odd", "unused", "'unused' has no part in what"),
        ("odd_pair", None, "the model gives a tuple while it trains"),
    ):
        with pytest.raises(UsageError, match=said):
            pipeline.score(str(shapes_npz), tmp_path / "other", proxy=f"test_trajectory:{made}", layer=layer, max_epochs=1)
    rows = {"x_train": np.zeros((60, 1, 20), np.uint8), "y_train": np.arange(60) % 3}
    np.savez(tmp_path / "rows.npz", **rows, x_test=rows["x_train"], y_test=rows["y_train"])
    with pytest.raises(UsageError, match=(said := r"'speed_cnn' failed on the first samples: .*Kernel size.* It must map B x 1 x 1 x 20 inputs")):
        pipeline.score(str(tmp_path / "rows.npz"), tmp_path / "other", proxy="speed_cnn", max_epochs=1)
    with pytest.raises(UsageError, match=said):
        pipeline.plan(str(tmp_path / "rows.npz"), proxy="speed_cnn")
    pipeline.score(str(tmp_path / "rows.npz"), tmp_path / "rows", max_epochs=1)
    pipeline.select(tmp_path / "rows", tmp_path / "subset", keep="0.5")
    with pytest.raises(UsageError, match=said):
        pipeline.evaluate(tmp_path / "subset", proxy="speed_cnn")
    for made, said in (("of_another_width", r"gave an array of shape \(2, 7\)"), ("of_another_input", "failed on the first samples: RuntimeError")):
        with pytest.raises(UsageError, match=said):
            pipeline.score(str(shapes_npz), tmp_path / "other", proxy=f"test_trajectory:{made}", max_epochs=1)


def test_a_run_of_small_images_of_any_proxy_in_the_box_has_scores(shapes_npz: Path, tmp_path: Path) -> None:
    run = pipeline.score(str(shapes_npz), tmp_path / "run", proxy="torchvision:squeezenet1_1", max_epochs=1, image_size=32)
    assert "grad_norm" not in run["high_means"] and "embeddings.npy" not in run["files"]  # no last linear layer: no features
    assert pipeline.select(tmp_path / "run", tmp_path / "m", keep="0.5").n_kept == 300


def test_an_interrupted_run_does_not_go_on_with_images_of_another_size_or_other_labels(image_folder: Path, tmp_path: Path) -> None:
    def stop(report: dict[str, object]) -> None:
        if report["stage"] == "train" and report["done"] == 1:
            raise Stop

    source = open_source(str(image_folder))
    with pytest.raises(Stop):
        pipeline.score(source, tmp_path / "run", max_epochs=2, image_size=12, on_progress=stop)
    with pytest.raises(DataError, match="another image_shape"):
        pipeline.score(source, tmp_path / "run", max_epochs=2, image_size=8)
    with pytest.raises(DataError, match="another labels"):
        pipeline.score(source.with_labels(source.labels[::-1].copy(), source.class_names), tmp_path / "run", max_epochs=2, image_size=12)
    (tmp_path / "run" / "trials").mkdir()
    pipeline.score(source, tmp_path / "run", max_epochs=2, image_size=8, force=True)
    assert not (tmp_path / "run" / "trials").exists()


def test_force_keeps_the_finished_run_until_another_is_made(shapes_npz: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pipeline.score(str(shapes_npz), out, max_epochs=1)
    before = digests(out)
    for options, error in (({"layer": "nope"}, UsageError), ({"learning_rate": 1e9}, TrainingError)):
        with pytest.raises(error):
            pipeline.score(str(shapes_npz), out, max_epochs=2, force=True, **options)  # type: ignore[arg-type]
        assert digests(out) == before and not (out / run.REPLACED).exists()

    def stop(report: dict[str, object]) -> None:
        if report["stage"] == "train" and report["done"] == 1:
            raise Stop

    def fail(report: dict[str, object]) -> None:
        if report["stage"] == "train" and report["done"] == 1:
            raise TrainingError("the loss is no longer finite")

    with pytest.raises(TrainingError):  # also after a checkpoint: the same command would fail again
        pipeline.score(str(shapes_npz), out, max_epochs=2, force=True, on_progress=fail)
    assert digests(out) == before and not (out / run.REPLACED).exists()
    with pytest.raises(Stop):
        pipeline.score(str(shapes_npz), out, max_epochs=2, force=True, on_progress=stop)
    assert (out / run.REPLACED / "run.json").exists()  # the new one has a checkpoint to go on from
    assert pipeline.score(str(shapes_npz), out, max_epochs=2)["epochs_run"] == 2 and not (out / run.REPLACED).exists()


def test_a_run_set_aside_by_a_process_that_was_killed_comes_back(shapes_npz: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pipeline.score(str(shapes_npz), out, max_epochs=1)
    before = digests(out)
    run._set_aside(out)
    (out / "live.json").write_text("of the new run")
    assert pipeline.score(str(shapes_npz), out, max_epochs=1)["epochs_run"] == 1  # found finished: nothing was trained
    assert digests(out) == before


def test_the_statistics_of_pixels_are_the_same_bits_in_any_order_of_rows() -> None:
    images, order = np.random.default_rng(0).integers(0, 256, (3_000, 9, 7, 3), dtype=np.uint8), np.random.default_rng(1).permutation(3_000)
    plain, shuffled = pixel_statistics(images), pixel_statistics(images[order], np.argsort(order))
    assert [part.tobytes() for part in plain] == [part.tobytes() for part in shuffled]


def test_a_finished_run_that_was_changed_is_not_called_one_of_other_options(shapes_npz: Path, tmp_path: Path) -> None:
    pipeline.score(str(shapes_npz), tmp_path / "run", max_epochs=1)
    file = tmp_path / "run" / "scores.parquet"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"changed since.*scores\.parquet"):
        pipeline.score(str(shapes_npz), tmp_path / "run", max_epochs=1)
    with pytest.raises(DataError, match="other options"):
        pipeline.score(str(shapes_npz), tmp_path / "run", max_epochs=2)
