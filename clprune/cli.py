"""The command line: one verb a step. Data go to stdout, progress and messages to stderr; errors have the exit codes of `errors.py`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from clprune import distributed, energy, terminal
from clprune import options as option
from clprune.commands_for_labels import labels
from clprune.commands_for_reading import reading
from clprune.errors import ClpruneError, GuardError, UsageError
from clprune.terminal import show
from clprune.wording import counted

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Keep the training samples that matter. Start with: clprune demo",
    context_settings={"help_option_names": ["-h", "--help"]},
)

TOGETHER = ("score", "select", "evaluate", "prune", "demo")  # what the processes that torchrun started do together


app.add_typer(reading)
app.add_typer(labels, name="labels")


@app.callback(invoke_without_command=True)
def _root(context: typer.Context, version: Annotated[bool, typer.Option("--version", "-V", help="Print the version.")] = False) -> None:
    if version:
        from clprune import __version__

        print(__version__)
        raise typer.Exit()
    if distributed.rank() and context.invoked_subcommand not in TOGETHER:
        raise typer.Exit()  # one process is enough for the others


def _checked_keep(keep: str) -> str:
    """Refuse a bad --keep before anything is read."""
    try:
        good = keep == "auto" or (int(keep) >= 1 if keep.isdigit() else 0 < float(keep) <= 1)
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"--keep is {keep!r}. Give a share in (0, 1] such as 0.5, a whole number of samples, or auto.")
    return keep


@app.command()
def score(
    data: option.Data,
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    proxy: option.Proxy = "small_cnn",
    max_epochs: option.MaxEpochs = 30,
    seed: option.Seed = 0,
    device: option.Device = "auto",
    exact: option.Exact = False,
    batch_size: option.BatchSize = 128,
    learning_rate: option.LearningRate = None,
    whole_network: option.WholeNetwork = False,
    image_size: option.ImageSize = None,
    embeddings: option.EmbeddingsFile = None,
    layer: option.Layer = None,
    strict: option.Strict = False,
    answers: Annotated[Path | None, typer.Option("--answers", metavar="M", help="Manifest that asked for labels: add those that were given.")] = None,
    on_clp_end: Annotated[str | None, typer.Option("--on-clp-end", metavar="COMMAND", help="Run this once when the period has ended.")] = None,
    tensorboard: Annotated[Path | None, typer.Option("--tensorboard", metavar="FOLDER", help="Write the curves as event files.")] = None,
    force: option.Force = False,
    dry_run: option.DryRun = False,
    as_json: option.Json = False,
    quiet: option.Quiet = False,
) -> None:
    """Train a small proxy until the critical learning period has ended, and score every sample."""
    from clprune import clp_end, pipeline

    if distributed.rank():
        on_clp_end = tensorboard = None
    if on_clp_end is not None:
        clp_end.words_of(on_clp_end)  # refused before anything is read
    if dry_run:
        plan = pipeline.plan(data, proxy=proxy, max_epochs=max_epochs, device=device, image_size=image_size, strict=strict, exact=exact)
        show(plan, as_json, *terminal.plan_lines(plan))
        return
    with terminal.ProgressView(quiet=quiet) as view, _event_files(tensorboard, out) as write_events:

        def on_progress(report: dict[str, Any]) -> None:
            view(report)
            write_events(report)

        run = pipeline.score(
            data,
            out,
            proxy=proxy,
            max_epochs=max_epochs,
            seed=seed,
            device=device,
            exact=exact,
            batch_size=batch_size,
            learning_rate=learning_rate,
            whole_network=whole_network,
            image_size=image_size,
            embeddings=embeddings,
            layer=layer,
            strict=strict,
            answers=answers,
            force=force,
            on_progress=on_progress,
        )
    if on_clp_end is not None and run["clp"]["settled"] and (failed := clp_end.run_once(on_clp_end, out, run["clp"]["end_epoch"])):
        print(f"warning: {failed}", file=sys.stderr)
    if not quiet and not run["clp"]["settled"] and run["n_classes"]:
        print(f"warning: the critical period's end was {run['clp']['reason']}.", file=sys.stderr)
    show(run, as_json, *terminal.score_lines(run))


@contextmanager
def _event_files(folder: Path | None, run: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Takes progress reports and writes the curves in them for TensorBoard, at the end all that the run holds; nothing without a folder."""
    if folder is None:
        yield lambda report: None
        return
    from clprune.critical_period import read_curves
    from clprune.integrations.tensorboard import CurveWriter
    from clprune.run import read_run

    with CurveWriter(folder) as writer:
        yield lambda report: writer.write(report["curves"], report["curve_epochs"], report["n_samples"]) if "curves" in report else None
        finished = read_run(run)
        if finished.document["epochs_run"]:  # else no sample has a label, and there are no curves
            times, curves = read_curves(finished.curves_file)
            writer.write(curves, times, (finished.document.get("pool") or {}).get("n_labelled", finished.document["n_samples"]))


