"""The shape of the house: floors, cycles, who may import what, and that a new member is one new file."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "clprune"
FAMILIES = ("indicators", "scores", "strategies", "sources", "proxies", "exporters")
FLOORS = {
    "errors": 0,
    "datatypes": 0,
    "families": 0,
    "wording": 0,
    "__init__": 7,
    "__main__": 9,
    "cli": 8,
    "options": 1,
    "terminal": 5,
    "labelling": 6,
    "commands_for_labels": 7,
    "commands_for_reading": 7,
    "pipeline": 6,
    "recorder": 4,
    "selection": 4,
    "score_table": 4,
    "neighborhood": 3,
    "leakage": 4,
    "pool": 4,
    "embeddings": 4,
    "run": 4,
    "labels": 4,
    "export": 4,
    "evaluation_record": 2,
    "dynamic": 4,
    "watch": 6,
    "scored_arrays": 7,
}
FLOORS |= {
    name: 1
    for name in (
        "approach",
        "signals",
        "followed",
        "windows",
        "observation",
        "neighbors",
        "storage",
        "manifest",
        "decoding",
        "energy",
        "prices",
        "live",
        "texts",
        "budget",
        "distributed",
        "batch_norm",
        "captured",
        "arithmetic",
        "probe",
        "discriminant",
        "products",
        "suspects",
        "latent",
        "patches",
        "kernel_ridge",
        "ranking",
    )
}
FLOORS |= {name: 3 for name in ("critical_period", "training", "inputs")}
FLOORS |= {
    name: 5
    for name in (
        "trajectory",
        "plan",
        "trials",
        "scored_run",
        "selection_record",
        "evaluation",
        "savings",
        "report",
        "clp_end",
        "verification",
        "replay",
        "comparison",
    )
}
FLOORS |= {"harm": 1, "figures": 1, "corruptions": 1, "cells": 1, "subject": 3, "gallery": 4, "repeating": 4}
LOWEST = ("errors", "datatypes", "families")  # floor 0 and floor 1 may import downwards within themselves in this order
FLOOR_ONE = (
    "ranking",
    "signals",
    "followed",
    "energy",
    "prices",
    "harm",
    "figures",
    "corruptions",
    "cells",
    "storage",
    "products",
    "suspects",
    "latent",
    "distributed",
    "neighbors",
    "patches",
    "kernel_ridge",
    "decoding",
    "manifest",
    "live",
    "batch_norm",
    "captured",
    "arithmetic",
    "probe",
    "discriminant",
)


def modules() -> dict[str, set[str]]:
    """Every module of the package by dotted name without the package, and what it imports of the package."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "clprune":
                rest = node.module.partition(".")[2]
                imported |= {rest} if rest else {alias.name for alias in node.names}
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[2] for alias in node.names if alias.name.split(".")[0] == "clprune"}
        found[name] = imported
    return found


def floor(module: str) -> int:
    top = module.split(".")[0]
    return 2 if top in FAMILIES else FLOORS[top] if top in FLOORS else 6


def may(importer: str, imported: str) -> bool:
    a, b = importer.split("."), imported.split(".")
    if a[0] in FAMILIES and a[0] == b[0]:
        return b[-1].startswith("_") or a[-1] in ("__init__",) or (a[0], b[-1]) in {("exporters", "parquet"), ("sources", "python_dataset")}
    if a[0] == b[0] == "integrations":
        return b[-1].startswith("_")
    if a[0] in FAMILIES and imported == "proxies":
        return True  # the one way to import a function of the user's
    for order in (LOWEST, FLOOR_ONE):
        if importer in order and imported in order:
            return order.index(imported) < order.index(importer)
    if importer == "datatypes":
        return imported == "errors"
    return floor(imported) < floor(importer)


def test_modules_import_only_from_lower_floors() -> None:
    wrong = [f"{a} -> {b}" for a, imports in modules().items() for b in imports if not may(a, b)]
    assert wrong == []


