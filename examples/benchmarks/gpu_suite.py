"""Everything that a GPU should show, in one command of under ten minutes.

    python examples/benchmarks/gpu_suite.py --fashion fashion.npz --cifar cifar10.npz     # writes gpu_suite.json here
    python examples/benchmarks/gpu_suite.py --short                                        # drawn images on whatever there is: two minutes on a CPU, nothing is stored

    score    `pipeline.score` on Fashion-MNIST and CIFAR-10: seconds from the start of the training to the scores on disk (aims: 15 s, 20 s)
    record   a recorded step over the same step without recording, median over rounds that alternate (aim: 1.03 at most)
    agree    the device against the processor, 2,000 images, two epochs: largest difference of a p(label) with `exact`, of two such runs on the device, and with the data in the host's memory; rank
             correlation of mean difficulty the fast way (aims: 0.02, 0, 0.02, 0.9)
    busy     share of an epoch's time in which the device computes (aim: 90 %); on a CPU the processor seconds over seconds
    captured a step of 128 images replayed as one graph, against one whose kernels are launched one by one: milliseconds, and the largest difference of a weight after 20 such steps in `exact` (aim: 0)
    fast     speed_cnn trained on all of CIFAR-10: test accuracy and seconds (aim: 94 % within 10 s)
    wide     the same with each of some batch sizes, one epoch: images a second, to see where the device is full

Each part is stored as soon as it is done, none that is stored is run again on the same card, and none starts when the time is over. The .npz files hold x_train, y_train, x_test, y_test; the parts of
the one that is not given are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch

from clprune import pipeline
from clprune.proxies import build_proxy
from clprune.recorder import Recorder
from clprune.training import DeviceData, Recipe, TrainingState, new_state, pick_device, predict, seed_everything, to_device, train

RESULTS = Path(__file__).with_suffix(".json")
LIMIT_SECONDS = 570


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(act: Callable[[], Any], device: torch.device) -> float:
    wait(device)
    started = time.perf_counter()
    act()
    wait(device)
    return time.perf_counter() - started


def drawn_npz(path: Path, n: int, side: int, channels: int) -> Path:
    """A file of drawn images of ten classes: a bright square whose place is the class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, n + n // 5)
    images = rng.normal(60, 25, (len(labels), side, side, channels))
    for row, label in enumerate(labels):
        y, x = divmod(int(label), 4)
        images[row, 2 + 8 * y : 9 + 8 * y, 1 + 6 * x : 7 + 6 * x] += 80
    images = images.clip(0, 255).astype(np.uint8)
    np.savez(path, x_train=images[:n], y_train=labels[:n], x_test=images[n:], y_test=labels[n:])
    return path


def data_of(path: Path, device: torch.device) -> tuple[DeviceData, DeviceData]:
    held = np.load(path)
    parts = {name: held[name][..., None] if name.startswith("x") and held[name].ndim == 3 else held[name] for name in held.files}
    data = to_device(parts["x_train"], parts["y_train"].astype(np.int64), device)
    assert isinstance(data, DeviceData)
    test = to_device(parts["x_test"], parts["y_test"].astype(np.int64), device, statistics=(data.mean.cpu().numpy(), data.std.cpu().numpy()))
    assert isinstance(test, DeviceData)
    return data, test


def state_for(proxy: str, data: DeviceData, recipe: Recipe) -> TrainingState:
    seed_everything(0)
    return new_state(build_proxy(proxy, 10, data.input_shape), data.device, recipe)


def score_seconds(path: Path, proxy: str, batch_size: int, device: torch.device, max_epochs: int) -> dict[str, Any]:
    """A whole `score`; what comes before the training (reading the file, starting the device) is told apart."""
    with tempfile.TemporaryDirectory() as place:
        started, first = time.perf_counter(), []

        def on_progress(report: dict[str, Any]) -> None:
            if report["stage"] == "train":
                first.append(time.perf_counter())

        run = pipeline.score(
            str(path), Path(place) / "run", proxy=proxy, batch_size=batch_size, device=str(device), max_epochs=max_epochs, on_progress=on_progress
        )
        seconds = time.perf_counter() - started
    return {
        "seconds_in_all": seconds,
        "training_and_scores_seconds": run["timings"]["proxy_seconds"] + run["timings"]["neighbor_seconds"],
        "proxy_seconds": run["timings"]["proxy_seconds"],
        "first_epoch_after_seconds": first[0] - started,
        "neighbor_seconds": run["timings"]["neighbor_seconds"],
        "epochs_run": run["epochs_run"],
        "settled": run["clp"]["settled"],
        "kwh": run["energy_kwh"],
        "energy_by": run["energy_method"],
        "proxy": proxy,
        "batch_size": batch_size,
    }


