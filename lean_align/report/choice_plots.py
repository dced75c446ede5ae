"""Plots of what the methods choose: overlap of choices, learnability against alignment, lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from lean_align.report.comparison import Comparison, Lengths, Method, Overlap, Scatter
from lean_align.report.comparison_plots import cut
from lean_align.report.formatting import count
from lean_align.report.score_plots import spread_columns, thinned
from lean_align.report.svg import INK, MUTED, REST, SELECTED, TRAINED, Plot, make_plot

_MAX_NUMBERED = 26
_STRONGEST = 0.6  # a stronger colour would hide the number on it


def overlap_plot(found: Comparison) -> Plot | None:
    """Heat map of the share of prompts that two choices have in common."""
    overlap = found.overlap or Overlap()
    labels, share = list(overlap.labels), np.array(overlap.share, dtype=np.float64)
    if not labels or share.shape != (len(labels), len(labels)):
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        _draw_cells(axes, share, numbered=not narrow and len(labels) <= _MAX_NUMBERED)
        size, places = 9 if narrow else 11, range(len(labels))
        names = [f"{cut(label, 22 if narrow else 30)}  {row}" for row, label in enumerate(labels, start=1)]
        axes.set_yticks(places, names, fontsize=size)
        step = 2 if narrow and len(labels) > 12 else 1
        axes.set_xticks(places[::step], [str(row + 1) for row in places[::step]], fontsize=size)
        axes.xaxis.tick_top()
        axes.tick_params(length=0, labelcolor=INK)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)

    caption = (
        "Share of the smaller choice that is also in the other, as a mean over the seeds: the stronger the colour, "
        "the larger the share, in percent. Columns are numbered like the rows. The table below has the numbers."
    )
    height = 50 + 22 * len(labels)
    return make_plot(
        "overlap", "Overlap of choices", _overlap_facts(found.reference, labels, share), caption, draw, (height, height)
    )


def _overlap_facts(reference: str, labels: Sequence[str], share: NDArray[np.float64]) -> str:
    if reference not in labels:
        return f"{len(labels)} choices; the table below has the numbers."
    row = share[labels.index(reference)]
    known = [(label, value) for label, value in zip(labels, row, strict=True) if np.isfinite(value)]
    parts = [f"{label} {100 * value:.0f} %" for label, value in known if label != reference]
    return f"{reference} shares with: {'; '.join(parts) or 'no other'}."


def _draw_cells(axes: Axes, share: NDArray[np.float64], numbered: bool) -> None:
    n = len(share)
    for row, column in np.ndindex(n, n):
        value = float(share[row, column])
        if not np.isfinite(value):
            continue
        alpha = round(_STRONGEST * min(max(value, 0.0), 1.0), 2)
        corner = (column - 0.46, row - 0.46)
        axes.add_patch(Rectangle(corner, 0.92, 0.92, color=SELECTED, alpha=alpha, linewidth=0, clip_on=False))
        if numbered:
            text = f"{100 * value:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=9 if n > 12 else 11, color=INK)
    axes.set_xlim(-0.5, n - 0.5)
    axes.set_ylim(n - 0.5, -0.5)


@dataclass(frozen=True)
class _Dots:
    learnability: NDArray[np.float64]
    alignment: NDArray[np.float64]
    chosen: NDArray[np.bool_]
    kind: NDArray[np.str_] | None

    @property
    def kinds(self) -> list[str]:
        """Kinds of prompts in the order they appear; one without a name where the pool has none."""
        return [""] if self.kind is None else list(dict.fromkeys(self.kind.tolist()))

    def of(self, kind: str) -> NDArray[np.bool_]:
        return np.ones(len(self.chosen), dtype=np.bool_) if self.kind is None else self.kind == kind


def scatter_plot(found: Comparison) -> Plot | None:
    """Learnability against alignment with the chosen prompts marked, one panel per kind of prompt."""
    given = found.scatter or Scatter()
    dots = _dots(given)
    if dots is None:
        return None
    x, half_width = spread_columns(dots.learnability)
    drawn = _drawn(dots.chosen) | _drawn(~dots.chosen)

    def draw(figure: Figure, narrow: bool) -> None:
        grid = _panels(figure, len(dots.kinds), 2 if narrow else 3)
        for axes, kind in zip(grid, dots.kinds, strict=False):
            _draw_dots(axes, x, dots, dots.of(kind) & drawn, small=dots.kind is not None)
            _title(axes, f"{cut(kind, 18)} {_chosen_of(dots, kind)}" if kind else "")
        figure.supxlabel("learnability V", fontsize=12, color=MUTED)
        figure.supylabel("alignment", fontsize=12, color=MUTED)
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper left", ncols=2, handletextpad=0.4, markerscale=1.8, labelcolor=INK
        )

    rows = [ceil(len(dots.kinds) / columns) for columns in (3, 2)]
    heights = (340, 320) if dots.kind is None else (80 + 150 * rows[0], 80 + 140 * rows[1])
    facts = [f"{kind or 'all prompts'}: {_chosen_of(dots, kind)} chosen" for kind in dots.kinds]
    title = f"Learnability against alignment, {given.label or found.reference}"
    return make_plot(
        "scatter", title, "; ".join(facts) + ".", _scatter_caption(given.seed, dots, half_width, drawn), draw, heights
    )


def _dots(given: Scatter) -> _Dots | None:
    columns = [np.array(column, dtype=np.float64) for column in (given.learnability, given.alignment, given.chosen)]
    kind = given.kind
    if len({len(column) for column in columns}) != 1 or (kind and len(kind) != len(columns[0])):
        return None
    known = np.isfinite(columns).all(axis=0)
    if not known.any():
        return None
    learnability, alignment, chosen = (column[known] for column in columns)
    names = np.array([str(name or "no kind") for name in kind])[known] if kind else None
    return _Dots(learnability, alignment, chosen > 0, names)


def _drawn(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Evenly spaced ones of `mask`, at most MAX_DOTS."""
    drawn = np.zeros_like(mask)
    drawn[thinned(np.flatnonzero(mask))] = True
    return drawn


