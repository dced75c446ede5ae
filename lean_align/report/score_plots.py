"""Plots of what was chosen from the pool, and why."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from lean_align.report.formatting import count, number
from lean_align.report.summary import ReportScores
from lean_align.report.svg import INK, MUTED, REST, SELECTED, Plot, make_plot

MAX_DOTS = 3000
"""Dots drawn of the chosen and of the others; the caption says when a sample stands for more."""
_GOLDEN = 0.6180339887498949
_MANY_LEVELS = 50
_THOUSANDS = StrMethodFormatter("{x:,.0f}")


def alignment_plot(scores: ReportScores) -> Plot:
    """Learnability against alignment, one dot per prompt, with the line of equal score at the cut."""
    x, half_width = spread_columns(scores.learnability)
    chosen, others = (thinned(np.flatnonzero(mask), scores.rank) for mask in (scores.selected, ~scores.selected))
    cut = scores.cut_score

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        side = 3.5 if narrow else 4.5
        y = scores.alignment
        axes.plot(x[others], y[others], "o", color=REST, markersize=side, alpha=0.6, mew=0, label="not chosen")
        axes.plot(x[chosen], y[chosen], "o", color=SELECTED, markersize=side, alpha=0.8, mew=0, label="chosen")
        if cut is not None and cut > 0:
            _draw_equal_score(axes, cut, scores.alignment)
        axes.set(xlabel="learnability  V = p (1 \N{MINUS SIGN} p)", ylabel="alignment", xlim=(-0.012, 0.262))
        axes.set_xticks(np.linspace(0, 0.25, 6))
        axes.grid()
        _legend(figure)

    description = (
        f"{count(scores.n)} prompts, {count(scores.n_selected)} chosen. Mean learnability of the chosen "
        f"{_mean(scores.learnability, scores.selected)}, of the others {_mean(scores.learnability, ~scores.selected)}; "
        f"mean alignment {_mean(scores.alignment, scores.selected)} and {_mean(scores.alignment, ~scores.selected)}."
    )
    caption = _alignment_caption(scores, half_width, len(chosen), len(others))
    return make_plot("alignment", "Learnability against alignment", description, caption, draw, (340, 320))


def _alignment_caption(scores: ReportScores, half_width: float, n_chosen: int, n_others: int) -> str:
    parts = ["One dot per prompt."]
    if n_chosen + n_others < scores.n:
        parts.append(
            f"To keep the page light, {_of(n_chosen, scores.n_selected)} chosen and "
            f"{_of(n_others, scores.n - scores.n_selected)} others are drawn, evenly spaced by rank."
        )
    if half_width > 0:
        parts.append("Learnability takes few values, so dots of equal value are spread sideways.")
    if scores.cut_score is not None and scores.cut_score > 0:
        parts.append("On the dashed line the score, learnability times alignment, equals the lowest chosen score.")
    without_signal = int((scores.learnability == 0).sum())
    if without_signal:
        parts.append(f"{count(without_signal)} prompts with learnability 0 have no gradient and lie at 0.")
    return " ".join(parts)


def _of(n: int, whole: int) -> str:
    return f"all {count(whole)}" if n == whole else f"{count(n)} of the {count(whole)}"


def _draw_equal_score(axes: Axes, cut: float, alignment: NDArray[np.float64]) -> None:
    top = float(np.nanmax(alignment)) * 1.06
    learnability = np.linspace(max(cut / top, 1e-6), 0.262, 200)
    axes.plot(learnability, cut / learnability, color=INK, linewidth=1.3, linestyle=(0, (4, 3)), label="cut")
    axes.set_ylim(top=top)


def spread_columns(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Shift equal values apart sideways, without chance.

    Parameters
    ----------
    values : (n,) float64

    Returns
    -------
    shifted : (n,) float64
    half_width : float
        Largest shift; 0 where the values are many and need none.
    """
    levels = np.unique(np.round(values, 9))
    if not 1 < len(levels) <= _MANY_LEVELS:
        return values, 0.0
    half_width = min(0.36 * float(np.diff(levels).min()), 0.006)
    # Multiples of the golden ratio fill the column evenly, whatever their number.
    fractions = (np.arange(len(values)) * _GOLDEN) % 1.0
    return values + half_width * (2.0 * fractions - 1.0), half_width


