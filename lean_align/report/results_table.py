"""Methods by benchmarks, as the paper's tables have them: in Markdown, in LaTeX, and as rows for the report.

Differs from the paper's tables in:
1. every figure of ours has its 95 % interval, and its column says n, metric and decoding;
2. completions that the token limit cut off are counted in rows of their own;
3. the paper's figures stand apart, named as the paper's, with its model and without an interval;
4. a method that lacks a benchmark has a dash there and no mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from lean_align.errors import DataError
from lean_align.report.counts import SelectionCounts
from lean_align.report.formatting import MISSING, bare_interval, bare_share, count
from lean_align.report.paper import PaperTable
from lean_align.report.summary import Benchmark, Decoding, Mean, Score, Summary
from lean_align.table import Cell, Column, Row, Table

TRUNCATED, PAPER = "truncated", "paper"
"""Kinds of rows; those of methods have none."""
METHOD_NAMES = {"learnalign": "LearnAlign", "random": "random", "full": "all prompts"}
"""Selection methods as the paper writes them."""
_NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class BenchmarkFacts:
    """What a benchmark is, and how it was put to the models; the same for all methods of a table."""

    title: str
    n: int
    decoding: Decoding
    source: str
    prompt_source: str
    licence: str

    @classmethod
    def of(cls, name: str, benchmark: Benchmark) -> BenchmarkFacts:
        """Of a benchmark of summary.json."""
        words = (getattr(benchmark, key) or _NOT_RECORDED for key in ("source", "prompt_source", "licence"))
        return cls(benchmark.title or name, benchmark.n, benchmark.decoding, *words)


@dataclass(frozen=True)
class MethodResults:
    """A row of a results table.

    Attributes
    ----------
    label : str
        `base`, or what was selected: `LearnAlign, 1,000 of 17,290 (ours)`.
    model : str
        The model's name, without the folder or owner before it.
    seed : int or None
        The run's seed, where known.
    scores, benchmarks : mapping
        By name of the benchmark; a method may lack some.
    mean : Mean or None
        With the benchmarks that it is over.
    """

    label: str
    model: str
    seed: int | None
    scores: Mapping[str, Score]
    benchmarks: Mapping[str, BenchmarkFacts]
    mean: Mean | None


def methods_of(summary: Summary) -> list[MethodResults]:
    """The methods of a run or an evaluation in the order of its summary: base, then trained."""
    facts = {name: BenchmarkFacts.of(name, benchmark) for name, benchmark in summary.benchmarks.items()}
    scores: dict[str, dict[str, Score]] = {}
    for name, benchmark in summary.benchmarks.items():
        for model, score in benchmark.models.items():
            if score is not None:
                scores.setdefault(model, {})[name] = score
    return [
        MethodResults(
            label=_label(model, summary.selection),
            model=_model_name(summary, model),
            seed=summary.seed,
            scores=own,
            benchmarks={name: facts[name] for name in own},
            mean=_mean(summary, model, own),
        )
        for model, own in scores.items()
    ]


def _mean(summary: Summary, model: str, scores: Mapping[str, Score]) -> Mean | None:
    mean = summary.mean.models.get(model) if summary.mean else None
    return mean if mean is None or mean.benchmarks else replace(mean, benchmarks=tuple(scores))


def _label(model: str, selection: SelectionCounts | None) -> str:
    if model != "trained" or selection is None or not selection.method:
        return model
    method = METHOD_NAMES.get(selection.method, selection.method)
    return f"{method}, {selection.n:,} of {selection.pool_size:,} (ours)"


def _model_name(summary: Summary, model: str) -> str:
    """The run's model; with `lean-align evaluate` each row is a model of its own."""
    if model not in ("base", "trained"):
        return model
    name = str((summary.model and summary.model.name) or model)
    return name.rstrip("/").rpartition("/")[2]


