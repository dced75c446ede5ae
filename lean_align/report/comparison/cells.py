"""Tables of text that come out as HTML and as Markdown, and the numbers in their cells."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lean_align.report.comparison.records import bounds
from lean_align.report.formatting import points


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, and what stands small under it: `76.0` and `[74.1, 77.9]`."""

    value: str
    under: str = ""

    @property
    def text(self) -> str:
        """Both in one line."""
        return f"{self.value} {self.under}".rstrip()


@dataclass(frozen=True)
class Table:
    """A finished table; the first column names the row.

    Attributes
    ----------
    heading, caption : str
    heads : tuple of str
    rows : tuple of tuple of Cell
    text_columns : frozenset of int
        Columns that hold words; the others hold numbers and are aligned to the right.
    marked : frozenset of int
        Rows that stand out: the reference.
    """

    heading: str
    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: frozenset[int] = frozenset({0})
    marked: frozenset[int] = frozenset()

    def markdown(self) -> str:
        """GitHub's Markdown: heading, caption and table."""
        rule = ["---" if column in self.text_columns else "---:" for column in range(len(self.heads))]
        rows = [[_bold(cell.text, row in self.marked) for cell in cells] for row, cells in enumerate(self.rows)]
        lines = [f"| {' | '.join(cells)} |" for cells in (map(escaped, self.heads), rule, *rows)]
        return "\n".join([f"## {self.heading}", "", escaped(self.caption), "", *lines, ""])


def _bold(text: str, is_marked: bool) -> str:
    return f"**{escaped(text)}**" if is_marked and text else escaped(text)


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    flat = re.sub(r"([\\`*_<>|])", r"\\\1", " ".join(text.split()))
    return flat.replace("](", "]\\(")  # an interval's brackets are plain text; a link needs both


def share(value: float | None, gap: str) -> str:
    """A share as a percentage without its sign: `76.0`."""
    return gap if value is None else f"{100 * value:.1f}"


def share_interval(interval: object) -> str:
    """Two shares as `[74.1, 77.9]`; nothing where there is no interval."""
    ends = bounds(interval)
    return "" if ends is None else f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"


def difference(value: float | None, gap: str) -> str:
    """A difference of shares in points, signed."""
    return gap if value is None else points(value)


def difference_interval(interval: object, gap: str = "") -> str:
    """Two differences as `[−3.1, +0.7]`."""
    ends = bounds(interval)
    return gap if ends is None else f"[{points(ends[0])}, {points(ends[1])}]"


def coefficient(value: float | None, gap: str) -> str:
    """A correlation with two decimals, signed."""
    return gap if value is None else f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def bare_p(value: float | None, gap: str) -> str:
    """`0.012`, or `< 0.001` where more digits would say nothing; the gap, never 0, where there is none."""
    if value is None:
        return gap
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def score(won: int | None, lost: int | None, gap: str) -> str:
    """Wins and losses as `2 : 6`."""
    return gap if won is None or lost is None else f"{won:,} : {lost:,}"
