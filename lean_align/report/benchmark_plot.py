"""Base and trained model on each benchmark, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lean_align.report.formatting import percent, percent_interval
from lean_align.report.svg import BASE, INK, TRAINED, Plot, make_plot

_MODELS = (("base", BASE, -0.17), ("trained", TRAINED, 0.17))
_ROW_UNITS = 46


def benchmarks_plot(benchmarks: Mapping[str, Any]) -> Plot | None:
    """Dots and intervals of base and trained by benchmark; None where neither was evaluated.

    Parameters
    ----------
    benchmarks : mapping
        `benchmarks` of summary.json.
    """
    rows = [
        (str(tree.get("title") or name), [(model, tree["models"].get(model)) for model, _, _ in _MODELS])
        for name, tree in benchmarks.items()
    ]
    rows = [(title, scores) for title, scores in rows if any(score for _, score in scores)]
    if not rows:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for row, (_, scores) in enumerate(rows):
            _draw_row(axes, row, scores)
        _finish(axes, [title for title, _ in rows])

    facts = [
        f"{title}, {model} {percent(score['value'])}, interval {percent_interval(score['interval'])}"
        for title, scores in rows
        for model, score in scores
        if score
    ]
    caption = "Dots are the measured figures, lines their 95 % intervals: orange the base, blue the trained model."
    height = 40 + _ROW_UNITS * len(rows)
    return make_plot("benchmarks-plot", "Benchmarks", "; ".join(facts) + ".", caption, draw, (height, height))


def _draw_row(axes: Axes, row: int, scores: Sequence[tuple[str, Mapping[str, Any] | None]]) -> None:
    for (_, colour, shift), (_, score) in zip(_MODELS, scores, strict=True):
        if score:
            axes.plot(
                score["interval"], [row + shift] * 2, color=colour, linewidth=3, solid_capstyle="round", clip_on=False
            )
            axes.plot([score["value"]], [row + shift], "o", color=colour, markersize=8, clip_on=False)


def _finish(axes: Axes, titles: Sequence[str]) -> None:
    axes.set_yticks(range(len(titles)), titles)
    axes.set_ylim(len(titles) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