@app.command()
def plan(
    data: option.Data,
    trainings: Annotated[int, typer.Option("--trainings", min=1, help="Trainings that the subset will be used for.")] = 1,
    training_seconds: Annotated[float | None, typer.Option("--training-seconds", help="Of one training on all data.")] = None,
    gpu_price: Annotated[float | None, typer.Option("--gpu-price", help="USD an hour.")] = None,
    label_price: Annotated[float | None, typer.Option("--label-price", help="USD a sample, where labels are not bought yet.")] = None,
    proxy: option.Proxy = "small_cnn",
    max_epochs: option.MaxEpochs = 30,
    device: option.Device = "auto",
    image_size: option.ImageSize = None,
    strict: option.Strict = False,
    as_json: option.Json = False,
    quiet: option.Quiet = False,
) -> None:
    """What a search would cost and could save, when it pays, and its stages, from a few timed steps. Nothing is written."""
    from clprune import pipeline

    told = pipeline.plan(
        data, proxy=proxy, max_epochs=max_epochs, device=device, image_size=image_size, strict=strict,
        trainings=trainings, training_seconds=training_seconds, gpu_price=gpu_price, label_price=label_price,
    )  # fmt: skip
    show(told, as_json, *terminal.plan_lines(told), *(terminal.search_lines(told) if "stages" in told else ()))


@app.command()
def select(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: Annotated[Path, typer.Option("--out", help="Manifest folder to write.")],
    keep: Annotated[str, typer.Option("--keep", help="Share to keep in (0, 1], a whole number of samples, or auto: the smallest safe share.")] = "",
    label_budget: Annotated[
        int | None, typer.Option("--label-budget", min=1, help="Instead: how many samples without a label to label next.")
    ] = None,
    strategy: option.Strategy = None,
    seed: option.Seed = 0,
    min_per_class: option.MinPerClass = 1,
    tolerance: option.Tolerance = 0.5,
    confidence: option.Confidence = 0.9,
    trials: option.Trials = 12,
    trial_epochs: option.TrialEpochs = None,
    device: option.Device = "auto",
    data: Annotated[str | None, typer.Option("--data", help="With auto: where the data are now, if they have moved.")] = None,
    force: option.Force = False,
    dry_run: option.DryRun = False,
    as_json: option.Json = False,
    quiet: option.Quiet = False,
) -> None:
    """Spend a budget on a run's scores and write what to keep, or what to label next. Takes seconds; nothing is scored again."""
    from clprune import pipeline

    if not keep and label_budget is None:
        raise UsageError("Missing option '--keep' (what to train on), or '--label-budget' (what to label next).")
    if keep and label_budget is not None:
        raise UsageError("--keep (what to train on) and --label-budget (what to label next) are two things. Give one of them.")
    if keep:
        _checked_keep(keep)
    if dry_run:
        from clprune.run import read_run
        from clprune.selection import budget_for, require_share
        from clprune.selection_record import NEEDS_LABELS, candidates, require_choice

        require_choice(out, run, strategy, force=force)
        scored = read_run(run)
        rows, n = candidates(scored, label_budget is not None)[2], int(scored.document["n_samples"])
        if rows is not None and "auto" in (keep, strategy):
            raise UsageError(NEEDS_LABELS)
        could = n if rows is None else len(rows)
        if keep:
            require_share(keep, scored.table.labels, min_per_class)
        n_keep = None if keep == "auto" else budget_for(label_budget or keep, could).n_keep
        plan: dict[str, Any] = {"n_samples": n, "n_keep": n_keep, "trials": trials * [keep, strategy].count("auto"), "out": str(out)}
        show(plan, as_json, f"{_would(keep, label_budget, strategy, trials, n_keep, could)}; nothing was written")
        return
    automatic: dict[str, Any] = {
        "tolerance": tolerance / 100,
        "confidence": confidence,
        "trials": trials,
        "trial_epochs": trial_epochs,
        "device": device,
        "data": data,
    }
    with terminal.ProgressView(quiet=quiet) as view:
        document = pipeline.select(
            run,
            out,
            keep=keep,
            label_budget=label_budget,
            strategy=strategy,
            seed=seed,
            min_per_class=min_per_class,
            force=force,
            on_progress=view,
            **automatic,
        ).document
    show(document, as_json, *terminal.selection_lines(document))


