"""Plots as inline SVG whose colours follow the page, and thumbnails as data URIs.

Text stays text and colours are custom properties of the page (`--ink`, `--accent`, ...), so that one figure serves light, dark and print.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MatplotlibFigure

from clprune.datatypes import Source
from clprune.wording import counted, points

# Colours that no figure uses otherwise, replaced by properties of the page.
COLORS = {"#010101": "ink", "#020202": "muted", "#030303": "grid", "#040404": "accent", "#050505": "second", "#060606": "warn", "#070707": "soft"}
INK, MUTED, GRID, ACCENT, SECOND, WARN, SOFT = COLORS
BINS = 48  # of a histogram
CELLS = 40  # a side of the map
MOST_CLASSES = 24  # drawn in one figure
THUMBNAIL_SIDE = 48  # pixels
TEXT_CHARACTERS = 280  # of a text sample


@dataclass(frozen=True)
class Figure:
    """An SVG, its caption, and the same in words for those who do not see it."""

    name: str
    svg: Markup
    caption: str
    alternative: str


def _new(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[MatplotlibFigure, np.ndarray]:
    """A figure without pyplot, which would keep state and look for a display."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout="constrained")
    return canvas, np.atleast_2d(canvas.subplots(rows, columns, squeeze=False))


def _style(axes: Axes, *, grid: str = "y") -> None:
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(which="both", colors=MUTED, labelcolor=INK, labelsize=8)
    axes.grid(axis=grid, color=GRID, linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(INK)
        text.set_fontsize(9)


def _svg(canvas: MatplotlibFigure, name: str) -> Markup:
    """The figure as an SVG element without ids that clash, fixed sizes, fonts or colours of its own."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "svg.image_inline": True}):
        canvas.savefig(buffer, format="svg", transparent=True, metadata={key: None for key in ("Creator", "Date", "Format", "Type")})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.S)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\1{name}-", text)
    text = re.sub(r"font: ?(\d[\d.]*)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    for color, role in COLORS.items():
        text = text.replace(color, f"var(--{role})")
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"\n\s*", "\n", text)
    return Markup(text)


def critical_period(
    epochs: Float[np.ndarray, "T"],
    curves: Mapping[str, Float[np.ndarray, "T"]],
    deciding: Sequence[str],
    ends: Mapping[str, float | None],
    *,
    start_epoch: int,
    end_epoch: int,
    settled: bool,
) -> Figure:
    """The curves that vote on the period's end, and the training accuracy; the period is shaded, each curve's own end a tick line."""
    shown = [name for name in (*deciding, "training_accuracy") if name in curves and np.isfinite(curves[name]).any()]
    columns = 3
    rows = -(-len(shown) // columns)
    canvas, grid = _new(8.6, 2.1 * rows, rows, columns)
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.flat, shown, strict=False):
        known = np.isfinite(curves[name])
        axes.axvspan(start_epoch, end_epoch, color=SOFT, linewidth=0)
        alone = "o" if known.sum() == 1 else None  # a line of one point is not seen
        axes.plot(epochs[known], curves[name][known], color=ACCENT, linewidth=1.6, marker=alone, markersize=4)
        axes.axvline(end_epoch, color=WARN, linewidth=1.2)
        if ends.get(name) is not None:
            axes.axvline(float(ends[name] or 0), color=SECOND, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_title(name.replace("_", " "))
        axes.set_xlabel("epochs of the proxy")
        axes.set_xlim(0, 1.04 * max(float(epochs.max()), float(end_epoch)))  # so that an end at the border is seen
        _style(axes)
    told = []
    for name in shown:
        values = curves[name][np.isfinite(curves[name])]
        own = ends.get(name)
        told.append(
            f"{name.replace('_', ' ')} goes from {values[0]:.3g} to {values[-1]:.3g}"
            + ("" if name not in deciding else "; it abstains" if own is None else f", its own bend at epoch {own:.1f}")
        )
    caption = (
        f"Shaded: the period, epochs {start_epoch} to {end_epoch}{'' if settled else ' (the end was not established)'}. Solid line: the end. "
        "Dashed: where that curve alone has done 90 % of its approach."
    )
    return Figure("curves", _svg(canvas, "curves"), caption, f"Line charts over {counted(f'{epochs.max():g}', 'epoch')}. " + "; ".join(told) + ".")


def score_distributions(
    scores: Mapping[str, Float[np.ndarray, "N"]], high_means: Mapping[str, str], kept: Bool[np.ndarray, "N"] | None
) -> tuple[Figure, dict[str, int]]:
    """A histogram a score: all samples that have it (NaN: none) in outline, the kept ones filled. Returns also how many values were infinite, by score (drawn at the edge)."""
    columns = 4
    rows = -(-len(scores) // columns)
    canvas, grid = _new(8.6, 1.75 * rows, rows, columns)
    infinite, told, most = {}, [], 0
    for axes in grid.flat[len(scores) :]:
        axes.set_visible(False)
    for axes, (name, every) in zip(grid.flat, scores.items(), strict=False):
        known = ~np.isnan(every)  # what has no label has no score, and is neither easy nor hard
        values, chosen_rows, most = every[known], None if kept is None else kept[known], max(most, int(known.sum()))
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        if len(finite) < len(values):
            infinite[name] = len(values) - len(finite)
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
        clipped = np.clip(np.nan_to_num(values, posinf=edges[-1], neginf=low), low, edges[-1])
        counts = np.histogram(clipped, edges)[0]
        if chosen_rows is not None:
            axes.stairs(np.histogram(clipped[chosen_rows], edges)[0], edges, fill=True, color=ACCENT)
        axes.stairs(counts, edges, color=INK, linewidth=0.9)
        axes.set_title(name.replace("_", " "))
        axes.set_xlabel(f"high means {high_means[name]}")
        axes.set_yticks([])
        axes.set_ylim(0, max(1, counts.max()) * 1.05)
        _style(axes, grid="x")
        if len(finite):
            median = f"median {np.median(finite):.3g}"
            chosen = f", of the kept {np.median(values[chosen_rows]):.3g}" if chosen_rows is not None and chosen_rows.any() else ""
            told.append(f"{name.replace('_', ' ')}: {low:.3g} to {high:.3g}, {median}{chosen}")
    caption = "Number of samples by score. " + ("Filled: kept. Line: all samples." if kept is not None else "Nothing is selected yet.")
    n = max((len(values) for values in scores.values()), default=0)
    caption += f" Drawn are the {most:,} of {n:,} samples that have the score." if most < n else ""
    return Figure("scores", _svg(canvas, "scores"), caption, "Histograms. " + "; ".join(told) + "."), infinite


def kept_by_class(names: Sequence[str], n_samples: Int[np.ndarray, "C"], n_kept: Int[np.ndarray, "C"]) -> Figure:
    """Kept and dropped samples of each class that has some as bars; with many classes those that kept the least and the most of themselves."""
    share = n_kept / np.maximum(1, n_samples)
    shown = np.flatnonzero(n_samples)
    by_share = shown[np.argsort(share[shown], kind="stable")]
    note = ""
    if len(shown) > MOST_CLASSES:
        note = f" Of {len(shown)} classes the {MOST_CLASSES // 2} that kept the least of themselves and the {MOST_CLASSES // 2} that kept the most."
        shown = np.concatenate([by_share[: MOST_CLASSES // 2], by_share[-MOST_CLASSES // 2 :]])
    canvas, grid = _new(8.6, 0.7 + 0.24 * len(shown))
    axes, at = grid[0, 0], np.arange(len(shown))
    axes.barh(at, n_kept[shown], color=ACCENT, height=0.72, label="kept")
    axes.barh(at, (n_samples - n_kept)[shown], left=n_kept[shown], facecolor=SOFT, edgecolor=MUTED, linewidth=0.6, height=0.72, label="dropped")
    most = float(n_samples[shown].max()) if len(shown) else 1.0
    for place, c in enumerate(shown.tolist()):
        axes.text(n_samples[c] + most * 0.01, place, f"{100 * share[c]:.0f} %", va="center", color=INK, fontsize=8)
    axes.set_yticks(at, [_short(names[c]) for c in shown.tolist()])
    axes.invert_yaxis()
    axes.set_xlabel("samples; the percentage is the share kept")
    axes.set_xlim(0, most * 1.1)
    _style(axes, grid="x")
    alternative = f"Bars of {len(shown)} classes."
    if len(shown):
        least, largest = shown[np.argmin(share[shown])], shown[np.argmax(share[shown])]
        alternative += (
            f" The least is kept of {names[least]} ({100 * share[least]:.0f} %), the most of {names[largest]} ({100 * share[largest]:.0f} %)."
        )
    return Figure("classes", _svg(canvas, "classes"), "Filled: kept. Pale: dropped." + note, alternative)


def difficulty_map(confidence: Float[np.ndarray, "N"], variability: Float[np.ndarray, "N"], kept: Bool[np.ndarray, "N"] | None) -> Figure:
    """Samples counted in cells of mean confidence against its variability (Swayamdipta et al., 2020, arXiv:2009.10795); beside it the share kept. Samples that have no score (NaN) take no part; some must have both."""
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    n, known = len(confidence), ~(np.isnan(confidence) | np.isnan(variability))
    confidence, variability, kept = confidence[known], variability[known], None if kept is None else kept[known]
    limits = [[0.0, max(1e-6, float(variability.max()))], [0.0, 1.0]]
    counts = np.histogram2d(variability, confidence, CELLS, limits)[0].T
    shown = [("samples in a cell", np.where(counts > 0, counts, np.nan))]
    if kept is not None:
        inside = np.histogram2d(variability[kept], confidence[kept], CELLS, limits)[0].T
        shown.append(("share kept", np.where(counts > 0, inside / np.maximum(1, counts), np.nan)))
    canvas, grid = _new(8.6, 3.3, 1, len(shown))
    extent = (limits[0][0], limits[0][1], 0.0, 1.0)
    fading = LinearSegmentedColormap.from_list("fading", [(0.18, 0.45, 0.78, 0.18), (0.18, 0.45, 0.78, 1.0)])
    for axes, (title, values) in zip(grid.flat, shown, strict=True):
        norm = LogNorm(1, max(2.0, float(counts.max()))) if title.startswith("samples") else None
        limits_of_share = {} if norm else {"vmin": 0.0, "vmax": 1.0}
        picture = axes.imshow(
            values,
            origin="lower",
            extent=extent,
            aspect="auto",
            interpolation="nearest",
            norm=norm,
            cmap=fading if norm else "viridis",
            **limits_of_share,
        )
        axes.set_title(title)
        axes.set_xlabel("variability of the confidence")
        axes.set_ylabel("mean confidence in the label")
        _style(axes, grid="both")
        bar = canvas.colorbar(picture, ax=axes)
        if norm:
            bar.set_ticks(_counts_to(counts.max()), labels=[f"{n:,}" for n in _counts_to(counts.max())], minor=False)
            bar.minorticks_off()
        bar.ax.tick_params(which="both", colors=MUTED, labelcolor=INK, labelsize=8)
        bar.outline.set_edgecolor(MUTED)  # type: ignore[operator]
    easy, hard = float((confidence > 0.8).mean()), float((confidence < 0.2).mean())
    which = f"{n:,} samples" if known.all() else f"{len(confidence):,} of {n:,} samples (the others have no score)"
    words = f"Map of {which}: {100 * easy:.0f} % are learned with confidence above 0.8, {100 * hard:.0f} % stay below 0.2."
    if kept is not None:
        parts = [("above 0.8", confidence > 0.8), ("between", (confidence <= 0.8) & (confidence >= 0.2)), ("below 0.2", confidence < 0.2)]
        words += " Kept: " + ", ".join(f"{100 * kept[part].mean():.0f} % of those {name}" for name, part in parts if part.any()) + "."
    caption = "Top left: easy. To the right: uncertain. Bottom left: hard, or wrongly labelled."
    return Figure("map", _svg(canvas, "map"), caption, words)


def _counts_to(most: float) -> list[int]:
    """1, 10, 100, ... up to `most`; below 20 also 2 and 5, since one mark alone is no scale."""
    steps = (1, 2, 5) if most < 20 else (1,)
    return [step * 10**power for power in range(16) for step in steps if step * 10**power <= max(most, 2)]


def accuracies(arms: Mapping[str, Sequence[float]], title: str) -> Figure:
    """A dot for each training and a line at the mean, for each arm; accuracies in [0, 1], drawn in percent."""
    canvas, grid = _new(8.6, 0.8 + 0.42 * len(arms))
    axes = grid[0, 0]
    for at, values in enumerate(arms.values()):
        percent = 100 * np.array(values, dtype=float)
        axes.plot(percent, np.full(len(percent), at), "o", color=ACCENT, markersize=5, alpha=0.75, markeredgewidth=0)
        axes.plot([percent.mean()] * 2, [at - 0.3, at + 0.3], color=WARN, linewidth=2)
    axes.set_yticks(np.arange(len(arms)), [_short(name) for name in arms])
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.set_xlabel("accuracy on the test split, %")
    axes.margins(x=0.08)
    left, right = axes.get_xlim()
    axes.set_xlim(left, min(right, 100.0 + 0.08 * (100.0 - left)))  # no more than 100 %
    _style(axes, grid="x")
    told = ", ".join(f"{name} {100 * float(np.mean(values)):.2f} %" for name, values in arms.items())
    return Figure("accuracy", _svg(canvas, "accuracy"), "A dot for each training, a bar at the mean.", f"{title}: mean accuracy {told}.")


def class_changes(
    names: Sequence[str], changes: Float[np.ndarray, "C"], errors: Float[np.ndarray, "C"], flagged: Sequence[bool], reference: str
) -> Figure:
    """Change of accuracy of each class, worst first, with twice its standard error; flagged classes in the warning colour."""
    order = np.argsort(changes, kind="stable")[:MOST_CLASSES]
    canvas, grid = _new(8.6, 0.8 + 0.24 * len(order))
    axes, at = grid[0, 0], np.arange(len(order))
    axes.barh(at, 100 * changes[order], color=[WARN if flagged[c] else ACCENT for c in order], height=0.7)
    axes.errorbar(100 * changes[order], at, xerr=200 * errors[order], fmt="none", color=INK, ecolor=INK, elinewidth=0.9, capsize=2)
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_yticks(at, [_short(names[c]) for c in order.tolist()])
    axes.invert_yaxis()
    left, right = axes.get_xlim()
    # no accuracy changes by more than 100 points, however wide the whisker of a class of one test sample
    axes.set_xlim(max(left, -105.0), min(right, 105.0))
    axes.set_xlabel(f"accuracy after pruning minus {'all data' if reference == 'full' else 'a random choice'}, points")
    _style(axes, grid="x")
    some = f" The {len(order)} worst of {len(names)} classes." if len(order) < len(names) else ""
    told = ", ".join(f"{names[c]} {points(changes[c], '+.1f')}" for c in order[:10])
    return Figure(
        "harm", _svg(canvas, "harm"), f"Whiskers: twice the standard error.{some}", f"Change of accuracy in points by class, worst first: {told}."
    )


def _short(name: str, most: int = 28) -> str:
    """A class name that fits beside a bar; `$` would start mathematics."""
    name = " ".join(str(name).split()).replace("$", r"\$")
    return name if len(name) <= most else name[: most - 1] + "…"


def thumbnail(source: Source, index: int) -> dict[str, Any]:
    """`{"image": data URI, width, height}` or `{"text": ...}`, or `{"missing": why}` where the input cannot be read."""
    from PIL import Image, ImageOps

    try:
        value = source.read_input(index)
        if isinstance(value, str):
            return {"text": value if len(value) <= TEXT_CHARACTERS else value[: TEXT_CHARACTERS - 1] + "…"}
        if isinstance(value, np.ndarray) or hasattr(value, "numpy"):
            array = np.asarray(value)
            if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
                array = array.transpose(1, 2, 0)
            array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
            if array.dtype != np.uint8:
                array = np.clip(array * (255 if array.max() <= 1 else 1), 0, 255).astype(np.uint8)
            value = Image.fromarray(array)
        value = ImageOps.exif_transpose(value) or value
        if value.mode == "F" or value.mode.startswith("I"):  # a conversion would cut at 255: of 16 bits all is white, of [0, 1] all black
            deep = np.asarray(value).astype(np.float64)
            value = Image.fromarray(np.uint8(255 * (deep - deep.min()) / max(float(np.ptp(deep)), 1e-12)))
        if value.mode in ("RGBA", "LA", "PA") or "transparency" in value.info:
            value = Image.alpha_composite(Image.new("RGBA", value.size, "white"), value.convert("RGBA"))
        value = value.convert("L" if value.mode in ("1", "L") else "RGB")
        value.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    except Exception as error:  # whatever a file or a user's data set raises, the page is still written
        return {"missing": f"{type(error).__name__}: {error}"}
    buffer = io.BytesIO()
    value.save(buffer, "PNG", optimize=True)
    return {"image": "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode(), "width": value.width, "height": value.height}
