"""A results table in LaTeX, for booktabs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lean_align.report.results_table import ResultsTable

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{EN DASH}": "--",
    "\N{MINUS SIGN}": "$-$",
    # After `\\\\` a bracket would be read as its optional argument.
    "[": "{[}",
    "]": "{]}",
} | {letter: f"\\{letter}" for letter in "&%$#_{}"}


def latex_escape(text: str) -> str:
    """Text with everything that LaTeX reads as a command made harmless; line breaks become spaces."""
    return "".join(_ESCAPED.get(letter, letter) for letter in " ".join(text.split()))


def latex_table(table: ResultsTable, caption: str) -> str:
    """A `table` environment with rules of booktabs.

    Parameters
    ----------
    table : ResultsTable
    caption : str
        Plain text.

    Returns
    -------
    str
        Needs `\\usepackage{booktabs}` and a Unicode-aware engine or input encoding for names beyond ASCII.
    """
    notes = [latex_escape(note) for note in (*table.notes, *table.sources.values())]
    lines = [
        r"\begin{table}[t]",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{latex_escape(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        *_head(table),
        *_body(table),
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip",
        r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
        *(rf"{note}\par" for note in notes),
        r"\end{minipage}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _head(table: ResultsTable) -> Iterator[str]:
    """Titles, and under them a line for each part of the protocol: n, metric, decoding."""
    yield _line(["Method", *(rf"\textbf{{{latex_escape(column.title)}}}" for column in table.columns)])
    for parts in zip_longest(*(column.protocol.replace("; ", ", ").split(", ") for column in table.columns)):
        yield _line(["", *map(_small, parts)])


def _body(table: ResultsTable) -> Iterator[str]:
    """Rows, with a rule and a heading before each group but the first."""
    headings = {"truncated": "Truncated completions", "paper": table.paper_heading or ""}
    before = None
    for row in table.rows:
        if row.kind != before:
            yield r"\midrule"
            if row.kind in headings:
                heading = latex_escape(headings[row.kind])
                yield rf"\multicolumn{{{len(table.columns) + 1}}}{{l}}{{\emph{{{heading}}}}} \\"
        before = row.kind
        yield _line([latex_escape(row.label), *(latex_escape(cell.value) for cell in row.cells)])
        if any(cell.interval for cell in row.cells):
            yield _line(["", *(_small(cell.interval and f"[{cell.interval}]") for cell in row.cells)])


def _small(text: str | None) -> str:
    return rf"{{\scriptsize {latex_escape(text)}}}" if text else ""


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
