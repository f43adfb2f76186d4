"""The training loop against slow plain versions and laws."""

import math
import time

import numpy as np
import pytest
import torch
from conftest import draw_shapes

from clprune import training
from clprune.arithmetic import in_full, number_format
from clprune.errors import TrainingError, UsageError
from clprune.proxies import build_proxy
from clprune.training import (
    Recipe,
    epoch_rows,
    new_state,
    pick_device,
    predict,
    prepare_model,
    rate_at,
    seed_everything,
    to_device,
    train,
)

CPU = torch.device("cpu")


def plain_batch(images: np.ndarray, rows: list[int], shifts: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Crop with mirrored borders, then flip the reading order of columns, pixel by pixel."""
    _, height, width, channels = images.shape
    result = np.zeros((len(rows), channels, height, width))

    def inside(at: int, size: int) -> int:
        at = abs(at)
        return at if at < size else 2 * (size - 1) - at

    for b, row in enumerate(rows):
        for i in range(height):
            for j in range(width):
                x = inside(j + shifts[b, 1], width)
                x = width - 1 - x if flips[b] else x
                result[b, :, i, j] = images[row, inside(i + shifts[b, 0], height), x]
    return result


@pytest.mark.parametrize("channels", [1, 3])
def test_the_one_gather_crops_and_flips_as_a_loop_over_pixels_does(channels: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (9, 8, 6, channels), dtype=np.uint8)
    data = to_device(images, np.zeros(9, dtype=np.int64), CPU)
    rows, shifts, flips = [3, 0, 8, 3], rng.integers(-2, 3, (4, 2)), np.array([True, False, True, False])
    found = data.batch(torch.tensor(rows), shifts=torch.from_numpy(shifts), flips=torch.from_numpy(flips), dtype=torch.float32)
    expected = (plain_batch(images, rows, shifts, flips) - data.mean.numpy()[:, None, None]) / data.std.numpy()[:, None, None]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_data_that_stay_in_the_hosts_memory_are_learned_from_and_looked_at_as_those_on_the_device(kind: str) -> None:
    images, labels = draw_shapes(96, 0)
    inputs, proxy = (images, "small_cnn") if kind == "images" else (np.random.default_rng(0).integers(0, 50, (96, 7)), "text_bag")
    told = []
    for resident in (True, False):
        data = to_device(inputs, labels, CPU, resident=resident)
        assert data.resident is resident
        seed_everything(0)
        state = new_state(build_proxy(proxy, 4, data.input_shape), CPU, Recipe(exact=True))
        train(state, data, Recipe(exact=True, batch_size=20), n_epochs=2, seed=0)
        told.append(predict(state.model, data, rows=np.array([3, 90, 3]), exact=True)[0])
    assert told[0].tobytes() == told[1].tobytes()


def test_what_would_fill_a_gpu_stays_in_the_hosts_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 4000))
    assert [training._fits(n, torch.device("cuda")) for n in (500, 501)] == [True, False]
    assert training._fits(501, CPU)


@pytest.mark.parametrize("n", [1, 2, 3, 127, 128, 129, 1003])
def test_every_row_is_seen_once_an_epoch_in_batches_that_differ_by_one(n: int) -> None:
    batches = epoch_rows(np.arange(n), 3, 0, 128)
    assert sorted(np.concatenate(batches).tolist()) == list(range(n))
    sizes = {len(batch) for batch in batches}
    assert max(sizes) <= 128 and max(sizes) - min(sizes) <= 1


def test_the_rate_warms_up_and_a_constant_schedule_does_not_know_the_end() -> None:
    recipe = Recipe(warmup_samples=1280, learning_rate=1.0)
    assert [rate_at(128 * step, step / n, recipe) for n in (20, 2000) for step in (0, 4, 9, 15)] == pytest.approx([0.1, 0.5, 1, 1] * 2)
    assert rate_at(10**6, 1.0, Recipe(schedule="cosine")) == pytest.approx(0)


def test_the_pace_of_warming_up_in_samples_does_not_depend_on_the_batch_size() -> None:
    rates = [rate_at(2560, 0.0, Recipe(batch_size=batch, warmup_samples=12_800)) for batch in (64, 640)]
    assert rates == pytest.approx([0.05 * (2560 + batch) / 12_800 for batch in (64, 640)])


def test_after_the_end_of_the_period_the_later_recipe_trains_on() -> None:
    images, labels = draw_shapes(100, 0)
    data, seen = to_device(images, labels, CPU), []
    state = new_state(build_proxy("small_cnn", 4, data.input_shape), CPU, Recipe(copies=3, batch_size=50))
    run = train(
        state, data, Recipe(copies=3, batch_size=50), n_epochs=5, seed=0, observe=lambda rows, *_: seen.append(len(rows)),
        end_epoch=lambda now: now.epochs_done == 2, later=Recipe(copies=1, batch_size=25, weight_decay=0.25),
    )  # fmt: skip
    assert (run.epochs, run.steps, run.samples_seen, run.stopped_early) == (5, 2 * 6 + 3 * 4, 2 * 300 + 3 * 100, False)
    assert seen == [50, 50] * 2 + [25] * 4 * 3  # one view of each sample an epoch is recorded
    assert state.optimizer.param_groups[0]["weight_decay"] == 0.25


def test_the_later_recipe_is_not_warmed_up_again() -> None:
    images, labels = draw_shapes(100, 0)
    data, rates = to_device(images, labels, CPU), []
    first, later = Recipe(batch_size=50, warmup_samples=400), Recipe(batch_size=10, learning_rate=0.02, warmup_samples=400)
    state = new_state(build_proxy("small_cnn", 4, data.input_shape), CPU, first)
    train(
        state, data, first, n_epochs=6, seed=0, later=later, end_epoch=lambda now: now.epochs_done == 5,
        observe=lambda *_: rates.append(state.optimizer.param_groups[0]["lr"]),
    )  # fmt: skip
    assert rates[-11:] == [0.05] + [0.02] * 10


@pytest.mark.parametrize(("height", "width"), [(8, 128), (1, 64), (64, 8), (16, 16)])
def test_no_pixel_of_another_image_is_shifted_in_however_long_the_images_are(height: int, width: int) -> None:
    images = np.broadcast_to(np.arange(1, 7, dtype=np.uint8)[:, None, None, None] * 40, (6, height, width, 1)).copy()
    data = to_device(images, np.arange(6), CPU, statistics=(np.zeros(1, np.float32), np.ones(1, np.float32)))
    for most in (None, 3, 500):
        shifts = training._drawn_shifts(data.shape, most, 300, np.random.default_rng(0))
        assert shifts is not None and (shifts[:, 1].min() < 0 < shifts[:, 1].max())
        shown = data.batch(torch.arange(300) % 6, shifts=torch.from_numpy(shifts), flips=None, dtype=torch.float32)
        assert (shown.flatten(1) == images[np.arange(300) % 6].reshape(300, -1)).all()


def test_equal_steps_are_exact_and_the_network_learns() -> None:
    (images, labels), (test_images, test_labels) = draw_shapes(400, 0), draw_shapes(200, 1)
    data = to_device(images, labels, CPU)
    seed_everything(0)
    recipe = Recipe(flip=False, crop_padding=0, batch_size=50)
    state = new_state(build_proxy("small_cnn", 4, data.input_shape), CPU, recipe)
    run = train(state, data, recipe, n_epochs=1, n_steps=37, seed=0, rows=np.arange(170))
    assert run.steps == 37
    logits, features = predict(state.model, to_device(test_images, test_labels, CPU, statistics=(data.mean.numpy(), data.std.numpy())))
    assert (logits.argmax(1) == test_labels).mean() > 0.9 and features is not None and len(features) == 200


def test_a_loss_that_is_not_a_number_stops_with_the_epoch_named() -> None:
    images, labels = draw_shapes(200, 0)
    data = to_device(images, labels, CPU)
    recipe = Recipe(learning_rate=1e30, warmup_samples=0, exact=True)
    state = new_state(build_proxy("small_cnn", 4, data.input_shape), CPU, recipe)
    with pytest.raises(TrainingError, match=r"no longer a finite number in epoch \d"):
        train(state, data, recipe, n_epochs=5, seed=0)


def test_a_missing_device_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not available"):
        pick_device("cuda:7" if not torch.cuda.is_available() else "xpu:9")


def test_numbers_are_short_where_the_hardware_multiplies_short_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    for able, expected in (({"avx2": True}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert number_format(CPU) is expected
        assert number_format(CPU, exact=True) is torch.float32


def test_the_chosen_number_format_is_not_the_slow_one_here() -> None:
    """Against the clock: a step in the other format must not be much quicker than one in the chosen one."""
    images, labels = draw_shapes(512, 0)
    images = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    data = to_device(images, labels, CPU)
    took = {}
    for numbers in (torch.float32, torch.bfloat16):
        model = prepare_model(build_proxy("small_cnn", 4, data.input_shape), CPU, Recipe())
        for attempt in range(3):
            started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=numbers is torch.bfloat16):
                logits = model(data.batch(torch.arange(64), shifts=None, flips=None, dtype=numbers))
            logits.float().sum().backward()
            took[numbers] = min(took.get(numbers, math.inf), time.perf_counter() - started) if attempt else math.inf
    assert took[number_format(CPU)] < 2 * min(took.values()), took


def test_exact_trainings_and_predictions_let_no_gpu_round_the_factors_of_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = draw_shapes(40, seed=1)
    data, seen = to_device(images, labels, CPU), []
    state = new_state(build_proxy("small_cnn", 4, data.input_shape), CPU, Recipe())
    state.model.register_forward_hook(lambda *_: seen.append((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision())))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    for exact in (False, True):
        train(state, data, Recipe(exact=exact), n_epochs=1, n_steps=state.steps_done + 1, seed=0)
        predict(state.model, data, exact=exact)
    assert seen == [(True, "highest")] * 2 + [(False, "highest")] * 2
    torch.set_float32_matmul_precision("high")
    try:
        with in_full():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.backends.cudnn.allow_tf32
