"""Slow plain versions that judge the fast ones: loops over single numbers, from the papers' definitions."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np


def softmax(z: list[float]) -> list[float]:
    top = max(z)
    e = [math.exp(v - top) for v in z]
    return [v / sum(e) for v in e]


def signals(z: list[float], label: int) -> dict[str, float]:
    p = softmax(z)
    onehot = [1.0 if c == label else 0.0 for c in range(len(z))]
    return {
        "loss": -math.log(p[label]),
        "p_label": p[label],
        "margin": z[label] - max(v for c, v in enumerate(z) if c != label),
        "error_l2": math.sqrt(sum((a - b) ** 2 for a, b in zip(p, onehot, strict=True))),
        "entropy": -sum(v * math.log(v) for v in p),
        "correct": float(max(range(len(z)), key=lambda c: z[c]) == label),
        "predicted": float(max(range(len(z)), key=lambda c: z[c])),
    }


def _seen(column: np.ndarray) -> list[float]:
    return [float(v) for v in column if not math.isnan(v)]


def score_forgetting(correct: np.ndarray) -> np.ndarray:
    result = []
    for i in range(correct.shape[1]):
        seen = _seen(correct[:, i])
        result.append(sum(1 for a, b in pairwise(seen) if a == 1 and b == 0) if 1 in seen else math.inf)
    return np.array(result, dtype=float)


def score_learned_epoch(correct: np.ndarray) -> np.ndarray:
    """An epoch that did not see the sample repeats the last seen one, before the first of these the first."""
    n_epochs, n = correct.shape
    result = []
    for i in range(n):
        last, first = _seen(correct[:, i])[0], n_epochs
        for t in range(n_epochs):
            last = last if math.isnan(correct[t, i]) else float(correct[t, i])
            first = n_epochs if last == 0 else min(first, t)
        result.append(first)
    return np.array(result, dtype=float)


def score_retention_after_learning(correct: np.ndarray) -> np.ndarray:
    result = []
    for i in range(correct.shape[1]):
        seen = _seen(correct[:, i])
        if 1 not in seen:
            result.append(0.0)
        else:
            after = seen[seen.index(1) :]
            result.append(sum(after) / len(after))
    return np.array(result)


def _mean(values: np.ndarray) -> np.ndarray:
    return np.array([sum(_seen(values[:, i])) / len(_seen(values[:, i])) for i in range(values.shape[1])])


score_el2n = score_confidence = score_aum = score_grand = score_consistency = _mean


def score_variability(p_label: np.ndarray) -> np.ndarray:
    result = []
    for i in range(p_label.shape[1]):
        seen = _seen(p_label[:, i])
        mean = sum(seen) / len(seen)
        result.append(math.sqrt(sum((v - mean) ** 2 for v in seen) / len(seen)))
    return np.array(result)


def score_dual(p_label: np.ndarray) -> np.ndarray:
    """Windows of ten epochs; an epoch that did not see the sample counts as its mean."""
    result = []
    for i in range(p_label.shape[1]):
        seen = _seen(p_label[:, i])
        p = [sum(seen) / len(seen) if math.isnan(v) else float(v) for v in p_label[:, i]]
        width = min(10, len(p))
        windows = [p[k : k + width] for k in range(len(p) - width + 1)]
        total = 0.0
        for window in windows:
            mean = sum(window) / width
            total += math.sqrt(sum((v - mean) ** 2 for v in window) / width) * (1 - mean)
        result.append(total / len(windows))
    return np.array(result)


def score_first_learned(correct: np.ndarray) -> np.ndarray:
    result = []
    for i in range(correct.shape[1]):
        right = [t for t in range(len(correct)) if correct[t, i] == 1]
        result.append(right[0] if right else len(correct))
    return np.array(result, dtype=float)


def score_margin_slope(margin: np.ndarray) -> np.ndarray:
    """The slope of the line a + b t that leaves the least squares, from the normal equations."""
    result = []
    for i in range(margin.shape[1]):
        points = [(t, float(margin[t, i])) for t in range(len(margin)) if not math.isnan(margin[t, i])]
        n, st, sm = len(points), sum(t for t, _ in points), sum(m for _, m in points)
        stt, stm = sum(t * t for t, _ in points), sum(t * m for t, m in points)
        result.append((n * stm - st * sm) / (n * stt - st * st) if n > 1 else 0.0)
    return np.array(result)


def score_margin_drawdown(margin: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """All pairs s < t from the first right epoch on."""
    result = []
    for i in range(margin.shape[1]):
        right = [t for t in range(len(correct)) if correct[t, i] == 1]
        if not right:
            result.append(math.inf)
            continue
        after = _seen(margin[right[0] :, i])
        result.append(max([0.0] + [after[s] - after[t] for s in range(len(after)) for t in range(s + 1, len(after))]))
    return np.array(result)


def score_dyn_unc(p_label: np.ndarray) -> np.ndarray:
    """Windows of ten epochs; an epoch that did not see the sample counts as its mean."""
    result = []
    for i in range(p_label.shape[1]):
        seen = _seen(p_label[:, i])
        p = [sum(seen) / len(seen) if math.isnan(v) else float(v) for v in p_label[:, i]]
        width = min(10, len(p))
        sds = []
        for k in range(len(p) - width + 1):
            mean = sum(p[k : k + width]) / width
            sds.append(math.sqrt(sum((v - mean) ** 2 for v in p[k : k + width]) / width))
        result.append(sum(sds) / len(sds))
    return np.array(result)


def kl_increments(distributions: list[list[float]]) -> list[float]:
    """KL(p_{t+1} || p_t) of class distributions over time."""
    return [sum(a * math.log(a / b) for a, b in zip(after, before, strict=True)) for before, after in pairwise(distributions)]


def score_tdds(p_label: np.ndarray) -> np.ndarray:
    """Weights 0.9 x 0.1^age of windows of nine increments (ten epochs), the label against the rest; an unseen epoch repeats the last seen one."""
    result = []
    for i in range(p_label.shape[1]):
        last, path = _seen(p_label[:, i])[0], []
        for v in p_label[:, i]:
            last = last if math.isnan(v) else float(v)
            path.append(min(max(last, 1e-7), 1 - 1e-7))
        steps = kl_increments([[p, 1 - p] for p in path])
        width = min(9, len(steps))
        total, n_windows = 0.0, len(steps) - width + 1 if steps else 0
        for k in range(n_windows):
            window = steps[k : k + width]
            mean = sum(window) / width
            total += 0.9 * 0.1 ** (n_windows - 1 - k) * math.sqrt(sum((v - mean) ** 2 for v in window))
        result.append(total)
    return np.array(result)


# ---- strategies: (needs..., n_keep, rng) -> positions, best first


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return math.sqrt(sum((float(u) - float(v)) ** 2 for u, v in zip(a, b, strict=True)))


def _centre(vectors: np.ndarray, rows: list[int]) -> np.ndarray:
    return np.array([sum(float(vectors[i][d]) for i in rows) / len(rows) for d in range(vectors.shape[1])])


def _shares(sizes: list[int], n_keep: int) -> list[int]:
    """Largest remainder: one at a time to the group that lacks most of its exact share, ties to the first."""
    given = [size * n_keep // sum(sizes) for size in sizes]
    rest = sorted(range(len(sizes)), key=lambda g: (-(sizes[g] * n_keep % sum(sizes)), g))
    for g in rest[: n_keep - sum(given)]:
        given[g] += 1
    return given


def _interleaved(paths: list[list[int]]) -> list[int]:
    keyed = [((place + 0.5) / len(path), number, place, row) for number, path in enumerate(paths) for place, row in enumerate(path)]
    return [entry[3] for entry in sorted(keyed)]


def strategy_hardest(difficulty: np.ndarray, n_keep: int, rng: np.random.Generator) -> list[int]:
    return sorted(range(len(difficulty)), key=lambda i: (-difficulty[i], i))[:n_keep]


def strategy_easiest(difficulty: np.ndarray, n_keep: int, rng: np.random.Generator) -> list[int]:
    return sorted(range(len(difficulty)), key=lambda i: (difficulty[i], i))[:n_keep]


def _farthest_first(vectors: np.ndarray, rows: list[int], n_keep: int) -> list[int]:
    centre = _centre(vectors, rows)
    path = [min(rows, key=lambda i: (round(_distance(vectors[i], centre), 5), i))]
    while len(path) < n_keep:
        rest = [i for i in rows if i not in path]
        path.append(max(rest, key=lambda i: (min(_distance(vectors[i], vectors[j]) for j in path), -i)))
    return path


def strategy_k_center(vectors: np.ndarray, n_keep: int, rng: np.random.Generator) -> list[int]:
    return _farthest_first(vectors, list(range(len(vectors))), n_keep)


def suspect_limit(suspicion: np.ndarray) -> float:
    """The midpoint below the suspect with the least suspicion: taking in all above it, suspects outnumber twice the right labels expected there by the most."""
    levels = sorted({float(s) for s in suspicion if s > 0.5}, reverse=True)
    sure = 1 + sum((1 - s) / s > 0.5 for s in suspicion if s > 0.5)  # right labels with odds between 1/2 and 1, and as many below 1/2
    best, limit = 0.0, 1.0
    for at, level in enumerate(levels):
        taken = sum(s >= level for s in suspicion)
        excess = taken - 2 * (2 * sure) * (1 - level) / level
        if excess > best:
            best, limit = excess, (level + (levels[at + 1] if at + 1 < len(levels) else 0.5)) / 2
    return limit if sum(s > limit for s in suspicion) <= len(suspicion) / 2 else 1.0


def strategy_diverse(
    difficulty: np.ndarray,
    labels: np.ndarray,
    vectors: np.ndarray,
    suspicion: np.ndarray,
    duplicate_of: np.ndarray,
    n_keep: int,
    rng: np.random.Generator,
) -> list[int]:
    n = len(labels)
    limit = suspect_limit(suspicion)
    clean = [i for i in range(n) if suspicion[i] <= limit and duplicate_of[i] < 0]
    reserve = sorted((i for i in range(n) if i not in clean), key=lambda i: (suspicion[i] > limit, suspicion[i], i))
    classes = [[i for i in clean if labels[i] == c] for c in range(max(labels) + 1)]
    n_clean, paths = min(n_keep, len(clean)), []
    sizes = [sum(labels[i] == c and duplicate_of[i] < 0 for i in range(n)) for c in range(len(classes))]
    quotas = [0] * len(classes)
    while sum(quotas) < n_clean:  # what a class cannot take goes to those that can
        more = _shares([size if quota < len(mine) else 0 for size, quota, mine in zip(sizes, quotas, classes, strict=True)], n_clean - sum(quotas))
        quotas = [min(len(mine), quota + extra) for mine, quota, extra in zip(classes, quotas, more, strict=True)]
    for mine, quota in zip(classes, quotas, strict=True):
        hard_first = sorted(mine, key=lambda i: (-difficulty[i], i))
        cells = []
        for level in range(5):  # five levels as equal as can be, the odd samples to the hardest
            size = len(mine) // 5 + (level < len(mine) % 5)
            cells.append(sorted(hard_first[:size]))
            hard_first = hard_first[size:]
        shares = _shares([len(cell) for cell in cells], quota)
        paths.append(_interleaved([_farthest_first(vectors, cell, share) for cell, share in zip(cells, shares, strict=True) if share]))
    return _interleaved([path for path in paths if path]) + reserve[: n_keep - n_clean]


def strategy_moderate(labels: np.ndarray, vectors: np.ndarray, n_keep: int, rng: np.random.Generator) -> list[int]:
    """The middle ranks of all distances to the class's median of every feature."""
    away: dict[int, float] = {}
    for c in sorted(set(labels.tolist())):
        mine = [i for i in range(len(labels)) if labels[i] == c]
        columns = [sorted(float(vectors[i][k]) for i in mine) for k in range(vectors.shape[1])]
        half = len(mine) // 2
        centre = np.array([column[half] if len(mine) % 2 else (column[half - 1] + column[half]) / 2 for column in columns])
        away |= {i: _distance(vectors[i], centre) for i in mine}
    ranked = sorted(range(len(labels)), key=lambda i: (away[i], i))
    low = (len(labels) - n_keep) // 2
    window = ranked[low : low + n_keep]
    return [window[k] for k in sorted(range(n_keep), key=lambda k: (abs(2 * k - (n_keep - 1)), k))]


