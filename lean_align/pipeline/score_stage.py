"""The score stage: every prompt's score, and how far the choice of the best can be trusted.  Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lean_align.artifacts import StageFolder, write_json
from lean_align.pipeline.gradient_stage import SECOND_SEED
from lean_align.pipeline.tables import write_scores
from lean_align.recipe import Recipe
from lean_align.scoring import rank_correlation, score_prompts, selection_change, selection_stability
from lean_align.store import open_store
from lean_align.types import Scores

STABILITY = "stability.json"


def score_stage(recipe: Recipe, run_dir: Path, folder: StageFolder) -> None:
    """Write `scores.parquet` and `stability.json`."""
    store = open_store(run_dir / "gradients")
    rewards = _rollout_table(run_dir / "rollouts" / "rollouts.jsonl")
    success_rate = [sum(rewards[i][0]) / len(rewards[i][0]) for i in store.prompt_ids]
    n_tokens = [sum(rewards[i][1]) / len(rewards[i][1]) for i in store.prompt_ids]
    scores = score_prompts(store, success_rate, threads=recipe.threads)
    # prompts without signal fill a selection up in a fixed order: they would look stable
    n = max(1, min(recipe.selection.n, int((scores.learnability > 0).sum())))
    bootstrap = selection_stability(store, success_rate, n, seed=recipe.seed, threads=recipe.threads)
    write_scores(folder.path / "scores.parquet", scores, n_tokens, store.norms, bootstrap.inclusion)
    stability = {
        "n": n,
        "bootstrap": {
            "replicates": len(bootstrap.overlap),
            "mean_overlap": bootstrap.mean_overlap,
            "low_overlap": bootstrap.low_overlap,
        },
        "second_seed": _second_seed(recipe, run_dir, n, scores, success_rate),
    }
    write_json(folder.path / STABILITY, stability)
    folder.counts |= {
        "n_prompts": len(scores.prompt_ids),
        "n_positive": int((scores.score > 0).sum()),
        "stability": stability,
    }


def _second_seed(
    recipe: Recipe, run_dir: Path, n: int, scores: Scores, success_rate: list[float]
) -> dict[str, Any] | None:
    """What changes with another seed of the projection; None where the run has no second store."""
    path = run_dir / "gradients" / SECOND_SEED
    if not path.is_dir():
        return None
    other = score_prompts(open_store(path), success_rate, threads=recipe.threads)
    return {
        "share_changed": selection_change(scores, other, n),
        "spearman": rank_correlation(scores, other),
    }


def _rollout_table(path: Path) -> dict[str, tuple[list[float], list[int]]]:
    """Rewards and lengths by prompt, read without torch."""
    table: dict[str, tuple[list[float], list[int]]] = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            rewards, lengths = table.setdefault(row["prompt_id"], ([], []))
            rewards.append(row["reward"])
            lengths.append(row["n_tokens"])
    return table
