"""The page as a person meets it: in a browser, light, dark, printed and narrow; by eye, by keyboard and by ear."""

import base64
import contextlib
import html
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.dtypes import StringDType
from PIL import Image
from typer.testing import CliRunner

from clprune import families, figures, pipeline
from clprune.cli import app
from clprune.datatypes import CriticalPeriod, Neighborhood, ScoreTable, Source, Trajectory
from clprune.errors import DataError, FingerprintError, GuardError, UsageError
from clprune.gallery import MOST_LISTED, _extremes
from clprune.harm import harm_by_class
from clprune.report import report
from clprune.run import write_run
from clprune.sources import open_source
from clprune.storage import SEAL, write_json
from clprune.subject import read_subject

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = "</script><script>alert(1)</script><b>&\"'"


def make_run(folder: Path, source: Source, locator: str, seed: int = 0) -> None:
    """A run folder with invented scores: what `score` writes, without training."""
    rng, n = np.random.default_rng(seed), len(source)
    values = {name: rng.random(n) * (0.5 if name == "variability" else 1.0) for name in families.names("scores")}
    values["forgetting"] = np.where(rng.random(n) < 0.05, np.inf, rng.integers(0, 4, n).astype(float))
    directions = {name: families.facts(families.find("scores", name))["high_means"] for name in values}
    table = ScoreTable(source.sample_ids, source.labels, values, directions)
    duplicate_of = np.full(n, -1)
    duplicate_of[1:41:2] = np.arange(0, 40, 2)[: len(duplicate_of[1:41:2])]
    hood = Neighborhood(duplicate_of, np.where(duplicate_of >= 0, 0.1, np.nan), rng.random(n), (source.labels + 1) % source.n_classes)
    epochs = np.arange(0.25, 6.01, 0.25)
    curves = {
        name: np.exp(-epochs) + at
        for at, name in enumerate(("memorization_rate", "noise_scale", "retention", "ranking_stability", "training_accuracy"))
    }
    trajectory = Trajectory(source.sample_ids, source.labels, {"loss": rng.random((1, n)).astype(np.float32)}, curves, epochs, {})
    ends: dict[str, float | None] = {"memorization_rate": 3.0, "noise_scale": None, "retention": 4.0, "ranking_stability": 3.5}
    period = CriticalPeriod(0, 6, True, 0.5, (3.0, 4.5), 4.0, 1.0, ends, "3 of 4 deciding indicators have done 90 % of their approach")
    document = {
        "source": locator,
        "asked": {"proxy": "small_cnn", "seed": 0, "max_epochs": 30, "exact": False, "image_size": None},
        "proxy": "small_cnn",
        "seed": 0,
        "epochs_run": 6,
        "share_of_full_training": 0.03,
        "share_is_of_epochs": 200,
        "seconds": 60.0,
        "timings": {"scored_at": "2026-11-20T10:00:00+00:00"},
        "energy_kwh": None,
        "energy_method": "not measured",
        "device": "cpu",
        "threads": 1,
        "recipe": {},
        "image_rule": {},
        "suspects": {"n": int((hood.suspicion > 0.8).sum()), "above": 0.8},
        "versions": {"clprune": "0.1.0"},
    }
    write_run(folder, source, trajectory, period, table, hood, None, document)


def evaluation_of(n_classes: int, **changes: Any) -> dict[str, Any]:
    """An evaluation document with three seeds an arm."""

    def arm(base: float, n: int) -> dict[str, Any]:
        runs = [
            {"seed": s, "accuracy": base + s / 1000, "per_class": [base + s / 1000] * n_classes, "worst_class": base, "n_samples": n, "steps": 100}
            | {"samples_seen": 100, "seconds": 10.0, "energy_kwh": 0.001, "energy_method": "meter"}
            for s in range(3)
        ]
        facts = {"accuracy_mean": base + 0.001, "accuracy_sd": 0.001, "worst_class_mean": base, "seconds_mean": 10.0, "runs": runs}
        return facts | {"calibration_error_mean": 0.03, "corruptions": {"noise": base - 0.1, "blur": base - 0.05, "mean": base - 0.075}}

    return {
        "schema_version": 1,
        "kind": "evaluation",
        "arms": {"pruned": arm(0.9, 300), "random": arm(0.89, 300), "full": arm(0.91, 600)},
        "comparison": {
            "to_random": {"difference": 0.01, "interval": [0.005, 0.015], "n": 3},
            "to_full": {"difference": -0.01, "interval": [-0.02, 0.0], "n": 3},
            "not_better_than_random": False,
            "sentence": "The selection beats a random one.",
        },
        "facts": {"proxy": "small_cnn", "epochs": 3, "budget": "equal-steps", "seeds": 3, "device": "cpu", "test_per_class": [100] * n_classes},
    } | changes