def _chosen_of(dots: _Dots, kind: str) -> str:
    of = dots.of(kind)
    return f"{count(int((dots.chosen & of).sum()))} of {count(int(of.sum()))}"


def _draw_dots(axes: Axes, x: NDArray[np.float64], dots: _Dots, mask: NDArray[np.bool_], small: bool) -> None:
    side = 3.0 if small else 4.5
    for which, colour, marker, label in (
        (~dots.chosen, REST, "o", "not chosen"),
        (dots.chosen, SELECTED, "D", "chosen"),
    ):
        of = which & mask
        axes.plot(x[of], dots.alignment[of], marker, color=colour, markersize=side, alpha=0.75, mew=0, label=label)
    axes.set_xlim(-0.015, 0.265)
    axes.set_xticks([0, 0.1, 0.2])
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid()


def _scatter_caption(seed: int | None, dots: _Dots, half_width: float, drawn: NDArray[np.bool_]) -> str:
    parts = [f"One dot per prompt{'' if seed is None else f', seed {seed}'}. Green: chosen."]
    if dots.kind is not None:
        parts.append("One panel per kind of prompt, with how many of that kind are chosen.")
    if half_width > 0:
        parts.append("Dots of equal learnability are spread sideways.")
    if not drawn.all():
        parts.append(f"To keep the page light, {count(int(drawn.sum()))} of {count(len(drawn))} prompts are drawn.")
    return " ".join(parts)


def length_plot(found: Comparison) -> Plot | None:
    """Histograms of response length of each choice, with the reference's as a line in every panel."""
    histograms = {each.label: shares for each in found.methods if (shares := _histogram(each)) is not None}
    if not histograms:
        return None
    reference = histograms.get(found.reference)

    def draw(figure: Figure, narrow: bool) -> None:
        grid = _panels(figure, len(histograms), 2 if narrow else 4)
        for axes, (label, (edges, shares)) in zip(grid, histograms.items(), strict=False):
            colour = TRAINED if label == found.reference else REST
            axes.stairs(shares, edges, fill=True, color=colour, linewidth=0)
            if reference is not None and label != found.reference:
                axes.stairs(reference[1], reference[0], color=TRAINED, linewidth=1.3, baseline=None)
            axes.set_yticks([])
            axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            axes.spines["left"].set_visible(False)
            _title(axes, cut(label, 25), 9.5)
        figure.supxlabel("mean tokens of a prompt's completions", fontsize=11, color=MUTED)

    rows = [ceil(len(histograms) / columns) for columns in (4, 2)]
    means = [f"{each.label} {each.mean_tokens:.1f}" for each in found.methods if each.mean_tokens is not None]
    caption = (
        "Share of a choice by response length, over all seeds; all panels have the same scales. Blue line: the choice "
        f"of {found.reference}."
    )
    heights = (50 + 88 * rows[0], 50 + 88 * rows[1])
    facts = f"Mean tokens of the choices: {'; '.join(means) or 'not recorded'}."
    return make_plot("lengths", "Response length of each choice", facts, caption, draw, heights)


def _histogram(method: Method) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Edges (n + 1,) and shares (n,) that add up to 1; None without a count."""
    found = method.lengths or Lengths()
    edges, counts = (np.array(column, dtype=np.float64) for column in (found.edges, found.counts))
    if len(edges) != len(counts) + 1 or not np.isfinite(edges).all() or not np.nansum(counts) > 0:
        return None
    counts = np.nan_to_num(counts)
    return edges, counts / counts.sum()


def _panels(figure: Figure, n: int, columns: int) -> list[Axes]:
    """Axes of `n` panels with common scales; the places left over are empty."""
    columns = min(columns, n)
    grid: Any = figure.subplots(ceil(n / columns), columns, sharex=True, sharey=True, squeeze=False)
    panels: list[Axes] = list(grid.flat)
    for position, axes in enumerate(panels):
        # A panel above an empty place carries the tick labels that the shared axis would leave to that place.
        axes.tick_params(axis="x", labelbottom=position + columns >= n, labelsize=9)
        axes.tick_params(axis="y", labelsize=9)
        if position >= n:
            axes.set_axis_off()
    return panels[:n]


def _title(axes: Axes, text: str, size: float = 10.5) -> None:
    axes.set_title(text, fontsize=size, color=INK, loc="left", pad=3)
