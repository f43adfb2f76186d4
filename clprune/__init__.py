"""clprune: keep the training samples that matter, found in the critical learning period of a small proxy.

source -> proxy run -> Trajectory -> CriticalPeriod -> ScoreTable -> Selection -> Manifest -> export, evaluation, savings

score, select, evaluate, verify, detect, compare, prune    the steps, as on the command line (all of them: clprune.pipeline)
score_arrays                                               scores from logged logits or losses, with no model at all
Recorder, save_run                                         the same recording inside your own loop, and a run folder from it
open_source, read_run, read_manifest                       what lies on disk
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch or faiss load OpenMP: spinning threads slow a shared machine 2 to 30 times

__version__ = "0.1.0"
_HOMES = {
    "pipeline": ("score", "select", "evaluate", "verify", "detect", "compare", "prune", "save_run"),
    "scored_arrays": ("score_arrays",),
    "recorder": ("Recorder",),
    "sources": ("open_source",),
    "run": ("read_run",),
    "manifest": ("read_manifest",),
}
__all__ = sorted(name for group in _HOMES.values() for name in group)


def __getattr__(name: str) -> object:
    """Public names are imported when they are first used: `clprune --help` must not wait for torch."""
    import importlib

    for home, group in _HOMES.items():
        if name in group:
            return getattr(importlib.import_module(f"clprune.{home}"), name)
    raise AttributeError(f"module 'clprune' has no attribute '{name}'")
