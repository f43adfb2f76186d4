"""The recorder in other people's loops gives what it gives in a plain one: Lightning and transformers themselves, on real data."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import draw_shapes
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import clprune
from clprune.critical_period import live_firing
from clprune.errors import DataError, FingerprintError, UsageError
from clprune.live import read_live
from clprune.recorder import Recorder
from clprune.training import FeatureTap

N, EPOCHS = 320, 3


@pytest.fixture(scope="module")
def train_set() -> TensorDataset:
    images, labels = draw_shapes(N, 0)
    return TensorDataset(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(labels))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 32), nn.ReLU(), nn.Linear(32, 4))


def plain(train_set: TensorDataset) -> Recorder:
    """Three lines in a loop of one's own, batches in the order of rows."""
    model, recorder = network(), Recorder(train_set, n_classes=4)
    optimizer, caught = torch.optim.SGD(model.parameters(), lr=0.1), []
    model[-1].register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    for _ in range(EPOCHS):
        for x, y, index in DataLoader(recorder.indexed(train_set), batch_size=32):
            logits = model(x)
            optimizer.zero_grad()
            F.cross_entropy(logits, y).backward()
            optimizer.step()
            recorder.observe(index, logits, y, caught.pop())
        recorder.end_epoch(learning_rate=0.1)
    return recorder


def equal(a: Recorder, b: Recorder) -> None:
    mine, other = a.trajectory(), b.trajectory()
    assert set(mine.signals) == set(other.signals) and set(mine.curves) == set(other.curves)
    for name in mine.signals:
        np.testing.assert_array_equal(mine.signals[name], other.signals[name], err_msg=name)
    for name in mine.curves:
        np.testing.assert_array_equal(mine.curves[name], other.curves[name], err_msg=name)
    np.testing.assert_array_equal(mine.labels, other.labels)


@pytest.fixture(scope="module")
def lightning() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Lightning's own imports warn of
        import lightning.pytorch as module

        from clprune.integrations import lightning as integration
    return module, integration


def module_of(lightning: Any, model: nn.Module, schedule: Any = None) -> Any:
    class Classifier(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any) -> torch.Tensor:
            return F.cross_entropy(self.model(batch[0]), batch[1])

        def validation_step(self, batch: Any) -> None:
            self.model(batch[0])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            return optimizer if schedule is None else ([optimizer], [schedule(optimizer)])

    return Classifier()


