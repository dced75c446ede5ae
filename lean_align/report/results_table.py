"""Methods by benchmarks, as the paper's tables have them: in Markdown, in LaTeX, and as rows for the report.

Differs from the paper's tables in:
1. every figure of ours has its 95 % interval, and its column says n, metric and decoding;
2. completions that the token limit cut off are counted in rows of their own;
3. the paper's figures stand apart, named as the paper's, with its model and without an interval;
4. a method that lacks a benchmark has a dash there and no mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from lean_align.errors import DataError
from lean_align.report.formatting import MISSING, count
from lean_align.report.latex import latex_table
from lean_align.report.methods import BenchmarkFacts, Decoding, MethodResults, methods_from_summary
from lean_align.report.paper import PaperTable
from lean_align.report.table_notes import table_notes
from lean_align.types import BenchmarkScore, MeanScore

__all__ = ["MethodResults", "ResultsTable", "methods_from_summary", "results_table"]


@dataclass(frozen=True)
class Cell:
    """A figure as it is printed, and its interval where it has one: `31.3` and `22.4, 42.0`."""

    value: str = ""
    interval: str | None = None


@dataclass(frozen=True)
class Column:
    """Head of a column: name of the benchmark, its title, and `n = 83; avg@8, T 0.6, top_p 0.95`."""

    name: str
    title: str
    protocol: str


@dataclass(frozen=True)
class Row:
    """A row; `kind` is `method`, `truncated` or `paper`."""

    kind: str
    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class ResultsTable:
    """A finished table.

    Attributes
    ----------
    columns : tuple of Column
        Benchmarks, and last the mean where there are several.
    rows : tuple of Row
        Methods, then their truncated completions, then the paper's rows.
    notes : tuple of str
        What the figures are and how they were made.
    sources : mapping
        Source, prompt and licence by name of the benchmark.
    paper_heading : str or None
        Whose the paper's rows are; None without such rows.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    sources: Mapping[str, str]
    paper_heading: str | None

    def markdown(self) -> str:
        """GitHub's Markdown: the table, its notes, and a footnote for each benchmark."""
        heads = [
            f"{_escape(column.title)}{self._footnote(column)}<br>{_escape(column.protocol)}" for column in self.columns
        ]
        lines = [_line(["Method", *heads]), _line(["---", *["---:"] * len(heads)])]
        for row in self.rows:
            kind = "" if row.kind == "method" else f"*{row.kind}:* "
            lines.append(_line([kind + _escape(row.label), *(_markdown_cell(cell) for cell in row.cells)]))
        lines += ["", *(f"- {_escape(note)}" for note in self.notes)]
        lines += ["", *(f"[^{name}]: {_escape(text)}" for name, text in self.sources.items())]
        return "\n".join(lines) + "\n"

    def latex(self, caption: str = "Benchmarks.") -> str:
        """A `table` environment for booktabs; notes and sources stand under it."""
        return latex_table(self, caption)

    def _footnote(self, column: Column) -> str:
        return f"[^{column.name}]" if column.name in self.sources else ""


def results_table(
    methods: Sequence[MethodResults], paper: PaperTable | None = None, benchmarks: Sequence[str] | None = None
) -> ResultsTable:
    """Lay out methods by benchmarks.

    Parameters
    ----------
    methods : sequence of MethodResults
        Rows in this order; rows that are equal in all (one base under several selections) are shown once.
    paper : PaperTable or None
        Its rows come last, where it has one of the benchmarks.
    benchmarks : sequence of str or None
        Columns in this order; all that some method has when None, in order of appearance.

    Returns
    -------
    ResultsTable

    Raises
    ------
    DataError
        When there is nothing to show, or two methods met a benchmark under different conditions.
    """
    present = dict.fromkeys(name for method in methods for name in method.scores)
    names = tuple(present if benchmarks is None else benchmarks)
    if not names or not set(names) <= set(present):
        raise DataError(
            f"got the benchmarks {', '.join(names) or '(none)'} and {len(methods)} methods with "
            f"{', '.join(present) or '(none)'}; expected some that a method has. Evaluate them first."
        )
    facts = {name: _common_facts(name, methods) for name in names}
    shown = _distinct(methods)
    beside = paper if paper is not None and set(paper.benchmarks) & set(names) else None
    return ResultsTable(
        columns=_columns(facts),
        rows=(*_method_rows(shown, names), *_truncated_rows(shown, names), *_paper_rows(beside, names)),
        notes=tuple(table_notes(facts, shown, beside)),
        sources={name: _source(fact) for name, fact in facts.items()},
        paper_heading=f"As printed in the paper: {beside.model}, {beside.citation}" if beside else None,
    )


