"""Time, memory and quality of choosing by diversity, on vectors in unequal, correlated clusters.

    python examples/benchmarks/diversity.py scale --sizes 100000,1000000      # `diverse`, half kept, then three tenths; 10000000 is a float16 memory map
    python examples/benchmarks/diversity.py compare                           # `k_center` beside the exact greedy, 50,000 x 128, half kept
    python examples/benchmarks/diversity.py recall                            # of the search by cells at each number of cells, 100,000 vectors
    python examples/benchmarks/diversity.py facility --sizes 4000,8000 --apricot PYTHON  # `facility_location` beside apricot's, half kept
    python examples/benchmarks/diversity.py others --sizes 25000,100000       # the other strategies on vectors

# scale and others: seconds to minutes on two cores; compare: about a minute, nearly all of it the exact greedy.
apricot holds the whole matrix of similarities in float64 (several times over), which is what bounds its size; `--apricot` names the Python that has it. Every row is measured in a process of its own, which loads the vectors from a file and is timed from the call to its return; peak memory is the whole
process's, vectors and interpreter included. The cache is empty at first; the second choice of `scale` finds in it what the first one has found. Results are kept in diversity.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import itertools

import numpy as np

from clprune import families, neighbors

RESULTS = Path(__file__).with_suffix(".json")
WIDTH, N_CLASSES, N_CLUSTERS = 128, 10, 300
APRICOT = """
import json, resource, sys, time, numpy as np
from apricot import FacilityLocationSelection
vectors = np.load(sys.argv[1]).astype(np.float64)
wall, cpu = time.perf_counter(), time.process_time()
unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
chosen = FacilityLocationSelection(len(unit) // 2, metric="precomputed", optimizer="lazy").fit((1 + unit @ unit.T) / 2).ranking
told = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
np.save(sys.argv[2], chosen)
print(json.dumps(told | {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""
OTHERS = ("k_center", "facility_location", "herding", "moderate", "cluster_prototypes", "d2")


def write_vectors(path: Path, n: int, dtype: str, seed: int = 0) -> None:
    """(n, WIDTH) vectors: clusters with sizes from a Pareto law, widths from a log-normal one, each flat in its own 8 of 40 correlated directions."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(40, WIDTH)) / math.sqrt(40)
    centres, turns = rng.normal(size=(N_CLUSTERS, 40)), rng.normal(size=(N_CLUSTERS, 8, 40)) / math.sqrt(8)
    width, weight = rng.lognormal(-0.7, 0.5, N_CLUSTERS), rng.pareto(1.2, N_CLUSTERS) + 0.05
    out = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(n, WIDTH))
    for start in range(0, n, 50_000):
        size = min(50_000, n - start)
        of = rng.choice(N_CLUSTERS, size, p=weight / weight.sum())
        inner = np.empty((size, 40))
        for c in np.unique(of):
            inner[of == c] = centres[c] + width[c] * rng.normal(size=((of == c).sum(), 8)) @ turns[c]
        out[start : start + size] = inner @ basis + 0.15 * width[of, None] * rng.normal(size=(size, WIDTH))
    out.flush()


def inputs_of(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Everything a strategy may ask for; classes of unequal size."""
    n, rng = len(vectors), np.random.default_rng(1)
    share = np.arange(1, N_CLASSES + 1) / np.arange(1, N_CLASSES + 1).sum()
    inputs = {"difficulty": rng.random(n), "labels": rng.choice(N_CLASSES, n, p=share), "suspicion": np.zeros(n)}
    return inputs | {"duplicate_of": np.full(n, -1), "vectors": vectors}


def measure_here(strategy: str, path: Path, keep: float) -> dict[str, float]:
    """One choice, in this process."""
    member = families.find("strategies", strategy)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    is_large = path.stat().st_size > 2e9
    vectors = np.load(path, mmap_mode="r" if is_large else None)
    inputs = inputs_of(vectors)
    wall, cpu = time.perf_counter(), time.process_time()
    picked = member(*(inputs[need] for need in families.facts(member)["needs"]), int(keep * len(vectors)), np.random.default_rng(0))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert len(np.unique(picked)) == int(keep * len(vectors))
    return {
        "seconds": wall,
        "cpu_seconds": cpu,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "bytes_before_loading": before,
        "vector_bytes": vectors.nbytes,
    }


def measure(strategy: str, path: Path, keep: float = 0.5) -> dict[str, float]:
    """The same in a new process. Its peak starts at this one's size, which is why this one never holds the vectors."""
    command = [sys.executable, __file__, "measure", strategy, str(path), str(keep)]
    environment = os.environ | {"CLPRUNE_CACHE": str(path.parent / "cache")}
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def recall(path: Path, n: int = 100_000, n_queries: int = 1000) -> dict[str, float]:
    """Recall at ten of the search by cells on these vectors for several numbers of cells: what says that the clusters are no easy ones."""
    points = np.array(np.load(path, mmap_mode="r")[:n], dtype=np.float32)
    some = np.random.default_rng(0).permutation(len(points))[:n_queries]
    truth = neighbors.matcher(points, 11, same=False, exact_up_to=len(points))(points[some])
    found = {}
    for neighbors.N_CELLS in (4, 8, 16, 32):
        at = neighbors.nearest(points, 10, exact_up_to=0)[1][some]
        found[f"{neighbors.N_CELLS} cells"] = float(np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(at, truth, strict=True)]))
    return found


def facility(path: Path, python: str) -> dict[str, object]:
    """Seconds and value of both, and that of a random choice: the sum over all samples of the similarity to the nearest kept one."""
    vectors = np.array(np.load(path))
    n_keep, member, chosen = len(vectors) // 2, families.find("strategies", "facility_location"), path.with_suffix(".chosen.npy")
    told = subprocess.run([python, "-c", APRICOT, str(path), str(chosen)], capture_output=True, text=True, check=True)
    theirs = json.loads(told.stdout.splitlines()[-1])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def value(kept: np.ndarray) -> float:
        return float(sum(((1 + block @ unit[kept].T) / 2).max(axis=1).sum(dtype=np.float64) for block in np.array_split(unit, 50)))

    wall, cpu = time.perf_counter(), time.process_time()
    picked = member(vectors, n_keep, np.random.default_rng(0))
    ours = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    rows = {"facility_location": ours | {"value": value(picked)}, "apricot": theirs | {"value": value(np.load(chosen))}}
    rows["random"] = {"value": value(np.random.default_rng(0).permutation(len(vectors))[:n_keep])}
    ratios = {"value": rows["facility_location"]["value"] / rows["apricot"]["value"], "times_faster": theirs["cpu_seconds"] / ours["cpu_seconds"]}
    return {"n": len(vectors), "rows": rows, "ours_over_apricot": ratios}


def exact_k_center(vectors: np.ndarray, n_keep: int) -> np.ndarray:
    """Plain greedy: one matrix-vector product a step."""
    length = np.einsum("nd,nd->n", vectors, vectors)
    path = np.empty(n_keep, dtype=np.int64)
    at = int(((vectors - vectors.mean(axis=0)) ** 2).sum(axis=1).argmin())
    gap = np.full(len(vectors), np.inf, dtype=np.float32)
    for step in range(n_keep):
        path[step] = at
        np.minimum(gap, length + length[at] - 2 * (vectors @ vectors[at]), out=gap)
        gap[at] = -1
        at = int(gap.argmax())
    return path


def coverage(vectors: np.ndarray, kept: np.ndarray) -> dict[str, float]:
    """Largest and mean distance of the dropped rows to the nearest kept one."""
    held, dropped = vectors[kept], vectors[np.setdiff1d(np.arange(len(vectors)), kept)]
    length = np.einsum("nd,nd->n", held, held)
    squared = np.concatenate([(length - 2 * block @ held.T).min(axis=1) + (block * block).sum(axis=1) for block in np.array_split(dropped, 200)])
    distances = np.sqrt(np.maximum(squared, 0))
    return {"radius": float(distances.max()), "mean_distance": float(distances.mean())}


def compare(path: Path) -> dict[str, object]:
    vectors = np.array(np.load(path))
    n_keep, rows, member = len(vectors) // 2, {}, families.find("strategies", "k_center")
    ways = {
        "k_center": lambda: member(vectors, n_keep, np.random.default_rng(0)),
        "exact greedy": lambda: exact_k_center(vectors, n_keep),
        "random": lambda: np.random.default_rng(0).permutation(len(vectors))[:n_keep],
    }
    for name, way in ways.items():
        wall, cpu = time.perf_counter(), time.process_time()
        kept = way()
        rows[name] = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu} | coverage(vectors, kept)
    ours, exact = rows["k_center"], rows["exact greedy"]
    ratios = {key: ours[key] / exact[key] for key in ("radius", "mean_distance")} | {"times_faster": exact["cpu_seconds"] / ours["cpu_seconds"]}
    return {"n": len(vectors), "rows": rows, "k_center_over_exact": ratios}


def machine() -> dict[str, object]:
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine()
    )
    return {"cpu": cpu, "threads": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count())), "load": os.getloadavg()[0], "numpy": np.__version__}


