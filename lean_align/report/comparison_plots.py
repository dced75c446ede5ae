"""Plots of what the methods reach: differences, accuracy by subset size, learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from lean_align.report.comparison import Comparison, Curve, Method, Pair
from lean_align.report.comparison_wording import LEVEL
from lean_align.report.formatting import bare_interval, bare_share, bounds, difference_interval, points
from lean_align.report.svg import BASE, INK, MUTED, POINT_TICKS, REST, SELECTED, TRAINED, Plot, make_plot, name_rows

LABEL_LIMIT = 30
"""Characters of a method's label in a plot; the tables hold the whole of it."""
STYLES = ((TRAINED, "o", "-"), (BASE, "s", "--"), (SELECTED, "^", "-."), (INK, "D", ":"), (MUTED, "v", "--"))
_ROW_UNITS = 22
PERCENT_TICKS = FuncFormatter(lambda value, _: f"{100 * value:.3g} %")


def cut(label: str, limit: int = LABEL_LIMIT) -> str:
    """A label short enough for a plot; an ellipsis says that it goes on."""
    return label if len(label) <= limit else label[: limit - 1] + "…"


def difference_plot(found: Comparison) -> Plot | None:
    """Difference of each method from the reference with its interval; None before there is one."""
    rows = [(row, row.difference) for row in found.pairs.values() if row.difference is not None]
    if not rows:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=TRAINED, linewidth=1.4)
        for position, (row, value) in enumerate(rows):
            _draw_difference(axes, position, row, value)
        name_rows(axes, [cut(str(row.label)) for row, _ in rows], -0.6, 0.4, fontsize=11)
        axes.set_xlabel(f"method \N{MINUS SIGN} {cut(found.reference)}, points", fontsize=11)
        axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 7, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(POINT_TICKS)

    described = [f"{row.label} {points(value)} {difference_interval(row.interval)}" for row, value in rows]
    caption = (
        f"Difference from {found.reference} (blue line) with 95 % intervals; to the left the reference is better. Dark "
        f"dots: p below {LEVEL} after Holm's correction. Grey diamonds: not shown to differ."
    )
    height = 60 + _ROW_UNITS * len(rows)
    return make_plot(
        "differences", "Difference from the reference", "; ".join(described) + ".", caption, draw, (height, height)
    )


def _draw_difference(axes: Axes, position: int, row: Pair, value: float) -> None:
    ends, shown = bounds(row.interval), row.p_holm is not None and row.p_holm < LEVEL
    colour = INK if shown else REST
    if ends is not None:
        axes.plot(ends, [position, position], color=colour, linewidth=2)
    axes.plot([value], [position], "o" if shown else "D", color=colour, markersize=7.5 if shown else 5.5)


@dataclass(frozen=True)
class _Point:
    """A method whose size and accuracy are known."""

    method: Method
    n: int
    accuracy: float
    ends: tuple[float, float] | None


def size_plot(found: Comparison) -> Plot | None:
    """Accuracy against the number of prompts: lines for methods with several sizes, grey points for the rest."""
    sized = [
        _Point(each, each.n, each.accuracy, bounds(each.interval))
        for each in found.methods
        if each.n and each.accuracy is not None
    ]
    full = [each for each in sized if each.method.method == "full"]
    chosen = [each for each in sized if each.method.method != "full"]
    if not chosen:
        return None
    series = _series(chosen)
    control = found.at_reference_size("random")
    always = {found.reference, control.label if control else None}
    lines = {
        name: rows for name, rows in series.items() if len(rows) > 1 or always & {row.method.label for row in rows}
    }
    singles = [row for name, rows in series.items() if name not in lines for row in rows]

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        _draw_full(axes, full)
        _draw_singles(axes, singles)
        for position, (name, rows) in enumerate(lines.items()):
            _draw_line(axes, name, rows, position, len(lines))
        _finish_sizes(axes, sorted({each.n for each in chosen}))
        if lines or full:
            columns = 2 if narrow else 4
            figure.legend(loc="outside upper left", ncols=columns, handlelength=2.6, labelcolor=INK, fontsize=11)

    described = [f"{each.method.label} {bare_share(each.accuracy)} % {bare_interval(each.ends)}" for each in sized]
    return make_plot(
        "sizes",
        "Accuracy by subset size",
        "; ".join(described) + ".",
        _size_caption(lines, singles, full),
        draw,
        (340, 330),
    )


def _series(points: Sequence[_Point]) -> dict[str, list[_Point]]:
    """Methods that differ only in size, by name and settings, smallest first."""
    found: dict[str, list[_Point]] = {}
    for point in points:
        method = point.method
        settings = ", ".join(f"{key} = {value}" for key, value in method.settings.items())
        name = f"{method.method or method.label}{f' ({settings})' if settings else ''}"
        found.setdefault(name, []).append(point)
    return {name: sorted(rows, key=lambda row: row.n) for name, rows in found.items()}


def _size_caption(lines: dict[str, list[_Point]], singles: Sequence[_Point], full: Sequence[_Point]) -> str:
    parts = ["Mean accuracy over the seeds with 95 % intervals, by number of chosen prompts; equal training steps."]
    if lines:
        parts.append("In colour, shifted a little sideways: the reference, random, and methods of several sizes.")
    if singles:
        parts.append("Grey dots, spread sideways, are the other methods; the table names them.")
    if full:
        parts.append("The horizontal line is training on all prompts, the band its interval.")
    return " ".join(parts)