def _common_facts(name: str, methods: Sequence[MethodResults]) -> BenchmarkFacts:
    """What all methods have in common on a benchmark; figures of different conditions share no column."""
    first, *others = [method for method in methods if name in method.scores]
    for other in others:
        pair = (first.benchmarks[name], other.benchmarks[name])
        odd = [f.name for f in fields(BenchmarkFacts) if getattr(pair[0], f.name) != getattr(pair[1], f.name)]
        if odd:
            values = " and ".join(repr(getattr(fact, odd[0])) for fact in pair)
            raise DataError(
                f"{first.label} and {other.label} differ on {name} in {', '.join(odd)} ({values}); expected one way of "
                "evaluation in a column. Evaluate both alike, or make two tables."
            )
    return first.benchmarks[name]


def _distinct(methods: Sequence[MethodResults]) -> list[MethodResults]:
    """Equal rows once, and labels that tell the others apart: by model, then by seed."""
    shown: list[MethodResults] = []
    for method in methods:
        if not any(replace(method, seed=None) == replace(other, seed=None) for other in shown):
            shown.append(method)
    if len({method.model for method in shown if method.model != method.label}) > 1:
        shown = [m if m.model == m.label else replace(m, label=f"{m.label}, {m.model}") for m in shown]
    labels = [method.label for method in shown]
    return [
        replace(method, label=f"{method.label}, seed {method.seed}")
        if labels.count(method.label) > 1 and method.seed is not None
        else method
        for method in shown
    ]


def _columns(facts: Mapping[str, BenchmarkFacts]) -> tuple[Column, ...]:
    columns = [Column(n, fact.title, f"n = {count(fact.n)}; {_protocol(fact.decoding)}") for n, fact in facts.items()]
    if len(facts) > 1:
        columns.append(Column("mean", "Mean", f"of {len(facts)} benchmarks"))
    return tuple(columns)


def _protocol(decoding: Decoding) -> str:
    metric = "pass@1" if decoding.num_samples == 1 else f"avg@{decoding.num_samples}"
    return f"{metric}, greedy" if decoding.greedy else f"{metric}, T {decoding.temperature:g}, top_p {decoding.top_p:g}"


def _method_rows(methods: Sequence[MethodResults], names: Sequence[str]) -> Iterable[Row]:
    for method in methods:
        cells = [_share(method.scores.get(name)) for name in names]
        if len(names) > 1:
            whole = method.mean is not None and set(method.mean.benchmarks) == set(names)
            cells.append(_share(method.mean if whole else None))
        yield Row("method", method.label, tuple(cells))


def _truncated_rows(methods: Sequence[MethodResults], names: Sequence[str]) -> Iterable[Row]:
    for method in methods:
        scores = [method.scores.get(name) for name in names]
        cells = [Cell(_truncated(score) if score else MISSING) for score in scores]
        yield Row("truncated", method.label, (*cells, *[Cell()] * (len(names) > 1)))


def _truncated(score: BenchmarkScore) -> str:
    return f"{count(score.n_truncated)} of {count(score.n * score.num_samples)}"


def _paper_rows(paper: PaperTable | None, names: Sequence[str]) -> Iterable[Row]:
    if paper is None:
        return
    for row in paper.rows:
        values = [row.percent.get(name) for name in names]
        if len(names) > 1:
            values.append(row.mean if set(names) == set(row.percent) else None)
        cells = (Cell(MISSING if value is None else f"{value:.1f}") for value in values)
        yield Row("paper", f"{row.method} ({paper.model})", tuple(cells))


def _share(score: BenchmarkScore | MeanScore | None) -> Cell:
    if score is None:
        return Cell(MISSING)
    low, high = score.interval
    return Cell(f"{100 * score.value:.1f}", f"{100 * low:.1f}, {100 * high:.1f}")


def _source(fact: BenchmarkFacts) -> str:
    return f"{fact.title}. Source: {fact.source}. Prompt: {fact.prompt_source}. Licence: {fact.licence}."


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    return cell.value if cell.interval is None else f"{cell.value} [{cell.interval}]"


def _escape(text: str) -> str:
    """Text that neither ends a cell or a line nor starts HTML, code or emphasis."""
    flat = " ".join(text.split()).replace("\\", "\\\\")
    return "".join(f"\\{letter}" if letter in "|`*_<>" else letter for letter in flat)
