"""The commands that read what is there: report, verify, leakage, detect, compare, watch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from clprune import options as option
from clprune import terminal
from clprune.errors import IntegrityError, UsageError
from clprune.terminal import show
from clprune.wording import unsigned_zero

reading = typer.Typer()


@reading.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN|M...", help="A run or manifest folder; several are compared.")],
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")],
    run: Annotated[Path | None, typer.Option("--run", help="The run of the manifest, if it is not beside it.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Where the data are now, if they have moved.")] = None,
    force: option.Force = False,
    as_json: option.Json = False,
    quiet: option.Quiet = False,
) -> None:
    """One self-contained HTML page: verdict, accuracy, harm, savings, critical period, pictures, how to repeat it."""
    from clprune import pipeline

    told = pipeline.report(folders, out, run=run, data=data, force=force)
    show(told, as_json, told["verdict"], f"{told['path']}: {told['bytes']:,} bytes")


@reading.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="RUN|M|DEST", help="A run, manifest or exported folder.")],
    data: Annotated[str | None, typer.Option("--data", help="Also check that these are the data that were scored.")] = None,
    as_json: option.Json = False,
    quiet: option.Quiet = False,
) -> None:
    """Check the digest of every file in a run, a manifest or an export, and with --data that the data are still the same."""
    from clprune import pipeline

    problems = pipeline.verify(folder, data=data)
    if problems:
        raise IntegrityError(" ".join(problems))
    show({"ok": True, "problems": []}, as_json, f"{folder}: verified" + (" against the data" if data else ""))


@reading.command()
def leakage(
    data: option.Data,
    test: option.Test = None,
    image_size: option.ImageSize = None,
    strict: option.Strict = False,
    as_json: option.Json = False,
    quiet: option.Quiet = False,
) -> None:
    """Test samples that the training data hold too, equal or nearly. Trains nothing, writes nothing."""
    from clprune.inputs import open_data
    from clprune.leakage import leakage as find

    told = find(open_data(data, strict), None if test is None else open_data(test, strict), image_size=image_size)
    show(told, as_json, *terminal.leakage_lines(told))


@reading.command()
def detect(
    run_or_csv: Annotated[
        Path, typer.Argument(metavar="RUN|CURVES.csv", help="A run, or logged curves with a column `epoch`; `-` reads them from the standard input.")
    ],
    live: Annotated[
        bool, typer.Option("--live", help="Print the epoch at which the live rule fires, reading row by row; from a pipe as soon as it does.")
    ] = False,
    rate_changes: Annotated[
        str,
        typer.Option(
            "--rate-changes",
            help="Where another learning rate began: '100,150'. Of logged curves the `epoch` of the first row after the change, of a run the epochs done before it.",
        ),
    ] = "",
    as_json: option.Json = False,
    quiet: option.Quiet = False,
) -> None:
    """Where the critical period starts and ends."""
    from clprune import pipeline

    try:
        changes = tuple(float(epoch) for epoch in rate_changes.split(",") if epoch.strip())
    except ValueError:
        raise UsageError(f"--rate-changes is {rate_changes!r}. Give epochs separated by commas, such as 100,150.") from None
    found = pipeline.detect(run_or_csv, live=live, rate_changes=changes)
    if live:
        show(found, as_json, "none" if found["fired_epoch"] is None else f"{found['fired_epoch']:g}")
        return
    interval = "" if found["interval"] is None else f", interval {found['interval'][0]:.1f} to {found['interval'][1]:.1f}"
    if found["hindsight_end"] is not None and not found["settled"]:
        interval = f", in hindsight {found['hindsight_end']:.1f} if it is over{interval}"
    show(
        found,
        as_json,
        f"start {found['start_epoch']}, end {found['end_epoch'] if found['settled'] else 'not established'}{interval}, confidence {found['confidence']:.2f}: {found['reason']}",
    )


@reading.command()
def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B")],
    as_json: option.Json = False,
    quiet: option.Quiet = False,
) -> None:
    """How well two runs agree: rank correlation, overlap of the harder halves, ends."""
    from clprune import pipeline

    result = pipeline.compare(run_a, run_b)
    rows = []
    for name, value in result["scores"].items():
        figures = ("" if value[key] is None else unsigned_zero(value[key], ".3f") for key in ("rank_correlation", "hard_half_overlap"))
        rows.append((name, *figures, f"{value.get('n_samples', result['n_shared']):,}"))
    headers = ("score", "rank correlation", "overlap of harder halves", "samples that have it")
    table = terminal.plain_table(f"{result['n_shared']:,} shared samples", headers, rows, right=(1, 2, 3))
    ends = ", ".join(
        f"{key}: {'' if end['settled'] else 'not established within '}epoch {end['end_epoch']} ({end['end_samples_seen']:,} samples seen)"
        for key, end in result["ends"].items()
    )
    other = (
        []
        if result["same_data"]
        else ["WARNING the runs are of different data; what is said holds for the samples whose ids both have, if they are the same samples at all"]
    )
    show(result, as_json, *other, table, f"ends: {ends}")


@reading.command()
def watch(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders; they need not exist yet.")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on this machine; 0 takes a free one.")] = 0,
    as_json: option.Json = False,
    quiet: option.Quiet = False,
) -> None:
    """Follow runs in the browser, while they go on: curves, phase, what the rule waits for. Only this machine can see the page."""
    from clprune.watch import serve

    def ready(address: str) -> None:
        if not quiet:
            print(f"watching {', '.join(map(str, runs))} at {address} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        if as_json:
            print(json.dumps({"address": address, "runs": [str(run) for run in runs]}), flush=True)

    serve(runs, port=port, on_ready=ready)
