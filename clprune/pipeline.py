"""The whole path, one call per step. Every command of the command line is one function here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clprune import distributed, families
from clprune.datatypes import Budget, Savings, Selection, Source, require_seed
from clprune.energy import metered, step_began
from clprune.errors import DataError, GuardError, UsageError
from clprune.inputs import data_key, groups_of, held_out_inputs, held_out_part, inputs_of, open_data, open_recorded, require_one_form, trainable
from clprune.live import announce, conclude
from clprune.manifest import Manifest, read_manifest
from clprune.prices import read_prices
from clprune.run import Run, clear_up, finished_run, put_back, read_run
from clprune.savings import asked_options, note_export, read_exports, write_savings
from clprune.savings import savings as compute_savings
from clprune.selection_record import NEEDS_LABELS, candidates, finished_choice, question, require_choice, write_selection
from clprune.storage import locked, read_json, require_space, require_writable

Progress = Callable[[dict[str, Any]], None]


@metered
def score(
    data: str | Source,
    out: Path | str,
    *,
    proxy: str = "small_cnn",
    max_epochs: int = 30,
    seed: int = 0,
    device: str = "auto",
    exact: bool = False,
    batch_size: int = 128,
    learning_rate: float | None = None,
    whole_network: bool = False,
    image_size: int | None = None,
    embeddings: np.ndarray | Path | str | None = None,
    layer: str | None = None,
    strict: bool = False,
    answers: Path | str | None = None,
    force: bool = False,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a proxy to the end of the critical period, score every sample, write the run folder `out`; returns run.json's document.

    Samples without a label are looked at, not learned from; where none has one, no model is trained either (`embeddings.without_labels`). `answers` is a manifest that asked for labels: those that were added to it are added to the data.
    A finished run of the same arguments is returned as it is; an interrupted one goes on. Another run in the same folder is refused
    (DataError) unless `force`. Data that hold logged numbers are replayed instead: no model is trained. `embeddings` are features (N, D) of your own, an array or
    a .npy file, in the order of the data; by default they are the proxy's, of its module `layer` or of what goes into its last linear layer. Processes that torchrun started
    share the training; process 0 writes, and all get the document.
    """
    out, seed = Path(out), require_seed(seed)
    from clprune.embeddings import given, nothing_trained, without_labels
    from clprune.labels import labels_digest, with_answers
    from clprune.plan import disk_bytes
    from clprune.pool import PoolWatcher
    from clprune.proxies import proxy_for
    from clprune.replay import notes_on, replay
    from clprune.scored_run import scored_run, unlabelled_run
    from clprune.trajectory import record_trajectory

    source = data if isinstance(data, Source) else open_data(data, strict, on_progress if distributed.is_first() else None)
    still_open, parent = None, None
    if answers is not None:
        source, still_open, parent = with_answers(source, read_manifest(answers))
    if source.logged is not None:
        proxy, max_epochs = "logged", len(next(iter(source.logged.values())))
    else:
        proxy = proxy_for(source.kind, proxy)
    training: dict[str, Any] = {"proxy": proxy, "seed": seed, "max_epochs": max_epochs, "exact": exact, "batch_size": batch_size}
    training |= {"learning_rate": learning_rate, "whole_network": whole_network}
    asked = training | {"image_size": image_size} | ({} if answers is None else {"labels_sha256": labels_digest(source.labels)})
    asked |= {} if layer is None else {"layer": layer}
    own = None
    if embeddings is not None:
        own, digest = given(embeddings, source.sample_ids)
        asked |= {"embeddings": digest}
    known = source.labelled
    checkpoint, goes_on = out / "checkpoint", (out / "live.json").exists() and not (force or (out / "run.json").exists())

    def begin() -> dict[str, Any] | None:
        """Make the folder ready; the document of a finished run where there is one."""
        held.enter_context(locked(out))
        held.push(lambda kind, error, traceback: put_back(out, error))
        if (finished := finished_run(out, source, asked, force)) is not None:
            return finished
        require_space(out, disk_bytes(len(source), max_epochs), "scoring")
        announce(out, goes_on=(checkpoint / "checkpoint.json").exists(), title=source.locator, n_samples=len(source), max_epochs=max_epochs)
        return None

    with distributed.joined(), ExitStack() as held:
        distributed.require_same(source.fingerprint, "data (by their fingerprints)")
        if (finished := distributed.on_first(begin)) is not None:
            return finished
        on_progress = on_progress if distributed.is_first() else None
        started = time.perf_counter()
        report = (lambda done, total: on_progress({"stage": "decode", "done": done, "total": total})) if on_progress else None
        told: dict[str, Any] = {"asked": asked, "notes": notes_on, "image_rule": None, "decode_seconds": 0.0}
        images, pool = None, None
        if source.logged is None:
            images, told["image_rule"] = distributed.first_here(lambda: inputs_of(source, image_size, report))
            told["decode_seconds"] = time.perf_counter() - started
            if len(known) < len(source):
                pool = PoolWatcher(
                    source, images, device=device, folder=checkpoint, still_open=still_open, parent=parent, layer=layer, embeddings=own,
                    features=partial(without_labels, images, source.canonical_order, seed=seed, device=device, on_progress=on_progress), seed=seed,
                )  # fmt: skip
        if images is not None and len(known):
            run = record_trajectory(
                source if pool is None else source.part(known), images if pool is None else images[known], **training,
                device=device, checkpoint=checkpoint, live_folder=out, watch=pool, on_progress=on_progress, layer=layer,
                embeddings=own if own is None or pool is None else Embeddings(own.vectors[known], own.layer), embeddings_file=out / "embeddings.npy" if pool is None else None,
            )  # fmt: skip

        def finish() -> dict[str, Any]:
            if images is None:
                recorded, period, logged = replay(source, on_progress=on_progress)
                written = scored_run(out, source, recorded, period, own or logged, None, **told)
            elif pool is not None and not len(known):
                order = source.canonical_order
                features, facts = (
                    (own, nothing_trained(seed))
                    if own is not None
                    else without_labels(images, order, seed=seed, device=device, goes_on=goes_on, on_progress=on_progress)
                )
                written = unlabelled_run(out, source, features, facts, images, pool=pool, **told)
            else:
                assert run is not None
                if on_progress:
                    on_progress({"stage": "neighbours", "done": 0, "total": 1})
                written = scored_run(out, source, run.trajectory, run.period, run.embeddings, images, pool=pool, **told)
            conclude(out)
            clear_up(out)
            return dict(written.document)

        return distributed.on_first(finish)


