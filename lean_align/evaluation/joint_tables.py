"""Results tables of runs and evaluations, with the time that they took.

A run without benchmarks has its held-out set as a column, next to the benchmarks of others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lean_align.artifacts import check_outputs, file_hash, read_json, read_manifest, write_text
from lean_align.errors import DataError
from lean_align.evaluation.benchmark_scores import score_completions
from lean_align.evaluation.figures import read_outcomes
from lean_align.evaluation.problem_sets import run_sets
from lean_align.evaluation.solving import BASE, TRAINED
from lean_align.pipeline.graph import refuse_comparison, stored_recipe
from lean_align.report.paper import PaperTable, table_for
from lean_align.report.results_table import MethodResults, methods_of, results_table
from lean_align.report.summary import Summary
from lean_align.table import Table


def timed_table(summary: Summary, paper: PaperTable | None) -> Table:
    """The table of one summary, with the seconds of each model on each benchmark among its notes."""
    table = results_table(methods_of(summary), paper)
    notes = [*table.notes, *_differences(summary)]
    for model, seconds in _seconds(summary).items():
        each = ", ".join(f"{title} {value:,.0f} s" for title, value in seconds.items())
        notes.append(f"Wall time of {model}, loading not counted: {each}.")
    return replace(table, notes=tuple(notes))


def write_table(table: Table, folder: Path) -> None:
    """Write `results.md` and `results.tex`."""
    write_text(folder / "results.md", table.markdown())
    write_text(folder / "results.tex", table.latex())


def joint_table(folders: Sequence[Path], paper: bool = True) -> Table:
    """The benchmarks of several runs and evaluations in one table, with the paper's figures or without.

    A run without benchmarks appears with its held-out set.  Rows that differ only in their folders are named by them.

    Raises
    ------
    DataError
        When a folder is not a finished run or evaluation, or two were evaluated in different ways.
    """
    rows = [(folder, method) for folder in folders for method in methods_of(Summary.from_json(_finished(folder)))]
    methods = [_told_apart(folder, method, rows) for folder, method in rows]
    benchmarks = list(dict.fromkeys(name for method in methods for name in method.scores))
    return results_table(methods, table_for(benchmarks, None) if paper else None)


def _finished(folder: Path) -> Mapping[str, Any]:
    """summary.json of a run or an evaluation."""
    refuse_comparison(folder)
    if not (folder / "summary.json").is_file():
        raise DataError(f"{folder} has no summary.json; expected the folder of a finished run or evaluation.")
    report = read_manifest(folder / "report")
    if report is not None:  # of a run: figures that were changed are not a result
        check_outputs(folder / "report", report)
    found = read_json(folder / "summary.json")
    if not isinstance(found, dict):
        raise DataError(f"{folder / 'summary.json'} is not that of a run or an evaluation.")
    return found if found.get("benchmarks") else _with_held_out(found, folder)


def _with_held_out(summary: Mapping[str, Any], run_dir: Path) -> dict[str, Any]:
    """A run's summary with its held-out set in place of benchmarks, scored from the completions in its folder.

    Two runs share the column only where they solved the same problems: its source has their hash.  A run without a
    held-out set is refused.
    """
    if not summary.get("accuracy") or not (run_dir / "recipe.yaml").is_file():
        raise DataError(
            f"{run_dir} was evaluated on neither a benchmark nor a held-out set; expected the folder of a finished "
            "run or evaluation."
        )
    recipe, test = stored_recipe(run_dir), run_dir / "data" / "test.jsonl"
    problems = run_sets(recipe, test, {})[0]
    scores = {
        model: score_completions(
            read_outcomes(run_dir / "evaluation" / model / f"{problems.name}.jsonl", problems), recipe.seed
        )
        for model in (BASE, TRAINED)
    }
    tree = {
        "title": f"{problems.name} (held out)",
        "source": f"data.test_path {recipe.data.test_path}, SHA-256 {file_hash(test)[:12]}",
        "prompt_source": "that of the run",
        "n": len(problems.prompts),
        "decoding": problems.decoding(),
        "models": {model: asdict(score) for model, score in scores.items()},
        "difference": None,
    }
    return {**summary, "benchmarks": {f"held-out-{problems.name}": json.loads(json.dumps(tree))}}


def _told_apart(folder: Path, method: MethodResults, rows: Sequence[tuple[Path, MethodResults]]) -> MethodResults:
    """The row with its folder's name, where another row differs from it only in the figures."""
    alike = [
        other
        for _, other in rows
        if (other.label, other.model, other.seed) == (method.label, method.model, method.seed) and other != method
    ]
    return replace(method, label=f"{method.label}, {folder.resolve().name}") if alike else method


def _differences(summary: Summary) -> Iterator[str]:
    """A line for each benchmark, and the mean, on which two models were compared."""
    found = [(summary.titles[name], list(tree.models), tree.difference) for name, tree in summary.benchmarks.items()]
    if len(found) > 1 and summary.mean:
        found.append(("Mean", list(summary.mean.models), summary.mean.difference))
    for title, models, difference in found:
        if difference is not None:
            low, high = (100 * end for end in difference.interval)
            yield (
                f"{title}, {models[1]} minus {models[0]}: {100 * difference.difference:+.1f} points "
                f"[{low:.1f}, {high:.1f}], {difference.wins} problems better and {difference.losses} worse, "
                f"p = {difference.p_value:.3g} ({difference.test})."
            )


def _seconds(summary: Summary) -> dict[str, dict[str, float]]:
    """By model and title of the benchmark; models of other evaluations have none."""
    found: dict[str, dict[str, float]] = {}
    for name, benchmark in summary.benchmarks.items():
        for model, score in benchmark.models.items():
            if score is not None and score.wall_seconds is not None:
                found.setdefault(model, {})[summary.titles[name]] = score.wall_seconds
    return found