@pytest.fixture(scope="module")
def nasty_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A selection of a table of texts whose ids, labels and texts try to break out of the page, with an evaluation."""
    root = tmp_path_factory.mktemp("nasty")
    n = 300
    rows = {
        "id": [f"{NASTY} {i:03d}" for i in range(n)],
        "text": [f"review {i}: {NASTY}" for i in range(n)],
        "label": [f"{NASTY} {i % 3}" for i in range(n)],
    }
    pq.write_table(pa.table(rows), root / "texts.parquet")
    source = open_source(str(root / "texts.parquet"))
    make_run(root / "run", source, str(root / "texts.parquet"))
    pipeline.select(root / "run", root / "m", keep="0.5")
    (root / "m" / "evaluation.json").write_text(json.dumps(evaluation_of(3)))
    return root / "m"


@pytest.fixture(scope="module")
def manifest(shapes_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A selection of drawn shapes, half kept, with an evaluation."""
    root = tmp_path_factory.mktemp("selected")
    shutil.copytree(shapes_run, root / "run")
    pipeline.select(root / "run", root / "m", keep="0.5")
    (root / "m" / "evaluation.json").write_text(json.dumps(evaluation_of(4)))
    return root / "m"


@pytest.fixture(scope="module")
def page_file(manifest: Path) -> Path:
    pipeline.report([manifest], manifest.parent / "report.html")
    return manifest.parent / "report.html"


@pytest.fixture(scope="module")
def nasty_file(nasty_manifest: Path) -> Path:
    pipeline.report([nasty_manifest], nasty_manifest.parent / "report.html")
    return nasty_manifest.parent / "report.html"


class _Reader(HTMLParser):
    """Elements, their attributes and the text of the page, as a parser that knows nothing of the template reads them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]


# --- without a browser -----------------------------------------------------------------------------------------------------------------------


def test_the_page_says_what_a_team_lead_asks(page_file: Path) -> None:
    text = _Reader(page_file).text
    assert "Kept 300 of 600 samples (50.0 %): accuracy 90.10 % ± 0.10, 1.00 points above a random choice (95 % interval +0.50 to +1.50)" in text
    for heading in (
        "Does a model trained on it hold up?",
        "Does any class suffer?",
        "What it saves, and what it cost",
        "The critical learning period",
        "How to repeat it",
    ):
        assert heading in text, heading
    for gallery in ("Hardest kept", "Easiest dropped", "Near-duplicates", "Labels suspected wrong"):
        assert gallery in text, gallery
    assert "clprune select RUN --keep 0.5 --strategy" in text and re.search(r"\b[0-9a-f]{64}\b", text)


@pytest.mark.parametrize(
    ("seconds", "told"), [(120.0, "121 trainings"), (1e6, "1,000,000 trainings"), (1.26, "1.3 trainings"), (0.00004, "0.00004 trainings")]
)
def test_after_how_many_trainings_it_pays_is_a_plain_number(shapes_npz: Path, tmp_path: Path, seconds: float, told: str) -> None:
    """The cost is set so that a training of 2 s, half of it saved, pays after as many trainings as there are seconds."""
    make_run(tmp_path / "run", open_source(str(shapes_npz)), str(shapes_npz))
    pipeline.select(tmp_path / "run", tmp_path / "m", keep="0.5")
    document = {key: value for key, value in json.loads((tmp_path / "m" / "manifest.json").read_text()).items() if key != SEAL}
    seconds += 0.55 * (seconds == 120)
    write_json(tmp_path / "m" / "manifest.json", document | {"timings": document["timings"] | {"score_seconds": seconds, "select_seconds": 0.0}})
    pipeline.savings(tmp_path / "m", training_seconds=2.0)
    assert f"it pays after {told} of 2 s" in pipeline.report([tmp_path / "m"], tmp_path / "r.html")["verdict"]


def test_samples_without_a_score_change_nothing_that_is_drawn_or_told() -> None:
    rng = np.random.default_rng(0)
    confidence, variability, kept = rng.random(200), rng.random(200) / 2, rng.random(200) < 0.4
    learned, more, none = np.where(rng.random(200) < 0.1, np.inf, rng.random(200)), np.full(1_000, np.nan), np.zeros(1_000, dtype=bool)
    widened = [np.concatenate([values, more]) for values in (confidence, variability, learned)]
    for mask, wide_mask in ((None, None), (kept, np.concatenate([kept, none]))):
        alone, infinite = figures.score_distributions({"a": confidence, "b": learned}, {"a": "easy", "b": "hard"}, mask)
        among, still = figures.score_distributions({"a": widened[0], "b": widened[2]}, {"a": "easy", "b": "hard"}, wide_mask)
        assert (among.svg, among.alternative, still) == (alone.svg, alone.alternative, infinite) and infinite == {"b": int(np.isinf(learned).sum())}
        alone, among = figures.difficulty_map(confidence, variability, mask), figures.difficulty_map(*widened[:2], wide_mask)
        assert (
            among.svg == alone.svg
            and among.alternative.replace("Map of 200 of 1,200 samples (the others have no score)", "Map of 200 samples") == alone.alternative
        )
    assert _extremes(widened[0], np.ones(1_200, dtype=bool)) == _extremes(confidence, np.ones(200, dtype=bool))
    assert len(_extremes(np.concatenate([confidence[:20], more]), np.ones(1_020, dtype=bool))) == 20


def commands_on(page: Path) -> list[str]:
    return [html.unescape(command) for command in re.findall(r"<li><code>(.*?)</code></li>", page.read_text(encoding="utf-8"))]


def test_the_commands_on_the_page_give_the_same_again(shapes_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option that was not the usual one: the judge is to run what the page says, in another folder."""
    (first := tmp_path / "it's here").mkdir()
    (again := tmp_path / "again").mkdir()
    pipeline.score(
        str(shapes_npz), first / "RUN", max_epochs=2, seed=3, exact=True, batch_size=32, learning_rate=0.01, whole_network=True, image_size=12, layer="body.3"
    )  # fmt: skip
    pipeline.select(first / "RUN", first / "M", keep="auto", min_per_class=2, seed=4, tolerance=0.07, confidence=0.6, trials=5, trial_epochs=12)
    with contextlib.suppress(GuardError):  # whether it is better than random is not asked here
        pipeline.evaluate(first / "M", seeds=1, against="random", epochs=1, budget="equal-epochs", test=str(shapes_npz))
    pipeline.report([first / "M"], tmp_path / "first.html")
    commands = commands_on(tmp_path / "first.html")
    assert [shlex.split(command)[1] for command in commands] == ["score", "select", "verify", "evaluate"]
    monkeypatch.chdir(again)
    for command, name in zip(commands, ("RUN/run.json", "M/manifest.json", "M/manifest.json", "M/evaluation.json"), strict=True):
        done = CliRunner().invoke(app, shlex.split(command)[1:])
        assert done.exit_code == 0 or isinstance(done.exception, GuardError), (command, done.output, done.exception)
        one, other = (json.loads((folder / name).read_text()) for folder in (first, again))
        for key in ("asked", "budget", "strategy", "seed", "min_per_class", "test"):
            assert one.get(key) == other.get(key), (name, key)
        for held, of in (("files", "sha256"), ("arms", "accuracy_mean")):
            alike, again_alike = ({part: facts[of] for part, facts in document.get(held, {}).items()} for document in (one, other))
            assert alike == again_alike, (name, held)
    pipeline.report([again / "M"], tmp_path / "again.html")
    assert commands_on(tmp_path / "again.html") == commands


