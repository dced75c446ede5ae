"""Plots of accuracy, benchmarks, training reward, time and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from lean_align.report.formatting import count, duration, is_number, memory, percent, percent_interval, points
from lean_align.report.summary import Accuracy, Benchmark, Score, StageCost
from lean_align.report.svg import BASE, GRID, INK, MUTED, POINT_TICKS, REST, TRAINED, Plot, make_plot, name_rows
from lean_align.types import PairedDifference, Proportion

_ROW_UNITS = 24  # height of one bar with its gap
_BENCHMARK_UNITS = 46
_MODELS = (("base", BASE, -0.17), ("trained", TRAINED, 0.17))
_PERCENT_TICKS = FuncFormatter(lambda value, _: f"{100 * value:.0f} %")


def accuracy_plot(accuracy: Accuracy) -> Plot | None:
    """Accuracy of base and trained with Wilson intervals, and their difference; None if nothing was evaluated."""
    both = (("base", accuracy.base, BASE), ("trained", accuracy.trained, TRAINED))
    models = [(name, found, colour) for name, found, colour in both if found is not None]
    if not models:
        return None
    difference = accuracy.difference

    def draw(figure: Figure, narrow: bool) -> None:
        if difference is None:
            return _draw_accuracies(figure.subplots(), models)
        if narrow:
            upper, lower = figure.subplots(2, 1, height_ratios=[2, 1.2], gridspec_kw={"hspace": 0.12})
        else:
            upper, lower = figure.subplots(1, 2, width_ratios=[1.7, 1], gridspec_kw={"wspace": 0.12})
        _draw_accuracies(upper, models)
        _draw_difference(lower, difference)

    facts = [
        f"{name} {percent(found.accuracy)}, interval {percent_interval(found.interval)}" for name, found, _ in models
    ]
    if difference is not None:
        low, high = (points(bound) for bound in difference.interval)
        facts.append(f"difference {points(difference.difference)} points, interval {low} to {high}")
    caption = "Dots are the measured accuracies, lines their 95 % intervals (Wilson)."
    if difference is not None:
        caption += " The difference pairs the answers problem by problem; a line that crosses 0 settles nothing."
    heights = (190, 170 if difference is None else 270)
    return make_plot("accuracy", "Held-out accuracy", "; ".join(facts) + ".", caption, draw, heights)


def _draw_accuracies(axes: Axes, models: Sequence[tuple[str, Proportion, str]]) -> None:
    for row, (_, found, colour) in enumerate(models):
        _draw_interval(axes, row, found.accuracy, found.interval, colour, percent(found.accuracy))
    _finish_rows(axes, [name for name, _, _ in models])
    axes.xaxis.set_major_formatter(_PERCENT_TICKS)
    axes.set_title("Accuracy", fontsize=12, color=MUTED, loc="left")
    axes.margins(x=0.15)


def _draw_difference(axes: Axes, difference: PairedDifference) -> None:
    value = difference.difference
    axes.axvline(0, color=MUTED, linewidth=1.2, linestyle=(0, (3, 3)))
    _draw_interval(axes, 0, value, difference.interval, INK, points(value))
    _finish_rows(axes, [""])
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(POINT_TICKS)
    axes.set_title("Trained \N{MINUS SIGN} base, points", fontsize=12, color=MUTED, loc="left")
    axes.margins(x=0.15)


def _draw_interval(axes: Axes, row: int, value: float, interval: Sequence[float], colour: str, label: str) -> None:
    axes.plot(interval, [row, row], color=colour, linewidth=3, solid_capstyle="round")
    axes.plot([value], [row], "o", color=colour, markersize=10)
    axes.annotate(label, (value, row), (0, 11), textcoords="offset points", ha="center", color=INK, fontsize=13)


def _finish_rows(axes: Axes, names: Sequence[str]) -> None:
    """The space above the first row holds its label."""
    name_rows(axes, names, -0.75)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def benchmarks_plot(benchmarks: Mapping[str, Benchmark]) -> Plot | None:
    """Dots and intervals of base and trained by benchmark; None where neither was evaluated."""
    rows = [
        (benchmark.title or name, [(model, benchmark.models.get(model)) for model, _, _ in _MODELS])
        for name, benchmark in benchmarks.items()
    ]
    rows = [(title, scores) for title, scores in rows if any(score for _, score in scores)]
    if not rows:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for row, (_, scores) in enumerate(rows):
            _draw_scores(axes, row, scores)
        name_rows(axes, [title for title, _ in rows])
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(_PERCENT_TICKS)

    facts = [
        f"{title}, {model} {percent(score.value)}, interval {percent_interval(score.interval)}"
        for title, scores in rows
        for model, score in scores
        if score
    ]
    caption = "Dots are the measured figures, lines their 95 % intervals: orange the base, blue the trained model."
    height = 40 + _BENCHMARK_UNITS * len(rows)
    return make_plot("benchmarks-plot", "Benchmarks", "; ".join(facts) + ".", caption, draw, (height, height))


def _draw_scores(axes: Axes, row: int, scores: Sequence[tuple[str, Score | None]]) -> None:
    for (_, colour, shift), (_, score) in zip(_MODELS, scores, strict=True):
        if score:
            axes.plot(
                score.interval, [row + shift] * 2, color=colour, linewidth=3, solid_capstyle="round", clip_on=False
            )
            axes.plot([score.value], [row + shift], "o", color=colour, markersize=8, clip_on=False)


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


def stages_plot(stages: Mapping[str, StageCost]) -> Plot | None:
    """Bars of wall time and of peak memory by stage; None if no stage has a time."""
    ran = {name: stage.wall_seconds for name, stage in stages.items() if is_number(stage.wall_seconds)}
    if not ran:
        return None
    panels = [("Wall time", "wall_seconds", duration), ("Peak memory (RSS)", "peak_rss_bytes", memory)]
    if any(is_number(stages[name].peak_vram_bytes) for name in ran):
        panels.append(("Peak GPU memory", "peak_vram_bytes", memory))

    def draw(figure: Figure, narrow: bool) -> None:
        shape = (len(panels), 1) if narrow else (1, len(panels))
        grid = figure.subplots(*shape, sharey=not narrow, squeeze=False)
        for axes, (title, key, label) in zip(grid.flat, panels, strict=True):
            values = [getattr(stages[name], key) for name in ran]
            _draw_bars(axes, list(ran), values, [label(value) for value in values])
            axes.set_title(title, fontsize=12, color=MUTED, loc="left")

    longest = max(ran, key=lambda name: ran[name] or 0.0)
    description = f"{len(ran)} stages; the longest is {longest} with {duration(ran[longest])}."
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