def fit(
    lightning: Any, recorder: Recorder, loader: Any, model: nn.Module, *, validate: Any = None, resume: Path | None = None, **options: Any
) -> Any:
    library, integration = lightning
    stop, schedule, head = options.pop("stop", False), options.pop("schedule", None), options.pop("head", None)
    options = {"max_epochs": EPOCHS, "accelerator": "cpu", "logger": False, "enable_checkpointing": False} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = library.Trainer(
            callbacks=[integration.CriticalPeriodCallback(recorder, stop=stop, head=head)],
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
        trainer.fit(module_of(library, model, schedule), loader, validate, ckpt_path=resume)
    return trainer


@pytest.mark.parametrize("validated", [False, True])
def test_lightning_records_exactly_what_a_plain_loop_does(lightning: Any, train_set: TensorDataset, validated: bool) -> None:
    recorder = Recorder(train_set, n_classes=4)
    validate = DataLoader(train_set, batch_size=64) if validated else None
    fit(lightning, recorder, DataLoader(recorder.indexed(train_set), batch_size=32), network(), validate=validate)
    equal(recorder, plain(train_set))


def test_lightning_sees_each_sample_once_with_accumulated_gradients(lightning: Any, train_set: TensorDataset) -> None:
    recorder = Recorder(train_set, n_classes=4)
    fit(lightning, recorder, DataLoader(recorder.indexed(train_set), batch_size=32), network(), accumulate_grad_batches=4, max_epochs=1)
    p_label = recorder.trajectory().signal("p_label")[0]
    assert np.isfinite(p_label).all()
    with torch.no_grad():  # the first four micro-batches saw the untrained network
        expected = network()(train_set.tensors[0][:128]).softmax(dim=1).gather(1, train_set.tensors[1][:128, None])[:, 0]
    np.testing.assert_allclose(p_label[:128], expected.numpy(), rtol=1e-4)


class Impatient(Recorder):
    """Says that the period is over after the second epoch."""

    def end_epoch(self, *, learning_rate: float | None = None) -> bool:
        super().end_epoch(learning_rate=learning_rate)
        return len(self.epochs) >= 2


@pytest.mark.parametrize(("stop", "epochs"), [(True, 2), (False, 3)])
def test_lightning_stops_or_only_tells(lightning: Any, train_set: TensorDataset, stop: bool, epochs: int) -> None:
    recorder = Impatient(train_set, n_classes=4)
    trainer = fit(lightning, recorder, DataLoader(recorder.indexed(train_set), batch_size=32), network(), stop=stop)
    assert len(recorder.epochs) == trainer.current_epoch == epochs


FALLING = [0.1, 0.1, 0.01]  # the rate of each epoch


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_lightning_tells_each_epoch_the_rate_that_it_was_trained_at(lightning: Any, train_set: TensorDataset, interval: str) -> None:
    def schedule(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        milestone = 2 if interval == "epoch" else 2 * (N // 32)
        return {"scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [milestone], gamma=0.1), "interval": interval}

    recorder = Recorder(train_set, n_classes=4)
    fit(lightning, recorder, DataLoader(recorder.indexed(train_set), batch_size=32), network(), schedule=schedule)
    np.testing.assert_allclose(recorder.curves["learning_rate"], np.repeat(FALLING, 4))


def test_a_resumed_lightning_training_goes_on_recording(lightning: Any, train_set: TensorDataset, tmp_path: Path) -> None:
    first = Recorder(train_set, n_classes=4)
    options = {"enable_checkpointing": True, "default_root_dir": tmp_path}
    fit(lightning, first, DataLoader(first.indexed(train_set), batch_size=32), network(), max_epochs=2, **options)
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    second = Recorder(train_set, n_classes=4)
    fit(lightning, second, DataLoader(second.indexed(train_set), batch_size=32), network(), resume=checkpoint, **options)
    equal(second, plain(train_set))


def test_a_lightning_checkpoint_without_the_recording_is_refused_and_one_within_an_epoch_is_told_of(
    lightning: Any, train_set: TensorDataset, tmp_path: Path
) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint

    library, integration = lightning
    options = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}

    def trained(recorder: Recorder, folder: Path, recording: bool = True, resume: Path | None = None) -> None:
        saves = ModelCheckpoint(dirpath=folder, filename="{step}", every_n_train_steps=5, save_top_k=-1)
        trainer = library.Trainer(callbacks=[integration.CriticalPeriodCallback(recorder, stop=False)][:recording] + [saves], **options)
        trainer.fit(module_of(library, network()), DataLoader(recorder.indexed(train_set), batch_size=32), ckpt_path=resume)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # of few workers
        warnings.filterwarnings("ignore", category=FutureWarning)
        trained(Recorder(train_set), tmp_path / "with")
        trained(Recorder(train_set), tmp_path / "without", recording=False)
        for step, said in (
            (5, "holds 0 whole epochs, and the training goes on after 0 and a part of one"),
            (10, "holds 0 whole epochs, and the .* after 1:"),
        ):
            with pytest.warns(RuntimeWarning, match=said):
                trained(Recorder(train_set), tmp_path / "again", resume=tmp_path / "with" / f"step={step}.ckpt")
        with pytest.raises(UsageError, match="after 1 epochs of which there is no recording"):
            trained(Recorder(train_set), tmp_path / "again", resume=tmp_path / "without" / "step=15.ckpt")


def test_what_cannot_be_recorded_is_refused(lightning: Any, train_set: TensorDataset) -> None:
    recorder = Recorder(train_set, n_classes=4)
    with pytest.raises(UsageError, match="indexed"):
        fit(lightning, recorder, DataLoader(train_set, batch_size=32), network())
    with pytest.raises(UsageError, match="linear layer"):
        fit(lightning, recorder, DataLoader(recorder.indexed(train_set), batch_size=32), nn.Sequential(nn.Conv2d(1, 4, 16), nn.Flatten()))


class Named(nn.Module):
    """The network with a head that is called by name, and was made before the rest."""

    def __init__(self) -> None:
        super().__init__()
        *body, self.head = network()
        self.body = nn.Sequential(*body)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(input=self.body(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("n_classes", "head"), [(4, None), (None, "model.head"), (3, "model.head")])
def test_a_head_is_found_by_its_width_or_name_and_may_be_called_by_keyword(
    lightning: Any, train_set: TensorDataset, n_classes: int | None, head: str | None
) -> None:
    recorder = Recorder(train_set, n_classes=n_classes)
    fit(lightning, recorder, DataLoader(recorder.indexed(train_set), batch_size=32), Named(), head=head)
    equal(recorder, plain(train_set))


def test_the_last_layer_of_a_proxy_may_be_called_by_keyword() -> None:
    layer = nn.Linear(3, 2)
    tap, x = FeatureTap(layer), torch.randn(5, 3)
    layer(input=x)
    assert tap.features is x


def test_a_head_that_cannot_be_told_is_refused(lightning: Any, train_set: TensorDataset) -> None:
    recorder = Recorder(train_set, n_classes=3)
    for head, said in ((None, r"gives the 3 numbers .* model\.head 4, model\.body\.3 32"), ("fc", "no module 'fc'. It has: model, model.head")):
        with pytest.raises(UsageError, match=said):
            fit(lightning, recorder, DataLoader(recorder.indexed(train_set), batch_size=32), Named(), head=head)


class Breaking(nn.Module):
    """The network; a forward pass of the second epoch fails, once."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.n_steps = network(), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.n_steps += 1
        if self.n_steps == 15:
            raise RuntimeError("a cable was pulled")
        return self.body(x)  # type: ignore[no-any-return]


def test_a_lightning_training_that_fails_leaves_nothing_of_its_last_epoch(lightning: Any, train_set: TensorDataset, tmp_path: Path) -> None:
    recorder, model = Recorder(train_set, n_classes=4, live_folder=tmp_path), Breaking()
    loader = DataLoader(recorder.indexed(train_set), batch_size=32)
    with pytest.raises(RuntimeError, match="cable"):
        fit(lightning, recorder, loader, model)
    assert not any(module._forward_hooks for module in model.modules())
    assert read_live(tmp_path)["state"] == "stopped"
    again, fresh = nn.Sequential(model.body), Recorder(train_set, n_classes=4)
    fit(lightning, fresh, loader, copy.deepcopy(again))
    fit(lightning, recorder, loader, again)
    np.testing.assert_array_equal(recorder.trajectory().signal("p_label")[1:], fresh.trajectory().signal("p_label"))


def test_a_transformers_training_that_fails_leaves_nothing_of_its_last_epoch(train_set: TensorDataset, tmp_path: Path) -> None:
    recorder, again, fresh = (Recorder(train_set, n_classes=4) for _ in range(3))
    recorder.publish(tmp_path / "live")
    with pytest.raises(UsageError, match="add_column"):
        trained(recorder, Rows(train_set, with_index=False), tmp_path)
    assert read_live(tmp_path / "live")["state"] == "stopped"
    again.observe(torch.arange(N), torch.zeros(N, 4), torch.zeros(N, dtype=torch.int64), torch.zeros(N, 32))  # of a training that was interrupted
    trained(again, Rows(train_set), tmp_path)
    trained(fresh, Rows(train_set), tmp_path)
    equal(again, fresh)


class Rows(Dataset):  # type: ignore[type-arg]
    """Mappings, as transformers takes them."""

    def __init__(self, train_set: TensorDataset, with_index: bool = True) -> None:
        self.train_set, self.with_index = train_set, with_index

    def __len__(self) -> int:
        return len(self.train_set)

    def __getitem__(self, row: int) -> dict[str, Any]:
        x, y = self.train_set[row]
        return {"pixels": x, "labels": y} | ({"index": row} if self.with_index else {})


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from transformers import PretrainedConfig

        self.body, self.config = network(), PretrainedConfig()

    def forward(self, pixels: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.body(pixels)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


def trained(  # type: ignore[type-arg]
    recorder: Recorder, data: Dataset, folder: Path, *, factor: Any = lambda step: 1.0, anew: bool = False, **options: Any
) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import Trainer, TrainingArguments

        from clprune.integrations.transformers import CriticalPeriodMixin

        class RecordingTrainer(CriticalPeriodMixin, Trainer):  # type: ignore[misc]
            def _get_train_sampler(self, *args: Any) -> Any:
                return torch.utils.data.SequentialSampler(data)  # type: ignore[arg-type]

        model = Model()
        resume = options.pop("resume", None)
        given = {"per_device_train_batch_size": 32, "num_train_epochs": EPOCHS, "max_grad_norm": 0.0, "save_strategy": "no"} | options
        arguments = TrainingArguments(str(folder), use_cpu=True, report_to="none", logging_strategy="no", disable_tqdm=True, **given)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        trainer = RecordingTrainer(
            **({"model_init": Model} if anew else {"model": model, "optimizers": (optimizer, schedule)}),
            args=arguments,
            train_dataset=data,
            eval_dataset=data,
            recorder=recorder,
            stop=options.get("stop", True),
        )
        trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_transformers_records_exactly_what_a_plain_loop_does(train_set: TensorDataset, tmp_path: Path) -> None:
    recorder = Recorder(train_set, n_classes=4)
    trained(recorder, Rows(train_set), tmp_path, eval_strategy="epoch")
    equal(recorder, plain(train_set))


def test_transformers_records_the_model_that_it_makes_anew_for_a_training(train_set: TensorDataset, tmp_path: Path) -> None:
    recorder = Recorder(train_set, n_classes=4)
    trainer = trained(recorder, Rows(train_set), tmp_path, anew=True, optim="sgd", learning_rate=0.1, lr_scheduler_type="constant")
    equal(recorder, plain(train_set))
    with pytest.raises(UsageError, match="holds 3 epochs of another model"):
        trainer.train()


def test_transformers_stops_and_label_smoothing_changes_no_signal_of_the_first_step(train_set: TensorDataset, tmp_path: Path) -> None:
    recorder = Impatient(train_set, n_classes=4)
    trained(recorder, Rows(train_set), tmp_path, label_smoothing_factor=0.3)
    assert len(recorder.epochs) == 2
    first = plain(train_set).trajectory().signal("p_label")[0, :32]
    np.testing.assert_array_equal(recorder.trajectory().signal("p_label")[0, :32], first)


@pytest.mark.parametrize("by_path", [False, True])
@pytest.mark.parametrize("used", [False, True])
def test_a_resumed_transformers_training_goes_on_recording(train_set: TensorDataset, tmp_path: Path, by_path: bool, used: bool) -> None:
    first = Recorder(train_set, n_classes=4)
    trained(first, Rows(train_set), tmp_path, save_strategy="epoch", num_train_epochs=2)
    second = first if used else Recorder(train_set, n_classes=4)
    trained(second, Rows(train_set), tmp_path, save_strategy="epoch", resume=str(tmp_path / f"checkpoint-{2 * N // 32}") if by_path else True)
    equal(second, plain(train_set))
    assert second.live.waiting_for == plain(train_set).live.waiting_for


def test_a_transformers_checkpoint_without_the_recording_is_refused_and_one_within_an_epoch_is_told_of(
    train_set: TensorDataset, tmp_path: Path
) -> None:
    trained(Recorder(train_set, n_classes=4), Rows(train_set), tmp_path, save_strategy="steps", save_steps=14, num_train_epochs=2)
    from clprune.integrations.transformers import RECORDING, restore_recording

    folder, recorder = tmp_path / "checkpoint-14", Recorder(train_set, n_classes=4)
    with pytest.warns(RuntimeWarning, match=r"1 whole epochs, and the training goes on at epoch 1\.40"):
        restore_recording(recorder, folder)
    assert len(recorder.epochs) == 1
    (folder / RECORDING).unlink()
    with pytest.raises(UsageError, match="checkpoint-14 holds no recording"):
        trained(Recorder(train_set, n_classes=4), Rows(train_set), tmp_path, resume=str(folder))


def test_transformers_tells_each_epoch_the_rate_that_it_was_trained_at(train_set: TensorDataset, tmp_path: Path) -> None:
    recorder = Recorder(train_set, n_classes=4)
    trained(recorder, Rows(train_set), tmp_path, factor=lambda step: 1.0 if step < 2 * (N // 32) else 0.1)
    np.testing.assert_allclose(recorder.curves["learning_rate"], np.repeat(FALLING, 4))


class Unlabelled(Rows):
    """Rows whose labels are not known."""

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {name: value for name, value in super().__getitem__(row).items() if name != "labels"}


def test_transformers_predicts_examples_that_carry_their_row(train_set: TensorDataset, tmp_path: Path) -> None:
    trainer = trained(Recorder(train_set, n_classes=4), Rows(train_set), tmp_path, num_train_epochs=1)
    found = [trainer.predict(kind(train_set)).predictions for kind in (Rows, Unlabelled)]
    trainer.model.eval()
    with torch.no_grad():
        np.testing.assert_allclose(found[0], trainer.model.body(train_set.tensors[0]).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[0], found[1])


def test_transformers_examples_without_rows_are_refused(train_set: TensorDataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="add_column"):
        trained(Recorder(train_set, n_classes=4), Rows(train_set, with_index=False), tmp_path)


def twice(value: float) -> float:
    return 2 * value


def same(value: float) -> float:
    return value


class Numbers(Dataset):  # type: ignore[type-arg]
    def __init__(self) -> None:
        self.transform: Any = None

    def __len__(self) -> int:
        return 8

    def __getitem__(self, row: int) -> float:
        return float(self.transform(float(row)))


def test_a_switched_transform_reaches_workers_that_live_on() -> None:
    recorder = Recorder(Numbers(), n_classes=2)
    data = Numbers()
    data.transform = recorder.switched(twice, same)
    loader = DataLoader(data, batch_size=8, num_workers=1, persistent_workers=True, multiprocessing_context="spawn")
    assert next(iter(loader)).tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    recorder.live.fired_epoch = 3  # as the live rule does when the period is over
    recorder.observe(torch.arange(8), torch.randn(8, 2), torch.arange(8) % 2)
    recorder.end_epoch()
    assert next(iter(loader)).tolist() == list(range(8))


def test_a_run_folder_comes_out_of_a_loop_of_ones_own(train_set: TensorDataset, tmp_path: Path) -> None:
    recorder = plain(train_set)
    images = TensorDataset((255 * train_set.tensors[0]).round().to(torch.uint8), train_set.tensors[1])
    run = clprune.save_run(recorder, images, tmp_path / "run")
    assert clprune.verify(run.folder) == []
    assert clprune.select(run.folder, tmp_path / "m", keep="0.25").n_kept == N // 4
    assert run.document["share_of_full_training"] == 0 and run.document["energy_kwh"] is None
    with pytest.raises(DataError, match="holds a run"):
        clprune.save_run(recorder, images, tmp_path / "run")
    turned = TensorDataset(images.tensors[0].flip(0), images.tensors[1].flip(0))
    with pytest.raises(DataError, match="another label"):
        clprune.save_run(recorder, turned, tmp_path / "other")
    with pytest.raises(DataError, match="320 samples"):
        clprune.save_run(recorder, TensorDataset(images.tensors[0][:9], images.tensors[1][:9]), tmp_path / "other")
    assert not (tmp_path / "other").exists()


X = torch.rand(60, 20, generator=torch.Generator().manual_seed(0))


class Items(Dataset[Any]):
    """Sixty items of three classes whose input is what the function gives."""

    def __init__(self, given: Callable[[int], Any]) -> None:
        self.given = given

    def __len__(self) -> int:
        return 60

    def __getitem__(self, row: int) -> Any:
        given = self.given(row)
        return given | {"labels": row % 3} if isinstance(given, dict) else (given, row % 3)


def tokens(**more: list[Any]) -> Any:
    import datasets

    return datasets.Dataset.from_dict({"input_ids": [[row, 1] for row in range(60)], "labels": [row % 3 for row in range(60)]} | more)


OTHERS = {
    "vectors": lambda: TensorDataset(X, torch.arange(60) % 3),
    "two inputs": lambda: Items(lambda row: (X[row], X[row].view(1, 4, 5))),
    "films": lambda: Items(lambda row: X[row].view(5, 1, 2, 2)),
    "named inputs": lambda: Items(lambda row: {"input_ids": X[row], "attention_mask": X[row] > 0}),
    "tokens": tokens,
    "tokens with ids": lambda: tokens(id=[f"t{row:02d}" for row in range(60)]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_loop_over_inputs_that_are_no_images_comes_to_a_run_and_a_subset_too(name: str, tmp_path: Path) -> None:
    data, recorder = OTHERS[name](), Recorder(range(60), n_classes=3)
    for epoch in range(3):
        recorder.observe(torch.arange(60), torch.randn(60, 3, generator=torch.Generator().manual_seed(epoch)), torch.arange(60) % 3)
        recorder.end_epoch()
    run = clprune.save_run(recorder, data, tmp_path / "run")
    manifest = clprune.select(run.folder, tmp_path / "m", keep="0.5")
    kept, subset = np.load(tmp_path / "m" / "kept.npy"), manifest.subset(data)
    assert len(subset) == len(kept) == 30
    ids = [f"{'t' if 'ids' in name else ''}{row:02d}" for row in kept]
    assert sorted(manifest.kept_ids.tolist()) == ids
    for shown, row in zip(subset, kept.tolist(), strict=True):
        assert str(shown) == str(data[row])
    assert clprune.verify(run.folder) == clprune.verify(tmp_path / "m") == []
    fewer = data.select(range(50)) if hasattr(data, "select") else torch.utils.data.Subset(data, range(50))
    with pytest.raises(FingerprintError, match="50 samples"):
        manifest.subset(fewer)


def test_what_is_read_in_sequence_has_no_rows_to_add() -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(())

        def __len__(self) -> int:
            return 8

    with pytest.raises(UsageError, match="read in sequence"):
        Recorder(Stream(), n_classes=2).indexed(Stream())


@pytest.mark.parametrize(
    ("item", "batch"),
    [
        ((10, 3), lambda row: (10, 3, row)),
        ([10, 20, 3], lambda row: (10, 20, 3, row)),  # a second input: it is not taken for the label, and not lost
        (torch.tensor([1.0, 2.0]), lambda row: (torch.tensor([1.0, 2.0]), row)),  # no label: the tensor itself is not cut
        ({"image": 10, "label": 3}, lambda row: {"image": 10, "label": 3, "index": row}),
    ],
)
def test_whatever_an_item_holds_its_row_is_added_and_nothing_else_changes(item: Any, batch: Any) -> None:
    found = Recorder([item] * 3).indexed([item] * 3)[2]
    assert type(found) is (dict if isinstance(item, dict) else tuple) and repr(found) == repr(batch(2))
    with pytest.raises(UsageError, match='"index"'):
        Recorder([{"index": 0}]).indexed([{"index": 0}])[0]


def test_lightning_reads_the_rows_and_labels_of_mappings_that_were_indexed(train_set: TensorDataset) -> None:
    from clprune.integrations.lightning import index_and_labels

    recorder = Recorder(train_set)
    items = [{"image": x, "label": y} for x, y in train_set]
    for batch in DataLoader(recorder.indexed(items), batch_size=32):
        rows, labels = index_and_labels(batch)
        assert torch.equal(labels, train_set.tensors[1][rows])


@pytest.mark.parametrize("seed", range(3))
def test_a_change_of_the_rate_is_masked_in_a_run_and_in_logged_curves_as_each_counts(train_set: TensorDataset, tmp_path: Path, seed: int) -> None:
    images = TensorDataset((255 * train_set.tensors[0][:64]).round().to(torch.uint8), train_set.tensors[1][:64])
    recorder = Recorder(images, n_classes=4)
    for _ in range(20):
        for rows in torch.arange(64).split(16):
            recorder.observe(rows, torch.randn(16, 4), images.tensors[1][rows])
        recorder.end_epoch()
    times = np.array(recorder.curve_epochs)  # epochs done; the rate falls after the tenth
    approach = np.exp(-times / 5) + np.random.default_rng(seed).normal(0, 0.01, len(times)) + 1.5 * (times > 10)
    recorder.curves = {"retention": approach.tolist()}
    run = clprune.save_run(recorder, images, tmp_path / "run", near_duplicates=False)
    told = live_firing(times, {"retention": approach, "learning_rate": np.where(times > 10, 0.01, 0.1)})
    assert clprune.detect(run.folder, live=True, rate_changes=(10.0,))["fired_epoch"] == told is not None

    lines = [f"{epoch},{value}" for epoch, value in enumerate(approach)]  # logged by number of the epoch: that of row 40 is the first at the new rate
    (tmp_path / "without.csv").write_text("epoch,x\n" + "\n".join(lines))
    (tmp_path / "with.csv").write_text("epoch,x,lr\n" + "\n".join(f"{line},{0.1 if row < 40 else 0.01}" for row, line in enumerate(lines)))
    for live in (False, True):
        assert clprune.detect(tmp_path / "without.csv", live=live, rate_changes=(40.0,)) == clprune.detect(tmp_path / "with.csv", live=live)
