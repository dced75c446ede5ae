"""The report's page: what each section shows, rendered through one template and written in one rename."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lean_align.artifacts import write_text
from lean_align.errors import StageError
from lean_align.report import wording
from lean_align.report.benchmarks import benchmark_section, contamination_section
from lean_align.report.records import ReportScores
from lean_align.report.templates import render

N_CHOSEN_SHOWN = 10
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
    summary: Mapping[str, Any],
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
    summary : mapping
        RUN/summary.json.  A missing or null entry means that the stage did not run.
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
        raise StageError(f"{path} is a folder, expected the file to write. Pass {path / 'index.html'}.")
    html = render("template.html.j2", **_sections(summary, scores, selected, samples, training_log))
    # A completion can hold half of a surrogate pair, which UTF-8 cannot.
    html = html.translate(_CONTROL_CHARACTERS).encode("utf-8", "replace").decode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, html)


def _sections(
    summary: Mapping[str, Any],
    scores: ReportScores | None,
    selected: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    training_log: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    accuracy, rollouts = (summary.get(key) or {} for key in ("accuracy", "rollouts"))
    selection, stages = (summary.get(key) or {} for key in ("selection", "stages"))
    stages = {name: stage or {} for name, stage in stages.items()}
    return {
        "recipe": summary.get("recipe") or "unnamed recipe",
        "facts": _facts(summary),
        **_result(summary),
        "accuracy": accuracy,
        "benchmarks": benchmark_section(summary),
        "contamination": contamination_section(summary),
        "agreement": _agreement(accuracy),
        "selection": selection,
        "selection_notes": wording.selection_notes(selection),
        "stability_notes": wording.stability_notes(summary.get("stability") or {}),
        "comparison": _comparison(scores),
        "chosen": _chosen(selected, scores),
        "n_selected": len(selected),
        "rollouts": rollouts,
        "rollout_notes": wording.rollout_notes(rollouts),
        "samples": [dict.fromkeys(_SAMPLE_KEYS) | dict(sample) for sample in samples],
        "stages": stages,
        "memory_columns": _memory_columns(stages),
        "totals": {key: summary.get(key) for key in ("total_wall_seconds", "peak_rss_bytes", "dropped_rows")},
        "plots": _plots(summary, scores, rollouts.get("num_generations"), training_log, stages),
    }


def _result(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Headline and verdict: of the held-out set, or of the mean over benchmarks where there is no such set."""
    accuracy, mean = summary.get("accuracy") or {}, summary.get("mean") or {}
    titles = _titles(summary)
    if not any(accuracy.values()) and titles:
        return {
            "headline": wording.benchmarks_headline(mean, titles),
            "verdict": wording.verdict(mean, "sign-flip"),
            "shows_accuracy": False,
        }
    return {"headline": wording.headline(accuracy), "verdict": wording.verdict(accuracy), "shows_accuracy": True}


def _titles(summary: Mapping[str, Any]) -> list[str]:
    return [tree.get("title") or name for name, tree in (summary.get("benchmarks") or {}).items()]


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    model = summary.get("model") or {}
    parts = [str(model[key]) for key in ("name", "quantization", "dtype") if model.get(key)]
    facts = [("Model", ", ".join(parts))]
    for label, key in (("Benchmark", "benchmark"), ("Seed", "seed"), ("Device", "device"), ("Commit", "git_commit")):
        value = summary.get(key)
        if key == "benchmark" and value is None:
            value = ", ".join(_titles(summary)) or None
        facts.append((label, "" if value is None else str(value)))
    return [(label, value or "not recorded") for label, value in facts]


def _memory_columns(stages: Mapping[str, Any]) -> dict[str, str]:
    """Keys and headings of the peaks that some stage has; the process's own always."""
    found = {key for stage in stages.values() for key, value in stage.items() if value is not None}
    return {key: label for key, label in _MEMORY.items() if key in found or key == "peak_rss_bytes"}


def _agreement(accuracy: Mapping[str, Any]) -> list[tuple[str, int]]:
    """How many problems both, one or neither model solves, from the counts; empty where they do not add up."""
    base, trained, difference = (accuracy.get(key) for key in ("base", "trained", "difference"))
    if base is None or trained is None or difference is None:
        return []
    wins, losses = difference["wins"], difference["losses"]
    rows = [("Only the trained model solves it (win)", wins), ("Only the base solves it (loss)", losses)]
    both = base["correct"] - losses
    if base["n"] == trained["n"] and both == trained["correct"] - wins:
        rows += [("Both solve it", both), ("Neither solves it", base["n"] - both - wins - losses)]
    return rows


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


def _plots(
    summary: Mapping[str, Any],
    scores: ReportScores | None,
    num_generations: int | None,
    training_log: Sequence[Mapping[str, Any]],
    stages: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    # matplotlib takes most of a second to import, and only this function needs it.
    from lean_align.report import benchmark_plot, plots, score_plots

    scored = scores if scores is not None and scores.n > 0 else None
    return {
        "accuracy": plots.accuracy_plot(summary.get("accuracy") or {}),
        "benchmarks": benchmark_plot.benchmarks_plot(summary.get("benchmarks") or {}),
        "training": plots.training_plot(training_log),
        "stages": plots.stages_plot(stages),
        "alignment": scored and score_plots.alignment_plot(scored),
        "success": scored and score_plots.success_plot(scored, num_generations),
        "ranks": scored and score_plots.rank_plot(scored),
    }