def recording(data: DeviceData, proxy: str, batch_size: int, n_steps: int, rounds: int) -> dict[str, Any]:
    """Median over rounds of a recorded epoch over the same epoch without recording."""
    recipe, rows = Recipe(batch_size=batch_size, learning_rate=1e-3, warmup_samples=0), np.arange(min(n_steps * batch_size, len(data)))
    states = [state_for(proxy, data, recipe) for _ in range(2)]
    recorder = Recorder(range(len(rows)), n_classes=10, model=states[1].model)

    def bare() -> None:
        train(states[0], data, recipe, n_epochs=states[0].epochs_done + 1, seed=0, rows=rows)

    def recorded() -> None:
        train(states[1], data, recipe, n_epochs=states[1].epochs_done + 1, seed=0, rows=rows, observe=recorder.observe)
        ends.append(seconds_of(recorder.end_epoch, data.device))

    ends: list[float] = []
    ratios, plain = [], []
    for number in range(rounds + 1):
        pair = [seconds_of(act, data.device) for act in ((bare, recorded) if number % 2 else (recorded, bare))]
        without, with_it = pair if number % 2 else pair[::-1]
        if number:  # the first round starts things
            ratios.append((with_it - ends[-1]) / without)
            plain.append(without)
    return {
        "proxy": proxy,
        "batch_size": batch_size,
        "recorded_over_bare_step": statistics.median(ratios),
        "quartiles": statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios,
        "end_epoch_seconds": statistics.median(ends[1:]),
        "images_per_second": len(rows) / statistics.median(plain),
    }


def agreement(data: DeviceData, n: int) -> dict[str, float]:
    """How far runs on the device are from one on the processor, and from each other."""
    height, width, channels = data.shape
    images, labels = data.pixels[: n * height * width].cpu().numpy().reshape(n, height, width, channels), data.labels[:n].cpu().numpy()

    def p_label(device: torch.device, *, exact: bool, resident: bool = True) -> np.ndarray:
        some, recipe = to_device(images, labels, device, resident=resident), Recipe(exact=exact)
        assert isinstance(some, DeviceData)
        state, recorder = state_for("small_cnn", some, recipe), Recorder(range(n), n_classes=10)
        train(state, some, recipe, n_epochs=2, seed=0, observe=recorder.observe, end_epoch=lambda _: recorder.end_epoch() and False)
        return recorder.trajectory().signals["p_label"].astype(np.float64)

    cpu, device = torch.device("cpu"), data.device
    exact, again, hosted, there = (
        p_label(device, exact=True),
        p_label(device, exact=True),
        p_label(device, exact=True, resident=False),
        p_label(cpu, exact=True),
    )
    ranks = [p_label(where, exact=False).mean(axis=0).argsort().argsort() for where in (device, cpu)]
    return {
        "exact_to_processor": float(np.abs(exact[0] - there[0]).max()),
        "exact_again": float(np.abs(exact - again).max()),
        "from_the_hosts_memory": float(np.abs(exact - hosted).max()),
        "fast_rank_correlation": float(np.corrcoef(ranks)[0, 1]),
    }


def busy_share(data: DeviceData, proxy: str, batch_size: int) -> dict[str, Any]:
    """How much of a recorded epoch the device computes."""
    recipe, device = Recipe(batch_size=batch_size, learning_rate=1e-3, warmup_samples=0), data.device
    state = state_for(proxy, data, recipe)
    recorder = Recorder(range(len(data)), n_classes=10, model=state.model)

    def epoch() -> None:
        train(state, data, recipe, n_epochs=state.epochs_done + 1, seed=0, observe=recorder.observe)
        recorder.end_epoch()

    epoch()
    plain = seconds_of(epoch, device)
    if device.type == "cuda":
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            seconds_of(epoch, device)
        busy = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
    else:
        before = time.process_time()
        plain = seconds_of(epoch, device)
        busy = (time.process_time() - before) / torch.get_num_threads()
    return {"proxy": proxy, "batch_size": batch_size, "epoch_seconds": plain, "busy_seconds": busy, "busy_share": busy / plain}


def captured(data: DeviceData, proxy: str, n_steps: int) -> dict[str, Any]:
    """Milliseconds of a training step of 128 images, launched and replayed, and how far the two are apart."""
    found, weights, rows = {"proxy": proxy, "steps": n_steps}, [], np.arange(min(5_000, len(data)))
    for replay in (False, True):
        state, recipe = state_for(proxy, data, Recipe(learning_rate=1e-3)), Recipe(learning_rate=1e-3)
        train(state, data, recipe, n_epochs=1, n_steps=10, seed=0, rows=rows[:128], captured=replay)  # starts the device's libraries
        act = lambda: train(state, data, recipe, n_epochs=1, n_steps=10 + n_steps, seed=0, rows=rows, captured=replay)  # noqa: B023, E731
        found["captured_ms" if replay else "launched_ms"] = 1000 * seconds_of(act, data.device) / n_steps
        state, recipe = state_for(proxy, data, Recipe(exact=True)), Recipe(exact=True)
        train(state, data, recipe, n_epochs=1, n_steps=20, seed=0, rows=rows, captured=replay)
        weights.append(torch.cat([value.detach().flatten() for value in state.model.parameters()]))
    return found | {"largest_difference": float((weights[0] - weights[1]).abs().max())}


