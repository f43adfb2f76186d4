"""Is the last layer's gradient noise scale a fair stand-in for the whole network's?

    python examples/benchmarks/last_layer.py fashion=FASHION.npz cifar10=CIFAR10.npz
    python examples/benchmarks/last_layer.py --table

After each of 20 epochs of a proxy run (15,000 images, small CNN, constant rate), 16 batches of 128 at the same weights, in evaluation mode: B_s = tr(Sigma) / |G|^2 of all weights and of
the last layer alone, from the same batch gradients; their Spearman correlation over the epochs of a run, and that of the free curve which the recorder took in training.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import Results, arguments, bench_scale

from clprune.proxies import build_proxy
from clprune.recorder import Recorder
from clprune.training import Recipe, new_state, seed_everything, to_device, train

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "seed"))
EPOCHS, BATCHES, SIZE = 20, 16, 128


def log_noise_scale(gradients: torch.Tensor) -> float:
    """log10 B_s from gradients (S, P) of S batches of SIZE at the same weights; NaN where there is no signal."""
    single, pooled = float((gradients**2).sum(1).mean()), float((gradients.mean(0) ** 2).sum())
    noise = (single - pooled) / (1 / SIZE - 1 / (SIZE * len(gradients)))
    signal = single - noise / SIZE
    return float(np.log10(noise / signal)) if signal > 0 and noise > 0 else float("nan")


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(*(np.argsort(np.argsort(v[known])) for v in (a, b)))[0, 1])


def one(name: str, path: str, seed: int) -> dict[str, object]:
    held = bench_scale(path)
    data = to_device(held["x_train"], held["y_train"], torch.device("cpu"))
    seed_everything(seed)
    state = new_state(build_proxy("small_cnn", 10, data.input_shape), torch.device("cpu"), Recipe())
    recorder = Recorder(range(len(data)), n_classes=10, model=state.model)
    weights = list(state.model.parameters())
    whole, last = [], []

    def end_epoch(now: object) -> bool:
        recorder.end_epoch()
        state.model.eval()
        rows = torch.from_numpy(np.random.default_rng((seed, len(whole))).permutation(len(data))[: BATCHES * SIZE])
        gradients = []
        for part in rows.split(SIZE):
            logits = state.model(data.batch(part, shifts=None, flips=None, dtype=torch.float32))
            gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(F.cross_entropy(logits, data.labels[part]), weights)]))
        state.model.train()
        every = torch.stack(gradients)
        n_last = sum(w.numel() for w in weights[-2:])  # weight and bias of the last linear layer
        whole.append(log_noise_scale(every))
        last.append(log_noise_scale(every[:, -n_last:]))
        return False

    train(state, data, Recipe(), n_epochs=EPOCHS, seed=seed, observe=recorder.observe, end_epoch=end_epoch)
    at = np.asarray(recorder.curve_epochs)
    free = np.array([np.nanmean(np.asarray(recorder.curves["noise_scale"])[(at > e) & (at <= e + 1)]) for e in range(EPOCHS)])
    row = {"data": name, "seed": seed, "whole": whole, "last_layer": last, "recorded": free.tolist()}
    return row | {"last_to_whole": spearman(np.array(last), np.array(whole)), "recorded_to_whole": spearman(free, np.array(whole))}


def table() -> str:
    lines = ["| data | runs | last layer against whole network, rank correlation | recorded in training against whole network |", "|---|---|---|---|"]
    for data in sorted({r["data"] for r in RESULTS.rows()}):
        mine = [r for r in RESULTS.rows() if r["data"] == data]
        shown = (", ".join(f"{r[key]:.2f}" for r in mine) for key in ("last_to_whole", "recorded_to_whole"))
        lines.append(f"| {data} | {len(mine)} | {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=2)
    for name, seed in [(name, seed) for seed in seeds for name in files][part::parts]:
        if not RESULTS.has(data=name, seed=seed):
            RESULTS.add(one(name, files[name], seed))
