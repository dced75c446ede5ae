"""What the report's sections on benchmarks and on contamination show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lean_align.report import wording
from lean_align.report.formatting import count, percent
from lean_align.report.methods import MethodResults
from lean_align.report.paper import table_for
from lean_align.report.results_table import methods_from_summary, results_table
from lean_align.types import BenchmarkScore

N_PAIRS_SHOWN = 50


def benchmark_section(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """The results table, differences, completions and warnings; None without benchmarks."""
    methods = methods_from_summary(summary)
    if not methods:
        return None
    table = results_table(methods, table_for(summary["benchmarks"], (summary.get("selection") or {}).get("n")))
    kinds = {kind: [row for row in table.rows if row.kind == kind] for kind in ("method", "paper")}
    return {
        "table": table,
        "rows": kinds["method"],
        "paper_rows": kinds["paper"],
        "differences": list(_differences(summary)),
        "completions": [row for column in table.columns for row in _completions(column.name, methods)],
        "warnings": wording.benchmark_notes(methods),
    }


def _differences(summary: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Trained minus base on each benchmark, and last of the mean over several."""
    trees = summary["benchmarks"]
    for name, tree in trees.items():
        if tree.get("difference"):
            yield {"label": tree.get("title") or name} | tree["difference"]
    mean = (summary.get("mean") or {}).get("difference")
    if mean and len(trees) > 1:
        yield {"label": "Mean", "test": "sign flips"} | mean


def _completions(name: str, methods: Sequence[MethodResults]) -> Iterator[dict[str, Any]]:
    for method in methods:
        score = method.scores.get(name)
        if score is not None:
            yield {
                "method": method.label,
                "benchmark": method.benchmarks[name].title,
                "n": score.n * score.num_samples,
                "score": score,
                "pass_at_k": _pass_at_k(score),
            }


def _pass_at_k(score: BenchmarkScore) -> list[str]:
    """`2: 18.1 %`, `4: 24.0 %`, `8: 30.1 %`; k = 1 stands in the table above."""
    return [f"{k}: {percent(value)}" for k, value in score.pass_at_k.items() if int(k) > 1]


def contamination_section(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Counts by benchmark, what the recipe did, and the first pairs; None where nothing was looked for."""
    contamination = summary.get("contamination")
    if contamination is None:
        return None
    titles = {name: tree.get("title") or name for name, tree in (summary.get("benchmarks") or {}).items()}
    pairs = contamination.get("pairs") or []
    shown = pairs[:N_PAIRS_SHOWN]
    n_more = (contamination.get("n_pairs") or len(pairs)) - len(shown)
    return {
        "sentences": wording.contamination_sentences(contamination),
        "rows": [
            {"label": titles.get(name, name)} | found for name, found in (contamination.get("benchmarks") or {}).items()
        ],
        "pairs": [pair | {"benchmark": titles.get(pair["benchmark"], pair["benchmark"])} for pair in shown],
        "more": f"{count(n_more)} more are not listed here." if n_more > 0 else None,
    }