def thinned(indices: NDArray[np.int64], rank: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Evenly spaced ones, by rank where there are ranks, at most MAX_DOTS."""
    if len(indices) <= MAX_DOTS:
        return indices
    ordered = indices if rank is None else indices[np.argsort(rank[indices])]
    return ordered[np.linspace(0, len(ordered) - 1, MAX_DOTS).round().astype(np.int64)]


def success_plot(scores: ReportScores, num_generations: int | None) -> Plot:
    """Stacked histogram of success rates, chosen below and not chosen above, one bar per possible rate."""
    n_steps = num_generations or 10
    # an unbiased estimate of a sequential allocation lies between two bars, and only a rate of 0 or 1 is at an end
    bars = np.clip(np.rint(scores.success_rate * n_steps), 0, n_steps).astype(np.int64)
    inside = (scores.success_rate > 0) & (scores.success_rate < 1)
    bars[inside] = np.clip(bars[inside], 1, n_steps - 1)
    chosen, others = (np.bincount(bars[mask], minlength=n_steps + 1) for mask in (scores.selected, ~scores.selected))
    centres = np.arange(n_steps + 1) / n_steps

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        width = 0.86 / n_steps
        axes.bar(centres, others, width, bottom=chosen, color=REST, label="not chosen")
        axes.bar(centres, chosen, width, color=SELECTED, label="chosen")
        axes.set(xlabel="success rate p", ylabel="prompts")
        ticks = centres if n_steps <= 8 and not narrow else np.linspace(0, 1, 5)
        axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(_THOUSANDS)
        axes.grid(axis="y")
        _legend(figure)

    description = (
        f"Mean success rate of the pool {scores.success_rate.mean():.2f}, of the chosen "
        f"{_mean(scores.success_rate, scores.selected)}. {count(others[0] + chosen[0])} prompts are never solved, "
        f"{count(others[-1] + chosen[-1])} always."
    )
    caption = (
        "Share of a prompt's completions that are right before training, as estimated. A whole bar counts the pool; "
        "the green part was chosen. The two ends, never and always solved, give no gradient."
    )
    return make_plot("success", "Success rates of the pool and of the chosen", description, caption, draw, (280, 270))


def rank_plot(scores: ReportScores) -> Plot:
    """Score by rank with the cut at N."""
    order = np.argsort(scores.rank)
    rank, score, chosen = (scores.rank[order], scores.score[order], scores.selected[order])
    n_selected, cut = scores.n_selected, scores.cut_score

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        axes.plot(rank, score, color=REST, linewidth=2, label="not chosen")
        if cut is None:
            drawn = thinned(np.flatnonzero(chosen), rank)
            axes.plot(rank[drawn], score[drawn], "o", color=SELECTED, markersize=4, mew=0, label="chosen")
        else:
            _draw_cut(axes, rank, score, n_selected, scores.n)
        axes.set(xlabel="rank", ylabel="score")
        axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 8, integer=True))
        axes.xaxis.set_major_formatter(_THOUSANDS)
        axes.grid(axis="y")
        _legend(figure)

    description = f"Scores fall from {number(score[0])} at rank 1 to {number(score[-1])} at rank {count(scores.n)}."
    if cut is None:
        caption = "The choice does not follow the score here, so the chosen prompts lie all along the curve."
    else:
        description += f" The cut is at rank {count(n_selected)}, score {number(cut)}."
        caption = (
            "Where the curve is steep at the cut, the choice is clear; where it is flat, the prompts on both sides "
            "are almost equally good."
        )
    return make_plot("ranks", "Score by rank", description, caption, draw, (280, 270))


def _draw_cut(axes: Axes, rank: NDArray[np.int64], score: NDArray[np.float64], n_selected: int, pool_size: int) -> None:
    axes.fill_between(rank[:n_selected], score[:n_selected], 0, color=SELECTED, alpha=0.2, linewidth=0)
    axes.plot(rank[:n_selected], score[:n_selected], color=SELECTED, linewidth=3, label="chosen")
    axes.axvline(n_selected, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
    left = n_selected > pool_size / 2
    axes.annotate(
        f"cut at N = {count(n_selected)}",
        (n_selected, float(np.nanmax(score))),
        (-6 if left else 6, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top",
        color=INK,
    )


def _legend(figure: Figure) -> None:
    figure.legend(loc="outside upper left", ncols=3, handletextpad=0.4, columnspacing=1.2, labelcolor=INK)


def _mean(values: NDArray[np.float64], mask: NDArray[np.bool_]) -> str:
    return number(float(values[mask].mean())) if mask.any() else "none"
