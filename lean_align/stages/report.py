"""The run's results in one object, and a page made from it.  Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lean_align.artifacts import check_seal, read_json, read_jsonl, read_manifest, write_json
from lean_align.contamination import CONTAMINATION
from lean_align.data import prompts_from_rows
from lean_align.evaluation.figures import add_seconds
from lean_align.evaluation.joint_tables import timed_table, write_table
from lean_align.evaluation.problem_sets import ProblemSet, run_sets
from lean_align.evaluation.solving import BASE, PROBLEMS, SECONDS, TRAINED
from lean_align.json_records import from_json
from lean_align.pipeline.stage import Stage, StageRun
from lean_align.recipe import Recipe
from lean_align.report import ReportScores, Summary, write_report
from lean_align.report.counts import Rollouts, SelectionCounts
from lean_align.report.paper import table_for
from lean_align.report.summary import Contamination, Matches, Model, Stability, StageCost
from lean_align.scoring.tables import read_scores, read_table
from lean_align.stages.planning import planned_peaks
from lean_align.stages.transfers import run_transfers

SUMMARY = "summary.json"
SAMPLES = 6
PAIRS = 200
"""Pairs of a training prompt and a benchmark's problem that summary.json lists; RUN/data/contamination.json has all."""


def run(stage: StageRun) -> None:
    """Write `RUN/summary.json` and the page."""
    stages = [one.folder for one in stage.graph.needed_stages(stage.recipe)]
    stage.folder.counts |= write_results(stage.recipe, stage.run_dir, stage.folder.path, stages)


def write_results(recipe: Recipe, run_dir: Path, report_dir: Path, stages: list[str]) -> dict[str, Any]:
    """Write `RUN/summary.json` and the report; return what the report's manifest counts."""
    summary = summarise(recipe, run_dir, stages)
    write_json(run_dir / "summary.json", summary.as_json())
    selected = read_jsonl(run_dir / "selection" / "selected.jsonl")
    log = run_dir / "training" / "log.jsonl"
    write_report(
        report_dir / "index.html",
        summary,
        _report_scores(run_dir, {row["prompt_id"] for row in selected}),
        selected,
        _samples(recipe, run_dir),
        read_jsonl(log) if log.exists() else [],
    )
    if summary.benchmarks:
        paper = table_for(summary.benchmarks, summary.selection.n if summary.selection else None)
        write_table(timed_table(summary, paper), report_dir)
    return {"n_selected": len(selected)}


def summarise(recipe: Recipe, run_dir: Path, stages: list[str]) -> Summary:
    """All that a run found out and what it cost."""
    environment = read_json(run_dir / "run.json")
    manifests = {name: read_manifest(run_dir / name) for name in stages}
    found = {name: manifest for name, manifest in manifests.items() if manifest is not None}
    for name, manifest in found.items():
        check_seal(run_dir / name, manifest)
    evaluation = read_json(run_dir / "evaluation" / "summary.json")
    add_seconds(evaluation["benchmarks"], found["evaluation"]["counts"][SECONDS])
    counts, planned = {name: manifest["counts"] for name, manifest in found.items()}, planned_peaks(run_dir)
    data, chosen = counts["data"], counts["selection"] | {"rounds": recipe.selection.rounds}
    if "online" in counts.get("training", {}):
        chosen |= {"online": counts["training"]["online"]}
    return replace(
        Summary.from_json(evaluation),
        recipe=recipe.name,
        seed=recipe.seed,
        git_commit=environment["git_commit"],
        device=environment["device"],
        model=Model(recipe.model.name, recipe.model.quantization, recipe.model.dtype),
        contamination=_contamination(recipe, run_dir, data["dropped_by_reason"].get("contaminated", 0)),
        rollouts=Rollouts.from_json(counts["rollouts"]) if "rollouts" in counts else None,
        selection=SelectionCounts.from_json(chosen),
        stability=from_json(Stability, counts["scores"]["stability"], "scores") if "scores" in counts else None,
        dropped_rows=data["n_dropped"],
        dropped_by_reason=data["dropped_by_reason"],
        total_wall_seconds=round(sum(manifest["wall_seconds"] for manifest in found.values()), 1),
        peak_rss_bytes=max(manifest["peak_rss_bytes"] for manifest in found.values()),
        stages={name: _cost(manifest, planned.get(name, {})) for name, manifest in found.items()},
        transfer=run_transfers(recipe, run_dir) or None,
    )