def _draw_full(axes: Axes, full: Sequence[_Point]) -> None:
    for point in full[:1]:
        if point.ends is not None:
            axes.axhspan(*point.ends, color=MUTED, alpha=0.13, linewidth=0)
        axes.axhline(point.accuracy, color=MUTED, linewidth=1.4, label=cut(point.method.label))


def _draw_singles(axes: Axes, singles: Sequence[_Point]) -> None:
    for n in sorted({row.n for row in singles}):
        rows = [row for row in singles if row.n == n]
        for row, shift in zip(rows, _shifts(len(rows), 0.16), strict=True):
            x = n * (1 + shift)
            if row.ends is not None:
                axes.plot([x, x], row.ends, color=REST, linewidth=1, alpha=0.7)
            axes.plot([x], [row.accuracy], "o", color=REST, markersize=4.5)


def _draw_line(axes: Axes, name: str, rows: Sequence[_Point], position: int, n_lines: int) -> None:
    colour, marker, dashes = STYLES[position % len(STYLES)]
    shift = _shifts(n_lines, 0.03)[position]
    x = [row.n * (1 + shift) for row in rows]
    for place, row in zip(x, rows, strict=True):
        if row.ends is not None:
            axes.plot([place, place], row.ends, color=colour, linewidth=2)
    accuracy = [row.accuracy for row in rows]
    axes.plot(x, accuracy, dashes, color=colour, marker=marker, markersize=7, linewidth=2, label=cut(name))


def _shifts(n: int, reach: float) -> list[float]:
    """Places from -reach to reach around a size, 0 for a single one."""
    return [0.0] if n == 1 else np.linspace(-reach, reach, n).tolist()


def _finish_sizes(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(sizes[0] * 0.72, sizes[-1] * 1.4)
    axes.set_xticks(list(sizes), [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="chosen prompts (logarithmic)", ylabel="accuracy")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PERCENT_TICKS)
    axes.grid(axis="y")


def curve_plot(found: Comparison) -> Plot | None:
    """Reward by step as a mean over the seeds: a few methods in colour, the rest as faint lines."""
    curves = {each.label: curve for each in found.methods if (curve := _curve(each)) is not None}
    if not curves:
        return None
    named = [label for label in main_labels(found) if label in curves] or list(curves)[:1]

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for label, curve in curves.items():
            if label not in named:
                axes.plot(curve[0], curve[1], color=REST, linewidth=0.9, alpha=0.55)
        for (colour, _, dashes), label in zip(STYLES, named, strict=False):
            _draw_curve(axes, curves[label], colour, dashes, label)
        axes.set(xlabel="optimiser step", ylabel="mean reward")
        axes.xaxis.set_major_locator(MaxNLocator(5 if narrow else 8, integer=True))
        axes.grid(axis="y")
        figure.legend(loc="outside upper left", ncols=2, handlelength=2.6, labelcolor=INK, fontsize=11)

    last = [f"{label} {curves[label][1][-1]:.2f}" for label in named]
    others = len(curves) - len(named)
    caption = (
        "Reward of the prompts that are trained on, as a mean over the seeds; bands reach from the lowest to the "
        "highest seed. A method that chooses easy prompts starts high, so the height of a line says little about "
        "accuracy."
        + (f" Faint: the other {others} methods." if others > 1 else " Faint: the other method." if others else "")
    )
    return make_plot(
        "curves", "Reward by training step", f"At the last step: {'; '.join(last)}.", caption, draw, (320, 320)
    )


def _curve(method: Method) -> np.ndarray[tuple[int, int], np.dtype[np.float64]] | None:
    """Step, reward, low and high, (4, n); a missing bound is NaN, which is not drawn."""
    found = method.learning_curve or Curve()
    n = min(len(found.step), len(found.reward))
    ends = (bound[:n] if len(bound) >= n else (None,) * n for bound in (found.low, found.high))
    curve = np.array([found.step[:n], found.reward[:n], *ends], dtype=np.float64)
    return curve[:, np.isfinite(curve[1])] if np.isfinite(curve[1]).any() else None


def main_labels(found: Comparison) -> list[str]:
    """Labels of the methods that stand out: the reference, random and learnability alone of its size, all prompts, and
    dynamic sampling."""
    rows = (
        found.method(found.reference),
        found.at_reference_size("random"),
        found.named("full"),
        found.at_reference_size("learnability"),
        found.named("dynamic-sampling"),
    )
    return list(dict.fromkeys(row.label for row in rows if row is not None))


def _draw_curve(
    axes: Axes, curve: np.ndarray[tuple[int, int], np.dtype[np.float64]], colour: str, dashes: str, label: str
) -> None:
    step, reward, low, high = curve
    if np.isfinite(low).any() and np.isfinite(high).any():
        axes.fill_between(step, low, high, color=colour, alpha=0.14, linewidth=0)
    marker = "o" if len(step) == 1 else ""
    axes.plot(step, reward, dashes, color=colour, linewidth=2.2, marker=marker, label=cut(label))
