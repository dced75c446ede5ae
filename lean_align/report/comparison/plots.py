"""Plots of what the methods reach: differences, accuracy by subset size, learning curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from lean_align.report.comparison.cells import difference, difference_interval, share, share_interval
from lean_align.report.comparison.records import Comparison, Tree, bounds
from lean_align.report.comparison.wording import LEVEL
from lean_align.report.formatting import points
from lean_align.report.svg import BASE, INK, MUTED, REST, SELECTED, TRAINED, Plot, make_plot

LABEL_LIMIT = 30
"""Characters of a method's label in a plot; the tables hold the whole of it."""
_STYLES = ((TRAINED, "o", "-"), (BASE, "s", "--"), (SELECTED, "^", "-."), (INK, "D", ":"), (MUTED, "v", "--"))
_ROW_UNITS = 22
_POINT_TICKS = FuncFormatter(lambda value, _: points(value).replace(".0", ""))
_PERCENT_TICKS = FuncFormatter(lambda value, _: f"{100 * value:.3g} %")


def cut(label: str, limit: int = LABEL_LIMIT) -> str:
    """A label short enough for a plot; an ellipsis says that it goes on."""
    return label if len(label) <= limit else label[: limit - 1] + "…"


def difference_plot(found: Comparison) -> Plot | None:
    """Difference of each method to the reference with its interval; None before there is one."""
    rows = [row for row in found.paired.values() if row.get("difference") is not None]
    if not rows:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=TRAINED, linewidth=1.4)
        for position, row in enumerate(rows):
            _draw_difference(axes, position, row)
        axes.set_yticks(range(len(rows)), [cut(str(row["label"])) for row in rows], fontsize=11)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(f"method \N{MINUS SIGN} {cut(found.reference)}, points", fontsize=11)
        axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 7, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(_POINT_TICKS)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0, labelcolor=INK)

    described = [
        f"{row['label']} {difference(row['difference'], '')} {difference_interval(row.get('interval'))}" for row in rows
    ]
    caption = (
        f"Difference to {found.reference} (blue line) with 95 % intervals; to the left the reference is better. Dark "
        f"dots: p below {LEVEL} after Holm's correction. Grey diamonds: not shown to differ."
    )
    height = 60 + _ROW_UNITS * len(rows)
    return make_plot(
        "differences", "Difference to the reference", "; ".join(described) + ".", caption, draw, (height, height)
    )


def _draw_difference(axes: Axes, position: int, row: Tree) -> None:
    ends, corrected = bounds(row.get("interval")), row.get("p_holm")
    shown = corrected is not None and corrected < LEVEL
    colour = INK if shown else REST
    if ends is not None:
        axes.plot(ends, [position, position], color=colour, linewidth=2)
    axes.plot([row["difference"]], [position], "o" if shown else "D", color=colour, markersize=7.5 if shown else 5.5)


def size_plot(found: Comparison) -> Plot | None:
    """Accuracy against the number of prompts: lines for methods with several sizes, grey points for the rest."""
    sized = [each for each in found.methods if each.get("n") and each.get("accuracy") is not None]
    full = [each for each in sized if each.get("method") == "full"]
    chosen = [each for each in sized if each.get("method") != "full"]
    if not chosen:
        return None
    series = _series(chosen)
    control = found.at_reference_size("random") or {}
    always = {found.reference, control.get("label")}
    lines = {name: rows for name, rows in series.items() if len(rows) > 1 or always & {row["label"] for row in rows}}
    singles = [row for name, rows in series.items() if name not in lines for row in rows]

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        _draw_full(axes, full)
        _draw_singles(axes, singles)
        for position, (name, rows) in enumerate(lines.items()):
            _draw_line(axes, name, rows, position, len(lines))
        _finish_sizes(axes, sorted({each["n"] for each in chosen}))
        if lines or full:
            columns = 2 if narrow else 4
            figure.legend(loc="outside upper left", ncols=columns, handlelength=2.6, labelcolor=INK, fontsize=11)

    described = [
        f"{each['label']} {share(each['accuracy'], '')} % {share_interval(each.get('interval'))}" for each in sized
    ]
    return make_plot(
        "sizes",
        "Accuracy by subset size",
        "; ".join(described) + ".",
        _size_caption(lines, singles, full),
        draw,
        (340, 330),
    )


def _series(methods: Sequence[Tree]) -> dict[str, list[Tree]]:
    """Methods that differ only in size, by name and settings, smallest first."""
    found: dict[str, list[Tree]] = {}
    for method in methods:
        settings = ", ".join(f"{key} = {value}" for key, value in (method.get("settings") or {}).items())
        name = f"{method.get('method') or method['label']}{f' ({settings})' if settings else ''}"
        found.setdefault(name, []).append(method)
    return {name: sorted(rows, key=lambda row: row["n"]) for name, rows in found.items()}