def strategy_herding(labels: np.ndarray, vectors: np.ndarray, n_keep: int, rng: np.random.Generator) -> list[int]:
    members = [[i for i in range(len(labels)) if labels[i] == c] for c in sorted(set(labels.tolist()))]
    paths = []
    for mine, quota in zip(members, _shares([len(m) for m in members], n_keep), strict=True):
        centre, path = _centre(vectors, mine), []
        while len(path) < quota:
            rest = [i for i in mine if i not in path]
            path.append(min(rest, key=lambda i: (round(_distance(_centre(vectors, [*path, i]), centre), 6), i)))
        paths.append(path)
    return _interleaved([path for path in paths if path])


def facility_value(vectors: np.ndarray, chosen: list[int]) -> float:
    """Sum over all of (1 + cosine) / 2 with the most similar chosen one."""

    def similar(a: np.ndarray, b: np.ndarray) -> float:
        lengths = math.sqrt(sum(float(u) ** 2 for u in a) * sum(float(u) ** 2 for u in b))
        return (1 + (sum(float(u) * float(v) for u, v in zip(a, b, strict=True)) / lengths if lengths else 0.0)) / 2

    return sum(max(similar(v, vectors[j]) for j in chosen) for v in vectors) if chosen else 0.0


def strategy_facility_location(vectors: np.ndarray, n_keep: int, rng: np.random.Generator) -> list[int]:
    """Every step looks at every candidate."""
    unit = np.array([[float(u) / math.sqrt(sum(float(w) ** 2 for w in v)) for u in v] for v in vectors])
    similarity = [[round((1 + sum(float(u) * float(w) for u, w in zip(a, b, strict=True))) / 2, 6) for b in unit] for a in unit]
    covered, path = [0.0] * len(unit), []
    while len(path) < n_keep:
        rest = [i for i in range(len(unit)) if i not in path]
        path.append(max(rest, key=lambda i: (sum(max(s, c) for s, c in zip(similarity[i], covered, strict=True)), -i)))
        covered = [max(s, c) for s, c in zip(similarity[path[-1]], covered, strict=True)]
    return path


