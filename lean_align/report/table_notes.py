"""The sentences under a results table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lean_align.report.formatting import count
from lean_align.report.methods import BenchmarkFacts, Decoding, MethodResults
from lean_align.report.paper import PaperTable


def table_notes(
    facts: Mapping[str, BenchmarkFacts], methods: Sequence[MethodResults], paper: PaperTable | None
) -> Iterator[str]:
    """What the figures are, how completions were decoded, and whose rows the paper's are.

    Parameters
    ----------
    facts : mapping
        The table's benchmarks by name, in order.
    methods : sequence of MethodResults
        The table's methods.
    paper : PaperTable or None
        The paper's rows, where the table has them.
    """
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
    yield "Truncated: completions that the token limit cut off, of all. They are among the figures, as rewarded."
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
    """Benchmarks by decoding: `AMC2023: k = 8, temperature 0.6, top_p 0.95, at most 3,072 new tokens`."""
    titles: dict[Decoding, list[str]] = {}
    for fact in facts.values():
        titles.setdefault(fact.decoding, []).append(fact.title)
    return [f"{_words(names)}: {decoding_words(decoding)}" for decoding, names in titles.items()]


def decoding_words(decoding: Decoding) -> str:
    """`k = 1, greedy (temperature 0, top_p 1), at most 1,024 new tokens`."""
    how = f"temperature {decoding.temperature:g}, top_p {decoding.top_p:g}"
    if decoding.greedy:
        how = f"greedy ({how})"
    return f"k = {decoding.num_samples}, {how}, max_new_tokens {count(decoding.max_new_tokens)}"


def _paper_notes(paper: PaperTable, has_mean: bool) -> Iterator[str]:
    yield (
        f"Paper: {paper.citation}, {paper.model}, {paper.trained_on}; figures as printed there, without "
        "intervals. The paper trains whole weights and decodes in its own way, so its rows are there to compare with "
        "at a distance, and no difference from ours is tested."
    )
    for row in paper.rows if has_mean else ():
        if row.recomputed_mean is not None:
            yield (
                f"The mean printed for {row.method} is {row.mean:.1f}; that of the five figures beside it is "
                f"{row.recomputed_mean:.1f}."
            )


def _words(names: Sequence[str]) -> str:
    """`A`, `A and B`, `A, B and C`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
