"""A table of text, and how it looks in Markdown, in LaTeX and on a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

_LATEX = {
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


@dataclass(frozen=True)
class Cell:
    """The text of a cell, and the small text under it: `76.0` and `[74.1, 77.9]`."""

    value: str = ""
    under: str = ""

    @property
    def text(self) -> str:
        """Both on one line."""
        return f"{self.value} {self.under}".rstrip()


@dataclass(frozen=True)
class Column:
    """Head of a column.

    Attributes
    ----------
    title, under : str
        The second stands small under the first: `n = 83; avg@8, T 0.6, top_p 0.95`.
    words : bool
        Whether its cells hold words, to the left; numbers stand to the right.
    name : str
        What `Table.sources` has it under; a column without a source needs none.
    """

    title: str
    under: str = ""
    words: bool = False
    name: str = ""

    @property
    def parts(self) -> list[str]:
        """What goes under the title, one line each: `n = 83`, `avg@8`, `T 0.6`, `top_p 0.95`."""
        return self.under.replace("; ", ", ").split(", ") if self.under else []


@dataclass(frozen=True)
class Row:
    """Cells, the kind of row (rows of one kind are kept together), and whether it stands out, as a reference does."""

    cells: tuple[Cell, ...]
    kind: str = ""
    marked: bool = False


@dataclass(frozen=True)
class Table:
    """A finished table; the first column names the row.

    Attributes
    ----------
    columns : tuple of Column
    rows : tuple of Row
    heading, caption : str
    groups : mapping of str to str
        Headings of the rows of a kind.
    notes : tuple of str
        Sentences under the table.
    sources : mapping of str to str
        Footnotes by name of the column.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    heading: str = ""
    caption: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_texts(cls, heads: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[int] = (0,)) -> Table:
        """A table of plain texts.

        Parameters
        ----------
        heads : sequence of str
            All empty for a table without a head.
        rows : iterable of sequence of str
        words : sequence of int
            Columns that hold words; -1 is the last.
        """
        places = {place % len(heads) for place in words}
        columns = tuple(Column(head, words=place in places) for place, head in enumerate(heads))
        return cls(columns, tuple(Row(tuple(map(Cell, row))) for row in rows))

    def of_kind(self, kind: str) -> list[Row]:
        """Rows of one kind."""
        return [row for row in self.rows if row.kind == kind]

    def text(self, rule: bool = True) -> list[str]:
        """Lines for a terminal: columns as wide as their longest cell, with or without a rule under the head."""
        heads = [column.title for column in self.columns]
        texts = [*([heads] if any(heads) else []), *([cell.text for cell in row.cells] for row in self.rows)]
        shown = [[printable(text) for text in row] for row in texts]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        lines = [
            "  ".join(
                text.ljust(width) if column.words else text.rjust(width)
                for text, width, column in zip(row, widths, self.columns, strict=True)
            )
            for row in shown
        ]
        if rule and any(heads):
            lines.insert(1, "-" * len(lines[0]))
        return [line.rstrip() for line in lines]

    def markdown(self) -> str:
        """GitHub's Markdown: heading, caption, table, notes, and a footnote for each source."""
        heads = [self._markdown_head(column) for column in self.columns]
        rule = ["---" if column.words else "---:" for column in self.columns]
        rows = [_markdown_cells(row) for row in self.rows]
        parts = [f"## {self.heading}", markdown_escape(self.caption)] if self.heading else []
        parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)))
        parts.append("\n".join(f"- {markdown_escape(note)}" for note in self.notes))
        parts.append("\n".join(f"[^{name}]: {markdown_escape(text)}" for name, text in self.sources.items()))
        return "\n\n".join(part for part in parts if part) + "\n"

    def _markdown_head(self, column: Column) -> str:
        footnote = f"[^{column.name}]" if column.name in self.sources else ""
        under = f"<br>{markdown_escape(column.under)}" if column.under else ""
        return f"{markdown_escape(column.title)}{footnote}{under}"

    def latex(self, caption: str = "") -> str:
        """A `table` environment with booktabs rules; notes and sources go under it.

        Parameters
        ----------
        caption : str
            Plain text; the table's own when not given.

        Returns
        -------
        str
            Needs `\\usepackage{booktabs}` and a Unicode-aware engine or input encoding for names beyond ASCII.
        """
        notes = [latex_escape(note) for note in (*self.notes, *self.sources.values())]
        lines = [
            r"\begin{table}[t]",
            r"\centering\small\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{latex_escape(caption or self.caption)}}}",
            rf"\begin{{tabular}}{{{''.join('l' if column.words else 'r' for column in self.columns)}}}",
            r"\toprule",
            *self._latex_head(),
            *self._latex_body(),
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
            *(rf"{note}\par" for note in notes),
            r"\end{minipage}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def _latex_head(self) -> Iterator[str]:
        """Titles, and under them a line for each part."""
        first, *others = self.columns
        yield _latex_line([latex_escape(first.title), *(rf"\textbf{{{latex_escape(c.title)}}}" for c in others)])
        for parts in zip_longest(*(column.parts for column in self.columns)):
            yield _latex_line(map(_small, parts))

    def _latex_body(self) -> Iterator[str]:
        """Rows, with a rule and a heading before each kind but the first."""
        before = None
        for row in self.rows:
            if row.kind != before:
                yield r"\midrule"
                if row.kind in self.groups:
                    heading = latex_escape(self.groups[row.kind])
                    yield rf"\multicolumn{{{len(self.columns)}}}{{l}}{{\emph{{{heading}}}}} \\"
            before = row.kind
            yield _latex_line(latex_escape(cell.value) for cell in row.cells)
            if any(cell.under for cell in row.cells):
                yield _latex_line(_small(cell.under) for cell in row.cells)


def _markdown_cells(row: Row) -> list[str]:
    """Texts of a row: bold where it stands out, the first after the kind of the row."""
    texts = [markdown_escape(cell.text) for cell in row.cells]
    if row.marked:
        texts = [f"**{text}**" if text else "" for text in texts]
    return [f"*{row.kind}:* {texts[0]}", *texts[1:]] if row.kind else texts


def printable(text: str) -> str:
    """Without control characters, which could move the terminal's cursor."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def markdown_escape(text: str) -> str:
    """Text that Markdown shows as it is, in one line: it ends no cell and starts no HTML, code, emphasis or link."""
    flat = re.sub(r"([\\`*_<>|])", r"\\\1", " ".join(text.split()))
    return flat.replace("](", "]\\(")  # an interval's brackets are plain text; a link needs both


def latex_escape(text: str) -> str:
    """Text with everything that LaTeX reads as a command made harmless; line breaks become spaces."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def _small(text: str | None) -> str:
    return rf"{{\scriptsize {latex_escape(text)}}}" if text else ""


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"