def strategy_d2(difficulty: np.ndarray, vectors: np.ndarray, n_keep: int, rng: np.random.Generator) -> list[int]:
    """Ten neighbours, both gammas 1 per squared median distance of neighbours; the largest value is searched anew at every step."""
    n = len(difficulty)
    share = n_keep / n
    cut = 0.3 if share <= 0.1 else 0.3 - (share - 0.1) if share <= 0.2 else max(0.0, 0.2 * (0.5 - share) / 0.3)
    rows = sorted(sorted(range(n), key=lambda i: (-float(difficulty[i]), i))[min(round(cut * n), n - n_keep) :])
    finite = [float(difficulty[i]) for i in rows if math.isfinite(difficulty[i])]
    low, high = min(finite), max(finite)
    x = {i: (min(float(difficulty[i]), high) - low) / ((high - low) or 1.0) for i in rows}
    near = {i: sorted((j for j in rows if j != i), key=lambda j: (_distance(vectors[i], vectors[j]), j))[:10] for i in rows}
    unit = float(np.median([_distance(vectors[i], vectors[j]) for i in rows for j in near[i]]))

    def kernel(i: int, j: int) -> float:
        return math.exp(-((_distance(vectors[i], vectors[j]) / unit) ** 2))

    value = {i: x[i] + sum(kernel(i, j) * x[j] for j in near[i]) for i in rows}
    path: list[int] = []
    while len(path) < n_keep:
        k = max((i for i in rows if i not in path), key=lambda i: (value[i], -i))
        path.append(k)
        for j in near[k]:
            value[j] -= kernel(k, j) * value[k]
    return path