def _would(keep: str, label_budget: int | None, strategy: str | None, trials: int, n_keep: int | None, n: int) -> str:
    """What `select` would do with `n` samples; the strategy and the share are each decided by up to `trials` trainings of their own."""
    trainings = f"up to {counted(trials, 'short training')}"
    if keep == "auto":
        first = f"{trainings} would decide by which strategy, and up to {trials} more" if strategy == "auto" else f"{trainings} would decide"
        return f"{first} what share of {n:,} samples is kept"
    said = f"would {'ask for' if label_budget else 'keep'} {n_keep:,} of {n:,} samples"
    return said + (f", by the strategy that {trainings} find" if strategy == "auto" else "")


@app.command()
def export(
    manifest: Annotated[Path, typer.Argument(metavar="M", help="A manifest folder.")],
    to: Annotated[
        str, typer.Option("--to", help="indices, imagefolder, hf, parquet, webdataset, label-studio, labels-csv, removal-list, croissant.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="What to write: complete or absent.")],
    data: Annotated[str | None, typer.Option("--data", help="Where the data are now, if they have moved.")] = None,
    force: option.Force = False,
    dry_run: option.DryRun = False,
    as_json: option.Json = False,
    quiet: option.Quiet = False,
) -> None:
    """Hand the kept samples over in a form that your training reads."""
    from clprune import pipeline

    if dry_run:
        from clprune.export import form_of
        from clprune.manifest import read_manifest
        from clprune.storage import require_free

        form_of(to)
        require_free(destination, force=force)
        document = read_manifest(manifest).document
        plan = {"n_samples": document["n_kept"], "bytes": document["kept_bytes"], "to": to, "destination": str(destination)}
        show(plan, as_json, f"would write {counted(plan['n_samples'], 'sample')} of {plan['bytes']:,} bytes to {destination}")
        return
    told = pipeline.export(manifest, to, destination, data=data, force=force)
    show(told, as_json, *terminal.export_lines(told))


@app.command()
def evaluate(
    manifest: Annotated[Path, typer.Argument(metavar="M", help="A manifest folder.")],
    seeds: Annotated[int, typer.Option("--seeds", min=1)] = 3,
    against: Annotated[
        str | None, typer.Option("--against", help="Of random, full, shortened, rs2, infobatch, with commas.", show_default="random,full")
    ] = None,
    proxy: Annotated[str | None, typer.Option("--proxy", help="Model to train; the scoring proxy by default.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1)] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="equal-steps or equal-epochs.", show_default="equal-steps")] = None,
    device: option.Device = "auto",
    data: Annotated[str | None, typer.Option("--data", help="Where the data are now, if they have moved.")] = None,
    test: option.Test = None,
    group: Annotated[str | None, typer.Option("--group", help="Column of the test table: accuracy of its worst group.")] = None,
    pool: Annotated[
        bool, typer.Option("--pool", help="M asks for labels: how many random ones they are worth. --data are the pool with all labels.")
    ] = False,
    label_price: Annotated[float | None, typer.Option("--label-price", help="With --pool: USD a label.")] = None,
    as_json: option.Json = False,
    quiet: option.Quiet = False,
) -> None:
    """Train on the kept, random and all samples and compare. Exit code 4 where the selection is not better than random."""
    from clprune import pipeline

    if pool:
        from clprune.labelling import evaluate_pool

        if left := [name for name, value in (("--against", against), ("--budget", budget), ("--group", group)) if value is not None]:
            raise UsageError(
                f"--pool does not take {', '.join(left)}: it compares with random labels, at equal steps, by the accuracy on all test data. Leave that out."
            )
        if data is None:
            raise UsageError("--pool needs --data: the same samples with all their labels, such as --data 'pool.npz?labels=y_all'.")
        with terminal.ProgressView(quiet=quiet) as view:
            found = evaluate_pool(
                manifest, data, test=test, seeds=seeds, proxy=proxy, epochs=epochs, device=device, label_price=label_price, on_progress=view
            )
        show(found, as_json, found["sentence"])
        return
    if label_price is not None:
        raise UsageError("--label-price needs --pool. What the labels of dropped samples cost is told by `clprune savings M --label-price`.")
    try:
        with terminal.ProgressView(quiet=quiet) as view:
            document = pipeline.evaluate(
                manifest,
                seeds=seeds,
                against="random,full" if against is None else against,
                proxy=proxy,
                epochs=epochs,
                budget=budget or "equal-steps",
                device=device,
                data=data,
                test=test,
                group=group,
                on_progress=view,
            )
    except GuardError as no:
        if no.found is not None and not as_json:  # what hours of training measured is seen whatever the verdict; --json has it beside the error
            show(no.found, False, terminal.evaluation_table(no.found))
        raise
    show(document, as_json, terminal.evaluation_table(document), document["comparison"].get("sentence", ""))


@app.command()
def savings(
    manifest: Annotated[Path, typer.Argument(metavar="M", help="A manifest folder.")],
    label_price: Annotated[float | None, typer.Option("--label-price", help="USD a label.")] = None,
    labelers_per_item: Annotated[float | None, typer.Option("--labelers-per-item")] = None,
    labels_owned: Annotated[bool, typer.Option("--labels-owned/--labels-not-bought", help="Whether the labels are paid for already.")] = True,
    label_fee: Annotated[str, typer.Option("--label-fee", help="Fee a sample: none, ground-truth, or tiers 50000:0.08,inf:0.02.")] = "none",
    storage_price: Annotated[float | None, typer.Option("--storage-price", help="USD per GB and month.")] = None,
    gpu_price: Annotated[float | None, typer.Option("--gpu-price", help="USD an hour.")] = None,
    carbon: Annotated[float | None, typer.Option("--carbon", help="g CO2e per kWh.")] = None,
    pue: Annotated[float | None, typer.Option("--pue", help="Facility energy over machine energy.")] = None,
    trainings: Annotated[int, typer.Option("--trainings", min=1)] = 1,
    training_seconds: Annotated[float | None, typer.Option("--training-seconds", help="Of one training on all data.")] = None,
    training_kwh: Annotated[float | None, typer.Option("--training-kwh", help="Of one training on all data.")] = None,
    prices: Annotated[Path | None, typer.Option("--prices", help="TOML file with prices of your own; flags go before it.")] = None,
    as_json: option.Json = False,
    quiet: option.Quiet = False,
) -> None:
    """Labels, bytes, time, energy and money saved, net of the pruning itself."""
    from dataclasses import asdict

    from clprune import pipeline

    result = pipeline.savings(
        manifest, label_price=label_price, labelers_per_item=labelers_per_item, labels_owned=labels_owned, label_fee=label_fee,
        storage_price=storage_price, gpu_price=gpu_price, carbon=carbon, pue=pue, trainings=trainings, training_seconds=training_seconds, training_kwh=training_kwh, prices=prices,
    )  # fmt: skip
    lines = [asdict(line) for line in result.lines]
    show({"lines": lines, "facts": dict(result.facts)}, as_json, terminal.savings_table(lines))


@app.command()
def prune(
    data: option.Data,
    keep: option.Keep,
    out: Annotated[Path, typer.Option("--out", help="Folder for the run and the manifest.")],
    strategy: option.Strategy = None,
    proxy: option.Proxy = "small_cnn",
    max_epochs: option.MaxEpochs = 30,
    seed: option.Seed = 0,
    device: option.Device = "auto",
    exact: option.Exact = False,
    image_size: option.ImageSize = None,
    strict: option.Strict = False,
    min_per_class: option.MinPerClass = 1,
    tolerance: option.Tolerance = 0.5,
    confidence: option.Confidence = 0.9,
    trials: option.Trials = 12,
    trial_epochs: option.TrialEpochs = None,
    force: option.Force = False,
    dry_run: option.DryRun = False,
    as_json: option.Json = False,
    quiet: option.Quiet = False,
) -> None:
    """Score, select, verify, count the savings and write the report."""
    from clprune import pipeline

    _checked_keep(keep)
    with terminal.ProgressView(quiet=quiet) as view:
        result = pipeline.prune(
            data, out, keep=keep, strategy=strategy, seed=seed, min_per_class=min_per_class, force=force, dry_run=dry_run, on_progress=view,
            proxy=proxy, max_epochs=max_epochs, device=device, exact=exact, image_size=image_size, strict=strict,
            automatic={"tolerance": tolerance / 100, "confidence": confidence, "trials": trials, "trial_epochs": trial_epochs, "device": device},
        )  # fmt: skip
    show(result, as_json, *(terminal.plan_lines(result) if dry_run else terminal.prune_lines(result)))


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the run and the manifest.")] = Path("demo-run"),
    as_json: option.Json = False,
    quiet: option.Quiet = False,
) -> None:
    """Prune the embedded sample, and say how many of its planted wrong labels and near-duplicates were found."""
    from clprune import pipeline

    with terminal.ProgressView(quiet=quiet) as view:
        result = pipeline.demo(out, on_progress=view)
    show(result, as_json, *terminal.prune_lines(result), *terminal.found_lines(result["found"]))


def main() -> None:
    """Run a command and leave with the exit code of what happened."""
    as_json = "--json" in sys.argv
    energy.command_started()
    distributed.enable()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a sign that this terminal lacks must not end what took hours
    try:
        if distributed.rank():  # process 0 speaks
            sys.argv.append("--quiet")
            sys.stdout = open(os.devnull, "w")
        if app(standalone_mode=False) == 130:  # so typer reports an interrupt
            raise KeyboardInterrupt
    except ClpruneError as error:
        if getattr(error, "everywhere", False) and distributed.rank():
            sys.exit(error.exit_code)
        _fail(str(error), error.exit_code, as_json, getattr(error, "found", None))
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted. The same command goes on from the last finished epoch.", 130, as_json)
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "format_message"):
            _fail(error.format_message(), 2, as_json)
        if os.environ.get("CLPRUNE_DEBUG"):
            raise
        _fail(f"unexpected {type(error).__name__}: {error}. Set CLPRUNE_DEBUG=1 to see where, and please report it.", 1, as_json)


def _fail(message: str, exit_code: int, as_json: bool, found: Mapping[str, Any] | None = None) -> None:
    """Say what went wrong and leave; with --json in one document, together with what was found before."""
    print(f"clprune: {message}", file=sys.stderr)
    if as_json:
        show({**(found or {}), "error": message, "exit_code": exit_code}, True)
    sys.exit(exit_code)
