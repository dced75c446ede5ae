"""The choice of the prompts to train on: the recipe's method on what the stages before it found out.  Imports no torch.

A method sees a `SelectionPool`, which holds no gold answer and no evaluation problem, and may open no file of the run
while it chooses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from lean_align.artifacts import file_hash, write_jsonl
from lean_align.data import data_sources, local_sources
from lean_align.pipeline.stage import Stage, StageRun
from lean_align.progress import say
from lean_align.recipe import Recipe
from lean_align.scoring import success_estimates
from lean_align.scoring.tables import read_scores, rollout_table
from lean_align.selection import (
    SelectionMethod,
    SelectionPool,
    check_training,
    method_file,
    no_peeking,
    recipe_method,
    select_prompts,
)
from lean_align.selection.pool import FIELDS
from lean_align.stages.inputs import POOL, SELECTED, TARGET, VALUES
from lean_align.stages.perplexity import read_perplexity
from lean_align.stages.ratings import read_ratings
from lean_align.stages.reward_curves import read_reward_curves
from lean_align.stages.target import read_target_problems, target_facts
from lean_align.store import open_store
from lean_align.types import Prompt, Selection

_DEFAULTS = Recipe()


def run(stage: StageRun) -> None:
    """Write `selected.jsonl`, and `values.parquet` with each prompt's place among the chosen and its value."""
    recipe, run_dir, folder = stage.recipe, stage.run_dir, stage.folder
    method = recipe_method(recipe)
    check_training(method, recipe)
    prompts = POOL.sampled_prompts(run_dir) if "rollouts" in method.needs else POOL.prompts(run_dir)
    pool = read_pool(recipe, run_dir, prompts, method)
    settings = recipe.data
    target = recipe.selection.target
    aim = local_sources(target, settings.config, settings.train_split) if target else set()
    data = (settings.train_path, settings.test_path, recipe.evaluation.data_dir, *data_sources(settings), *aim)
    linked = [path.resolve() for path in run_dir.iterdir() if path.is_symlink()]  # stages that runs share
    with no_peeking(run_dir, *linked, *(path for path in data if path and Path(path).exists())):
        selection, choice = select_prompts(method, pool, recipe.selection.n)
    write_jsonl(folder.path / SELECTED, selected_rows(selection, prompts))
    place = np.zeros(len(prompts), dtype=np.int64)
    place[choice.order] = np.arange(1, len(choice.order) + 1)
    values = np.full(len(prompts), np.nan) if choice.values is None else choice.values
    columns = {"prompt_id": [p.prompt_id for p in prompts], "place": place, "value": values}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder.path / VALUES)
    folder.counts |= {
        "method": selection.method,
        "n": len(selection.prompt_ids),
        "pool_size": selection.pool_size,
        "n_without_signal": selection.n_without_signal,
        "explanation": selection.explanation,
    }
    if pool.target is not None:
        folder.counts["target"] = target_facts(recipe, run_dir, pool, choice.order)
    say(f"selection: {selection.explanation}")


def selected_rows(selection: Selection, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """Chosen prompts, best first, with the fields that trainers read and what explains the choice."""
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    nothing = (None,) * len(selection.prompt_ids)
    return [
        {
            "prompt": by_id[prompt_id].prompt,
            "answer": by_id[prompt_id].answer,
            "prompt_id": prompt_id,
            "score": None if score is None or math.isnan(score) else score,
            "rank": rank,
        }
        | ({} if (system := by_id[prompt_id].system) is None else {"system": system})
        for prompt_id, score, rank in zip(
            selection.prompt_ids, selection.scores or nothing, selection.ranks or nothing, strict=True
        )
    ]


def read_pool(recipe: Recipe, run_dir: Path, prompts: list[Prompt], method: SelectionMethod) -> SelectionPool:
    """What a method asked for, from the run folder; all of it in the order of the pool."""
    ids, needs, found = [prompt.prompt_id for prompt in prompts], method.needs, dict[str, Any]()
    if "rollouts" in needs:
        rewards, lengths = rollout_table(run_dir / "rollouts" / "rollouts.jsonl")
        found["rewards"] = tuple(tuple(rewards[i]) for i in ids)
        found["n_tokens"] = np.array([np.mean(lengths[i]) for i in ids])
        if recipe.rollouts.allocation == "sequential":
            found["estimated_learnability"] = success_estimates(recipe, found["rewards"])[1]
    if "scores" in needs:
        found["scores"] = read_scores(run_dir / "scores" / "scores.parquet")
    for name in {"gradients", "features"} & needs:
        found[name] = open_store(run_dir / name)
    if "target" in needs:
        found["target"] = read_target_problems(recipe, run_dir, ids, needs)
    if "perplexity" in needs:
        found["perplexity"], found["ifd"] = read_perplexity(run_dir)
    if "ratings" in needs:
        found["rating"] = read_ratings(run_dir)
    if "reward_curves" in needs:
        found["reward_curves"] = read_reward_curves(run_dir)
    found["whiten_ridge"] = recipe.selection.whiten_ridge
    return SelectionPool(tuple(ids), tuple(prompt.prompt for prompt in prompts), recipe.seed, **found)


def _more_keys(recipe: Recipe) -> tuple[str, ...]:
    """Keys of the method's own that are not at their default, which is what was done before they were there."""
    keys = recipe_method(recipe).keys
    return tuple(key for key in keys if attrgetter(key)(recipe) != attrgetter(key)(_DEFAULTS))


def _more_inputs(recipe: Recipe) -> dict[str, Any]:
    """The file of a user's own method."""
    path = method_file(recipe.selection.method)
    return {} if path is None or not path.is_file() else {"method_file": {str(path): file_hash(path)}}


STAGE = Stage(
    "selection",
    "select",
    "Choose the prompts to train on.",
    run,
    ("seed", "selection.method", "selection.n"),
    ("data", *FIELDS, TARGET.rollouts, TARGET.gradients, TARGET.features),  # whatever a method may ask for
    more_keys=_more_keys,
    more_inputs=_more_inputs,
    resumable=False,
    uses_torch=False,
    shared=False,
)
