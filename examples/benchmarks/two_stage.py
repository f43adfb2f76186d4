"""What a search on a part of the data carries over to all of it: `clprune compare` between runs on 10 %, 25 % and all training images.

    python examples/benchmarks/two_stage.py fashion=FASHION.npz cifar10=CIFAR10.npz
    python examples/benchmarks/two_stage.py --table

Each part is drawn class-balanced at random; the small CNN, runs that stop by themselves. Compared on the samples that both have: rank correlation of scores, overlap of
the harder halves, the end in epochs and in samples seen. Beside it two runs on all images with another seed, for scale.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from common import Results, arguments, bench_scale

from clprune import pipeline

RESULTS = Results(Path(__file__).with_suffix(".json"), ("data", "share", "seed"))
SHARES = (0.1, 0.25, 1.0)


def one(name: str, path: str, seed: int) -> None:
    """Runs of one seed against the run on all images with seed + 100."""
    with np.load(path) as held:
        n = len(held["y_train"])
    with tempfile.TemporaryDirectory() as work:
        for share, run_seed in [*((share, seed) for share in SHARES), (1.0, seed + 100)]:
            out = Path(work) / f"{share}-{run_seed}"
            part = bench_scale(path, round(share * n), with_ids=True)
            np.savez(f"{out}.npz", x_train=part["x_train"], y_train=part["y_train"], ids=part["ids"])
            pipeline.score(f"{out}.npz", out, seed=run_seed)
        for share in SHARES:
            told = pipeline.compare(Path(work) / f"{share}-{seed}", Path(work) / f"1.0-{seed + 100}")
            row = {"data": name, "share": share, "seed": seed, "n": told["n_shared"], "ends": told["ends"], "scores": told["scores"]}
            RESULTS.add(row)


def table() -> str:
    rows = RESULTS.rows()
    lines = [
        "| data | part against all (another seed) | rank correlation: dual / el2n / forgetting | overlap of harder halves | end of the part, epochs | of all |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for data, share in sorted({(r["data"], r["share"]) for r in rows}):
        mine = [r for r in rows if (r["data"], r["share"]) == (data, share)]
        rho = " / ".join(f"{np.mean([r['scores'][s]['rank_correlation'] for r in mine]):.2f}" for s in ("dual", "el2n", "forgetting"))
        same = " / ".join(f"{np.mean([r['scores'][s]['hard_half_overlap'] for r in mine]):.2f}" for s in ("dual", "el2n", "forgetting"))
        ends = (", ".join(str(r["ends"][side]["end_epoch"]) for r in mine) for side in ("a", "b"))
        lines.append(f"| {data} | {share:.0%}, {mine[0]['n']:,} images | {rho} | {same} | {' | '.join(ends)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    files, seeds, part, parts = arguments(__doc__, table, seeds=2)
    for name, seed in [(name, seed) for seed in seeds for name in files][part::parts]:
        if not RESULTS.has(data=name, seed=seed, share=1.0):
            one(name, files[name], seed)