def trained_fully(data: DeviceData, test: DeviceData, epochs: int, batch_size: int, rate: float) -> dict[str, Any]:
    """speed_cnn on all of the data with one cosine, after one step on a copy of it that starts the device's libraries."""
    recipe = Recipe(
        batch_size=batch_size, learning_rate=rate, weight_decay=5e-4, label_smoothing=0.2, schedule="cosine", warmup_samples=2 * len(data)
    )
    warm = state_for("speed_cnn", data, recipe)
    train(warm, data, recipe, n_epochs=1, n_steps=1, seed=0)
    state = state_for("speed_cnn", data, recipe)
    seconds = seconds_of(lambda: train(state, data, recipe, n_epochs=epochs, seed=0), data.device)
    right = predict(state.model, test)[0].argmax(axis=1) == test.labels.cpu().numpy()
    return {
        "proxy": "speed_cnn",
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": rate,
        "train_seconds": seconds,
        "test_accuracy": float(right.mean()),
    }


def wide(data: DeviceData, proxy: str, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Images a second of an epoch by batch size."""
    found = []
    for size in sizes:
        recipe = Recipe(batch_size=size, learning_rate=1e-3, warmup_samples=0)
        state = state_for(proxy, data, recipe)
        act = lambda: train(state, data, recipe, n_epochs=state.epochs_done + 1, seed=0)  # noqa: B023, E731
        act()
        found.append({"proxy": proxy, "batch_size": size, "images_per_second": len(data) / seconds_of(act, data.device)})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path)
    parser.add_argument("--cifar", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", default="", help="parts whose names begin with one of these, comma-separated")
    parser.add_argument("--short", action="store_true", help="drawn images, few steps; nothing is stored")
    given = parser.parse_args()
    started, device, short = time.perf_counter(), pick_device(given.device), given.short
    place = Path(tempfile.mkdtemp(prefix="clprune-gpu-"))
    fashion = drawn_npz(place / "f.npz", 200, 28, 1) if short else given.fashion
    cifar = drawn_npz(place / "c.npz", 200, 32, 3) if short else given.cifar
    if fashion is None and cifar is None:
        parser.error("give --fashion, --cifar or both, or --short")
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    result: dict[str, Any] = {"device": str(device), "machine": machine, "torch": torch.__version__, "short": short}
    if not short and given.out.exists() and (before := json.loads(given.out.read_text()))["machine"] == machine:
        result = before
    size, epochs = (64, 2) if short else (512, 30)
    parts: dict[str, Callable[[], Any]] = {}
    if fashion is not None:
        parts["score fashion-mnist"] = lambda: score_seconds(fashion, "small_cnn", size, device, epochs)
    if cifar is not None:
        data, test = data_of(cifar, device)
        parts |= {
            "score cifar-10": lambda: score_seconds(cifar, "small_cnn", size, device, epochs),
            "score cifar-10 speed_cnn": lambda: score_seconds(cifar, "speed_cnn", size, device, epochs),
            "record small_cnn": lambda: recording(data, "small_cnn", size, 2 if short else 90, 1 if short else 15),
            "record speed_cnn": lambda: recording(data, "speed_cnn", size, 1 if short else 90, 1 if short else 15),
            "record resnet18": lambda: recording(data, "resnet18", size, 1 if short else 45, 1 if short else 9),
            "agree": lambda: agreement(data, 128 if short else 2_000),
            "busy small_cnn": lambda: busy_share(data, "small_cnn", size),
            "busy speed_cnn": lambda: busy_share(data, "speed_cnn", 64 if short else 1024),
            "captured small_cnn": lambda: captured(data, "small_cnn", 2 if short else 600),
            "captured resnet18": lambda: captured(data, "small_cnn" if short else "resnet18", 1 if short else 400),
            "fast": lambda: [
                trained_fully(data, test, n, b, rate)
                for n, b, rate in ([(1, 64, 0.1)] if short else [(8, 1024, 0.4), (10, 1024, 0.8), (16, 1024, 0.8), (16, 2048, 1.6)])
            ],
            "wide": lambda: wide(data, "speed_cnn", (32, 64) if short else (256, 512, 1024, 2048, 4096)),
        }
    for name, act in parts.items():
        spent = time.perf_counter() - started
        if not name.startswith(tuple(given.only.split(","))):
            continue
        if not isinstance(result.get(name, ""), str):
            continue
        if spent > LIMIT_SECONDS and not short:
            result[name] = "not started: the time is over"
            continue
        try:
            result[name] = act()
        except Exception as error:  # the other parts are worth having
            result[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        print(f"{time.perf_counter() - started:6.1f} s  {name}: {json.dumps(result[name])}", flush=True)
        if not short:
            given.out.write_text(json.dumps(result | {"seconds": time.perf_counter() - started}, indent=1) + "\n")


if __name__ == "__main__":
    main()