def save_run(
    recorder: Any,
    data: Any,
    out: Path | str,
    *,
    vectors: np.ndarray | None = None,
    near_duplicates: bool = True,
    seconds: float = 0.0,
    force: bool = False,
) -> Run:
    """Write the run folder `out` from a recorder that sat in a loop of your own, so that `select` and all that follows can go on from it.

    `data` is what was trained on, as a Source, a locator, or the data set itself, in the order of the rows that `observe` was told. `vectors` (N, D) are features for
    the neighbours of each sample; `near_duplicates` reads the images to compare them. `seconds` is what recording is to be charged for: 0 where the training had to
    be done anyway. Raises DataError where rows or labels do not belong together.
    """
    from clprune.embeddings import given
    from clprune.replay import notes_on
    from clprune.scored_run import of_own_loop, scored_run

    source = data if isinstance(data, Source) else open_data(data, False) if isinstance(data, str) else families.adapted(data)
    trajectory, asked = of_own_loop(recorder, source, seconds)
    images, rule = inputs_of(source, None) if near_duplicates and source.kind == "image" else (None, None)
    embeddings = None if vectors is None else given(np.asarray(vectors), source.sample_ids)[0]
    with locked(out := Path(out)):
        if (out / "run.json").exists() and not force:
            raise DataError(f"{out} holds a run already. Choose another folder, or pass force=True to replace it.")
        return scored_run(
            out, source, trajectory, recorder.critical_period(), embeddings, images, asked=asked, image_rule=rule, decode_seconds=0.0, notes=notes_on
        )


