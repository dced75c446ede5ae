"""The report's page: what each section shows, rendered through one template and written in one rename."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lean_align.artifacts import write_text
from lean_align.errors import StageError
from lean_align.report import run_wording as wording
from lean_align.report.formatting import count, percent
from lean_align.report.paper import table_for
from lean_align.report.results_table import PAPER, MethodResults, methods_of, results_table
from lean_align.report.summary import Accuracy, Means, ReportScores, StageCost, Summary
from lean_align.report.templates import render
from lean_align.report.transfer import READING, Transfer, transfer_cells
from lean_align.types import BenchmarkScore

N_CHOSEN_SHOWN = 10
N_PAIRS_SHOWN = 50
_SAMPLE_KEYS = ("answer", "completion_base", "reward_base", "completion_trained", "reward_trained")
_MEMORY = {
    "peak_rss_bytes": "Peak memory",
    "planned_rss_bytes": "Planned memory",
    "peak_vram_bytes": "Peak GPU memory",
    "planned_vram_bytes": "Planned GPU memory",
}
# HTML forbids these; a model can emit them all the same.
_CONTROL_CHARACTERS = dict.fromkeys([*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F], "\N{REPLACEMENT CHARACTER}")


def write_report(
    path: Path,
    summary: Summary,
    scores: ReportScores | None,
    selected: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    training_log: Sequence[Mapping[str, Any]],
) -> None:
    """Write the report of a run as one HTML file that needs no other file and no network.

    Parameters
    ----------
    path : Path
        The file to write, RUN/report/index.html; its folder is made.
    summary : Summary
        What a part of it lacks did not run.
    scores : ReportScores or None
        None where the selection method does not score.
    selected : sequence of mapping
        Rows of selected.jsonl, best first: prompt, answer, prompt_id, score, rank.
    samples : sequence of mapping
        Held-out problems: prompt, answer, completion_base, reward_base, completion_trained, reward_trained.
    training_log : sequence of mapping
        Rows with step and reward; rows without a reward are left out.

    Raises
    ------
    StageError
        If `path` is a folder.
    DiskFullError
        If the disk has no room for the file.
    """
    if path.is_dir():
        raise StageError(f"{path} is a folder; expected the file to write. Pass {path / 'index.html'}.")
    html = render("template.html.j2", **_sections(summary, scores, selected, samples, training_log))
    # A completion can hold half of a surrogate pair, which UTF-8 cannot.
    html = html.translate(_CONTROL_CHARACTERS).encode("utf-8", "replace").decode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, html)


def _sections(
    summary: Summary,
    scores: ReportScores | None,
    selected: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    training_log: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    accuracy = summary.accuracy or Accuracy()
    return {
        "recipe": summary.recipe or "unnamed recipe",
        "facts": _facts(summary),
        **_result(summary),
        "accuracy": accuracy,
        "benchmarks": _benchmarks(summary),
        "contamination": _contamination(summary),
        "agreement": _agreement(accuracy),
        "selection": summary.selection,
        "selection_notes": wording.selection_notes(summary.selection),
        "stability_notes": wording.stability_notes(summary.stability),
        "transfers": [_transfer(found) for found in summary.transfer or ()],
        "transfer_reading": READING,
        "comparison": _comparison(scores),
        "chosen": _chosen(selected, scores),
        "n_selected": len(selected),
        "rollouts": summary.rollouts,
        "rollout_notes": wording.rollout_notes(summary.rollouts),
        "samples": [dict.fromkeys(_SAMPLE_KEYS) | dict(sample) for sample in samples],
        "stages": summary.stages,
        "memory_columns": _memory_columns(summary.stages.values()),
        "totals": summary,
        "plots": _plots(summary, scores, training_log),
    }


def _result(summary: Summary) -> dict[str, Any]:
    """Headline and verdict: of the held-out set, or of the mean over benchmarks where there is no such set."""
    accuracy, mean = summary.accuracy or Accuracy(), summary.mean or Means()
    if accuracy == Accuracy() and summary.benchmarks:
        return {
            "headline": wording.benchmarks_headline(mean, list(summary.titles.values())),
            "verdict": wording.verdict(mean.difference, "sign-flip"),
            "shows_accuracy": False,
        }
    return {
        "headline": wording.headline(accuracy),
        "verdict": wording.verdict(accuracy.difference),
        "shows_accuracy": True,
    }


def _facts(summary: Summary) -> list[tuple[str, str]]:
    model = summary.model
    parts = filter(None, (model.name, model.quantization, model.dtype)) if model else ()
    benchmark = ", ".join(summary.titles.values()) if summary.benchmark is None else summary.benchmark
    facts = {
        "Model": ", ".join(parts),
        "Benchmark": benchmark,
        "Seed": summary.seed,
        "Device": summary.device,
        "Commit": summary.git_commit,
    }
    return [(label, "not recorded" if value in (None, "") else str(value)) for label, value in facts.items()]


def _memory_columns(stages: Iterable[StageCost]) -> dict[str, str]:
    """Keys and headings of the peaks that some stage has; the process's own always."""
    found = {key for stage in stages for key in _MEMORY if getattr(stage, key) is not None}
    return {key: label for key, label in _MEMORY.items() if key in found or key == "peak_rss_bytes"}