def test_there_are_no_import_cycles() -> None:
    graph = modules()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        for other in graph.get(name, set()) | graph.get(f"{name}.__init__", set()):
            if other != name:
                visit(other, (*path, name))

    for name in graph:
        if not name.endswith("__init__"):
            visit(name, ())


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    plain = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return plain | {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def test_only_neighbors_imports_faiss_and_scores_and_strategies_see_arrays_only() -> None:
    assert [path.name for path in PACKAGE.rglob("*.py") if "faiss" in imports_of(path)] == ["neighbors.py"]
    for family in ("scores", "strategies", "indicators"):
        for path in (PACKAGE / family).glob("*.py"):
            assert not {"torch", "torchvision", "pyarrow"} & imports_of(path), path


def test_nothing_inside_imports_public_names_from_the_package() -> None:
    public = {"score", "select", "prune", "Recorder", "open_source", "read_run", "read_manifest"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "clprune":
                assert not {alias.name for alias in node.names} & public, path


def test_nothing_is_pickled_and_every_parquet_file_has_page_checksums() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert not {"pickle", "dill", "joblib", "shelve", "marshal"} & imports_of(path), path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert called not in ("torch.load", "torch.save"), path  # safetensors instead
                assert called not in ("np.load", "np.save", "np.lib.format.read_array") or given.get("allow_pickle") == "False", (path, called)
                assert called not in ("pq.write_table", "pq.ParquetWriter") or given.get("write_page_checksum") == "True", (path, called)
                assert called != "pq.read_table" or given.get("page_checksum_verification") == "True" or "sources" in path.parts, (path, called)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(PACKAGE, tmp_path / "clprune", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


SCORE = '''"""Largest loss."""
from clprune.families import score


@score("loss", high_means="hard")
def largest_loss(loss):
    """Largest loss over the epochs, nats."""
    return loss.max(axis=0)
'''
STRATEGY = '''"""Every other sample."""
import numpy as np

from clprune.families import strategy


@strategy("labels")
def first_ids(labels, n_keep, rng):
    """The first ids."""
    return np.arange(n_keep)
'''
SOURCE = '''"""Stripes."""
import numpy as np
from numpy.dtypes import StringDType

from clprune.datatypes import Source
from clprune.families import source


@source(claims=lambda locator: locator == "stripes")
def stripes(locator, *, strict=False):
    """Sixty images of two classes."""
    labels = np.arange(60) % 2
    images = np.zeros((60, 16, 16, 1), dtype=np.uint8)
    images[labels == 1, ::2] = 200
    ids = np.array([f"{i:02d}" for i in range(60)], dtype=StringDType())
    return Source(locator, ids, labels, ("flat", "striped"), np.full(60, 256), lambda index: images[index], images=images)
'''


def test_a_score_a_strategy_and_a_source_are_each_one_new_file(copy: Path) -> None:
    for family, name, text in (("scores", "largest_loss", SCORE), ("strategies", "first_ids", STRATEGY), ("sources", "stripes", SOURCE)):
        (copy / "clprune" / family / f"{name}.py").write_text(text)
    environment = os.environ | {"PYTHONPATH": str(copy), "CLPRUNE_CACHE": str(copy / "cache")}
    for arguments in (
        ["score", "stripes", "--out", "run", "--max-epochs", "1"],
        ["select", "run", "--keep", "20", "--strategy", "first_ids", "--out", "m"],
    ):
        done = subprocess.run([sys.executable, "-m", "clprune", *arguments], cwd=copy, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    code = "import clprune, clprune.run, pathlib; print(clprune.__file__); "
    code += "print('largest_loss' in clprune.run.read_run(pathlib.Path('run')).table.values); print(clprune.read_manifest(pathlib.Path('m')).kept_ids.tolist()[:2])"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == [str(copy / "clprune" / "__init__.py"), "True", "['00', '01']"], done.stderr