def strategy_cluster_prototypes(labels: np.ndarray, vectors: np.ndarray, n_keep: int, rng: np.random.Generator) -> list[int]:
    """Lloyd's iteration from the same draw, as many clusters as classes, farthest first."""
    n = len(vectors)
    centroids = [vectors[i] for i in sorted(rng.choice(n, len(set(labels.tolist())), replace=False).tolist())]

    def homes() -> list[int]:
        return [min(range(len(centroids)), key=lambda c: (_distance(v, centroids[c]), c)) for v in vectors]

    for _ in range(25):
        home = homes()
        centroids = [_centre(vectors, [i for i in range(n) if home[i] == c]) for c in sorted(set(home))]
    home = homes()
    return sorted(range(n), key=lambda i: (-_distance(vectors[i], centroids[home[i]]), i))[:n_keep]


def beta_weights(difficulty: np.ndarray, confidence: np.ndarray, n_keep: int, c_d: float = 4.0) -> list[float]:
    """BetaPDF(confidence; a, b) x DUAL, with the density's constant."""
    top = sorted(range(len(difficulty)), key=lambda i: (-difficulty[i], i))[:10]
    mean = sum(float(confidence[i]) for i in top) / len(top)
    b = 15 * (1 - mean) * (1 - (1 - n_keep / len(difficulty)) ** c_d)
    a = 16 - b
    constant = math.gamma(a + b) / (math.gamma(a) * math.gamma(b))
    return [
        float(d) * constant * min(max(float(p), 1e-6), 1 - 1e-6) ** (a - 1) * (1 - min(max(float(p), 1e-6), 1 - 1e-6)) ** (b - 1)
        for d, p in zip(difficulty, confidence, strict=True)
    ]


def strategy_beta_sampling(difficulty: np.ndarray, confidence: np.ndarray, n_keep: int, rng: np.random.Generator) -> list[int]:
    """The largest weights after the same noise; that this is a draw in turn without replacement is judged by frequencies elsewhere."""
    noise = rng.gumbel(size=len(difficulty)).tolist()
    keys = [(math.log(w) if w > 0 else -1e6) + g for w, g in zip(beta_weights(difficulty, confidence, n_keep), noise, strict=True)]
    return sorted(range(len(keys)), key=lambda i: (-keys[i], i))[:n_keep]


def score_mean_loss(loss: np.ndarray) -> np.ndarray:
    return np.array([mean_of(column) for column in loss.T])


def score_loss_variability(loss: np.ndarray) -> np.ndarray:
    return np.array([math.sqrt(mean_of((column - mean_of(column)) ** 2)) for column in loss.T])


def mean_of(column: np.ndarray) -> float:
    seen = [v for v in column.tolist() if not math.isnan(v)]
    return sum(seen) / len(seen)