def _cost(manifest: dict[str, Any], planned: dict[str, Any]) -> StageCost:
    """What a stage took, its planned peak, and what trained or sampled in it with the tokens that it sampled."""
    measured = {key: manifest[key] for key in ("wall_seconds", "peak_rss_bytes", "peak_vram_bytes")}
    ran = {key: manifest["counts"].get(key) for key in ("backend", "engine", "generated_tokens")}
    return StageCost(**{**measured, **planned, **ran})


def _report_scores(run_dir: Path, chosen: set[str]) -> ReportScores | None:
    path = run_dir / "scores" / "scores.parquet"
    if not path.exists():
        return None
    scores = read_scores(path)
    return ReportScores(
        **vars(scores),
        n_tokens=read_table(path)["n_tokens"],
        selected=np.array([prompt_id in chosen for prompt_id in scores.prompt_ids]),
    )


def _contamination(recipe: Recipe, run_dir: Path, n_dropped: int) -> Contamination | None:
    """What training prompts share with held-out problems: counts and the first pairs; None where not looked for."""
    path = run_dir / "data" / CONTAMINATION
    if not path.exists():
        return None
    found = read_json(path)
    return Contamination(
        mode=recipe.data.contamination,
        n_train=found["n_prompts"],
        benchmarks={
            name: Matches(own["n_problems"], own["n_exact"], own["n_near"], own["n_prompts"])
            for name, own in found["benchmarks"].items()
        },
        pairs=tuple(found["pairs"][:PAIRS]),
        n_pairs=len(found["pairs"]),
        n_dropped=n_dropped,
        unchecked=tuple(name for name in recipe.evaluation.benchmarks if name not in found["benchmarks"]),
    )


def _solved(recipe: Recipe, run_dir: Path) -> list[ProblemSet]:
    """The sets that were solved, from the files of the evaluation."""
    names, folder = recipe.evaluation.benchmarks, run_dir / "evaluation" / PROBLEMS
    problems = {name: prompts_from_rows(read_jsonl(folder / f"{name}.jsonl")) for name in names}
    return run_sets(recipe, run_dir / "data" / "test.jsonl", problems)


def _samples(recipe: Recipe, run_dir: Path) -> list[dict[str, Any]]:
    """A few problems of the first set that may be quoted: where the two models differ, then others."""
    quotable = next((s for s in _solved(recipe, run_dir) if s.quotable), None)
    if quotable is None:
        return []
    prompts = {prompt.prompt_id: prompt for prompt in quotable.prompts}
    base, trained = (
        {row["prompt_id"]: row for row in read_jsonl(run_dir / "evaluation" / model / f"{quotable.name}.jsonl")}
        for model in (BASE, TRAINED)
    )
    order = sorted(prompts, key=lambda i: (base[i]["reward"] == trained[i]["reward"], i))
    return [
        {
            "prompt": prompts[i].prompt,
            "answer": prompts[i].answer,
            "completion_base": base[i]["completion"],
            "reward_base": base[i]["reward"],
            "completion_trained": trained[i]["completion"],
            "reward_trained": trained[i]["reward"],
        }
        for i in order[:SAMPLES]
    ]


STAGE = Stage(
    "report",
    "report",
    "Write summary.json and report/index.html.",
    run,
    ("name", "seed"),
    ("selection", "evaluation"),
    resumable=False,
    beside=(SUMMARY,),
    result=SUMMARY,
    page="index.html",
    uses_torch=False,
    shared=False,
    for_selection=False,
)