def results_table(
    methods: Sequence[MethodResults], paper: PaperTable | None = None, benchmarks: Sequence[str] | None = None
) -> Table:
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
    Table
        Rows of methods, then (kind `truncated`) their truncated completions, then (`paper`) the paper's.  The notes
        say what the figures are and how they were made; sources, prompts and licences are by name of the benchmark.

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
    headings = {PAPER: f"As printed in the paper: {beside.model}, {beside.citation}"} if beside else {}
    return Table(
        columns=_columns(facts),
        rows=(*_method_rows(shown, names), *_truncated_rows(shown, names), *_paper_rows(beside, names)),
        caption="Benchmarks.",
        groups={TRUNCATED: "Truncated completions", **headings},
        notes=tuple(_notes(facts, shown, beside)),
        sources={name: _source(fact) for name, fact in facts.items()},
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
                "evaluating per column. Evaluate both in the same way, or make two tables."
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
    columns = [
        Column(fact.title, f"n = {count(fact.n)}; {_protocol(fact.decoding)}", name=name)
        for name, fact in facts.items()
    ]
    if len(facts) > 1:
        columns.append(Column("Mean", f"of {len(facts)} benchmarks", name="mean"))
    return (Column("Method", words=True), *columns)


def _protocol(decoding: Decoding) -> str:
    metric = "pass@1" if decoding.num_samples == 1 else f"avg@{decoding.num_samples}"
    return f"{metric}, greedy" if decoding.greedy else f"{metric}, T {decoding.temperature:g}, top_p {decoding.top_p:g}"


def _method_rows(methods: Sequence[MethodResults], names: Sequence[str]) -> Iterator[Row]:
    for method in methods:
        cells = [share_cell(method.scores.get(name)) for name in names]
        if len(names) > 1:
            whole = method.mean is not None and set(method.mean.benchmarks) == set(names)
            cells.append(share_cell(method.mean if whole else None))
        yield Row((Cell(method.label), *cells))


def _truncated_rows(methods: Sequence[MethodResults], names: Sequence[str]) -> Iterator[Row]:
    for method in methods:
        scores = [method.scores.get(name) for name in names]
        cells = [Cell(_truncated(score) if score else MISSING) for score in scores]
        yield Row((Cell(method.label), *cells, *[Cell()] * (len(names) > 1)), TRUNCATED)


def _truncated(score: Score) -> str:
    return f"{count(score.n_truncated)} of {count(score.n * score.num_samples)}"


def _paper_rows(paper: PaperTable | None, names: Sequence[str]) -> Iterator[Row]:
    if paper is None:
        return
    for row in paper.rows:
        values = [row.percent.get(name) for name in names]
        if len(names) > 1:
            values.append(row.mean if set(names) == set(row.percent) else None)
        cells = (Cell(MISSING if value is None else f"{value:.1f}") for value in values)
        yield Row((Cell(f"{row.method} ({paper.model})"), *cells), PAPER)


def share_cell(score: Score | Mean | None) -> Cell:
    """A share in percent and its interval, `31.3` and `[22.4, 42.0]`; a dash where there is none."""
    return Cell(MISSING) if score is None else Cell(bare_share(score.value), bare_interval(score.interval))


def _source(fact: BenchmarkFacts) -> str:
    return f"{fact.title}. Source: {fact.source}. Prompt: {fact.prompt_source}. Licence: {fact.licence}."


def _notes(
    facts: Mapping[str, BenchmarkFacts], methods: Sequence[MethodResults], paper: PaperTable | None
) -> Iterator[str]:
    """What the figures are, how completions were decoded, and whose rows the paper's are."""
    models = dict.fromkeys(method.model for method in methods if method.model != method.label)
    if models:
        yield f"Model of the runs' rows: {', '.join(models)}."
    yield f"Percent; in brackets 95 % intervals: {_intervals(facts, methods)}."
    if len(facts) > 1:
        yield (
            f"Mean: unweighted, over {_words([fact.title for fact in facts.values()])}; its interval resamples the "
            "problems of each. A method that lacks one of them has no mean."
        )
    yield f"Decoding: {'; '.join(_decodings(facts))}."
    yield "Truncated: completions that the token limit cut off, out of all. The figures include them, as rewarded."
    if paper is not None:
        yield from _paper_notes(paper, set(facts) == set(paper.benchmarks))


def _intervals(facts: Mapping[str, BenchmarkFacts], methods: Sequence[MethodResults]) -> str:
    """Benchmarks by kind of interval: `GSM8K: Wilson; AMC2023: bootstrap over problems`."""
    by_kind: dict[str, dict[str, None]] = {}
    for name, fact in facts.items():
        for method in methods:
            if name in method.scores:
                by_kind.setdefault(method.scores[name].interval_kind, {})[fact.title] = None
    return "; ".join(f"{_words(list(titles))}: {kind}" for kind, titles in by_kind.items())


def _decodings(facts: Mapping[str, BenchmarkFacts]) -> list[str]:
    """Benchmarks by decoding: `AMC2023: k = 8, temperature 0.6, top_p 0.95, max_new_tokens 3,072`."""
    titles: dict[Decoding, list[str]] = {}
    for fact in facts.values():
        titles.setdefault(fact.decoding, []).append(fact.title)
    return [f"{_words(names)}: {_decoding_words(decoding)}" for decoding, names in titles.items()]


def _decoding_words(decoding: Decoding) -> str:
    """`k = 1, greedy (temperature 0, top_p 1), max_new_tokens 1,024`."""
    how = f"temperature {decoding.temperature:g}, top_p {decoding.top_p:g}"
    if decoding.greedy:
        how = f"greedy ({how})"
    return f"k = {decoding.num_samples}, {how}, max_new_tokens {count(decoding.max_new_tokens)}"


def _paper_notes(paper: PaperTable, has_mean: bool) -> Iterator[str]:
    yield (
        f"Paper: {paper.citation}, {paper.model}, {paper.trained_on}; figures as printed there, without "
        "intervals. The paper trains whole weights and decodes in its own way, so its rows serve only for a rough "
        "comparison, and no difference from ours is tested."
    )
    for row in paper.rows if has_mean else ():
        if row.recomputed_mean is not None:
            yield (
                f"The mean printed for {row.method} is {row.mean:.1f}; that of the five figures next to it is "
                f"{row.recomputed_mean:.1f}."
            )


def _words(names: Sequence[str]) -> str:
    """`A`, `A and B`, `A, B and C`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