def _size_caption(lines: dict[str, list[Tree]], singles: Sequence[Tree], full: Sequence[Tree]) -> str:
    parts = ["Mean accuracy over the seeds with 95 % intervals, by number of chosen prompts; equal training steps."]
    if lines:
        parts.append("In colour, set a little apart sideways: the reference, random, and methods of several sizes.")
    if singles:
        parts.append("Grey dots, spread sideways, are the other methods; the table names them.")
    if full:
        parts.append("The horizontal line is training on all prompts, the band its interval.")
    return " ".join(parts)


def _draw_full(axes: Axes, full: Sequence[Tree]) -> None:
    for method in full[:1]:
        ends = bounds(method.get("interval"))
        if ends is not None:
            axes.axhspan(*ends, color=MUTED, alpha=0.13, linewidth=0)
        axes.axhline(method["accuracy"], color=MUTED, linewidth=1.4, label=cut(method["label"]))


def _draw_singles(axes: Axes, singles: Sequence[Tree]) -> None:
    for n in sorted({row["n"] for row in singles}):
        rows = [row for row in singles if row["n"] == n]
        for row, shift in zip(rows, _shifts(len(rows), 0.16), strict=True):
            x, ends = n * (1 + shift), bounds(row.get("interval"))
            if ends is not None:
                axes.plot([x, x], ends, color=REST, linewidth=1, alpha=0.7)
            axes.plot([x], [row["accuracy"]], "o", color=REST, markersize=4.5)


def _draw_line(axes: Axes, name: str, rows: Sequence[Tree], position: int, n_lines: int) -> None:
    colour, marker, dashes = _STYLES[position % len(_STYLES)]
    shift = _shifts(n_lines, 0.03)[position]
    x = [row["n"] * (1 + shift) for row in rows]
    for place, row in zip(x, rows, strict=True):
        ends = bounds(row.get("interval"))
        if ends is not None:
            axes.plot([place, place], ends, color=colour, linewidth=2)
    accuracy = [row["accuracy"] for row in rows]
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
    axes.yaxis.set_major_formatter(_PERCENT_TICKS)
    axes.grid(axis="y")


def curve_plot(found: Comparison) -> Plot | None:
    """Reward by step as a mean over the seeds: a few methods in colour, the rest as faint lines."""
    curves = {each["label"]: curve for each in found.methods if (curve := _curve(each)) is not None}
    if not curves:
        return None
    named = [label for label in _named(found) if label in curves] or list(curves)[:1]

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for label, curve in curves.items():
            if label not in named:
                axes.plot(curve[0], curve[1], color=REST, linewidth=0.9, alpha=0.55)
        for (colour, _, dashes), label in zip(_STYLES, named, strict=False):
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


def _curve(method: Tree) -> np.ndarray[tuple[int, int], np.dtype[np.float64]] | None:
    """Step, reward, low and high, (4, n); a missing bound is NaN, which is not drawn."""
    tree = method.get("learning_curve") or {}
    steps, rewards = tree.get("step") or [], tree.get("reward") or []
    n = min(len(steps), len(rewards))
    columns = [steps[:n], rewards[:n]]
    for key in ("low", "high"):
        bound = tree.get(key) or []
        columns.append(bound[:n] if len(bound) >= n else [None] * n)
    curve = np.array(columns, dtype=np.float64)
    return curve[:, np.isfinite(curve[1])] if np.isfinite(curve[1]).any() else None


def _named(found: Comparison) -> list[str]:
    """Reference, random, all prompts, and learnability alone, each of the reference's size."""
    full = next((each for each in found.methods if each.get("method") == "full"), None)
    rows = [found.method(found.reference), found.at_reference_size("random"), full]
    labels = [row["label"] for row in (*rows, found.at_reference_size("learnability")) if row is not None]
    return list(dict.fromkeys(labels))


def _draw_curve(
    axes: Axes, curve: np.ndarray[tuple[int, int], np.dtype[np.float64]], colour: str, dashes: str, label: str
) -> None:
    step, reward, low, high = curve
    if np.isfinite(low).any() and np.isfinite(high).any():
        axes.fill_between(step, low, high, color=colour, alpha=0.14, linewidth=0)
    marker = "o" if len(step) == 1 else ""
    axes.plot(step, reward, dashes, color=colour, linewidth=2.2, marker=marker, label=cut(label))
