"""What a run, an evaluation or a comparison found out, and what a run cost, in a few lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lean_align.report import comparison_wording
from lean_align.report.comparison import Comparison, Method
from lean_align.report.comparison_wording import until_interval, until_text
from lean_align.report.costs import ToGoal
from lean_align.report.counts import SelectionCounts
from lean_align.report.formatting import (
    MISSING,
    bare_interval,
    bare_p,
    bare_share,
    count,
    difference_interval,
    duration,
    hours,
    memory,
    multiple,
    p_value,
    percent,
    points,
    won_lost,
)
from lean_align.report.results_table import METHOD_NAMES, methods_of, share_cell
from lean_align.report.run_wording import benchmark_notes, rollout_notes
from lean_align.report.summary import Benchmark, Mean, Score, StageCost, Summary
from lean_align.table import Table, printable
from lean_align.types import PairedDifference, Proportion

_COMPARISON = ("method", "seeds", "acc. %", "interval", "diff.", "interval", "p", "Holm", "w:l", "")


def run_lines(summary: Summary) -> list[str]:
    """What a finished run found: accuracy before and after, and seconds, memory and tokens of each stage.

    Parameters
    ----------
    summary : Summary
        Parts that a run does not have may be missing.

    Returns
    -------
    list of str
        Two tables with a line before each, then what is unusual about the rollouts.
    """
    selection = summary.selection or SelectionCounts()
    method = METHOD_NAMES.get(str(selection.method), str(selection.method))
    of_pool = f"{count(selection.n)} of {count(selection.pool_size)} prompts"
    heads = ("% right [95 %]", "problems", "base", "trained", "difference", "")
    return [
        printable(f"{summary.recipe}: {method} chose {of_pool}, seed {summary.seed}"),
        "",
        *Table.of_texts(heads, _accuracy_rows(summary)).text(),
        "",
        *_stage_table(summary).text(),
        *(f"- {note}" for note in rollout_notes(summary.rollouts)),
    ]


def evaluation_lines(summary: Summary) -> list[str]:
    """What an evaluation of a model found: one row per benchmark, and the comparison where there is another model.

    Parameters
    ----------
    summary : Summary
        Of `lean-align evaluate MODEL`.

    Returns
    -------
    list of str
        A table, then what is unusual about the completions.
    """
    models = list(dict.fromkeys(model for benchmark in summary.benchmarks.values() for model in benchmark.models))
    rows = [_evaluation_row(summary.titles[name], tree, models) for name, tree in summary.benchmarks.items()]
    if len(rows) > 1 and summary.mean:
        shares = (_share(summary.mean.models.get(model)) for model in models)
        rows.append(("Mean", "", "", *shares, "", *_change(summary.mean.difference)))
    heads = ("% right [95 %]", "problems", "metric", *models, "cut off", "difference", "")
    shown = len(heads) if any(row[-2] != MISSING for row in rows) else len(heads) - 2
    table = Table.of_texts(heads[:shown], [row[:shown] for row in rows])
    return [*table.text(), *(f"- {printable(note)}" for note in benchmark_notes(methods_of(summary)))]


def comparison_lines(comparison: Comparison) -> list[str]:
    """The table of a comparison, aligned, in the order of the methods.

    Parameters
    ----------
    comparison : Comparison
        Any part may be missing.

    Returns
    -------
    list of str
        Faults first, then what is done, the table, where steps were evaluated what each method cost, and the flags.
        At most 100 columns wide where no label is longer than 26 characters; a longer one is shown whole.
    """
    rows = [_method_row(comparison, method) for method in comparison.methods]
    return [
        *(f"FAULT: {printable(fault)}" for fault in comparison.faults),
        f"{printable(comparison.recipe or 'comparison')}: {comparison_wording.progress(comparison)}",
        *(Table.of_texts(_COMPARISON, rows).text() if rows else []),
        *_goal_lines(comparison),
        *(f"FLAG: {printable(warning)}" for warning in comparison_wording.warnings(comparison)),
    ]


def _goal_lines(comparison: Comparison) -> list[str]:
    """What each method costs until the accuracy of all prompts; nothing where no steps were evaluated."""
    goal = comparison.goal
    if goal is None:
        return []
    rows = [_goal_row(method, comparison.gap(method.label)) for method in comparison.methods]
    heads = (f"until {percent(goal.accuracy)} ({goal.label})", "tokens", "interval", "hours", "x random", "interval")
    return ["", *Table.of_texts(heads, rows).text()]


def _goal_row(method: Method, gap: str) -> tuple[str, ...]:
    own = method.to_goal or ToGoal()
    shown = ((own.tokens, count), (own.hours, hours), (own.to_random, multiple))
    tokens, time, ratio = (gap if until is None else until_text(until, form) for until, form in shown)
    ends = ("" if until is None else until_interval(until, form) for until, form in (shown[0], shown[2]))
    first, last = ends
    return method.label, tokens, first, time, ratio, last


def _evaluation_row(title: str, benchmark: Benchmark, models: Sequence[str]) -> tuple[str, ...]:
    found = [benchmark.models.get(model) for model in models]
    cut = ", ".join(percent(s.n_truncated / (s.n * s.num_samples)) if s else MISSING for s in found)
    metric = next(score.metric for score in found if score)
    return title, count(benchmark.n), metric, *map(_share, found), cut, *_change(benchmark.difference)


def _accuracy_rows(summary: Summary) -> Iterator[tuple[str, ...]]:
    """The held-out set, each benchmark, and the mean of several."""
    if summary.accuracy:
        base, trained = summary.accuracy.base, summary.accuracy.trained
        either = base or trained
        n = count(either.n if either else None, "")
        shares = (_proportion(base), _proportion(trained))
        yield str(summary.benchmark), n, *shares, *_change(summary.accuracy.difference)
    for name, benchmark in summary.benchmarks.items():
        n = count(benchmark.n, "")
        yield summary.titles[name], n, *_both(benchmark.models), *_change(benchmark.difference)
    if len(summary.benchmarks) > 1 and summary.mean:
        yield "Mean", "", *_both(summary.mean.models), *_change(summary.mean.difference)


def _both(models: Mapping[str, Score | None] | Mapping[str, Mean | None]) -> tuple[str, str]:
    return _share(models.get("base")), _share(models.get("trained"))


def _share(score: Score | Mean | None) -> str:
    return share_cell(score).text


def _proportion(proportion: Proportion | None) -> str:
    return f"{bare_share(proportion.accuracy)} {bare_interval(proportion.interval)}" if proportion else MISSING


def _change(change: PairedDifference | None) -> tuple[str, str]:
    """A difference in points with its interval, and its p-value."""
    if change is None:
        return MISSING, ""
    return f"{points(change.difference)} {difference_interval(change.interval)}", p_value(change.p_value)


def _stage_table(summary: Summary) -> Table:
    """Time, memory and tokens of each stage, and of all."""
    costs = list(summary.stages.values())
    vram = [cost.peak_vram_bytes for cost in costs if cost.peak_vram_bytes is not None]
    tokens = [cost.generated_tokens for cost in costs if cost.generated_tokens is not None]
    total = StageCost(
        summary.total_wall_seconds,
        summary.peak_rss_bytes,
        max(vram, default=None),
        generated_tokens=sum(tokens) or None,
    )
    heads = ("stage", "wall time", "peak memory", *(("GPU memory",) if vram else ()), "tokens sampled")
    rows = [
        (
            name,
            duration(cost.wall_seconds),
            memory(cost.peak_rss_bytes),
            *((memory(cost.peak_vram_bytes),) if vram else ()),
            count(cost.generated_tokens, ""),
        )
        for name, cost in (*summary.stages.items(), ("all", total))
    ]
    return Table.of_texts(heads, rows)


def _method_row(found: Comparison, method: Method) -> tuple[str, ...]:
    start = (
        method.label,
        f"{method.n_done}/{len(found.seeds)}",
        bare_share(method.accuracy, found.gap(method.label)),
        bare_interval(method.interval) or found.gap(method.label),
    )
    if method.label == found.reference:
        return (*start, "ref.", "", "", "", "", "")
    row, gap = found.pair(method.label), found.gap(method.label, found.reference_of(method.label))
    return (
        *start,
        points(row.difference, gap),
        difference_interval(row.interval, gap),
        bare_p(row.p_value, gap).replace(" ", ""),
        bare_p(row.p_holm, gap).replace(" ", ""),
        won_lost(row.seed_wins, row.seed_losses, gap).replace(" ", ""),
        found.against(method.label),
    )
