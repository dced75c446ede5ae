"""Every prompt's score, and how far the choice of the best can be trusted.  Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lean_align.artifacts import write_json
from lean_align.pipeline.stage import Stage, StageRun
from lean_align.recipe import Recipe
from lean_align.scoring import (
    rank_correlation,
    score_prompts,
    selection_change,
    selection_stability,
    success_estimates,
)
from lean_align.scoring.tables import rollout_table, write_scores
from lean_align.stages.dependencies import asked_for, drawn
from lean_align.stages.gradient_rows import SECOND_SEED
from lean_align.store import open_store
from lean_align.types import Scores

STABILITY = "stability.json"


def run(stage: StageRun) -> None:
    """Write `scores.parquet` and `stability.json`."""
    recipe, run_dir, folder = stage.recipe, stage.run_dir, stage.folder
    store = open_store(run_dir / "gradients")
    rewards, lengths = rollout_table(run_dir / "rollouts" / "rollouts.jsonl")
    success_rate, v = success_estimates(recipe, [rewards[i] for i in store.prompt_ids])
    n_tokens = [sum(lengths[i]) / len(lengths[i]) for i in store.prompt_ids]
    scores = score_prompts(store, success_rate, threads=recipe.threads, learnability=v)
    # prompts without signal fill a selection up in a fixed order: they would look stable
    n = max(1, min(recipe.selection.n, int((scores.learnability > 0).sum())))
    bootstrap = selection_stability(store, success_rate, n, seed=recipe.seed, threads=recipe.threads, learnability=v)
    write_scores(folder.path / "scores.parquet", scores, n_tokens, store.norms, bootstrap.inclusion)
    stability = {
        "n": n,
        "bootstrap": {
            "replicates": len(bootstrap.overlap),
            "mean_overlap": bootstrap.mean_overlap,
            "low_overlap": bootstrap.low_overlap,
        },
        "second_seed": _second_seed(recipe, run_dir, n, scores),
    }
    write_json(folder.path / STABILITY, stability)
    folder.counts |= {
        "n_prompts": len(scores.prompt_ids),
        "n_positive": int((scores.score > 0).sum()),
        "stability": stability,
    }


def _second_seed(recipe: Recipe, run_dir: Path, n: int, scores: Scores) -> dict[str, Any] | None:
    """What changes with another seed of the projection; None where the run has no second store."""
    path = run_dir / "gradients" / SECOND_SEED
    if not path.is_dir():
        return None
    other = score_prompts(
        open_store(path), scores.success_rate, threads=recipe.threads, learnability=scores.learnability
    )
    return {
        "share_changed": selection_change(scores, other, n),
        "spearman": rank_correlation(scores, other),
    }


STAGE = Stage(
    "scores",
    "score",
    "Score every prompt.",
    run,
    ("seed", "selection.n", "rollouts.allocation", "rollouts.first_generations", "rollouts.num_generations"),
    ("rollouts", "gradients"),
    more_keys=drawn,
    needed=asked_for("scores"),
    resumable=False,
    uses_torch=False,
)