def _agreement(accuracy: Accuracy) -> list[tuple[str, int]]:
    """How many problems both, one or neither model solves, from the counts; empty where they do not add up."""
    base, trained, difference = accuracy.base, accuracy.trained, accuracy.difference
    if base is None or trained is None or difference is None:
        return []
    wins, losses = difference.wins, difference.losses
    rows = [("Only the trained model solves it (win)", wins), ("Only the base solves it (loss)", losses)]
    both = base.correct - losses
    if base.n == trained.n and both == trained.correct - wins:
        rows += [("Both solve it", both), ("Neither solves it", base.n - both - wins - losses)]
    return rows


def _transfer(found: Transfer) -> dict[str, Any]:
    """A target, and each choice as a row of texts."""
    return {"target": found.target, "n": found.n_target, "rows": [transfer_cells(choice) for choice in found.choices]}


def _comparison(scores: ReportScores | None) -> list[dict[str, Any]]:
    """Means over the chosen prompts and over the pool, for each column that could explain the choice."""
    if scores is None or scores.n == 0:
        return []
    columns = {
        "Success rate p": scores.success_rate,
        "Learnability V": scores.learnability,
        "Alignment": scores.alignment,
        "Score": scores.score,
        "Completion length, tokens": scores.n_tokens,
    }
    return [
        {
            "label": label,
            "chosen": float(values[scores.selected].mean()) if scores.n_selected else None,
            "pool": float(values.mean()),
            "digits": 4 if values is scores.n_tokens else 3,
        }
        for label, values in columns.items()
    ]


def _chosen(selected: Sequence[Mapping[str, Any]], scores: ReportScores | None) -> list[dict[str, Any]]:
    success: dict[str, float] = {}
    if scores is not None:
        success = dict(zip(scores.prompt_ids, np.asarray(scores.success_rate).tolist(), strict=True))
    return [
        {
            "position": position,
            "prompt": str(row["prompt"]),
            "answer": row.get("answer"),
            "score": row.get("score"),
            "success_rate": success.get(str(row.get("prompt_id"))),
        }
        for position, row in enumerate(selected[:N_CHOSEN_SHOWN], start=1)
    ]


def _benchmarks(summary: Summary) -> dict[str, Any] | None:
    """The results table, differences, completions and warnings; None without benchmarks."""
    methods = methods_of(summary)
    if not methods:
        return None
    n = summary.selection.n if summary.selection else None
    table = results_table(methods, table_for(summary.benchmarks, n))
    return {
        "table": table,
        "columns": table.columns[1:],
        "rows": table.of_kind(""),
        "paper_rows": table.of_kind(PAPER),
        "paper_heading": table.groups.get(PAPER),
        "differences": _differences(summary),
        "completions": [row for column in table.columns for row in _completions(column.name, methods)],
        "warnings": wording.benchmark_notes(methods),
    }


def _differences(summary: Summary) -> list[dict[str, Any]]:
    """Trained minus base on each benchmark, and last of the mean over several."""
    found = [(summary.titles[name], benchmark.difference) for name, benchmark in summary.benchmarks.items()]
    if len(found) > 1 and summary.mean:
        found.append(("Mean", summary.mean.difference))
    return [{"label": label, **vars(difference)} for label, difference in found if difference]


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


def _contamination(summary: Summary) -> dict[str, Any] | None:
    """Counts by benchmark, what the recipe did, and the first pairs; None where nothing was looked for."""
    found, titles = summary.contamination, summary.titles
    if found is None:
        return None
    shown = found.pairs[:N_PAIRS_SHOWN]
    n_more = (found.n_pairs or len(found.pairs)) - len(shown)
    return {
        "sentences": wording.contamination_sentences(found),
        "rows": [{"label": titles.get(name, name), **vars(matches)} for name, matches in found.benchmarks.items()],
        "pairs": [{**pair, "benchmark": titles.get(pair["benchmark"], pair["benchmark"])} for pair in shown],
        "more": f"{count(n_more)} more are not listed here." if n_more > 0 else None,
    }


def _plots(summary: Summary, scores: ReportScores | None, training_log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    # matplotlib takes most of a second to import, and only this function needs it.
    from lean_align.report import plots, score_plots

    scored = scores if scores is not None and scores.n > 0 else None
    num_generations = summary.rollouts.num_generations if summary.rollouts else None
    return {
        "accuracy": plots.accuracy_plot(summary.accuracy or Accuracy()),
        "benchmarks": plots.benchmarks_plot(summary.benchmarks),
        "training": plots.training_plot(training_log),
        "stages": plots.stages_plot(summary.stages),
        "alignment": scored and score_plots.alignment_plot(scored),
        "success": scored and score_plots.success_plot(scored, num_generations),
        "ranks": scored and score_plots.rank_plot(scored),
    }