def test_what_cannot_be_repeated_is_said_in_words(shapes_npz: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).random((600, 3), dtype=np.float32))
    pipeline.score(str(shapes_npz), tmp_path / "run", max_epochs=1, embeddings=tmp_path / "mine.npy")
    pipeline.select(tmp_path / "run", tmp_path / "m", keep="0.5")
    write_json(tmp_path / "m" / "evaluation.json", evaluation_of(4, facts=evaluation_of(4)["facts"] | {"groups": ["day", "night"]}))
    pipeline.report([tmp_path / "m"], tmp_path / "page.html")
    score, _, _, evaluate = commands_on(tmp_path / "page.html")
    text, digest = _Reader(tmp_path / "page.html").text, json.loads((tmp_path / "run" / "run.json").read_text())["asked"]["embeddings"]
    assert score.endswith(" --embeddings FEATURES.npy") and f"are not kept as you gave them (digest {digest})" in text
    assert evaluate.endswith(" --group COLUMN") and "the groups (day, night); its name is not recorded" in text
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    for proxy, said in (("own loop", "which no command repeats"), ("logged", "")):
        write_json(
            tmp_path / "run" / "run.json", document | {"asked": {"proxy": proxy, "seed": 0, "max_epochs": 7, "exact": False, "image_size": None}}
        )
        pipeline.report([tmp_path / "run"], tmp_path / "page.html", force=True)
        assert commands_on(tmp_path / "page.html") == ([f"clprune score {shapes_npz} --out RUN --seed 0"] if proxy == "logged" else [])
        assert said in _Reader(tmp_path / "page.html").text


def test_pictures_are_small_and_come_from_the_source(page_file: Path, shapes_npz: Path) -> None:
    from PIL import Image

    images = [attributes for tag, attributes in _Reader(page_file).tags if tag == "img"]
    assert len(images) >= 48
    held = np.load(shapes_npz)["x_train"]
    for attributes in images[:10]:
        source, described = str(attributes["src"]), str(attributes["alt"])
        row = int(described.split()[1].rstrip(","))
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,")))))
        np.testing.assert_array_equal(drawn, held[row, :, :, 0])


@pytest.mark.parametrize("kind", ["16 bits", "floats", "transparent", "turned"])
def test_a_picture_shows_what_the_image_holds(kind: str) -> None:
    gray = np.linspace(0, 1, 32 * 16).reshape(16, 32)
    image = {
        "16 bits": lambda: Image.fromarray((65535 * gray).astype(np.uint16)),
        "floats": lambda: Image.fromarray(gray.astype(np.float32)),
        "transparent": lambda: Image.new("RGBA", (32, 16), (0, 0, 0, 0)),
        "turned": lambda: Image.fromarray((255 * gray).astype(np.uint8)),
    }[kind]()
    if kind == "turned":
        image.getexif()[0x0112] = 6  # as cameras mark what was taken upright
    source = Source("x", np.array(["a"], dtype=StringDType()), np.zeros(1, dtype=np.int64), ("a",), np.ones(1, dtype=np.int64), lambda index: image)
    shown = figures.thumbnail(source, 0)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown["image"].partition(",")[2]))).convert("L")).astype(int)
    assert pixels.shape == ((32, 16) if kind == "turned" else (16, 32))
    assert pixels.min() == 255 if kind == "transparent" else abs(pixels.mean() - 127) < 2 and np.ptp(pixels) > 250


