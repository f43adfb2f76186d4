"""What a person sees: progress with the curves as they come, on stderr, and tables, on stdout."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from clprune.cells import readable
from clprune.errors import IntegrityError
from clprune.prices import price_used
from clprune.wording import counted, unsigned_zero

EVERY_SECONDS = 30  # between two lines where there is no terminal
_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """The last `width` values as bars between their least and largest; blanks where a value is missing."""
    known = [value for value in values if value == value]
    if not known:
        return ""
    low, high = min(known), max(known)
    scale = (high - low) or 1.0
    return "".join(_BARS[min(7, int((value - low) / scale * 8))] if value == value else " " for value in values[-width:])


class ProgressView:
    """Takes the pipeline's progress reports and shows them; nothing with `quiet`, lines where stderr is no terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, no_color="NO_COLOR" in os.environ)
        self.live: Live | None = None
        self._last_line = -1e9
        self._tasks: dict[str, Any] = {}
        self._seen: dict[str, Any] = {}  # the last curves, which of them decide, and what the rule waits for

    def __enter__(self) -> ProgressView:
        if not self.quiet and sys.stderr.isatty():
            self.bars = Progress(
                TextColumn("{task.description:>10}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"), TimeRemainingColumn()
            )
            self.live = Live(self._screen(), console=self.console, refresh_per_second=8, transient=True)
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()

    def __call__(self, report: dict[str, Any]) -> None:
        """One report: stage, done, total, and perhaps a message, and curves with the names of those that decide and what the rule waits for."""
        if self.quiet:
            return
        if "curves" in report:
            self._seen = {key: report.get(key) for key in ("curves", "deciding", "waiting_for")}
        stage, done, total = report["stage"], report.get("done", 0), report.get("total", 1)
        if self.live is None:
            now = time.monotonic()
            if report.get("message") or now - self._last_line >= EVERY_SECONDS:
                self._last_line = now
                print(f"{stage} {done}/{total} {report.get('message', '')}".rstrip(), file=sys.stderr, flush=True)
            return
        if stage not in self._tasks:
            self._tasks[stage] = self.bars.add_task(stage, total=total)
        self.bars.update(self._tasks[stage], completed=done, total=total)
        self.live.update(self._screen())

    def _screen(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(self.bars)
        curves: Mapping[str, Sequence[float]] = self._seen.get("curves") or {}
        width = max(8, min(40, self.console.width - 34))  # what a narrow terminal leaves beside the names and values
        for name in ("training_accuracy", *(self._seen.get("deciding") or ())):
            if curves.get(name):
                grid.add_row(Text(f"{name:>20} {sparkline(curves[name], width)} {unsigned_zero(curves[name][-1], '.3f')}", no_wrap=True))
        if self._seen.get("waiting_for"):
            grid.add_row(Text(f"the period's end waits for: {self._seen['waiting_for']}"))
        return grid


def out() -> Console:
    """Where data for people go: stdout."""
    # Without emoji: else the `:dog:` in hf:dog:train, or in an id, would be drawn and not read.
    return Console(no_color="NO_COLOR" in os.environ, highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)


def show(document: Mapping[str, Any], as_json: bool, *lines: Any) -> None:
    """One JSON document, or lines and tables for people, on stdout."""
    if as_json:
        from clprune.storage import to_json

        text = to_json(document)
        try:
            text.encode(sys.stdout.encoding or "utf-8")
        except UnicodeEncodeError:  # JSON has escapes of its own
            text = json.dumps(json.loads(text), indent=2, sort_keys=True)
        print(text)
        return
    console = out()
    for line in lines:
        console.print(line, markup=False) if isinstance(line, str) else console.print(line)


def leakage_lines(told: Mapping[str, Any]) -> list[str]:
    """The nearest pairs, then how many there are."""
    pairs = sorted(told["pairs"], key=lambda pair: pair["distance"])
    lines = [
        f"test {p['test_id']} repeats {p['train_id']}, "
        + (f"distance {p['distance']:.3f}" if p["distance"] else "equal")
        + ("" if p["same_label"] else ", another label")
        for p in pairs[:10]
    ] + ([f"... and {len(pairs) - 10:,} more; --json names all"] if len(pairs) > 10 else [])
    share = len(pairs) / max(1, told["n_test"])
    counts = f"{told['n_exact']:,} equal and {told['n_near']:,} nearly equal, {told['n_with_another_label']:,} with another label"
    return [
        *lines,
        f"{len(pairs):,} of {counted(told['n_test'], 'test sample')} ({share:.2%}) repeat one of {counted(told['n_train'], 'training sample')}: {counts}",
    ]


def score_lines(run: Mapping[str, Any]) -> list[str]:
    """What `score` says when it is done; the last line says where the critical period ended, why, and what it cost."""
    clp = run["clp"]
    lines = [f"{counted(run['n_samples'], 'sample')}, {counted(run['n_classes'], 'class')}, {run['proxy']}, {run['seconds']:.0f} s" + energy(run)]
    lines += [f"left out: {name} ({reason})" for name, reason in run["skipped"][:5]] + (
        [f"... and {len(run['skipped']) - 5} more"] if len(run["skipped"]) > 5 else []
    )
    lines += [f"note: {note}" for note in run["notes"]]
    if pool := run.get("pool"):
        looked = (
            f"looked at after {'epoch' if len(pool['watched_after_epochs']) == 1 else 'epochs'} {', '.join(map(str, pool['watched_after_epochs']))}"
            if pool["watched_after_epochs"]
            else "looked at once"
        )
        lines.append(f"round {pool['round']}: {pool['n_labelled']:,} labelled, {pool['n_unlabelled']:,} without a label, {looked}")
    if run["proxy"] == "logged":
        lines.append(
            "note: logged numbers hold no inputs to train on, so a selection from this run cannot be evaluated here; compare where they were logged"
        )
    elif not run["has_test_split"]:
        lines.append("note: these data have no test part; `clprune evaluate` will need --test DATA")
    lines.append(f"{counted(run['suspects']['n'], 'label')} suspected wrong, {counted(run['duplicates']['n'], 'near-duplicate')}")
    finishing = run["pool"].get("finishing_epochs", 0) if run.get("pool") else 0
    epochs = counted(run["epochs_run"], "proxy epoch") + (f" and {finishing} more before the last look" if finishing else "")
    share = f"{epochs}, {run['share_of_full_training']:.1%} of the epochs of a full training of {run['share_is_of_epochs']}"
    if clp["settled"]:
        lines.append(f"critical period: ended by epoch {clp['end_epoch']}: {clp['reason']}; cost {share}")
    elif not run["n_classes"]:
        lines.append(f"critical period {clp['reason']}; cost {share}")
    else:
        more = "log more epochs" if run["proxy"] == "logged" else "raise --max-epochs"
        lines.append(
            f"WARNING critical period {clp['reason']}; scores use {'all ' * (run['epochs_run'] != 1)}{counted(run['epochs_run'], 'epoch')}; {more}; cost {share}"
        )
    return lines


def energy(run: Mapping[str, Any]) -> str:
    return "" if run["energy_kwh"] is None else f", {run['energy_kwh'] * 1000:.2f} Wh ({run['energy_method']})"


def plain_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (1,)) -> Table:
    """Columns without rules; those at the places `right` end at the right."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for place, name in enumerate(header):
        table.add_column(name, justify="right" if place in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as text: brackets in it are not markup
    return table


def number(value: float | None) -> str:
    """A figure for a table, as on the page; a dash where nothing was measured."""
    return "-" if value is None else readable(value)


def evaluation_table(document: Mapping[str, Any]) -> Table:
    """Accuracy of each arm with its spread, and what else was measured."""
    rows = []
    for arm, result in document["arms"].items():
        spread = "" if result["accuracy_sd"] is None else f" ± {100 * result['accuracy_sd']:.2f}"
        cells = (f"{100 * result['worst_class_mean']:.1f}", _worst_group(result))
        corrupted = f"{100 * result['corruptions']['mean']:.1f}" if result["corruptions"] else ""
        more = (f"{100 * result['calibration_error_mean']:.1f}", corrupted, f"{result['seconds_mean']:.0f}")
        rows.append((arm, f"{100 * result['accuracy_mean']:.2f}{spread}", *cells, *more))
    return plain_table(
        f"accuracy, %, {document['facts']['budget']}",
        ("arm", "accuracy", "worst class", "worst group", "calibration error", "corrupted", "seconds"),
        rows,
    )


def _worst_group(result: Mapping[str, Any]) -> str:
    """Mean accuracy of the worst group of each training, and the group that is worst on average."""
    if result["worst_group_mean"] is None:
        return ""
    of = {name: sum(run["per_group"][name] for run in result["runs"]) for name in result["runs"][0]["per_group"]}
    return f"{100 * result['worst_group_mean']:.1f} ({min(of, key=lambda name: of[name])})"


def savings_table(lines: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for line in lines:
        price = price_used(line)
        note = line["note"] + (f" [at {price}]" if price else "")
        rows.append((line["name"], number(line["value"]), line["unit"], line["method"], note.lstrip()))
    return plain_table("net savings", ("line", "value", "unit", "method", "note"), rows)


def found_lines(found: Mapping[str, Any]) -> list[str]:
    """What the demo found of what was planted."""
    wrong, copies = found["wrong_labels"], found["duplicates"]
    return [
        f"planted wrong labels: {wrong['recall_in_top_5_percent']:.0%} of {wrong['planted']} are among the 5 % most suspect; {wrong['flagged']} flagged "
        f"(recall {wrong['recall']:.0%}, precision {wrong['precision']:.0%}); kept {wrong['kept']}, a random choice {wrong['kept_by_a_random_choice']:.0f}",
        f"planted near-duplicates: found {copies['recall']:.0%} of {copies['planted']} (precision {copies['precision']:.0%}); "
        f"both kept of {counted(copies['kept_both'], 'pair')}, by a random choice {copies['kept_both_by_a_random_choice']:.0f}",
    ]


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    return [
        f"{counted(plan['n_samples'], 'sample')}, {counted(plan['n_classes'], 'class')}, inputs {plan['image']}, {plan['skipped']} unreadable",
        f"no sample has a label: nothing is trained, features take about {60 * plan['max_minutes']:,.0f} s on {plan['device']}; `clprune select RUN --label-budget N` then says what to label first"
        if plan["n_classes"] == 0
        else f"at most {counted(plan['max_epochs'], 'epoch')}, {counted(plan['max_steps'], 'step')}, {plan['max_minutes']:.1f} minutes on {plan['device']} ({plan['seconds_per_epoch']:.1f} s an epoch, timed on random inputs); it stops by itself when the critical period has ended",
        f"about {plan['memory_mb']:.0f} MB of memory, at most {plan['disk_mb']:.0f} MB of disk; nothing was written",
    ]


def search_lines(plan: Mapping[str, Any]) -> list[Any]:
    """What the search costs and could save, and its stages."""

    def span(*seconds: float) -> str:
        unit, size = ("h", 3600) if max(map(abs, seconds)) >= 7200 else ("min", 60)
        return " to ".join(unsigned_zero(second / size, ",.1f") for second in seconds) + f" {unit}"

    def pays(after: Sequence[int | None]) -> str:
        return " to ".join(dict.fromkeys("never" if n is None else str(n) for n in after))

    def part(seconds: float) -> str:
        return f"{100 * seconds / one:{'.2g' if seconds < one else ',.0f'}} %"

    cost, auto, one, n = plan["scoring_seconds"], plan["auto_seconds"], plan["training_seconds"], plan["trainings"]
    rows = []
    for keep, row in plan["by_keep"].items():
        cells = [f"{float(keep):.0%}", *(span(seconds) for seconds in row["net_seconds"]), pays(row["pays_after_trainings"])]
        cells += [] if auto is None else [pays(row["pays_after_trainings_auto"])]
        cells += [] if row["net_money"] is None else [f"{unsigned_zero(money, ',.2f')} USD" for money in row["net_money"]]
        rows.append(cells + ([] if row["label_money"] is None else [f"{row['label_money']:,.0f} USD"]))
    some = next(iter(plan["by_keep"].values()))
    headers = ["kept", "time, equal steps", "time, equal epochs", "pays after trainings (equal epochs)"]
    headers += [] if auto is None else ["the same with --keep auto"]
    headers += [] if some["net_money"] is None else ["money, equal steps", "money, equal epochs"]
    headers += [] if some["label_money"] is None else ["labels avoidable"]
    share = f", so scoring is at most {part(cost[1])} of one" if one else ""
    share += "" if not one or auto is None else f", and with the trials {part(auto[1])}"
    trials = "" if auto is None else f", with the trials of --keep auto {span(*auto)}"
    stages = [(s["stage"], s["what"], span(*s["seconds"]), "\n".join(s["commands"]), s["go_on_if"]) for s in plan["stages"]]
    return [
        f"scoring takes {span(*cost)}{trials}; one training on all data {one / 3600:,.2f} h ({plan['training_seconds_how']}){share}",
        plain_table(
            f"saved by {counted(n, 'training')} on the kept samples, less the scoring (negative: lost; trials are not in it). Equal steps: a training is as long as before, and the scoring is lost. Equal epochs: it is shorter",
            headers,
            rows,
            right=(1, 2),
        ),
        plain_table("three stages", ("stage", "on", "time", "commands", "go on if"), stages, right=()),
        "What a choice does to accuracy is not known before `clprune evaluate`. examples/adopting.md says when not to prune at all.",
    ]


def selection_lines(document: Mapping[str, Any]) -> list[str]:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(document["reasons"].items()))
    found = [part["sentence"] for part in (document.get("trials", {}).get("strategy"), document["budget"]) if part and "sentence" in part]
    if "to be labelled" in document["reasons"]:
        guessed = ", ".join(f"{name} {n:,}" for name, n in zip(document["class_names"], document["pool"]["guessed_per_class"], strict=True))
        return [
            f"{document['n_kept']:,} of {document['n_samples']:,} to be labelled, by {document['strategy']}: {reasons}",
            f"guessed classes: {guessed or 'not known'}",
            f"choosing took {document['timings']['score_seconds'] + document['timings']['select_seconds']:,.0f} s",
        ]
    smallest = min((kept for kept, n in zip(document["kept_per_class"], document["samples_per_class"], strict=True) if n), default=0)
    return [*found, f"kept {document['n_kept']:,} of {document['n_samples']:,} by {document['strategy']}: {reasons}; smallest class {smallest}"]


def answers_line(told: Mapping[str, Any]) -> str:
    """What `labels add` did."""
    more = f", {told['repeated']:,} given before" * bool(told["repeated"]) + f", {told['not_asked_for']:,} that nobody asked for" * bool(
        told["not_asked_for"]
    )
    return f"{counted(told['added'], 'answer')} added{more}; {told['open']:,} of {counted(told['asked'], 'question')} {'is' if told['open'] == 1 else 'are'} open"


def export_lines(told: Mapping[str, Any]) -> list[str]:
    link = f", {told['link']}" if told.get("link") else ""
    written = f"{counted(told['files'], 'file')}, {counted(told['bytes_written'], 'byte')} written{link}"
    return [f"{counted(told['n_samples'], 'sample')} as {told['form']} in {told['destination']}: {written}"] + (
        [f"note: {told['note']}"] if told.get("note") else []
    )


def prune_lines(result: Mapping[str, Any]) -> list[Any]:
    if result["problems"]:
        raise IntegrityError(" ".join(result["problems"]))
    return [
        *score_lines(result["run"]),
        *selection_lines(result["manifest"]),
        f"manifest verified: {result['out']}/manifest",
        savings_table(result["savings"]["lines"]),
        f"report: {result['report']['path']}",
    ]
