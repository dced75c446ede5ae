"""Plots of accuracy, training reward, time and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from lean_align.report.formatting import count, duration, is_number, memory, percent, percent_interval, points
from lean_align.report.svg import BASE, GRID, INK, MUTED, REST, TRAINED, Plot, make_plot

_ROW_UNITS = 24  # height of one bar with its gap
_PERCENT_TICKS = FuncFormatter(lambda value, _: f"{100 * value:.0f} %")
_POINT_TICKS = FuncFormatter(lambda value, _: points(value).replace(".0", ""))


def accuracy_plot(accuracy: Mapping[str, Any]) -> Plot | None:
    """Accuracy of base and trained with Wilson intervals, and their difference; None if nothing was evaluated."""
    models = [(name, colour) for name, colour in (("base", BASE), ("trained", TRAINED)) if accuracy.get(name)]
    if not models:
        return None
    difference = accuracy.get("difference")

    def draw(figure: Figure, narrow: bool) -> None:
        if difference is None:
            return _draw_accuracies(figure.subplots(), accuracy, models)
        if narrow:
            upper, lower = figure.subplots(2, 1, height_ratios=[2, 1.2], gridspec_kw={"hspace": 0.12})
        else:
            upper, lower = figure.subplots(1, 2, width_ratios=[1.7, 1], gridspec_kw={"wspace": 0.12})
        _draw_accuracies(upper, accuracy, models)
        _draw_difference(lower, difference)

    facts = [
        f"{name} {percent(accuracy[name]['accuracy'])}, interval {percent_interval(accuracy[name]['interval'])}"
        for name, _ in models
    ]
    if difference is not None:
        low, high = (points(bound) for bound in difference["interval"])
        facts.append(f"difference {points(difference['difference'])} points, interval {low} to {high}")
    caption = "Dots are the measured accuracies, lines their 95 % intervals (Wilson)."
    if difference is not None:
        caption += " The difference pairs the answers problem by problem; a line that crosses 0 settles nothing."
    heights = (190, 170 if difference is None else 270)
    return make_plot("accuracy", "Held-out accuracy", "; ".join(facts) + ".", caption, draw, heights)


def _draw_accuracies(axes: Axes, accuracy: Mapping[str, Any], models: Sequence[tuple[str, str]]) -> None:
    for row, (name, colour) in enumerate(models):
        value, interval = accuracy[name]["accuracy"], accuracy[name]["interval"]
        _draw_interval(axes, row, value, interval, colour, percent(value))
    axes.set_yticks(range(len(models)), [name for name, _ in models])
    _finish_rows(axes, len(models))
    axes.xaxis.set_major_formatter(_PERCENT_TICKS)
    axes.set_title("Accuracy", fontsize=12, color=MUTED, loc="left")
    axes.margins(x=0.15)


def _draw_difference(axes: Axes, difference: Mapping[str, Any]) -> None:
    value = difference["difference"]
    axes.axvline(0, color=MUTED, linewidth=1.2, linestyle=(0, (3, 3)))
    _draw_interval(axes, 0, value, difference["interval"], INK, points(value))
    axes.set_yticks([])
    _finish_rows(axes, 1)
    axes.xaxis.set_major_formatter(_POINT_TICKS)
    axes.set_title("Trained \N{MINUS SIGN} base, points", fontsize=12, color=MUTED, loc="left")
    axes.margins(x=0.15)


def _draw_interval(axes: Axes, row: int, value: float, interval: Sequence[float], colour: str, label: str) -> None:
    axes.plot(interval, [row, row], color=colour, linewidth=3, solid_capstyle="round")
    axes.plot([value], [row], "o", color=colour, markersize=10)
    axes.annotate(label, (value, row), (0, 11), textcoords="offset points", ha="center", color=INK, fontsize=13)


def _finish_rows(axes: Axes, n_rows: int) -> None:
    """Rows read from the top; the space above the first holds its label."""
    axes.set_ylim(n_rows - 0.5, -0.75)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)


def training_plot(training_log: Sequence[Mapping[str, Any]]) -> Plot | None:
    """Training reward by step with a running mean; None if no row of the log has a reward."""
    rows = sorted((row["step"], row["reward"]) for row in training_log if is_number(row.get("reward")))
    if not rows:
        return None
    steps, rewards = (np.asarray(column, dtype=np.float64) for column in zip(*rows, strict=True))
    window = max(1, len(rows) // 10)
    smooth = running_mean(rewards, window)

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        axes.plot(steps, rewards, color=REST, linewidth=1, marker="o" if len(rows) < 60 else "", markersize=3)
        axes.plot(steps, smooth, color=TRAINED, linewidth=2.5, marker="o" if len(rows) == 1 else "")
        axes.set(xlabel="optimiser step", ylabel="mean reward of the batch")
        axes.xaxis.set_major_locator(MaxNLocator(5 if narrow else 8, integer=True))
        axes.grid(axis="y")

    description = f"{len(rows)} steps; running mean {smooth[window - 1]:.2f} at first and {smooth[-1]:.2f} at last."
    caption = f"Grey: mean reward of each logged step. Blue: mean of the last {count(window)} logged steps."
    return make_plot("training", "Training reward by step", description, caption, draw, (280, 260))


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean of each entry and up to `window - 1` entries before it, (n,) to (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def stages_plot(stages: Mapping[str, Mapping[str, Any]]) -> Plot | None:
    """Bars of wall time and of peak memory by stage; None if no stage has a time."""
    ran = {name: stage for name, stage in stages.items() if is_number(stage.get("wall_seconds"))}
    if not ran:
        return None
    panels = [("Wall time", "wall_seconds", duration), ("Peak memory (RSS)", "peak_rss_bytes", memory)]
    if any(is_number(stage.get("peak_vram_bytes")) for stage in ran.values()):
        panels.append(("Peak GPU memory", "peak_vram_bytes", memory))

    def draw(figure: Figure, narrow: bool) -> None:
        shape = (len(panels), 1) if narrow else (1, len(panels))
        grid = figure.subplots(*shape, sharey=not narrow, squeeze=False)
        for axes, (title, key, label) in zip(grid.flat, panels, strict=True):
            values = [stage.get(key) for stage in ran.values()]
            _draw_bars(axes, list(ran), values, [label(value) for value in values])
            axes.set_title(title, fontsize=12, color=MUTED, loc="left")

    longest = max(ran, key=lambda name: ran[name]["wall_seconds"])
    description = f"{len(ran)} stages; the longest is {longest} with {duration(ran[longest]['wall_seconds'])}."
    rows_high = 40 + _ROW_UNITS * len(ran)
    caption = "Each panel has its own scale, from 0. A dash means not measured, or not planned."
    return make_plot(
        "stages", "Time and memory by stage", description, caption, draw, (rows_high, rows_high * len(panels))
    )


def _draw_bars(axes: Axes, names: list[str], values: Sequence[float | None], labels: list[str]) -> None:
    lengths = [value if value is not None and is_number(value) else 0.0 for value in values]
    longest = max(lengths) or 1.0
    axes.barh(range(len(names)), lengths, height=0.62, color=REST)
    for row, (length, label) in enumerate(zip(lengths, labels, strict=True)):
        axes.annotate(label, (length, row), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=11)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, longest * 1.5)  # room for the label of the longest bar
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_color(GRID)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