def test_nothing_that_users_named_breaks_out(nasty_file: Path) -> None:
    page = _Reader(nasty_file)
    assert not [tag for tag, _ in page.tags if tag == "b"]
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert "review" in page.text and "<b>&\"'" in page.text  # and it is shown as it is
    assert page_json(nasty_file)["classes"] == [f"{NASTY} {c}" for c in range(3)]


def page_json(path: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="search-data">(.*?)</script>', path.read_text(encoding="utf-8"), flags=re.S)
    assert found is not None
    return dict(json.loads(found.group(1)))


@pytest.mark.parametrize("which", ["page_file", "nasty_file"])
def test_no_id_occurs_twice_and_every_reference_has_its_target(which: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(which)
    page = _Reader(path)
    assert len(page.ids()) == len(set(page.ids()))
    wanted = {str(v) for _, a in page.tags for k, v in a.items() if k in ("aria-labelledby", "for")}
    wanted |= {str(a[k])[1:] for _, a in page.tags for k in ("href", "xlink:href") if str(a.get(k, "")).startswith("#")}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", path.read_text(encoding="utf-8")))
    assert wanted <= set(page.ids()), wanted - set(page.ids())


def test_every_colour_of_a_figure_is_one_of_the_page(page_file: Path) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page_file.read_text(encoding="utf-8"), flags=re.S)
    assert len(drawings) >= 5
    for svg in drawings:
        fixed = set(re.findall(r"(?:fill|stroke): ?(#[0-9a-f]{6})", svg))
        assert not fixed, fixed
        assert "var(--ink)" in svg and "<text" in svg  # text stays text


def test_the_report_does_not_import_torch(manifest: Path, tmp_path: Path) -> None:
    code = "import sys\nfrom clprune.cli import main\nmain()\n"
    code = f"import atexit, sys\natexit.register(lambda: print('torch' in sys.modules, 'faiss' in sys.modules, file=sys.stderr))\n{code}"
    for out, folders in (("one.html", [manifest]), ("two.html", [manifest, manifest.parent / "run"])):
        done = subprocess.run(
            [sys.executable, "-c", code, "report", *map(str, folders), "--out", str(tmp_path / out)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines()[-1] == "False False", done.stderr


def test_without_the_data_the_page_says_so(manifest: Path, tmp_path: Path) -> None:
    shutil.copytree(manifest, tmp_path / "m")
    document = json.loads((tmp_path / "m" / "manifest.json").read_text())
    write_json(tmp_path / "m" / "manifest.json", document | {"source": "gone/data.npz"})
    pipeline.report([tmp_path / "m"], tmp_path / "r.html")
    page = _Reader(tmp_path / "r.html")
    assert "The data are not at hand, so there are no pictures: there is no file gone/data.npz" in page.text
    assert "The curves are in the run folder, which is not beside this manifest" in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]
    write_json(tmp_path / "m" / "manifest.json", document | {"source": families.adapted([(np.zeros((8, 8)), 0), (np.ones((8, 8)), 1)]).locator})
    pipeline.report([tmp_path / "m"], tmp_path / "own.html")
    assert "no pictures: this list was in the memory of the program that recorded the run; pass --data" in _Reader(tmp_path / "own.html").text
    pipeline.report([tmp_path / "m"], tmp_path / "with.html", run=manifest.parent / "run", data=str(document["source"]))
    page = _Reader(tmp_path / "with.html")
    assert "not at hand" not in page.text and "not beside" not in page.text


def test_a_recorded_program_is_not_run_for_its_pictures(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(manifest, tmp_path / "m")
    document = json.loads((tmp_path / "m" / "manifest.json").read_text())
    write_json(tmp_path / "m" / "manifest.json", document | {"source": "evil_module:load"})
    (tmp_path / "evil_module.py").write_text("from pathlib import Path\nPath('ran').touch()\ndef load():\n    raise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    pipeline.report([tmp_path / "m"], tmp_path / "r.html")
    assert not (tmp_path / "ran").exists() and "pass --data evil_module:load to allow it" in _Reader(tmp_path / "r.html").text


def test_other_data_and_other_runs_are_refused(manifest: Path, nasty_manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not the data set that was scored"):
        pipeline.report([manifest], tmp_path / "r.html", data=str(nasty_manifest.parent / "texts.parquet"))
    with pytest.raises(DataError, match="is a run of other data"):
        pipeline.report([manifest], tmp_path / "r.html", run=nasty_manifest.parent / "run")
    shutil.copytree(manifest.parent / "run", tmp_path / "again")  # as scored with another seed
    document = json.loads((tmp_path / "again" / "run.json").read_text())
    document["files"]["scores.parquet"]["sha256"] = "0" * 64
    write_json(tmp_path / "again" / "run.json", document)
    with pytest.raises(DataError, match="is another run of these data"):
        pipeline.report([manifest], tmp_path / "r.html", run=tmp_path / "again")
    with pytest.raises(DataError, match="neither a run"):
        pipeline.report([tmp_path], tmp_path / "r.html")
    (tmp_path / "there.html").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        pipeline.report([manifest], tmp_path / "there.html")
    assert (tmp_path / "there.html").read_text() == "mine" and not (tmp_path / "r.html").exists()


def test_a_folder_beside_the_manifest_that_may_not_be_entered_is_passed_over(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(manifest.parent / "run", tmp_path / "run")
    shutil.copytree(manifest, tmp_path / "m")
    (tmp_path / "lost+found").mkdir()

    def denied(real: Any) -> Any:
        def guarded(path: Path, *arguments: Any) -> Any:
            if path.parent.name == "lost+found":
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *arguments)

        return guarded

    for name in ("is_file", "read_bytes"):
        monkeypatch.setattr(Path, name, denied(getattr(Path, name)))
    assert read_subject(tmp_path / "m").run is not None


def test_nothing_measured_is_said_not_guessed(manifest: Path, tmp_path: Path) -> None:
    shutil.copytree(manifest, tmp_path / "m")
    (tmp_path / "m" / "evaluation.json").unlink()
    told = pipeline.report([tmp_path / "m"], tmp_path / "r.html")
    assert told["status"] == "open" and "what that does to accuracy is not measured yet" in told["verdict"]
    assert "net time saved not measured seconds not measured" in _Reader(tmp_path / "r.html").text


def test_a_selection_no_better_than_random_gets_no_good_verdict(manifest: Path, tmp_path: Path) -> None:
    shutil.copytree(manifest, tmp_path / "m")
    document = evaluation_of(4)
    document["comparison"] |= {"not_better_than_random": True, "to_random": {"difference": 0.001, "interval": [-0.004, 0.006], "n": 3}}
    (tmp_path / "m" / "evaluation.json").write_text(json.dumps(document))
    told = pipeline.report([tmp_path / "m"], tmp_path / "r.html")
    assert told["status"] == "caution" and "Not better than random beyond the spread" in _Reader(tmp_path / "r.html").text
    document["comparison"] |= {"not_better_than_random": None, "to_random": {"difference": 0.001, "interval": None, "n": 1}}
    (tmp_path / "m" / "evaluation.json").write_text(json.dumps(document))
    told = pipeline.report([tmp_path / "m"], tmp_path / "r.html", force=True)
    assert told["status"] == "open" and "One seed decides nothing" in _Reader(tmp_path / "r.html").text
    document["comparison"] |= {"not_better_than_random": True, "to_random": {"difference": -0.001, "interval": None, "n": 1}}
    (tmp_path / "m" / "evaluation.json").write_text(json.dumps(document))
    told = pipeline.report([tmp_path / "m"], tmp_path / "r.html", force=True)
    text = _Reader(tmp_path / "r.html").text
    assert told["status"] == "caution" and "Not better than random, by one seed" in text and "beyond the spread" not in text


def test_groups_and_the_number_of_test_samples_are_on_the_page(manifest: Path, tmp_path: Path) -> None:
    shutil.copytree(manifest, tmp_path / "m")
    document = evaluation_of(4)
    for arm in document["arms"].values():
        for run in arm["runs"]:
            run["per_group"] = {"north": 0.25 + run["seed"] / 10, "south": run["accuracy"]}
    (tmp_path / "m" / "evaluation.json").write_text(json.dumps(document))
    pipeline.report([tmp_path / "m"], tmp_path / "r.html")
    text = _Reader(tmp_path / "r.html").text
    assert "3 seeds, 400 test samples" in text and "north 35.00 35.00 35.00 south 90.10 89.10 91.10" in text, text


def test_accuracies_that_nothing_stands_beside_are_not_called_unmeasured(manifest: Path, tmp_path: Path) -> None:
    shutil.copytree(manifest, tmp_path / "m")
    document = evaluation_of(4, comparison={})
    document["arms"] = {"pruned": document["arms"]["pruned"], "shortened": document["arms"]["full"]}
    (tmp_path / "m" / "evaluation.json").write_text(json.dumps(document))
    pipeline.report([tmp_path / "m"], tmp_path / "r.html")
    text = _Reader(tmp_path / "r.html").text
    assert "Accuracy by class is compared with nothing" in text and "Accuracy by class is not measured" not in text


def test_what_cannot_be_done_with_logged_numbers_is_not_advised(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels, n_epochs = rng.integers(0, 3, 60), 5
    logits = rng.normal(size=(n_epochs, 60, 3)) + 2 * np.eye(3)[labels]
    np.savez(tmp_path / "logged.npz", labels=labels, logits=logits.astype(np.float32))
    pipeline.score(str(tmp_path / "logged.npz"), tmp_path / "run")
    pipeline.select(tmp_path / "run", tmp_path / "m", keep="0.5")
    pipeline.report([tmp_path / "m"], tmp_path / "r.html")
    text = _Reader(tmp_path / "r.html").text
    assert "logged numbers hold no inputs to train on" in text and "clprune evaluate" not in text
    assert text.count("holds logged numbers, no inputs") == 1 and "cannot be read" not in text
    assert "Seen were 5 epochs that were logged elsewhere, 0.0 % of" in text and "epochs of logged" not in text


def test_a_run_without_a_selection_has_a_page(shapes_run: Path, tmp_path: Path) -> None:
    told = pipeline.report([shapes_run], tmp_path / "r.html")
    text = _Reader(tmp_path / "r.html").text
    assert told["status"] == "open" and "Nothing is selected yet" in text and "Does any class suffer" not in text


def test_several_are_compared_oldest_first(manifest: Path, tmp_path: Path) -> None:
    for name, day in (("late", "2026-11-20T00:00:00+00:00"), ("early", "2026-11-10T00:00:00+00:00")):
        shutil.copytree(manifest, tmp_path / name)
        document = json.loads((tmp_path / name / "manifest.json").read_text())
        document["timings"]["scored_at"] = day
        write_json(tmp_path / name / "manifest.json", document)
    pipeline.savings(tmp_path / "early", trainings=7)
    subjects = [
        (
            read_subject(tmp_path / name, with_data=False),
            pipeline.compute_savings(pipeline.read_manifest(tmp_path / name), **pipeline.asked_options(tmp_path / name)),
        )
        for name in ("late", "early")
    ]
    report(subjects, tmp_path / "c.html", now=datetime(2026, 11, 22, tzinfo=UTC) + timedelta(hours=12))
    text = _Reader(tmp_path / "c.html").text
    row = re.search(r"/early 2026-11-10 12\.5 600 50\.0 blend\(.*?\) 90\.10 0\.10 \+1\.00 .*? (\d+) 0 .*?/late 2026-11-20 2\.5 600", text)
    assert row is not None and row.group(1) == "7", text


def test_selections_of_one_name_in_different_places_are_told_apart(manifest: Path, tmp_path: Path) -> None:
    for project in ("first", "second"):
        shutil.copytree(manifest, tmp_path / project / "out" / "manifest")
    places = [tmp_path / project / "out" / "manifest" for project in ("first", "second", "first")]
    told = pipeline.report(places, tmp_path / "c.html")
    assert "2 of 2 have a measured accuracy" in told["verdict"]
    text = _Reader(tmp_path / "c.html").text
    assert all(f"{project}/out/manifest 90.10 %" in (tmp_path / "c.html").read_text() for project in ("first", "second")), text


def test_every_arm_that_was_measured_is_on_the_page(manifest: Path, tmp_path: Path) -> None:
    shutil.copytree(manifest, tmp_path / "m")
    document = evaluation_of(4)
    document["arms"]["infobatch"] = document["arms"]["full"]
    document["facts"]["budget"] = "equal-epochs"
    (tmp_path / "m" / "evaluation.json").write_text(json.dumps(document))
    pipeline.report([tmp_path / "m"], tmp_path / "r.html")
    text = _Reader(tmp_path / "r.html").text
    assert "all samples, InfoBatch 600 91.10" in text and "may show all samples, in as many steps as the kept ones had" in text


def test_a_request_for_labels_is_no_selection_to_report_on(tmp_path: Path, manifest: Path) -> None:
    shutil.copytree(manifest, tmp_path / "m")
    document = json.loads((tmp_path / "m" / "manifest.json").read_text()) | {"pool": {"asks": True}}
    write_json(tmp_path / "m" / "manifest.json", document)
    for folder in (tmp_path / "m", tmp_path / "m" / "manifest.json"):
        with pytest.raises(UsageError, match="asks for labels"):
            pipeline.report([folder], tmp_path / "r.html")


def test_a_curve_of_one_point_is_seen_and_whiskers_end_at_all_that_can_change() -> None:
    drawn = [
        figures.critical_period(
            np.array([1.0, 2.0]), {"retention": np.array(values)}, ["retention"], {"retention": None}, start_epoch=0, end_epoch=2, settled=False
        ).svg
        for values in ([np.nan, 0.5], [0.25, 0.5])
    ]
    assert [bool(re.search(r"<use [^>]*var\(--accent\)", svg)) for svg in drawn] == [True, False]
    wide = figures.class_changes(["one sample", "many"], np.array([-1.0, 0.0]), np.array([1.15, 0.01]), [True, False], "full").svg
    shown = [float(number.replace("−", "-")) for number in re.findall(r">([−\d.]+)</text>", wide)]
    assert min(shown) == -100 and max(shown) <= 100, shown


@pytest.mark.parametrize(("n", "marks"), [(30, {"1", "2"}), (1_000_000, {"1", "10", "100", "1,000", "10,000"})])
def test_numbers_of_samples_on_the_map_are_whole_and_written_out(n: int, marks: set[str]) -> None:
    rng = np.random.default_rng(0)
    picture = figures.difficulty_map(rng.normal(0.5, 1e-3, n), rng.random(n), None).svg
    texts = set(re.findall(r"<text[^>]*>([^<]*)</text>", picture))
    assert marks <= texts and "tspan" not in picture, texts  # powers would be written with spans


def test_a_class_without_samples_is_neither_the_worst_nor_drawn() -> None:
    names, sizes = [f"class {c}" for c in range(40)], np.array([0] * 20 + [10] * 20)
    kept = np.where(sizes > 0, 5, 0)
    kept[30] = 1
    classes, _ = harm_by_class(names, sizes, kept)
    assert [one.name for one in classes if one.flags] == ["class 30"] and min(classes, key=lambda one: one.kept_share).name == "class 30"
    figure = figures.kept_by_class(names, sizes, kept)
    assert (
        "The least is kept of class 30 (10 %)" in figure.alternative and "class 3<" not in figure.svg and "Bars of 20 classes" in figure.alternative
    )


def test_a_big_set_stays_small_and_says_what_is_listed(tmp_path: Path) -> None:
    n = 30_000
    ids = np.array([f"{'long/folder/name/' * 3}{i:06d}.jpg" for i in range(n)], dtype=StringDType())
    labels = np.arange(n) % 1000
    source = Source("gone", ids, labels, tuple(f"class {c}" for c in range(1000)), np.full(n, 100), lambda index: None)
    make_run(tmp_path / "run", source, "gone")
    pipeline.select(tmp_path / "run", tmp_path / "m", keep="0.3")
    told = pipeline.report([tmp_path / "m"], tmp_path / "r.html")
    assert told["bytes"] < 3_000_000
    text, held = _Reader(tmp_path / "r.html").text, page_json(tmp_path / "r.html")
    assert len(held["records"]) <= MOST_LISTED and f"This list holds {len(held['records']):,} of 30,000 samples" in text
    assert len({record[0] for record in held["records"]}) == len(held["records"])
    assert "200 of 1,000 classes, the worst ones" in text


# --- harm ------------------------------------------------------------------------------------------------------------------------------------


def test_a_class_that_loses_accuracy_beyond_its_error_is_flagged() -> None:
    sizes, kept = np.array([1000, 1000, 1000]), np.array([500, 500, 500])
    document = evaluation_of(3)
    for arm, values in (("pruned", [0.90, 0.70, 0.88]), ("full", [0.90, 0.90, 0.91])):
        for run in document["arms"][arm]["runs"]:
            run["per_class"] = values
    found, reference = harm_by_class(["a", "b", "c"], sizes, kept, document)
    assert reference == "full" and [one.flags for one in found] == [(), ("less accurate",), ()]
    assert found[1].change == pytest.approx(-0.2)
    assert found[1].standard_error == pytest.approx(1.02 * np.sqrt((71 / 102 * 31 / 102 + 91 / 102 * 11 / 102) / 102))
    document["facts"]["test_per_class"] = [3, 3, 3]  # so few that nothing can be said
    assert [one.flags for one in harm_by_class(["a", "b", "c"], sizes, kept, document)[0]] == [(), (), ()]


def test_a_class_that_bears_the_cut_alone_is_flagged_without_any_training() -> None:
    found, reference = harm_by_class(["a", "b", "c", "d"], np.array([100, 100, 100, 0]), np.array([95, 5, 0, 0]))
    assert reference is None and [one.flags for one in found] == [(), ("starved",), ("empty",), ()]


# --- in a browser ----------------------------------------------------------------------------------------------------------------------------

browser_needed = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, installed by npm into the cache folder of the tests."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on this machine")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clprune-tests"
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([npm, "install", "--no-save", "--prefix", str(folder), "axe-core@4"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return script.read_text(encoding="utf-8")


VIEWS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1100, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1100, "height": 900}},
    "narrow": {"color_scheme": "light", "viewport": {"width": 400, "height": 800}},
    "print": {"color_scheme": "dark", "viewport": {"width": 760, "height": 1000}},
}


def opened(browser: Any, path: Path, view: str) -> tuple[Any, list[str]]:
    """A page in one of the views, and what went wrong or left the file while it loaded."""
    page = browser.new_context(**VIEWS[view]).new_page()
    noticed: list[str] = []
    page.on("console", lambda message: noticed.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: noticed.append(str(error)))
    page.on("request", lambda request: noticed.append(request.url) if not request.url.startswith("data:") and request.url != path.as_uri() else None)
    if view == "print":
        page.emulate_media(media="print")
    page.goto(path.as_uri())
    return page, noticed


@browser_needed
@pytest.mark.parametrize("view", list(VIEWS))
@pytest.mark.parametrize("which", ["page_file", "nasty_file"])
def test_it_opens_without_error_request_or_violation(which: str, view: str, browser: Any, axe: str, request: pytest.FixtureRequest) -> None:
    page, noticed = opened(browser, request.getfixturevalue(which), view)
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations', 'incomplete']})")
    bad = [
        (v["id"], v["impact"], [n["target"] for n in v["nodes"]][:3])
        for v in found["violations"]
        if v["impact"] in ("serious", "critical", "moderate")
    ]
    assert bad == []
    assert {"color-contrast"} <= {one["id"] for one in found["passes"]}  # it looked
    page.wait_for_timeout(50)
    assert noticed == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")  # no sideways scrolling of the page
    page.context.close()


def luminance(color: str) -> float:
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@browser_needed
@pytest.mark.parametrize("view", ["light", "dark", "print"])
def test_text_and_lines_of_figures_stand_out(view: str, browser: Any, page_file: Path) -> None:
    page, _ = opened(browser, page_file, view)
    read = "name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()"
    color = {name: page.evaluate(read, f"--{name}") for name in ("paper", "ink", "muted", "accent", "second", "warn", "soft")}
    page.context.close()

    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(color[a]), luminance(color[b])))
        return (high + 0.05) / (low + 0.05)

    assert min(contrast("ink", "paper"), contrast("muted", "paper"), contrast("ink", "soft")) >= 4.5
    assert min(contrast(line, "paper") for line in ("accent", "second", "warn")) >= 3.0
    assert min(contrast(line, "soft") for line in ("accent", "second", "warn")) >= 3.0


@browser_needed
def test_every_figure_and_picture_has_an_alternative_in_words(browser: Any, page_file: Path) -> None:
    page, _ = opened(browser, page_file, "light")
    names = page.evaluate("[...document.querySelectorAll('figure')].map(f => f.querySelector('[role=img]').getAttribute('aria-label'))")
    assert len(names) >= 5 and all(len(name) > 40 for name in names) and len(set(names)) == len(names)
    assert page.evaluate("document.querySelectorAll('svg').length == document.querySelectorAll('[role=img] svg').length")
    assert page.evaluate("[...document.images].every(i => i.alt.length > 10)")
    page.context.close()


@browser_needed
def test_tables_sort_by_click_and_by_enter(browser: Any, page_file: Path) -> None:
    page, _ = opened(browser, page_file, "light")
    column = "[...document.querySelectorAll('#table-evaluation tbody tr')].map(r => Number(r.cells[2].dataset.value))"
    before = page.evaluate(column)
    page.click("#table-evaluation thead th:nth-child(3) button")
    assert page.evaluate(column) == sorted(before) != before
    assert page.get_attribute("#table-evaluation thead th:nth-child(3)", "aria-sort") == "ascending"
    page.focus("#table-evaluation thead th:nth-child(3) button")
    page.keyboard.press("Enter")
    assert page.evaluate(column) == sorted(before, reverse=True)
    assert page.get_attribute("#table-evaluation thead th:nth-child(3)", "aria-sort") == "descending"
    assert "sorted by accuracy, %, descending" in page.text_content("#spoken")
    page.click("#table-savings thead th:nth-child(2) button")
    values = page.evaluate("[...document.querySelectorAll('#table-savings tbody tr')].map(r => r.cells[1].dataset.value ?? null)")
    known = [float(value) for value in values if value is not None]
    assert known == sorted(known) and values == [*values[: len(known)], *[None] * (len(values) - len(known))]  # unmeasured last
    page.context.close()


@browser_needed
def test_a_sample_is_found_by_its_id_with_the_keyboard_alone(browser: Any, page_file: Path, manifest: Path) -> None:
    page, noticed = opened(browser, page_file, "light")
    page.focus("#search-box")
    page.keyboard.type("123")
    found = page.evaluate("[...document.querySelectorAll('#table-found tbody tr')].map(r => [...r.cells].map(c => c.textContent))")
    row = pq.read_table(manifest / "samples.parquet").slice(123, 1).to_pylist()[0]
    assert [line[0] for line in found] == ["123"] and found[0][2] == row["reason"]
    assert float(found[0][4]) == pytest.approx(row["suspicion"], abs=1e-3)
    assert "1 found" in page.text_content("#search-said")
    page.keyboard.press("Control+A")
    page.keyboard.type("no such id")
    page.keyboard.press("Enter")
    assert "No id in this list holds “no such id”" in page.text_content("#search-said") and page.is_hidden("#table-found")
    assert page.url == page_file.as_uri() and noticed == []
    page.context.close()


@browser_needed
def test_the_comparison_opens_cleanly(browser: Any, axe: str, manifest: Path, tmp_path: Path) -> None:
    pipeline.report([manifest, manifest.parent / "run"], tmp_path / "c.html")
    for view in VIEWS:
        page, noticed = opened(browser, tmp_path / "c.html", view)
        page.evaluate(axe)
        found = page.evaluate("axe.run(document)")["violations"]
        assert [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found] == [] and noticed == []
        page.context.close()


def test_fingerprints_are_compared_before_pictures_are_shown(manifest: Path, shapes_npz: Path, tmp_path: Path) -> None:
    held = dict(np.load(shapes_npz))
    held["x_train"] = held["x_train"][::-1]
    np.savez(tmp_path / "other.npz", **held)
    with pytest.raises((DataError, FingerprintError), match="not the data set"):
        read_subject(manifest, data=str(tmp_path / "other.npz"))
