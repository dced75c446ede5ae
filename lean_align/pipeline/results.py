"""The run's results in one object, and the report made from it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lean_align.artifacts import read_json, read_jsonl, read_manifest, write_json
from lean_align.evaluate import accuracy, paired_difference
from lean_align.pipeline.planning import planned_peaks
from lean_align.pipeline.tables import read_scores, read_table
from lean_align.recipe import Recipe
from lean_align.report import ReportScores, write_report

SAMPLES = 6


def accuracy_tree(evaluation: Path, benchmark: str) -> dict[str, Any]:
    """Accuracy of base and trained model with intervals, and their difference over the same problems."""
    rewards = {
        model: {row["prompt_id"]: row["reward"] for row in read_jsonl(evaluation / model / f"{benchmark}.jsonl")}
        for model in ("base", "trained")
    }
    return {
        "base": asdict(accuracy(list(rewards["base"].values()))),
        "trained": asdict(accuracy(list(rewards["trained"].values()))),
        "difference": asdict(paired_difference(rewards["base"], rewards["trained"])),
    }


def write_results(recipe: Recipe, run_dir: Path, report_dir: Path, stages: list[str]) -> dict[str, Any]:
    """Write `RUN/summary.json` and the report; return what the report's manifest counts."""
    summary = summarise(recipe, run_dir, stages)
    write_json(run_dir / "summary.json", summary)
    selected = read_jsonl(run_dir / "selection" / "selected.jsonl")
    log = run_dir / "training" / "log.jsonl"
    write_report(
        report_dir / "index.html",
        summary,
        _report_scores(run_dir, {row["prompt_id"] for row in selected}),
        selected,
        _samples(run_dir, summary["benchmark"]),
        read_jsonl(log) if log.exists() else [],
    )
    return {"n_selected": len(selected)}


def summarise(recipe: Recipe, run_dir: Path, stages: list[str]) -> dict[str, Any]:
    """All that a run found out and what it cost."""
    environment = read_json(run_dir / "run.json")
    manifests = {name: read_manifest(run_dir / name) for name in stages}
    found = {name: manifest for name, manifest in manifests.items() if manifest is not None}
    evaluation = read_json(run_dir / "evaluation" / "summary.json")
    cost, planned = ("wall_seconds", "peak_rss_bytes", "peak_vram_bytes"), planned_peaks(run_dir)
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "git_commit": environment["git_commit"],
        "device": environment["device"],
        "model": {k: getattr(recipe.model, k) for k in ("name", "quantization", "dtype")},
        "benchmark": evaluation["benchmark"],
        "accuracy": {key: evaluation[key] for key in ("base", "trained", "difference")},
        "rollouts": found["rollouts"]["counts"] if "rollouts" in found else None,
        "selection": found["selection"]["counts"],
        "stability": found["scores"]["counts"]["stability"] if "scores" in found else None,
        "dropped_rows": found["data"]["counts"]["n_dropped"],
        "total_wall_seconds": round(sum(m["wall_seconds"] for m in found.values()), 1),
        "peak_rss_bytes": max(m["peak_rss_bytes"] for m in found.values()),
        "stages": {
            name: {key: m[key] for key in cost} | planned.get(name, {}) | _what_ran(m) for name, m in found.items()
        },
    }


def _what_ran(manifest: dict[str, Any]) -> dict[str, Any]:
    """The backend that trained, or the engine that sampled, of a stage that did."""
    return {key: manifest["counts"][key] for key in ("backend", "engine") if key in manifest["counts"]}


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


def _samples(run_dir: Path, benchmark: str) -> list[dict[str, Any]]:
    """A few held-out problems where the two models differ, then others."""
    prompts = {row["prompt_id"]: row for row in read_jsonl(run_dir / "data" / "test.jsonl")}
    base, trained = (
        {row["prompt_id"]: row for row in read_jsonl(run_dir / "evaluation" / model / f"{benchmark}.jsonl")}
        for model in ("base", "trained")
    )
    order = sorted(prompts, key=lambda i: (base[i]["reward"] == trained[i]["reward"], i))
    return [
        {
            "prompt": prompts[i]["prompt"],
            "answer": prompts[i]["answer"],
            "completion_base": base[i]["completion"],
            "reward_base": base[i]["reward"],
            "completion_trained": trained[i]["completion"],
            "reward_trained": trained[i]["reward"],
        }
        for i in order[:SAMPLES]
    ]
