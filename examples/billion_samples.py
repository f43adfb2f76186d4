"""What scoring and pruning a billion samples takes: bytes, hours, machines, money, each by a formula from measured constants.

    python examples/billion_samples.py                                    # prints the table of examples/billion_samples.md
    python examples/billion_samples.py --samples 1e8 --devices 8 --images-per-second 20000 --device-price 2.5

Seconds on any machine: nothing is trained. Constants marked "measured" are read from the JSON files in examples/benchmarks; those marked "assumed" are yours to give.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parent / "benchmarks"


@dataclass(frozen=True)
class Line:
    """One quantity of the plan."""

    what: str
    value: float
    unit: str
    formula: str


def measured() -> dict[str, tuple[float, str]]:
    """Constants and where they were measured."""
    streamed = max(json.loads((BENCHMARKS / "hundred_million.json").read_text()), key=lambda row: row["samples"])
    speeds = {row["proxy"]: row for row in json.loads((BENCHMARKS / "recording_overhead.json").read_text())}
    n, where = streamed["samples"], f"hundred_million.json, {streamed['samples']:,} samples"
    memory = (22.0, "counted: two scores, two masks, the rows that are kept, in hundred_million.py")
    if n >= 50_000_000:  # below that the buffers of a part, which do not grow, are most of it
        memory = ((streamed["peak_gb"] - streamed["peak_gb_before"]) * 1e9 / n, f"{where}: growth of the resident memory, a sample")
    return {
        "images_per_second": (speeds["small_cnn"]["images_per_second"]["recorded"], "recording_overhead.json: small_cnn, two CPU cores"),
        "record_us": (
            1e6 * streamed["record_seconds"] / n / streamed["epochs"],
            f"{where}: one sample, one epoch, one core, drawing the logits included",
        ),
        "score_us": (1e6 * streamed["score_seconds"] / n, f"{where}: EL2N and DUAL of one sample, one core"),
        "select_us": (1e6 * streamed["select_seconds"] / n, f"{where}: one sample, one core"),
        "memory_bytes": memory,
    }


def plan(given: Any, constants: dict[str, tuple[float, str]]) -> list[Line]:
    """The lines of the plan. N samples, E epochs, W devices, B samples a step, C classes, D features, P weights."""
    n, e, w, b, p = given.samples, given.epochs, given.devices, given.batch_size * given.devices, given.weights
    speed = given.images_per_second or constants["images_per_second"][0]
    link = given.link_gb_per_second * 1e9
    compute = given.batch_size / speed
    gradients = 2 * (w - 1) / w * 4 * p / link
    gathered = 2 * (given.classes + given.features) * (b - b / w) / link if w > 1 else 0.0
    normalised = given.norm_layers * 2 * given.message_ms / 1e3 if w > 1 else 0.0
    recorded = b * constants["record_us"][0] / 1e6
    step = compute + gradients + normalised + gathered + recorded
    steps = e * n / b
    hours = steps * step / 3600
    one_core = {name: n * constants[name][0] / 1e6 / 3600 for name in ("score_us", "select_us")}
    cores = given.cores
    after = (one_core["score_us"] + one_core["select_us"]) / cores
    return [
        Line("inputs, within reach of every machine", n * given.bytes_per_sample / 1e12, "TB", "N x bytes a sample"),
        Line("signals, two of them (error_l2, p_label)", 8 * n * e / 1e9, "GB", "N x E x 2 signals x 4 bytes"),
        Line("signals, all eight", 32 * n * e / 1e9, "GB", "N x E x 8 signals x 4 bytes"),
        Line("embeddings", 2 * n * given.features / 1e9, "GB", "N x D x 2 bytes"),
        Line("visit counters of one epoch, in each process", 4 * n / 1e9, "GB", "N x 4 bytes"),
        Line("memory of a selection in one process", constants["memory_bytes"][0] * n / 1e9, "GB", "N x bytes a sample"),
        Line("histogram for a threshold, each machine", 65536 * 8 / 1e6, "MB", "65,536 bins x 8 bytes, whatever N is"),
        Line("network, a step and device", (2 * (w - 1) / w * 4 * p + 2 * (given.classes + given.features) * given.batch_size) / 1e6, "MB", "2 (W-1)/W x 4 P + 2 (C+D) B/W"),
        Line("step: compute", 1e3 * compute, "ms", "B/W / images a second of one device"),
        Line("step: sum of gradients", 1e3 * gradients, "ms", "2 (W-1)/W x 4 P / link"),
        Line("step: batch put together in process 0", 1e3 * gathered, "ms", "2 (C+D) (B - B/W) / link"),
        Line("step: normalisation over all processes", 1e3 * normalised, "ms", "layers x 2 messages x their time"),
        Line("step: recording in process 0, the others wait", 1e3 * recorded, "ms", "B x seconds a sample and epoch"),
        Line("steps", steps, "", "E N / B"),
        Line("proxy run", hours, "h", "steps x the sum of the five"),
        Line("devices busy with the model", 100 * compute / step, "%", "compute / step"),
        Line("scores and selection", after, "h", "N x (score + select seconds) / cores"),
        Line("devices", hours * w, "device-h", "hours x W"),
        Line("devices, money", hours * w * given.device_price, "USD", "device-h x price"),
        Line("storage of signals and embeddings", (8 * n * e + 2 * n * given.features) / 1e9 * given.storage_price, "USD a month", "GB x price"),
        Line("half of the inputs no longer stored", n * given.bytes_per_sample / 2e9 * given.storage_price, "USD a month saved", "N/2 x bytes a sample x price"),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=lambda text: int(float(text)), default=1_000_000_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--devices", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=256, help="samples a step and device")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--weights", type=float, default=240_000)
    parser.add_argument("--bytes-per-sample", type=float, default=12_288, help="64 x 64 x 3")
    parser.add_argument("--images-per-second", type=float, help="of one device with recording; by default what two CPU cores did")
    parser.add_argument("--link-gb-per-second", type=float, default=3.0, help="assumed: 25 Gbit Ethernet")
    parser.add_argument("--norm-layers", type=int, default=4)
    parser.add_argument("--message-ms", type=float, default=0.1, help="assumed: one small message between all machines")
    parser.add_argument("--device-price", type=float, default=0.1, help="assumed: USD an hour of one device")
    parser.add_argument("--storage-price", type=float, default=0.023, help="USD per GB and month, as in clprune/prices.py")
    parser.add_argument("--cores", type=int, default=16, help="for scores and selection")
    given = parser.parse_args()
    constants = measured()
    print("| constant | value | from |\n|---|---|---|")
    for name, (value, where) in constants.items():
        if name == "images_per_second" and given.images_per_second:
            value, where = given.images_per_second, "given"
        print(f"| {name.replace('_', ' ')} | {value:,.4g} | {where} |")
    print("\n| what | value | formula |\n|---|---|---|")
    for line in plan(given, constants):
        print(f"| {line.what} | {line.value:,.4g} {line.unit} | {line.formula} |")


if __name__ == "__main__":
    main()
