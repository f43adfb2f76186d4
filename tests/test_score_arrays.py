"""Scores from logged numbers, with no model of ours."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F

import clprune
from clprune import families
from clprune.errors import DataError, LabelError, UsageError
from clprune.recorder import Recorder
from clprune.scored_run import _dynamics
from clprune.sources import open_source


def logged(n_epochs: int = 12, n: int = 160, n_classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (N,), logits (E, N, C) in which every sample's own class leads more and more, and which tenth has another class leading."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    wrong = np.arange(n) % 10 == 9
    logits = rng.normal(size=(n_epochs, n, n_classes)) * 0.7
    leading = np.where(wrong, (labels + 1) % n_classes, labels)
    lead = 6 * (1 - np.exp(-np.arange(n_epochs)[:, None] / rng.gamma(2.0, 1.0, n)))
    logits[:, np.arange(n), leading] += lead
    return labels, logits, wrong


def losses_of(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    return np.stack([F.cross_entropy(torch.from_numpy(z), torch.from_numpy(labels), reduction="none").numpy() for z in logits])


def test_logged_logits_give_the_scores_of_their_definitions() -> None:
    labels, logits, wrong = logged(n=40)
    scored = clprune.score_arrays(labels, logits=logits)
    by_hand = {name: np.array([[reference.signals(z.tolist(), int(y))[name] for z, y in zip(epoch, labels, strict=True)] for epoch in logits])
               for name in ("p_label", "margin", "error_l2", "loss")}  # fmt: skip
    end = scored.period.end_epoch
    np.testing.assert_allclose(scored.table.values["el2n"], by_hand["error_l2"][:end].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(scored.table.values["aum"], by_hand["margin"][:end].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(scored.table.values["mean_loss"], by_hand["loss"][:end].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(scored.table.values["variability"], by_hand["p_label"][:end].std(axis=0), atol=1e-5)
    assert scored.table.values["mean_loss"][wrong].min() > np.median(scored.table.values["mean_loss"])


def test_the_same_logits_observed_in_a_loop_give_the_same_signals() -> None:
    labels, logits, _ = logged()
    recorder, rng = Recorder(range(len(labels))), np.random.default_rng(3)
    for epoch in logits:
        for part in np.array_split(rng.permutation(len(labels)), 5):
            recorder.observe(torch.from_numpy(part), torch.from_numpy(epoch[part]), torch.from_numpy(labels[part]))
        recorder.end_epoch()
    judge, scored = recorder.trajectory(), clprune.score_arrays(labels, logits=logits)
    assert set(judge.signals) == set(scored.trajectory.signals)
    for name, values in judge.signals.items():
        np.testing.assert_allclose(scored.trajectory.signals[name], values, atol=1e-6)


def test_losses_alone_give_the_scores_of_losses_and_the_others_say_what_they_need() -> None:
    labels, logits, wrong = logged()
    losses = losses_of(labels, logits)
    scored = clprune.score_arrays(None, losses=losses)
    assert {"mean_loss", "loss_variability"} <= set(scored.table.values) and scored.missing["aum"] == "needs margin"
    assert set(scored.table.values) | set(scored.missing) == set(families.names("scores"))
    end = scored.period.end_epoch
    np.testing.assert_allclose(scored.table.values["loss_variability"], losses[:end].std(axis=0), rtol=1e-4)
    assert scored.table.values["mean_loss"][wrong].min() > np.median(scored.table.values["mean_loss"])


def test_a_ranking_that_settles_in_the_losses_ends_the_period_and_one_that_never_does_not() -> None:
    rng, n = np.random.default_rng(0), 400
    level = rng.normal(size=n)
    t = np.arange(30)[:, None]
    settling = 10 + level * (1 - np.exp(-t / 3)) + rng.normal(size=(30, n)) * (0.05 + np.exp(-t / 3))
    assert clprune.score_arrays(None, losses=settling).period.settled
    assert not clprune.score_arrays(None, losses=rng.normal(size=(30, n))).period.settled


def test_what_an_epoch_did_not_see_is_left_out_of_means_not_counted_as_zero() -> None:
    labels, logits, _ = logged()
    logits[1:5, 7] = np.nan
    scored = clprune.score_arrays(labels, logits=logits)
    assert np.isnan(scored.trajectory.signal("margin")[1:5, 7]).all()
    seen = np.delete(scored.trajectory.signal("margin")[: scored.period.end_epoch, 7], [1, 2, 3, 4])
    assert scored.table.values["aum"][7] == pytest.approx(seen.mean(), abs=1e-6)


@pytest.mark.parametrize("step", [1e-9, 4.0])  # of the logits: many samples tie where it is large
def test_the_order_of_samples_has_no_influence(step: float) -> None:
    labels, logits, _ = logged()
    logits = step * np.round(logits / step)
    ids, order = [f"n{i:04d}" for i in range(len(labels))], np.random.default_rng(0).permutation(len(labels))
    a = clprune.score_arrays(labels, logits=logits, ids=ids)
    b = clprune.score_arrays(labels[order], logits=logits[:, order], ids=[ids[i] for i in order])
    assert a.period == b.period
    np.testing.assert_array_equal(a.trajectory.curves["kept_overlap"], b.trajectory.curves["kept_overlap"])
    for name, values in a.table.values.items():
        np.testing.assert_array_equal(b.table.values[name], values[order])


LABELS, LOGITS, _ = logged(3, 20)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({}, UsageError, "neither"),
        ({"logits": LOGITS, "losses": LOGITS[..., 0]}, UsageError, "both"),
        ({"logits": LOGITS[0]}, DataError, r"\(epochs, samples, classes\)"),
        ({"losses": LOGITS}, DataError, r"\(epochs, samples\)"),
        ({"logits": LOGITS[:, :19]}, DataError, "labels has 20 entries, logits has 19"),
        ({"logits": LOGITS[..., :3]}, LabelError, r"outside 0\.\.2"),
        ({"logits": LOGITS, "ids": ["a"] * 20}, DataError, "more than once: a"),
        ({"logits": LOGITS, "ids": ["a"]}, DataError, "ids has 1 entries"),
        ({"logits": LOGITS, "embeddings": np.zeros((20, 3, 2))}, DataError, "embeddings has shape"),
        ({"logits": LOGITS, "embeddings": np.full((20, 3), np.nan)}, DataError, "embeddings hold NaN"),
        ({"logits": np.where(np.arange(4) == 2, np.inf, LOGITS)}, DataError, "not finite for 20 samples"),
        ({"losses": np.full((2, 20), np.nan)}, DataError, "epoch 0: no sample was seen"),
        ({"labels": None, "logits": LOGITS}, LabelError, "need labels"),
        ({"labels": ["cat", "dog"] * 10, "logits": LOGITS}, LabelError, "Give class_names"),
        ({"labels": ["cat", "dog"] * 10, "logits": LOGITS, "class_names": ["dog", "cow", "hen", "pig"]}, LabelError, "labels cat are not"),
        ({"logits": LOGITS, "class_names": ["dog", "cow"]}, DataError, "4 columns, there are 2"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_seen(given: dict[str, Any], error: type[Exception], said: str) -> None:
    arguments = {"labels": LABELS} | given
    with pytest.raises(error, match=said):
        clprune.score_arrays(arguments.pop("labels"), **arguments)


def test_names_are_numbered_as_the_columns_are_named_not_as_they_sort() -> None:
    names = ["pig", "cow", "hen", "dog"]
    named = clprune.score_arrays([names[c] for c in LABELS], logits=LOGITS, class_names=names)
    numbered = clprune.score_arrays(LABELS, logits=LOGITS)
    np.testing.assert_array_equal(named.table.values["aum"], numbered.table.values["aum"])


def test_a_large_log_stays_in_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "l.npz", labels=np.arange(3000) % 10, logits=rng.normal(size=(12, 3000, 10)).astype(np.float32))
    source = open_source(str(tmp_path / "l.npz"))
    assert source.logged is not None and isinstance(source.logged["logits"].base, np.memmap)


def clprune_says(*arguments: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", "clprune", *arguments], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.mark.parametrize("form", ["logits", "losses"])
def test_the_commands_go_from_a_log_to_indices(form: str, tmp_path: Path) -> None:
    labels, logits, _ = logged()
    ids = np.array([f"pictures/{i}.png" for i in range(len(labels))])
    given = {"labels": labels, "logits": logits} if form == "logits" else {"losses": losses_of(labels, logits)}
    np.savez(tmp_path / "log.npz", ids=ids, **given)
    data, run, subset = str(tmp_path / "log.npz"), str(tmp_path / "run"), str(tmp_path / "m")
    told = json.loads(clprune_says("score", data, "--out", run, "--json"))
    assert told["proxy"] == "logged" and told["energy_kwh"] is None and any("logged these numbers" in note for note in told["notes"])
    assert ("aum" in told["scores_missing"]) == (form == "losses")
    assert json.loads(clprune_says("select", run, "--keep", "0.5", "--out", subset, "--json"))["n_kept"] == 80
    assert "verified against the data" in clprune_says("verify", subset, "--data", data)
    clprune_says("export", subset, "--to", "indices", str(tmp_path / "kept"))
    kept = json.loads((tmp_path / "kept" / "kept.json").read_text())
    assert [ids[row] for row in kept["indices"]] == kept["ids"] and len(kept["ids"]) == 80
    assert "not measured" in clprune_says("savings", subset)
    lines = {line["name"]: line for line in json.loads(clprune_says("savings", subset, "--json"))["lines"]}
    assert lines["net time saved, equal epochs"]["value"] == 0.5 and "trained anyway" in lines["net time saved, equal epochs"]["note"]
    assert "holds logged numbers, no inputs" in clprune_says("export", subset, "--to", "imagefolder", str(tmp_path / "images"), code=3)
    assert not (tmp_path / "images").exists()
    assert "holds logged numbers" in clprune_says("score", data, "--out", str(tmp_path / "x"), "--dry-run", code=2)
    said = clprune_says("score", data, "--out", run)
    assert "cannot be evaluated" in said and "--test" not in said
    for more in ((), ("--test", str(tmp_path / "there-is-none.npz")), ("--test", data)):
        said = clprune_says("evaluate", subset, *more, code=2)
        assert "holds logged numbers, no inputs" in said and "--test" not in said and "there-is-none" not in said


def test_a_log_that_changed_is_noticed(tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", labels=LABELS, logits=LOGITS)
    clprune.score(str(tmp_path / "log.npz"), tmp_path / "run")
    changed = LOGITS.copy()
    changed[1, 3, 2] += 1
    np.savez(tmp_path / "log.npz", labels=LABELS, logits=changed)
    assert "is not the data set that was scored" in clprune.verify(tmp_path / "run", data=str(tmp_path / "log.npz"))[0]


def test_arrays_in_memory_are_written_as_a_run_where_wanted(tmp_path: Path) -> None:
    labels, logits, wrong = logged()
    near = np.eye(4)[logits[-1].argmax(axis=1)] + np.random.default_rng(0).normal(size=(len(labels), 4)) * 0.1
    scored = clprune.score_arrays(labels, logits=logits, embeddings=near, out=tmp_path / "run")
    run = clprune.read_run(tmp_path / "run")
    np.testing.assert_array_equal(run.table.values["dual"], scored.table.values["dual"])
    assert run.neighborhood.suspicion[wrong].min() > run.neighborhood.suspicion[~wrong].max()
    manifest = clprune.select(tmp_path / "run", tmp_path / "m", keep="0.5")
    assert not set(manifest.kept_ids.tolist()) & set(run.table.sample_ids[wrong].tolist())


def test_losses_with_labels_and_embeddings_still_tell_suspects_by_their_neighbours(tmp_path: Path) -> None:
    labels, logits, wrong = logged()
    near = np.eye(4)[np.where(wrong, (labels + 1) % 4, labels)] + np.random.default_rng(0).normal(size=(len(labels), 4)) * 0.1
    clprune.score_arrays(labels, losses=losses_of(labels, logits), embeddings=near, out=tmp_path / "run")
    suspicion = clprune.read_run(tmp_path / "run").neighborhood.suspicion
    assert suspicion[wrong].min() > suspicion[~wrong].max()


def test_of_two_classes_losses_tell_the_same_suspects_as_logits(tmp_path: Path) -> None:
    labels, logits, wrong = logged(n_classes=2)
    losses = losses_of(labels, logits)
    losses[3, 5] = logits[3, 5] = np.nan  # not seen
    by_logits = clprune.score_arrays(labels, logits=logits)
    by_losses = clprune.score_arrays(labels, losses=losses, out=tmp_path / "run")
    for one, other in zip(*(_dynamics(scored.trajectory, slice(0, 12)) for scored in (by_logits, by_losses)), strict=True):
        assert one is not None and other is not None and np.isnan(other[3, 5])
        np.testing.assert_allclose(other, one, atol=1e-6)
    found = clprune.read_run(tmp_path / "run")
    np.testing.assert_array_equal(found.neighborhood.suspicion > 0.5, wrong)
    np.testing.assert_array_equal(found.neighborhood.suggested_label[wrong], 1 - labels[wrong])
    assert not [note for note in found.document["notes"] if "suspicion" in note]


@pytest.mark.parametrize(("n_classes", "made"), [(2, None), (5, None), (5, "large"), (5, "negative"), (5, "no classes")])
def test_losses_that_may_be_cross_entropy_give_the_scores_of_the_labels_probability(n_classes: int, made: str | None) -> None:
    labels, logits, _ = logged(n_classes=n_classes)
    losses = losses_of(labels, logits)
    by_logits = clprune.score_arrays(labels, logits=logits)
    given = {"large": losses + 3, "negative": losses - 1}.get(made or "", losses)
    by_losses = clprune.score_arrays(None if made == "no classes" else labels, losses=given)
    of_p = {name for name in families.names("scores") if families.facts(families.find("scores", name))["needs"] == ("p_label",)}
    assert {"dual", "confidence", "variability"} <= of_p
    if made:
        assert not of_p & set(by_losses.table.values) and by_losses.missing["dual"] == "needs p_label"
    else:
        end = min(by_logits.period.end_epoch, by_losses.period.end_epoch)
        p = np.exp(-losses[:end].astype(float))
        for name in of_p:
            score = families.find("scores", name)
            np.testing.assert_allclose(by_losses.table.values[name], score(np.exp(-losses[: by_losses.period.end_epoch].astype(float))), atol=1e-6)
            np.testing.assert_allclose(score(by_logits.trajectory.signal("p_label")[:end].astype(float)), score(p), atol=1e-4)


def test_of_several_classes_losses_tell_how_sure_the_model_was_and_so_which_labels_are_suspect(tmp_path: Path) -> None:
    labels, logits, wrong = logged()
    some = (labels == 0) | (np.arange(len(labels)) % 3 == 0)  # the sizes of the classes do not count where the other class is not known
    labels, logits, wrong = labels[some], logits[:, some], wrong[some]
    losses = losses_of(labels, logits)
    losses[3, 5] = np.nan  # not seen
    clprune.score_arrays(labels, losses=losses, out=tmp_path / "run")
    found = clprune.read_run(tmp_path / "run")
    end = found.document["clp"]["end_epoch"]
    for row in range(len(labels)):
        p = [math.exp(-loss) for loss in losses[:end, row].tolist() if not math.isnan(loss)]
        rest = 0.5 * (1 - sum(p) / len(p))  # half of what is left is for the best other class
        assert found.neighborhood.suspicion[row] == pytest.approx(rest / (rest + sum(p) / len(p)), abs=1e-6)
    assert found.neighborhood.suspicion[wrong].min() > found.neighborhood.suspicion[~wrong].max()
    assert not [note for note in found.document["notes"] if "suspicion" in note]
    kept = clprune.select(tmp_path / "run", tmp_path / "m", keep="0.5").kept_ids
    assert not set(kept.tolist()) & set(found.table.sample_ids[wrong].tolist())
