"""The recorder inside a plain loop."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import draw_shapes
from torch.utils.data import DataLoader, TensorDataset

from clprune.approach import segments_of
from clprune.arithmetic import number_format
from clprune.critical_period import live_firing
from clprune.datatypes import Source
from clprune.errors import DataError, UsageError
from clprune.proxies import build_proxy
from clprune.recorder import Recorder
from clprune.sources import open_source
from clprune.trajectory import record_trajectory


def test_three_lines_in_a_plain_loop_record_what_a_second_pass_would_see() -> None:
    torch.manual_seed(0)
    images, labels = draw_shapes(120, 0)
    data = TensorDataset(torch.from_numpy(images).float().flatten(1) / 255, torch.from_numpy(labels))
    model = torch.nn.Linear(256, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)  # nothing moves: a pass afterwards is the judge
    recorder = Recorder(data)
    for _ in range(2):
        for x, y, index in DataLoader(recorder.indexed(data), batch_size=32, shuffle=True):
            logits = model(x)
            F.cross_entropy(logits, y).backward()
            optimizer.step()
            recorder.observe(index, logits, y)
        recorder.end_epoch()
    trajectory = recorder.trajectory(seed=0)
    p = torch.softmax(model(data.tensors[0]), 1)[torch.arange(120), data.tensors[1]].detach().numpy()
    np.testing.assert_allclose(trajectory.signal("p_label"), np.stack([p, p]), atol=1e-6)
    assert trajectory.labels.tolist() == labels.tolist()
    assert recorder.in_critical_period and not recorder.critical_period().settled


def test_the_first_sight_of_a_sample_counts_and_unseen_samples_are_missing() -> None:
    recorder = Recorder(range(4))
    recorder.observe(torch.tensor([0, 1]), torch.tensor([[3.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 0]))
    recorder.observe(torch.tensor([1, 2, 2]), torch.tensor([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0]]), torch.tensor([0, 1, 1]))
    recorder.end_epoch()
    correct = recorder.trajectory().signal("correct")[0]
    assert correct[:3].tolist() == [1, 0, 1] and np.isnan(correct[3])


@pytest.mark.parametrize("with_features", [True, False])
def test_buffers_that_the_loop_fills_anew_or_changes_are_recorded_as_they_were(with_features: bool) -> None:
    fresh, reused = Recorder(range(300), n_classes=3), Recorder(range(300), n_classes=3)
    buffers = torch.empty(30, dtype=torch.int64), torch.empty(30, 3), torch.empty(30, dtype=torch.int64), torch.empty(30, 6)
    for epoch in range(2):
        rng = torch.Generator().manual_seed(epoch)
        for part in torch.randperm(300, generator=rng).split(30):
            batch = part, torch.randn(30, 3, generator=rng), part % 3, torch.randn(30, 6, generator=rng)
            fresh.observe(*batch[: 3 + with_features])
            for buffer, values in zip(buffers, batch, strict=True):
                buffer.copy_(values)
            reused.observe(*buffers[: 3 + with_features])
            buffers[1].div_(7.0)
        fresh.end_epoch()
        reused.end_epoch()
    for name, values in fresh.trajectory().signals.items():
        np.testing.assert_array_equal(reused.trajectory().signals[name], values, err_msg=name)
    for name, values in fresh.curves.items():
        np.testing.assert_array_equal(reused.curves[name], values, err_msg=name)


def test_losses_in_a_buffer_are_recorded_as_they_were() -> None:
    recorder, buffer, given = Recorder(range(64)), torch.empty(8), torch.rand(64)
    for part in torch.arange(64).split(8):
        buffer.copy_(given[part])
        recorder.observe(part, losses=buffer)
    recorder.end_epoch()
    np.testing.assert_array_equal(recorder.epochs[0]["loss"], given.numpy())


@pytest.mark.parametrize("labels", [torch.rand(3), torch.zeros(2, dtype=torch.int64)])
def test_soft_labels_and_wrong_shapes_are_refused(labels: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="observe"):
        Recorder(range(3)).observe(torch.arange(3), torch.rand(3, 2), labels)


def test_an_epoch_without_observations_and_an_empty_set_are_refused() -> None:
    with pytest.raises(UsageError, match="nothing was observed"):
        Recorder(range(3)).end_epoch()
    with pytest.raises(DataError, match="empty"):
        Recorder([])
    for given in (600, "data.npz", iter([])):
        with pytest.raises(UsageError, match=f"a {type(given).__name__} has no rows"):
            Recorder(given)


def test_a_model_that_does_not_learn_is_never_said_to_have_finished() -> None:
    recorder, rng = Recorder(range(400)), torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (400,), generator=rng)
    for _ in range(15):
        for part in torch.randperm(400, generator=rng).split(50):
            recorder.observe(part, torch.randn(len(part), 4, generator=rng), labels[part], torch.randn(len(part), 6, generator=rng))
        assert not recorder.end_epoch()
    assert not recorder.critical_period().settled and "not established" in recorder.critical_period().reason


def observed(recorder: Recorder, features: torch.Tensor, seed: int) -> None:
    """One epoch of 300 samples in a random order, with the given features (300, D)."""
    rng = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(300, 3, generator=rng), torch.arange(300) % 3
    for part in torch.randperm(300, generator=rng).split(30):
        recorder.observe(part, logits[part], labels[part], features[part])
    recorder.end_epoch()


def test_a_probe_that_only_turns_keeps_its_geometry_and_one_that_is_redrawn_does_not() -> None:
    features = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
    turned = features @ torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(2)))[0] * 3
    recorder = Recorder(range(300))
    for epoch, now in enumerate([features, turned, torch.randn(300, 6, generator=torch.Generator().manual_seed(3))]):
        observed(recorder, now, epoch)
    curves, last = recorder.trajectory().curves, np.flatnonzero(np.asarray(recorder.curve_epochs) % 1 == 0)
    assert np.isnan(curves["cka"][last[0]])
    assert curves["cka"][last[1]] == pytest.approx(1, abs=1e-5) and curves["neighbor_overlap"][last[1]] > 0.95
    assert curves["cka"][last[2]] < 0.2 and curves["neighbor_overlap"][last[2]] < 0.2
    assert 5 < curves["effective_rank"][last[1]] <= 6


def test_a_restored_recorder_goes_on_as_if_never_stopped() -> None:
    features = [torch.randn(300, 6, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    whole, first = Recorder(range(300)), Recorder(range(300))
    for epoch in range(4):
        observed(whole, features[epoch], epoch)
    for epoch in range(2):
        observed(first, features[epoch], epoch)
    _, rest = first.state_after_last_epoch()
    second = Recorder(range(300))
    second.restore(list(first.epochs), {name: value.copy() for name, value in rest.items()})
    for epoch in range(2, 4):
        observed(second, features[epoch], epoch)
    assert second.live.fired_epoch == whole.live.fired_epoch and second.live.waiting_for == whole.live.waiting_for
    for name, values in whole.curves.items():
        np.testing.assert_array_equal(second.curves[name], values, err_msg=name)


def test_labels_that_were_learned_from_what_was_observed_are_restored() -> None:
    first, second = Recorder(range(300)), Recorder(range(300))
    observed(first, torch.randn(300, 6), 0)
    second.restore(list(first.epochs), first.state_after_last_epoch()[1])
    assert second.labels.tolist() == second.trajectory().labels.tolist() == [row % 3 for row in range(300)]


def test_a_learning_rate_that_is_told_becomes_a_curve_that_masks() -> None:
    recorder = Recorder(range(300))
    recorder.observe(torch.arange(300), torch.randn(300, 3), torch.arange(300) % 3)
    recorder.end_epoch(learning_rate=0.1)
    assert set(recorder.trajectory().curves["learning_rate"].tolist()) == {0.1}


def test_a_learning_rate_may_be_told_from_some_epoch_on_and_left_out_again() -> None:
    recorder, plain = Recorder(range(64), n_classes=3), Recorder(range(64), n_classes=3)
    told = [None, None, None, 0.1, None, 0.01, 0.01]
    for epoch, rate in enumerate(told):
        for held in (recorder, plain):
            rng = torch.Generator().manual_seed(epoch)
            for part in torch.arange(64).split(8):
                held.observe(part, torch.randn(8, 3, generator=rng), part % 3)
        recorder.end_epoch(learning_rate=rate)
        plain.end_epoch()
    curve = recorder.trajectory().curves["learning_rate"]
    np.testing.assert_array_equal(curve, np.repeat([np.nan if rate is None else rate for rate in told], 4))
    for name, values in plain.curves.items():
        np.testing.assert_array_equal(recorder.curves[name], values, err_msg=name)
    assert np.flatnonzero(np.diff(segments_of(curve, len(curve)))).tolist() == [19]  # where the rate fell, and nowhere else


def test_a_task_with_one_loss_a_sample_is_recorded_from_its_losses() -> None:
    torch.manual_seed(0)
    x = torch.randn(60, 3)
    y = x @ torch.tensor([1.0, -2.0, 0.5]) + torch.where(torch.arange(60) % 10 == 0, 8.0, 0.0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    recorder = Recorder(TensorDataset(x, y), model=model)
    for _ in range(4):
        for a, b, index in DataLoader(recorder.indexed(TensorDataset(x, y)), batch_size=16, shuffle=True):
            losses = (model(a).squeeze(1) - b) ** 2
            losses.mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.observe(index, losses=losses)
        recorder.end_epoch()
    trajectory = recorder.trajectory()
    assert set(trajectory.signals) == {"loss"} and np.isfinite(trajectory.signal("loss")).all()
    assert set(trajectory.curves) == {"ranking_stability", "layer_rotation", "layer_rotation_rate", "kept_overlap"}
    odd = trajectory.signal("loss").mean(axis=0)[::10]
    assert odd.min() > np.median(trajectory.signal("loss"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "needs logits and labels, or losses"),
        ({"losses": torch.rand(3, 2)}, "reduction='none'"),
        ({"losses": torch.tensor(0.5)}, "one a sample"),
        ({"losses": torch.rand(3), "logits": torch.rand(3, 2)}, "losses alone"),
    ],
)
def test_losses_that_are_not_one_a_sample_are_refused(given: dict[str, torch.Tensor], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Recorder(range(3)).observe(torch.arange(3), **given)


def test_logits_in_one_batch_and_losses_in_another_are_refused() -> None:
    recorder = Recorder(range(4))
    recorder.observe(torch.arange(2), losses=torch.rand(2))
    with pytest.raises(UsageError, match="losses alone in another"):
        recorder.observe(torch.arange(2, 4), torch.rand(2, 3), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("seed", range(4))
def test_the_curves_of_a_run_say_where_its_own_rule_fired(seed: int) -> None:
    rng, labels = torch.Generator().manual_seed(seed), torch.arange(400) % 4
    torch.manual_seed(seed)
    x = torch.randn(400, 8, generator=rng) + 2 * F.one_hot(labels, 8)
    labels = torch.where(torch.rand(400, generator=rng) < 0.1, torch.randint(0, 4, (400,), generator=rng), labels)
    body, head = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU()), torch.nn.Linear(16, 4)
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.1)
    recorder = Recorder(range(400), n_classes=4)
    for _ in range(14):
        for rows in torch.randperm(400, generator=rng).split(20):
            hidden = body(x[rows])
            logits = head(hidden)
            optimizer.zero_grad()
            F.cross_entropy(logits, labels[rows]).backward()
            optimizer.step()
            recorder.observe(rows, logits, labels[rows], hidden)
        if recorder.end_epoch():
            break
    curves, times = recorder.trajectory().curves, recorder.trajectory().curve_epochs
    assert live_firing(times, curves) == recorder.live.fired_epoch is not None


def test_a_loss_that_is_not_finite_is_named_and_does_not_pass_for_unseen() -> None:
    recorder = Recorder(range(4))
    recorder.observe(torch.arange(4), losses=torch.tensor([1.0, float("nan"), 0.5, 2.0]))
    with pytest.raises(DataError, match="1 losses of epoch 0 are not finite \\(1 "):
        recorder.end_epoch()


CPU = torch.device("cpu")


def plain_loop(source: Source, seed: int, exact: bool) -> Recorder:
    """What somebody would write who wants the recipe of `score`: three lines of it are clprune's."""
    images, order = np.asarray(source.images), source.canonical_order
    spread = images[np.sort(order)].astype(np.float32)
    mean, std = torch.from_numpy(spread.mean(axis=(0, 1, 2))), torch.from_numpy(spread.std(axis=(0, 1, 2)) + 1e-3)
    torch.manual_seed(seed)
    model = build_proxy("small_cnn", 4, (1, 16, 16))
    model = model if exact else model.to(memory_format=torch.channels_last)
    flat = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 5e-4}, {"params": flat, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    caught: list[torch.Tensor] = []
    [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1].register_forward_pre_hook(
        lambda module, inputs: caught.append(inputs[0])
    )
    recorder, step = Recorder(source, model=model), 0
    for epoch in range(3):
        draws = np.random.default_rng((seed, epoch, 2))
        for rows in np.array_split(np.random.default_rng((seed, epoch, 1)).permutation(order), -(-len(order) // 128)):
            shifts, flips = draws.integers(-2, 3, (len(rows), 2)), draws.random(len(rows)) < 0.5
            batch = []
            for row, (dy, dx), flip in zip(rows, shifts, flips, strict=True):
                image = np.pad(images[row], ((2, 2), (2, 2), (0, 0)), mode="reflect")
                image = image[:, ::-1] if flip else image
                batch.append(image[2 + dy : 18 + dy, 2 + dx : 18 + dx])
            x = (torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
            index = torch.from_numpy(rows)
            y = torch.from_numpy(source.labels[rows])
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * min(1.0, (step + 1) * 128 / 6400)
            with torch.autocast("cpu", torch.bfloat16, enabled=number_format(CPU, exact=exact) is torch.bfloat16):
                logits = model(x.to(number_format(CPU, exact=exact)))
            optimizer.zero_grad()
            F.cross_entropy(logits.float(), y).backward()
            optimizer.step()
            recorder.observe(index, logits, y, caught.pop())
            step += 1
        recorder.end_epoch()
    return recorder


@pytest.mark.parametrize("exact", [True, False])
def test_a_plain_loop_with_the_recipe_and_seed_of_score_records_the_same(shapes_npz: Path, exact: bool) -> None:
    source = open_source(str(shapes_npz))
    assert source.images is not None
    run = record_trajectory(source, source.images, max_epochs=3, seed=5, exact=exact)
    mine = plain_loop(source, 5, exact).trajectory()
    assert run is not None and set(mine.signals) == set(run.trajectory.signals) and len(mine.signals["loss"]) == 3
    for name, judge in run.trajectory.signals.items():
        if exact:
            np.testing.assert_array_equal(mine.signals[name], judge, err_msg=name)
        elif name in ("loss", "p_label", "margin", "error_l2"):
            assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(mine.signals[name], judge, strict=True)) > 0.999, name


@pytest.mark.parametrize(
    ("n_batches", "dates"), [(1, [1.0]), (2, [0.5, 1.0]), (3, [0.25, 0.5, 1.0]), (4, [0.25, 0.5, 0.75, 1.0]), (9, [0.25, 0.5, 0.75, 1.0])]
)
def test_points_of_few_batches_are_dated_and_see_the_weights_move(n_batches: int, dates: list[float]) -> None:
    torch.manual_seed(0)
    model, x, y = torch.nn.Linear(4, 3), torch.randn(240, 4), torch.randint(0, 3, (240,))
    recorder = Recorder(range(240), model=model, n_classes=3)
    for _ in range(3):
        for rows in torch.arange(240).chunk(n_batches):
            recorder.observe(rows, model(x[rows]).detach(), y[rows], x[rows])
            with torch.no_grad():
                model.weight += 0.05 * torch.randn_like(model.weight)
        recorder.end_epoch()
    assert recorder.curve_epochs == [epoch + date for epoch in range(3) for date in dates]
    assert np.isfinite(recorder.curves["layer_rotation"]).all()


def fired_in_a_loop(n: int, batch: int, seed: int, n_epochs: int = 25, times: int = 1) -> int | None:
    """Where the rule fires for samples of different difficulty that are learned; samples that a larger `n` adds change nothing of the others.

    Each batch comes so many `times`. What is observed of a sample is the same each time.
    """
    rng, recorder = np.random.default_rng(seed), Recorder(range(n))
    labels, ease = torch.from_numpy(rng.integers(0, 5, 2048)), torch.from_numpy(2 * rng.random(2048))
    for epoch in range(n_epochs):
        logits = torch.from_numpy(rng.normal(size=(2048, 5)))
        logits[torch.arange(2048), labels] += 4 * ease * (1 - np.exp(-(epoch + 1) / 2))
        order = rng.permutation(2048)
        for rows in torch.from_numpy(order[order < n]).split(batch):
            for _ in range(times):
                recorder.observe(rows, logits[rows], labels[rows])
        recorder.end_epoch()
    return recorder.live.fired_epoch


@pytest.mark.parametrize(("n", "batch"), [(512, 128), (256, 256), (512, 512), (1024, 256)])
def test_one_sample_more_than_whole_batches_hardly_moves_the_end(n: int, batch: int) -> None:
    ends = [(fired_in_a_loop(n, batch, seed), fired_in_a_loop(n + 1, batch, seed)) for seed in range(5)]
    assert all(a is not None and b is not None and abs(a - b) <= 2 for a, b in ends), ends


def test_a_short_last_window_is_pooled_with_the_one_before_as_if_they_had_been_one() -> None:
    torch.manual_seed(0)
    model, x, y = torch.nn.Linear(4, 3), torch.randn(240, 4), torch.arange(240) % 3
    recorder, initial = Recorder(range(240), model=model), model.weight.detach().clone()
    for _ in range(3):
        batches, cosines = torch.randperm(240).split([60, 60, 95, 25]), []  # a window has 60 samples: 25 are less than half of one
        for rows in batches:
            cosines.append(float(torch.cosine_similarity(model.weight.detach().flatten(), initial.flatten(), dim=0)))
            recorder.observe(rows, model(x[rows]).detach(), y[rows], x[rows])
            with torch.no_grad():
                model.weight += 0.1 * torch.randn_like(model.weight)
        recorder.end_epoch()
    assert recorder.curve_epochs == [epoch + date for epoch in range(3) for date in (0.25, 0.5, 1.0)]
    before, now, pooled = recorder.epochs[1]["correct"], recorder.epochs[2]["correct"], torch.cat(batches[2:]).numpy()
    last = {name: values[-1] for name, values in recorder.curves.items()}
    assert last["training_accuracy"] == pytest.approx(now[pooled].mean())
    assert last["memorization_rate"] == pytest.approx(((1 - before) * now)[pooled].mean())
    ended = float(torch.cosine_similarity(model.weight.detach().flatten(), initial.flatten(), dim=0))
    assert last["layer_rotation"] == pytest.approx(1 - ended, abs=1e-6)
    assert last["layer_rotation_rate"] == pytest.approx((cosines[2] - ended) / 0.5, abs=1e-5)
    assert np.isfinite(last["fisher_trace"])


@pytest.mark.parametrize("batch", [1, 7, 32, 50, 128])
def test_batches_of_about_equal_size_keep_a_point_for_every_window(batch: int) -> None:
    """Those of the proxy runs: nothing of them is pooled."""
    for n in range(4, 600, 7):
        recorder, n_batches = Recorder(range(n)), -(-n // batch)
        parts = np.array_split(np.arange(n), n_batches)
        for rows in parts:
            recorder.observe(torch.from_numpy(rows), torch.zeros(len(rows), 2), torch.zeros(len(rows), dtype=torch.int64))
        recorder.end_epoch()
        windows = {min(3, int(rows[0]) * 4 // n) for rows in parts}
        assert len(recorder.curve_epochs) == len(windows), n


def observed_as(take: Any) -> Recorder:
    """Two epochs of 120 samples, each batch in the form that `take` gives it."""
    recorder = Recorder(range(120))
    for epoch in range(2):
        rng = torch.Generator().manual_seed(epoch)
        for rows in torch.randperm(120, generator=rng).split(30):
            recorder.observe(*take(rows, torch.randn(30, 3, generator=rng), rows % 3))
        recorder.end_epoch()
    return recorder


INTEGERS = [torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64]
FORMS = [lambda rows, logits, y, kind=kind: (rows.to(kind), logits, y.to(kind)) for kind in INTEGERS]
FORMS += [
    lambda rows, logits, y: (rows.numpy(), logits.numpy(), y.numpy()),
    lambda rows, logits, y: (rows.numpy()[::-1], logits.numpy()[::-1], y.numpy()[::-1]),  # torch itself takes no negative strides
    lambda rows, logits, y: (rows.tolist(), logits.tolist(), tuple(y.tolist())),
    lambda rows, logits, y: (list(rows), logits, list(y)),
]


@pytest.mark.parametrize("take", FORMS)
def test_integers_of_any_width_arrays_and_lists_are_recorded_as_int64_tensors_are(take: Any) -> None:
    mine, judge = observed_as(take), observed_as(lambda *batch: batch)
    for name, values in judge.trajectory().signals.items():
        np.testing.assert_array_equal(mine.trajectory().signals[name], values, err_msg=name)
    assert mine.labels.tolist() == judge.labels.tolist()


@pytest.mark.parametrize("name", ["index", "labels"])
@pytest.mark.parametrize(
    "given", [torch.tensor([0.0, 1.0]), torch.tensor([True, False]), [0.5, 1.0], ["a", "b"], np.array([0.0, 1.0]), [[0], [0, 1]]]
)
def test_rows_and_labels_that_are_no_whole_numbers_are_refused(name: str, given: Any) -> None:
    batch = {"index": torch.arange(2), "logits": torch.rand(2, 2), "labels": torch.arange(2)} | {name: given}
    with pytest.raises(UsageError, match=r"observe\(\) takes .*numbers"):
        Recorder(range(2)).observe(**batch)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (None, torch.rand(9, 4), r"for 10 samples; got \(9, 4\)"),
        (None, torch.rand(10), r"got \(10,\)"),
        (None, torch.rand(10, 2, 2), r"got \(10, 2, 2\)"),
        (torch.rand(10, 4), torch.rand(10, 5), "features of width 4 in one batch and features of width 5"),
        (torch.rand(10, 4), None, "features of width 4 in one batch and no features"),
        (None, torch.rand(10, 4), "no features in one batch and features of width 4"),
    ],
)
@pytest.mark.parametrize("later", ["batch", "epoch", "restored"])
def test_features_that_do_not_fit_are_refused_at_once(first: Any, second: Any, said: str, later: str) -> None:
    recorder, batch = Recorder(range(20)), (torch.randn(10, 2), torch.arange(10) % 2)
    recorder.observe(torch.arange(10), *batch, first)
    if later != "batch":
        recorder.end_epoch()
    if later == "restored":
        before, recorder = recorder, Recorder(range(20))
        recorder.restore(list(before.epochs), before.state_after_last_epoch()[1])
    with pytest.raises(UsageError, match=said):
        recorder.observe(torch.arange(10, 20), *batch, second)


def test_logits_of_another_width_within_an_epoch_are_refused() -> None:
    recorder = Recorder(range(20))
    recorder.observe(torch.arange(10), torch.randn(10, 2), torch.arange(10) % 2)
    with pytest.raises(UsageError, match="2 classes in one batch and of 3"):
        recorder.observe(torch.arange(10), torch.randn(10, 3), torch.arange(10) % 2)


def test_a_batch_of_which_nothing_is_left_changes_nothing() -> None:
    one, other = Recorder(range(40)), Recorder(range(40))
    logits, labels, features = torch.randn(40, 3), torch.arange(40) % 3, torch.randn(40, 5)
    for recorder in (one, other):
        for part in torch.arange(40).split(10):
            for _ in range(9 if recorder is one else 0):
                recorder.observe(part[:0], logits[:0], labels[:0], features[:0])
            recorder.observe(part, logits[part], labels[part], features[part])
        recorder.end_epoch()
    np.testing.assert_equal(one.curves, other.curves)
    np.testing.assert_equal(one.epochs, other.epochs)


def test_a_class_that_the_loop_masks_counts_as_impossible() -> None:
    recorder, logits, labels = Recorder(range(20)), torch.randn(20, 4), torch.arange(20) % 3
    recorder.observe(torch.arange(20), logits.clone().index_fill_(1, torch.tensor(3), -torch.inf), labels)
    recorder.end_epoch()
    judge = Recorder(range(20))
    judge.observe(torch.arange(20), logits[:, :3], labels)
    judge.end_epoch()
    for name, values in judge.epochs[0].items():
        np.testing.assert_allclose(recorder.epochs[0][name], values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_one_logit_for_two_classes_is_refused_with_what_to_pass() -> None:
    with pytest.raises(UsageError, match=r"torch\.cat\(\[torch\.zeros_like\(z\), z\], dim=1\)"):
        Recorder(range(4)).observe(torch.arange(4), torch.randn(4, 1), torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize(
    ("made", "said"), [(None, "made without a model. Make the recorder without"), (torch.nn.Linear(3, 3), "model of other weights. Make")]
)
def test_a_recording_goes_on_only_with_the_model_that_it_was_made_with(made: torch.nn.Module | None, said: str) -> None:
    first, second = Recorder(range(4), model=made), Recorder(range(4), model=torch.nn.Linear(3, 2))
    first.observe(torch.arange(4), torch.randn(4, 2), torch.arange(4) % 2)
    first.end_epoch()
    with pytest.raises(UsageError, match=said):
        second.restore(first.epochs, first.state_after_last_epoch()[1])


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("mode", [lambda: torch.autocast("cpu", torch.bfloat16), torch.inference_mode, in_float64])
@pytest.mark.parametrize("with_logits", [True, False])
def test_the_mode_that_a_loop_observes_in_changes_no_number(mode: Any, with_logits: bool) -> None:
    mine, judge = Recorder(range(80)), Recorder(range(80))
    for recorder, within in ((mine, mode), (judge, contextlib.nullcontext)):
        rng = torch.Generator().manual_seed(0)
        for _ in range(2):
            for rows in torch.arange(80).split(20):
                logits, features = (torch.randn(20, width, generator=rng, dtype=torch.float32) for width in (3, 6))
                with within():
                    recorder.observe(rows, *((logits, rows % 3, features) if with_logits else ()), losses=None if with_logits else logits[:, 0].abs())
            recorder.end_epoch()
    np.testing.assert_equal(mine.curves, judge.curves)
    np.testing.assert_equal(mine.epochs, judge.epochs)


def test_the_first_sight_of_a_sample_counts_for_the_probe_too() -> None:
    once, twice = Recorder(range(60)), Recorder(range(60))
    for _ in range(2):
        logits, features = torch.randn(60, 3), torch.randn(60, 4)
        for recorder in (once, twice):
            recorder.observe(torch.arange(60), logits, torch.arange(60) % 3, features)
            if recorder is twice:
                recorder.observe(torch.arange(60), logits, torch.arange(60) % 3, torch.randn(60, 4))
            recorder.end_epoch()
    for name in ("cka", "effective_rank", "neighbor_overlap"):
        assert twice.curves[name][-1] == once.curves[name][-1], name


def dates_of(draws: np.ndarray, batch: int, n: int) -> list[float]:
    """When the curves of one epoch of `draws` have their points."""
    recorder = Recorder(range(n), model=torch.nn.Linear(2, 2))
    for rows in torch.from_numpy(draws).split(batch):
        recorder.observe(rows, torch.randn(len(rows), 3), rows % 3)
    recorder.end_epoch()
    assert np.isfinite(recorder.curves["training_accuracy"]).all()
    return recorder.curve_epochs


def test_points_are_dated_by_the_share_of_what_the_epoch_observed() -> None:
    order = np.random.default_rng(0).permutation(80)
    for times in (2, 3):  # each sample so often, one after the other
        assert dates_of(order.repeat(times), 10, 80) == [0.25, 0.5, 0.75, 1.0]
    twice = np.concatenate([np.tile(rows, 2) for rows in np.split(order, 4)])  # two forward passes a step
    assert dates_of(twice, 20, 80) == [0.25, 0.5, 0.75, 1.0]
    assert dates_of(np.tile(order, 2), 10, 80) == [0.125, 0.25, 0.375, 1.0]  # two passes: in the second one there is no new sample, and no point
    assert dates_of(np.concatenate([order, order[:3]]), 10, 80) == pytest.approx([20 / 83, 40 / 83, 60 / 83, 1.0])  # filled up to whole batches
    assert dates_of(order[:40], 10, 80) == [0.5, 1.0]
    assert dates_of(order[:76], 4, 80) == pytest.approx([20 / 76, 40 / 76, 60 / 76, 1.0])  # drop_last


@pytest.mark.parametrize("seed", range(3))
def test_batches_that_are_shown_repeatedly_do_not_move_the_end(seed: int) -> None:
    once, four_times = (fired_in_a_loop(1024, 64, seed, 12, times=times) for times in (1, 4))
    assert once == four_times is not None


def test_the_rotation_of_weights_in_bfloat16_is_recorded_and_goes_on() -> None:
    curves = []
    for dtype in (torch.bfloat16, torch.float32):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 4).to(torch.bfloat16).to(dtype)  # the same numbers
        first, second = Recorder(range(8), model=model), Recorder(range(8), model=model)
        for recorder in (first, second):
            if recorder is second:
                recorder.restore(first.epochs, first.state_after_last_epoch()[1])
            with torch.no_grad():
                model.weight *= torch.tensor([1.0, 1.25, 1.5])
            recorder.observe(torch.arange(8), torch.zeros(8, 4), torch.arange(8) % 4)
            recorder.end_epoch()
        curves.append(second.curves["layer_rotation"])
    np.testing.assert_allclose(curves[0], curves[1], rtol=0.02)
    assert 0 < curves[0][0] < curves[0][1]


class Scale(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))


@pytest.mark.parametrize("model", [Scale(), torch.nn.Flatten()])
def test_a_model_without_weight_matrices_is_recorded_as_none_is(model: torch.nn.Module) -> None:
    first, without = Recorder(range(8), model=model), Recorder(range(8))
    second = Recorder(range(8), model=model)
    for epoch in range(2):
        for recorder in (first, without) if epoch == 0 else (second, without):
            recorder.observe(torch.arange(8), torch.eye(2).repeat(4, 1) * (epoch + 1), torch.arange(8) // 4)
            recorder.end_epoch()
        if epoch == 0:
            second.restore(first.epochs, first.state_after_last_epoch()[1])
    assert set(second.curves) == set(without.curves) and np.isnan(second.curves["layer_rotation"]).all()
    for name, values in without.curves.items():
        np.testing.assert_array_equal(second.curves[name], values, err_msg=name)


def test_a_model_whose_weights_are_not_there_yet_is_refused() -> None:
    with pytest.raises(UsageError, match="Let it see one"):
        Recorder(range(8), model=torch.nn.LazyLinear(2))


def test_what_a_recording_cannot_go_on_from_or_begin_with_is_refused() -> None:
    first, other = Recorder(range(8)), Recorder(range(5))
    with pytest.raises(UsageError, match="nothing was recorded yet"):
        first.state_after_last_epoch()
    first.observe(torch.arange(8), torch.zeros(8, 2), torch.arange(8) % 2)
    first.end_epoch()
    with pytest.raises(DataError, match="is of 8 samples, this recorder of 5"):
        other.restore(first.epochs, first.state_after_last_epoch()[1])
    with pytest.raises(UsageError, match="windows_per_epoch is 0"):
        Recorder(range(8), windows_per_epoch=0)


@pytest.mark.parametrize("restored", [False, True])
def test_an_epoch_that_was_interrupted_leaves_nothing_behind(restored: bool) -> None:
    whole, broken = Recorder(range(60)), Recorder(range(60))
    for epoch in range(3):
        generator = torch.Generator().manual_seed(epoch)
        logits, features = torch.randn(60, 3, generator=generator), torch.randn(60, 4, generator=generator)
        if epoch:
            kept = broken.state_after_last_epoch()[1]
            for rows in torch.arange(40).split(4):
                broken.observe(rows, torch.randn(4, 3), rows % 3, torch.randn(4, 4))
            if restored:
                broken.observe(torch.arange(60), torch.randn(60, 3), torch.arange(60) % 3, torch.randn(60, 4))
                done = list(broken.epochs)
                broken.end_epoch()
                broken.restore(done, kept)
            else:
                broken.restart_epoch()
        for recorder in (whole, broken):
            for rows in torch.arange(60).split(20):
                recorder.observe(rows[:15], logits[rows[:15]], rows[:15] % 3, features[rows[:15]])
            recorder.end_epoch()
    for name, values in whole.curves.items():
        np.testing.assert_array_equal(broken.curves[name], values, err_msg=name)
    np.testing.assert_array_equal(broken.trajectory().signal("p_label"), whole.trajectory().signal("p_label"))
