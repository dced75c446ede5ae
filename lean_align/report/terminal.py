"""What a run or an evaluation found out, and what a run cost, in a few lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lean_align.report.formatting import MISSING, count, duration, memory, p_value, percent, points
from lean_align.report.methods import METHOD_NAMES, methods_from_summary
from lean_align.report.text_tables import aligned, printable
from lean_align.report.wording import benchmark_notes, rollout_notes


def run_lines(summary: Mapping[str, Any]) -> list[str]:
    """Give what a finished run found: accuracy before and after, and seconds, memory and tokens of each stage.

    Parameters
    ----------
    summary : mapping
        RUN/summary.json; parts that a run does not have may be missing or null.

    Returns
    -------
    list of str
        Two tables with a line before each, then what is unusual about the rollouts.
    """
    selection = summary.get("selection") or {}
    method = METHOD_NAMES.get(str(selection.get("method")), str(selection.get("method")))
    of_pool = f"{count(selection.get('n'))} of {count(selection.get('pool_size'))} prompts"
    stages = summary.get("stages") or {}
    return [
        printable(f"{summary.get('recipe')}: {method} chose {of_pool}, seed {summary.get('seed')}"),
        "",
        *aligned([("% right [95 %]", "problems", "base", "trained", "difference", ""), *_accuracy_rows(summary)]),
        "",
        *aligned([_heads(stages), *_stage_rows(summary, stages)]),
        *(f"- {note}" for note in rollout_notes(summary.get("rollouts") or {})),
    ]


def evaluation_lines(summary: Mapping[str, Any]) -> list[str]:
    """Give what an evaluation of a model found: a row a benchmark, and the comparison where there is another model.

    Parameters
    ----------
    summary : mapping
        summary.json of `lean-align evaluate MODEL`.

    Returns
    -------
    list of str
        A table, then what is unusual about the completions.
    """
    benchmarks = summary["benchmarks"]
    models = list(dict.fromkeys(model for tree in benchmarks.values() for model in tree["models"]))
    rows = [_evaluation_row(tree, models) for tree in benchmarks.values()]
    if len(benchmarks) > 1 and summary.get("mean"):
        mean = summary["mean"]
        shares = (_share(mean.get(model), "value") for model in models)
        rows.append(("Mean", "", "", *shares, "", *_change(mean.get("difference"))))
    heads = ("% right [95 %]", "problems", "metric", *map(printable, models), "cut off", "difference", "")
    compared = any(row[-2] != MISSING for row in rows)
    table = [row if compared else row[:-2] for row in (heads, *rows)]
    return [*aligned(table), *(f"- {printable(note)}" for note in benchmark_notes(methods_from_summary(summary)))]


def _evaluation_row(tree: Mapping[str, Any], models: Sequence[str]) -> tuple[str, ...]:
    found = [tree["models"].get(model) for model in models]
    cut = ", ".join(percent(s["n_truncated"] / (s["n"] * s["num_samples"])) if s else MISSING for s in found)
    metric = next(score["metric"] for score in found if score)
    shares = (_share(score, "value") for score in found)
    return printable(tree["title"]), count(tree["n"]), metric, *shares, cut, *_change(tree.get("difference"))


def _accuracy_rows(summary: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The held-out set, each benchmark, and the mean of several."""
    if summary.get("accuracy"):
        tree = summary["accuracy"]
        n = (tree.get("base") or tree.get("trained") or {}).get("n")
        yield _accuracy_row(str(summary.get("benchmark")), n, tree, tree.get("difference"), "accuracy")
    benchmarks = summary.get("benchmarks") or {}
    for name, tree in benchmarks.items():
        yield _accuracy_row(str(tree.get("title", name)), tree.get("n"), tree["models"], tree.get("difference"))
    if len(benchmarks) > 1 and summary.get("mean"):
        yield _accuracy_row("Mean", None, summary["mean"], summary["mean"].get("difference"))


def _accuracy_row(
    title: str, n: int | None, models: Mapping[str, Any], difference: Mapping[str, Any] | None, key: str = "value"
) -> tuple[str, ...]:
    shares = (_share(models.get(model), key) for model in ("base", "trained"))
    return printable(title), count(n, ""), *shares, *_change(difference)


def _change(difference: Mapping[str, Any] | None) -> tuple[str, str]:
    """A difference in points with its interval, and its p-value."""
    if not difference:
        return MISSING, ""
    low, high = difference["interval"]
    change = f"{points(difference['difference'])} [{points(low)}, {points(high)}]"
    return change, p_value(difference["p_value"])


def _share(score: Mapping[str, Any] | None, key: str) -> str:
    if not score:
        return MISSING
    low, high = score["interval"]
    return f"{100 * score[key]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _heads(stages: Mapping[str, Any]) -> tuple[str, ...]:
    return "stage", "wall time", "peak memory", *(("GPU memory",) if _on_card(stages) else ()), "tokens sampled"


def _stage_rows(summary: Mapping[str, Any], stages: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, cost in [*stages.items(), ("all", _total(summary, stages))]:
        card = (memory(cost.get("peak_vram_bytes")),) if _on_card(stages) else ()
        yield (
            name,
            duration(cost.get("wall_seconds")),
            memory(cost.get("peak_rss_bytes")),
            *card,
            count(cost.get("generated_tokens"), ""),
        )


def _total(summary: Mapping[str, Any], stages: Mapping[str, Any]) -> dict[str, Any]:
    def known(key: str) -> list[float]:
        return [cost[key] for cost in stages.values() if cost.get(key) is not None]

    return {
        "wall_seconds": summary.get("total_wall_seconds"),
        "peak_rss_bytes": summary.get("peak_rss_bytes"),
        "peak_vram_bytes": max(known("peak_vram_bytes"), default=None),
        "generated_tokens": sum(known("generated_tokens")) or None,
    }


def _on_card(stages: Mapping[str, Any]) -> bool:
    return any(cost.get("peak_vram_bytes") is not None for cost in stages.values())
