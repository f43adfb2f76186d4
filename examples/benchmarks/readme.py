"""Put the benchmark tables, made from their JSON files, between their markers in README.md.

python examples/benchmarks/readme.py
"""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"


def recording() -> str:
    """The table of recording_overhead.json."""
    lines = [
        "| proxy | recorded / plain training step, median (quartiles) | `train` / bare loop, images a second | images a second, recorded |",
        "|---|---|---|---|",
    ]
    for row in json.loads((HERE / "recording_overhead.json").read_text()):
        low, _, high = row["quartiles"]
        rate = row["images_per_second"]["recorded"]
        lines.append(
            f"| {row['proxy']} | {row['recorded_over_training']:.3f} ({low:.3f} to {high:.3f}) | {row['speed_of_train_over_bare']:.3f} | {rate:,.0f} |"
        )
    return "\n".join(lines)


def report_scale() -> str:
    """The sentence of report_scale.json."""
    row = json.loads((HERE / "report_scale.json").read_text())
    return (
        f"On a synthetic run of {row['n_samples']:,} samples it took {row['seconds']:.1f} s, at most {row['peak_bytes'] / 1e9:.2f} GB and "
        f"{row['page_bytes'] / 1e6:.2f} MB of page ({row['hardware']}; `examples/benchmarks/report_scale.py`)."
    )


def tables() -> dict[str, str]:
    """Every generated table by its marker."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))  # for `common`, also where this file is run from elsewhere
    scripts = (
        "selection",
        "imbalance",
        "transfer",
        "full_scale",
        "large_pool",
        "unlike_data",
        "keep_auto",
        "detection",
        "real_periods",
        "stopping",
        "deficit",
        "clp_schedule",
        "last_layer",
        "two_stage",
        "reliability",
        "label_budget",
        "no_labels",
        "few_labels",
        "guesses",
        "suspects",
        "near_duplicates",
        "harm",
        "savings_check",
        "diversity",
        "text",
        "many_files",
    )
    made = {name: runpy.run_path(str(HERE / f"{name}.py"))["table"]() for name in scripts if (HERE / f"{name}.json").exists()}
    return {"headline": runpy.run_path(str(HERE / "headline.py"))["table"](), "recording": recording(), "report": report_scale()} | made


def filled(text: str) -> str:
    """`text` with each marker's table renewed."""
    for name, table in tables().items():
        text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text, flags=re.S)
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