def plan(
    data: str | Source,
    *,
    proxy: str = "small_cnn",
    max_epochs: int = 30,
    device: str = "auto",
    image_size: int | None = None,
    strict: bool = False,
    exact: bool = False,
    **search: Any,
) -> dict[str, Any]:
    """What `score` would take, from the data's listing and a few timed steps on random images: nothing is written.

    With `search` (`trainings`, `training_seconds`, `gpu_price`, `label_price`) also what the whole search would cost, what it could save, and its stages;
    not where no sample has a label, since then there is nothing to prune.
    """
    from clprune.plan import plan as planned
    from clprune.plan import search_plan

    source = data if isinstance(data, Source) else open_data(data, strict)
    told = planned(source, proxy=proxy, max_epochs=max_epochs, device=device, image_size=image_size, exact=exact)
    return told | (search_plan(told, source.locator, **search) if search and told["n_classes"] else {})


def select(
    run: Path | str,
    out: Path | str,
    *,
    keep: str = "",
    label_budget: int | None = None,
    strategy: str | None = None,
    seed: int = 0,
    min_per_class: int = 1,
    force: bool = False,
    on_progress: Progress | None = None,
    **automatic: Any,
) -> Manifest:
    """Spend the budget on a run's scores and write the manifest folder `out`: what to keep, or with `label_budget` what to label next.

    `keep` or `strategy` may be "auto": then short trainings on the run's data decide, with `tolerance` and `confidence` (of the loss of accuracy), `trials` and `trial_epochs`
    (how many, how long), `device` and `data` (where the data are now) in `automatic`. Several processes share the clusters of a choice out among them; the first one holds
    the trainings and writes.
    """
    run, out, seed, began = Path(run), Path(out), require_seed(seed), step_began()
    with distributed.joined():
        return _selected(began, run, out, keep, label_budget, strategy, seed, min_per_class, force, on_progress, **automatic)


def _selected(
    began: float,
    run: Path,
    out: Path,
    keep: str,
    label_budget: int | None,
    strategy: str | None,
    seed: int,
    min_per_class: int,
    force: bool,
    on_progress: Progress | None,
    **automatic: Any,
) -> Manifest:
    from clprune.selection import among_all, budget_for, default_strategy
    from clprune.selection import select as choose
    from clprune.trials import decided_for

    def read() -> tuple[Any, ...]:
        require_choice(out, run, strategy, force=force)
        scored = read_run(run)
        return scored, *candidates(scored, ask)

    def vectors_for(strategy: str) -> np.ndarray | None:
        needed = "vectors" in families.facts(families.choose("strategies", strategy)[0])["needs"]
        return scored.vectors if needed else None

    ask, asked = label_budget is not None, question(keep, label_budget, strategy, seed, min_per_class, automatic)
    if ask == bool(keep):
        raise distributed.everywhere(UsageError("give either --keep (what to train on) or --label-budget (what to label next)."))
    if label_budget is not None and label_budget < 1:
        raise distributed.everywhere(UsageError(f"--label-budget is {label_budget}; at least 1 is needed."))
    scored, table, neighborhood, rows, others = distributed.alike(read)
    document = scored.document
    of_texts = (document["image_rule"] or {}).get("kind") == "text"
    strategy, found = strategy or default_strategy(table, of_texts=of_texts), None
    evidence: dict[str, Any] = {}
    trials_took: dict[str, float | None] = {"seconds": 0.0, "seconds_before": 0.0, "energy_kwh": 0.0}
    if "auto" in (keep, strategy):
        if rows is not None:
            raise distributed.everywhere(UsageError(NEEDS_LABELS))
        asked_for = strategy
        found, strategy, evidence, trials_took = distributed.on_first(
            lambda: decided_for(scored, keep, asked_for, seed, on_progress, min_per_class=min_per_class, **automatic)
        )

    chosen_by = strategy
    vectors = distributed.alike(lambda: vectors_for(chosen_by))

    def chosen() -> tuple[Budget, Selection]:
        if label_budget is not None and label_budget > len(table.sample_ids):
            raise GuardError(
                f"--label-budget is {label_budget}, but only {len(table.sample_ids)} samples can be asked for ({len(others)} in all). Ask for fewer."
            )
        budget = found or budget_for(keep if label_budget is None else label_budget, len(table.sample_ids))
        picked = choose(
            table, budget, strategy=chosen_by, seed=seed, neighborhood=neighborhood, vectors=vectors if vectors is None or rows is None else vectors[rows],
            n_classes=document["n_classes"], min_per_class=0 if ask else min_per_class,
        )  # fmt: skip
        return budget, picked if rows is None else among_all(picked, rows, others, taken="to be labelled" if ask else "kept")

    with distributed.sharing():
        budget, selection = distributed.alike(chosen)
    took = {"seconds": time.perf_counter() - began + (trials_took["seconds_before"] or 0.0), "trial_seconds": trials_took["seconds"]}
    took |= {"trial_kwh": trials_took["energy_kwh"]}
    told = {"trials": evidence, "seed": seed, "min_per_class": min_per_class, "asked": asked}
    return distributed.on_first(
        lambda: write_selection(out, scored, selection, budget, told, asked=str(label_budget) if ask else keep, took=took, force=force)
    )