def keep(part: str, value: object) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(results | {part: value}, indent=1) + "\n")


def table() -> str:
    """What was measured, a line each: processor seconds, and those of the clock where a row was measured on an idle machine."""
    held = json.loads(RESULTS.read_text())
    lines = ["| what | vectors | seconds | processor s | peak memory | quality |", "|---|---|---|---|---|---|"]
    for row in sorted(held["scale"].values(), key=lambda row: row["n"]):
        told = row["diverse"]
        grows = f"time grows with N^{told['exponent_from_smaller']:.2f} from the size before" if "exponent_from_smaller" in told else ""
        if "another budget" in row:
            grows += f"{'; ' if grows else ''}three tenths of the same ones after it {row['another budget']['seconds']:.1f} s"
        memory = f"{told['peak_bytes'] / 1e9:.2f} GB, {told['peak_bytes'] / told['vector_bytes']:.1f} x the vectors"
        lines.append(
            f"| `diverse`, half kept | {row['n']:,} x {WIDTH}, {row['dtype']} | {told['seconds']:.1f} | {told['cpu_seconds']:.1f} | {memory} | {grows} |"
        )
    near, exact = held["compare"]["k_center_over_exact"], held["compare"]["rows"]
    quality = f"radius {near['radius']:.3f} x, mean distance {near['mean_distance']:.3f} x that of the exact greedy ({exact['exact greedy']['cpu_seconds']:.1f} s)"
    lines.append(f"| `k_center`, half kept | {held['compare']['n']:,} x {WIDTH} | | {exact['k_center']['cpu_seconds']:.2f} | | {quality} |")
    for row in held.get("facility", {}).values():
        ours, theirs = row["rows"]["facility_location"], row["rows"]["apricot"]
        quality = f"value {row['ours_over_apricot']['value']:.4f} x apricot's ({theirs['cpu_seconds']:.1f} s, {theirs['peak_bytes'] / 1e9:.1f} GB)"
        lines.append(f"| `facility_location`, half kept | {row['n']:,} x {WIDTH} | | {ours['cpu_seconds']:.2f} | | {quality} |")
    if "recall" in held:
        found = ", ".join(f"{value:.3f} ({cells})" for cells, value in held["recall"]["at_10"].items())
        lines.append(f"| search by cells | {held['recall']['n']:,} x {WIDTH} | | | | recall of the ten nearest {found} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["scale", "compare", "recall", "facility", "others", "measure", "write"])
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--sizes", default="100000")
    parser.add_argument("--apricot", metavar="PYTHON", help="an interpreter that has apricot-select")
    given = parser.parse_args()
    if given.part == "measure":
        print(json.dumps(measure_here(given.rest[0], Path(given.rest[1]), float(given.rest[2]))))
        return
    if given.part == "write":
        write_vectors(Path(given.rest[0]), int(given.rest[1]), given.rest[2])
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        if given.part == "compare":
            write_vectors(path, 50_000, "float32")
            outcome = compare(path) | machine()
            keep("compare", outcome)
            print(json.dumps(outcome, indent=1))
            return
        if given.part == "recall":
            write_vectors(path, 100_000, "float32")
            keep("recall", {"n": 100_000, "at_10": recall(path)} | machine())
            print(table())
            return
        known = json.loads(RESULTS.read_text()).get(given.part, {}) if RESULTS.exists() else {}
        for n in (int(size) for size in given.sizes.split(",")):
            if given.part == "facility":
                write_vectors(path, n, "float32")
                known[str(n)] = facility(path, given.apricot) | machine()
                keep(given.part, known)
                continue
            dtype = "float16" if n > 5_000_000 else "float32"
            subprocess.run([sys.executable, __file__, "write", str(path), str(n), dtype], check=True)
            row: dict[str, object] = {"n": n, "dtype": dtype} | machine()
            shutil.rmtree(path.parent / "cache", ignore_errors=True)
            for strategy in ("diverse",) if given.part == "scale" else OTHERS:
                row[strategy] = measure(strategy, path)
                print(f"{strategy} {n:,} x {WIDTH} {dtype}: {row[strategy]}", flush=True)
            if given.part == "scale":
                row["another budget"] = measure("diverse", path, 0.3)
            known[str(n)] = row
            keep(given.part, known)
        if given.part == "facility":
            print(table())
            return
        sizes = sorted(int(size) for size in known)
        for a, b in itertools.pairwise(sizes):
            for name in ("diverse",) if given.part == "scale" else OTHERS:
                cost = [known[str(n)][name]["cpu_seconds"] for n in (a, b)]
                known[str(b)][name]["exponent_from_smaller"] = math.log(cost[1] / cost[0]) / math.log(b / a)
        keep(given.part, known)
        print(json.dumps(known, indent=1))


if __name__ == "__main__":
    main()
