"""Does the rule that was found on 15,000 images serve 50,000? What it keeps of all of CIFAR-10, for the small CNN.

    python examples/benchmarks/large_pool.py cifar10=CIFAR10.npz --part 0/2 &
    python examples/benchmarks/large_pool.py cifar10=CIFAR10.npz --part 1/2
    python examples/benchmarks/large_pool.py --table

All training images, scored by the small CNN (seed s; it stops by itself), which is then trained on what is kept (training seed 100 + s) with one cosine, about 80 epochs of it; full test set, last epoch.
The rows with wrong labels are of a file of that name in which a fifth of `y_train` was replaced by another class. `dual` is DUAL with beta sampling from 30 recorded epochs of the small CNN; `blend(scored_share=...)` with 1.5 times the share is the default as it was before large choices were scored more.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import Results, arguments, paired_table, trained_on
from filelock import FileLock
from gpu_suite import data_of

from clprune import pipeline
from clprune.proxies import build_proxy
from clprune.recorder import Recorder
from clprune.scores.dual import dual
from clprune.storage import read_npy, write_npy
from clprune.strategies.beta_sampling import beta_sampling
from clprune.training import DeviceData, Recipe, new_state, pick_device, seed_everything, train

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "keep", "strategy", "seed"))
STEPS, RANDOM, DUAL_EPOCHS = {0.2: 6_320, 0.1: 3_000, 0.3: 6_320, 0.5: 6_320}, "random(class_balanced=True)", 30
WORK = Path(tempfile.gettempdir()) / "clprune-large-pool"


def strategies(keep: float) -> tuple[str, ...]:
    """What is compared at a share."""
    before = f"blend(scored_share={1.5 * keep:g})"
    return (RANDOM, "blend", before, "beta_sampling", "dual") if keep < 0.3 else (RANDOM, "blend", before)


def watched(data: DeviceData, seed: int, file: Path) -> np.ndarray:
    """The label's probability in each of 30 epochs of the small CNN, (30, N)."""
    with FileLock(file.with_suffix(".lock")):
        if not file.exists():
            seed_everything(seed)
            state = new_state(build_proxy("small_cnn", int(data.labels.max()) + 1, data.input_shape), data.device, Recipe())
            recorder = Recorder(range(len(data)), n_classes=int(data.labels.max()) + 1, model=state.model)
            train(
                state, data, Recipe(), n_epochs=DUAL_EPOCHS, seed=seed, observe=recorder.observe, end_epoch=lambda _: recorder.end_epoch() and False
            )
            write_npy(file, recorder.trajectory().signals["p_label"])
    return read_npy(file).astype(np.float64)


def kept(job: dict[str, Any], path: str, data: DeviceData) -> np.ndarray:
    """Rows (K,) that a strategy keeps of the file at `path`, sorted; runs and recordings lie in WORK."""
    place, keep, seed = WORK / job["data"], job["keep"], job["seed"]
    place.mkdir(parents=True, exist_ok=True)
    if job["strategy"] == "dual":
        p_label = watched(data, seed, place / f"watched-{seed}.npy")
        return np.sort(beta_sampling(dual(p_label), p_label.mean(axis=0), round(keep * len(data)), np.random.default_rng(seed)))
    with FileLock(place / f"run-{seed}.lock"):
        if not (place / f"run-{seed}" / "run.json").exists():
            pipeline.score(path, place / f"run-{seed}", seed=seed)
        made = pipeline.select(place / f"run-{seed}", place / f"m-{seed}", keep=str(keep), strategy=job["strategy"], seed=seed, force=True).samples
    return np.sort(made.filter(made["kept"])["index"].to_numpy())


def table() -> str:
    return paired_table(RESULTS, (RANDOM, "blend", "blend(scored_share=0.15)", "blend(scored_share=0.3)", "beta_sampling", "dual"), RANDOM)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=3)
    for name, file in files.items():
        images, test = data_of(Path(file), pick_device("auto"))
        plan = [{"data": name, "keep": keep, "strategy": strategy, "seed": seed} for keep in STEPS for seed in seeds for strategy in strategies(keep)]
        for wanted in plan[part::parts]:
            if not RESULTS.has(**wanted):
                rows = kept(wanted, file, images)
                found = trained_on(
                    rows, images, test, n_classes=int(images.labels.max()) + 1, seed=100 + wanted["seed"], n_steps=STEPS[wanted["keep"]]
                )
                RESULTS.add(wanted | {fact: found[fact] for fact in ("accuracy", "worst_class", "steps", "train_seconds")})