def export(manifest: Path | str, form: str, destination: Path | str, *, data: str | None = None, force: bool = False) -> dict[str, Any]:
    """Hand the kept samples over in a form that the user's training reads; `data` where the data set has moved. One that was killed when it stood, and was not listed yet, is listed."""
    manifest, destination = Path(manifest), Path(destination)
    from clprune.export import export as hand_over
    from clprune.export import finished_export
    from clprune.labels import with_known_labels

    record = read_manifest(manifest)
    listed = force or str(destination.resolve()) in [one["destination"] for one in read_exports(record.folder)]
    if not listed and (told := finished_export(record, form, destination)) is not None:
        return note_export(record.folder, told)
    told = hand_over(record, with_known_labels(open_recorded(record.document, data), record), form, destination, force=force)
    return note_export(record.folder, told)


@metered
def evaluate(
    manifest: Path | str,
    *,
    seeds: int = 3,
    against: str = "random,full",
    proxy: str | None = None,
    epochs: int | None = None,
    budget: str = "equal-steps",
    device: str = "auto",
    data: str | None = None,
    test: str | None = None,
    group: str | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Train on the kept samples and on what they are compared with; write evaluation.json beside the manifest. Several processes share the trainings out.

    Accuracy is that on the data set `test` (its classes are known by their names), or else on the test part of the data.
    """
    manifest = Path(manifest)
    from clprune.evaluation import arms_of, with_all_costs, write_evaluation
    from clprune.evaluation import evaluate as compare_arms
    from clprune.labels import with_known_labels

    record = read_manifest(manifest)
    source = with_known_labels(open_recorded(record.document, data), record)
    arms, kept, known = arms_of(against), record.indices(source), source.labelled
    if record.asks:
        raise UsageError(
            f"{manifest} asks for labels, so there is nothing to train on yet. Add the answers, score and select again; or compare with --pool."
        )
    tested_on = held_out_part(source, test)
    require_writable(record.folder)  # before hours of training

    def inputs() -> tuple[np.ndarray, np.ndarray]:
        images, rule = inputs_of(source, record.document["run"]["asked"]["image_size"])
        return images, held_out_inputs(tested_on, rule)

    with distributed.joined():
        distributed.require_same(source.fingerprint, "data (by their fingerprints)")
        images, test_images = distributed.first_here(inputs)
        require_one_form(images, test_images)
        evaluation = compare_arms(
            images, source.labels, test_images, tested_on.labels, kept, n_classes=source.n_classes, proxy=proxy or trainable(record.document["run"]["proxy"], source), seeds=seeds,
            against=arms, epochs=epochs, budget=budget, device=device,
            order=source.canonical_order[np.isin(source.canonical_order, known)], test_groups=groups_of(tested_on, group), checkpoint=record.folder / "evaluation",
            data_key=distributed.on_first(lambda: data_key(source, images, tested_on, test_images)), on_progress=on_progress if distributed.is_first() else None,
        )  # fmt: skip
        document = distributed.on_first(lambda: write_evaluation(record, with_all_costs(evaluation), test=test))
        if evaluation.comparison.get("not_better_than_random"):
            raise distributed.everywhere(GuardError(str(evaluation.comparison["sentence"]), document))
        return document


def savings(manifest: Path | str, *, prices: Path | str | Mapping[str, Any] | None = None, **given: Any) -> Savings:
    """What the selection saves, net of its cost; written to savings.json beside the manifest. `prices` is a TOML file, or what was read from one, `given` what goes before it."""
    record = read_manifest(manifest)
    if record.asks:
        raise UsageError(
            f"{manifest} asks for labels and drops nothing. How many labels it saves is measured by `clprune evaluate {manifest} --pool --data DATA`."
        )
    result = compute_savings(record, **given, prices=read_prices(Path(prices)) if isinstance(prices, (str, Path)) else prices)
    write_savings(record.folder, result)
    return result


def verify(folder: Path | str, *, data: str | None = None) -> list[str]:
    """What is wrong with a run (also an unfinished one), a manifest or an export, and with all that lies in it, one sentence each; with `data` also whether the data are still those."""
    from clprune.verification import verify as verified

    return verified(Path(folder), open_data(data, False) if data else None)


def detect(run_or_csv: Path | str, *, live: bool = False, rate_changes: tuple[float, ...] = ()) -> dict[str, Any]:
    """Start and end of the critical period, from a run (as it was decided then) or from logged curves (in hindsight).

    With `live` the moment at which the live rule fires when it reads the curves point by point, from a pipe (`-`: standard input) as soon as it does.
    `rate_changes` say where another learning rate began, where there is no curve of it: jumps there are masked. In a run they are epochs done at the former
    rate, as its points count them; in a file of logged curves the `epoch` of the first row that the new rate made.
    """
    run_or_csv = Path(run_or_csv)
    from dataclasses import asdict

    from clprune.critical_period import curves_so_far, find_critical_period, live_firing

    run = read_run(run_or_csv) if run_or_csv.is_dir() else None
    if run is not None and (not live or not run.document["epochs_run"]):  # none where no sample has a label
        return {"fired_epoch": None} if live else dict(run.document["clp"])
    for times, curves in curves_so_far(run_or_csv if run is None else run.curves_file):
        if rate_changes:
            side: Any = "right" if run is None else "left"  # a run's point at 50 epochs done was still made at the rate of the 50th
            curves["learning_rate"] = 10.0 ** -np.searchsorted(np.sort(rate_changes), times, side=side).astype(float)
        if live and (fired := live_firing(times, curves)) is not None:
            return {"fired_epoch": fired}
    return {"fired_epoch": None} if live else asdict(find_critical_period(curves, times, n_epochs=int(np.ceil(times[-1]))))


def compare(run_a: Path | str, run_b: Path | str) -> dict[str, Any]:
    """How well two runs agree on the samples that both have: rank correlation of each score, overlap of the harder halves, ends."""
    run_a, run_b = Path(run_a), Path(run_b)
    from clprune.comparison import compare as compare_runs

    a, b = read_run(run_a), read_run(run_b)
    return compare_runs(a.table, a.document, b.table, b.document)


def report(
    folders: Sequence[Path | str], out: Path | str, *, run: Path | str | None = None, data: str | None = None, force: bool = False
) -> dict[str, Any]:
    """One page on a run or a manifest, or a comparison of several, without torch; `run` and `data` where they are not where they were."""
    out = Path(out)
    from clprune.report import report as write_page
    from clprune.subject import read_subject

    if out.exists() and not force:
        raise UsageError(f"{out} exists already. Choose another place, or pass --force to replace it.")
    places = list(dict.fromkeys(map(Path, folders)))  # what is named twice is shown once
    several = len(places) > 1
    if several and (run is not None or data is not None):
        raise UsageError("--run and --data belong to one run or manifest; leave them out when several are compared.")
    subjects = []
    for folder in places:
        subject = read_subject(folder, run_folder=None if run is None else Path(run), data=data, with_data=not several)
        record = None if subject.manifest is None else read_manifest(folder)
        if record is not None and record.asks:
            raise UsageError(f"{folder} asks for labels; a report is of what is kept. Add the answers, score, and select with --keep.")
        subjects.append((subject, None if record is None else compute_savings(record, **asked_options(record.folder))))
    return write_page(subjects, out)


def prune(
    data: str,
    out: Path | str,
    *,
    keep: str,
    strategy: str | None = None,
    seed: int = 0,
    min_per_class: int = 1,
    force: bool = False,
    dry_run: bool = False,
    automatic: dict[str, Any] | None = None,
    on_progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Score, select, verify, savings, report: `out/run`, `out/manifest` and `out/report.html`. What the same question has left there, finished or cut short, is gone on with; another one is refused unless `force`. With `dry_run` only what `plan` tells, or the refusal."""
    from dataclasses import asdict

    from clprune.selection import require_share

    out, automatic = Path(out), automatic or {}
    asked = question(keep, None, strategy, require_seed(seed), min_per_class, automatic)

    def opened() -> tuple[Source, Manifest | None]:
        """What needs no training is refused before anything is trained."""
        made = finished_choice(out / "manifest", out / "run", strategy, asked, force=force)
        source = open_data(data, options.pop("strict", False), on_progress if distributed.is_first() else None)
        require_share(keep, source.labels, min_per_class)
        return source, made

    with distributed.joined():
        source, held = distributed.alike(opened)
        if dry_run:
            return plan(source, **options)
        run = score(source, out / "run", seed=seed, force=force, on_progress=on_progress, **options)
        manifest = held or select(
            out / "run", out / "manifest", keep=keep, strategy=strategy, seed=seed, min_per_class=min_per_class, force=force, on_progress=on_progress, **automatic
        )  # fmt: skip
        problems, saved = distributed.on_first(lambda: (verify(out / "manifest"), savings(out / "manifest", **asked_options(out / "manifest"))))
        page = distributed.on_first(lambda: report([out / "manifest"], out / "report.html", force=True))
    return {"run": run, "manifest": dict(manifest.document), "problems": problems, "savings": asdict(saved), "report": page, "out": str(out)}


def demo(out: Path, *, force: bool = True, on_progress: Progress | None = None) -> dict[str, Any]:
    """`prune` on the embedded sample, and how many of its planted wrong labels and near-duplicates were found."""
    import json

    from clprune.comparison import planted_found
    from clprune.sources.embedded import NAME, sample_folder

    for what in ("run", "manifest"):
        if (path := out / what / f"{what}.json").exists() and read_json(path, what=what)["source"] != NAME:
            raise UsageError(f"{path} is not of the demo, which would replace it. Choose another folder with --out.")
    result = prune(NAME, out, keep="0.5", force=force, on_progress=on_progress)
    run = read_run(out / "run")
    truth, suspect_above = json.loads((sample_folder() / "truth.json").read_text()), run.document["suspects"]["above"]
    return result | {"found": planted_found(run.table.sample_ids, run.neighborhood, suspect_above, read_manifest(out / "manifest").kept_ids, truth)}
