"""Plots of accuracy against what was spent: tokens, and hours of one machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from lean_align.report.comparison import Comparison
from lean_align.report.comparison_plots import PERCENT_TICKS, STYLES, cut, main_labels
from lean_align.report.costs import CostCurve
from lean_align.report.formatting import bare_share, count, hours
from lean_align.report.svg import INK, MUTED, REST, Plot, make_plot

Curve = NDArray[np.float64]
"""Cost, accuracy, lowest and highest seed: (4, K)."""


def token_plot(found: Comparison) -> Plot | None:
    """Accuracy against all tokens, a curve a method; None where no steps were evaluated."""
    ticks = FuncFormatter(lambda value, _: f"{value / 1000:,.0f}k" if value else "0")
    return _plot(
        found, "tokens", "completion tokens, choosing included", lambda curve: curve.total_tokens, ticks, count
    )


def hour_plot(found: Comparison) -> Plot | None:
    """Accuracy against hours of this machine, likewise."""
    ticks = FuncFormatter(lambda value, _: f"{value:.3g}")
    return _plot(found, "hours", "hours of this machine", lambda curve: curve.hours, ticks, hours)


def _plot(
    found: Comparison,
    name: str,
    axis: str,
    costs: Callable[[CostCurve], Sequence[float | None]],
    ticks: FuncFormatter,
    shown: Callable[[float | None], str],
) -> Plot | None:
    curves = {
        method.label: curve
        for method in found.methods
        if method.cost_curve is not None and (curve := _curve(method.cost_curve, costs(method.cost_curve))) is not None
    }
    if not curves:
        return None
    goal = found.goal.accuracy if found.goal is not None else None
    named = [label for label in main_labels(found) if label in curves]
    named = (named + [label for label in curves if label not in named])[: len(STYLES)]

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        if goal is not None:
            axes.axhline(goal, color=MUTED, linewidth=1.2, linestyle=(0, (3, 3)))
        for label, curve in curves.items():
            if label not in named:
                axes.plot(curve[0], curve[1], color=REST, linewidth=0.9, alpha=0.55)
        for (colour, marker, dashes), label in zip(STYLES, named, strict=False):
            _draw(axes, curves[label], colour, marker, dashes, label)
        axes.set(xlabel=axis, ylabel="accuracy")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 7))
        axes.xaxis.set_major_formatter(ticks)
        axes.yaxis.set_major_formatter(PERCENT_TICKS)
        axes.grid(axis="y")
        figure.legend(loc="outside upper left", ncols=2, handlelength=2.6, labelcolor=INK, fontsize=11)

    last = {label: curves[label][:2, -1].tolist() for label in named}
    described = [f"{label} {bare_share(accuracy)} % at {shown(cost)}" for label, (cost, accuracy) in last.items()]
    others = len(curves) - len(named)
    caption = (
        "Accuracy on the fixed subset at each evaluated step, as a mean over the seeds, against what had been spent by "
        "then; bands reach from the lowest to the highest seed. A curve begins where its prompts had been chosen."
        + ("" if goal is None else " Dashed: the accuracy of all prompts at the last step.")
        + (f" Faint: the other {others} methods." if others > 1 else " Faint: the other method." if others else "")
    )
    return make_plot(name, f"Accuracy by {name}", f"At the last step: {'; '.join(described)}.", caption, draw)


def _curve(curve: CostCurve, costs: Sequence[float | None]) -> Curve | None:
    """None where a cost is not known; a missing bound is not drawn."""
    n = min(len(costs), len(curve.accuracy))
    ends = (end[:n] if len(end) >= n else (None,) * n for end in (curve.low, curve.high))
    found = np.array([costs[:n], curve.accuracy[:n], *ends], dtype=np.float64)
    return found if n and np.isfinite(found[:2]).all() else None


def _draw(axes: Axes, curve: Curve, colour: str, marker: str, dashes: str, label: str) -> None:
    cost, accuracy, low, high = curve
    if np.isfinite(low).all() and np.isfinite(high).all():
        axes.fill_between(cost, low, high, color=colour, alpha=0.14, linewidth=0)
    axes.plot(cost, accuracy, dashes, color=colour, linewidth=2, marker=marker, markersize=5, label=cut(label))
