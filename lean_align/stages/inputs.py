"""What several stages share: prompts, groups and the policy at a checkpoint, and the reward of a training prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lean_align.artifacts import read_jsonl
from lean_align.data import prompts_from_rows
from lean_align.pipeline.backends import policy_at
from lean_align.recipe import Recipe
from lean_align.scoring.tables import read_table
from lean_align.types import Group, Prompt
from lean_align.verify import verify

if TYPE_CHECKING:
    from lean_align.policy import Policy
KINDS = "kinds.json"
"""Of a generated pool: kind of each prompt, and whether its gold is wrong.  For reports; no method may open it."""
SELECTED = "selected.jsonl"
VALUES = "values.parquet"


def read_prompts(run_dir: Path, split: str) -> list[Prompt]:
    """Prompts of a split, in the order of the data stage."""
    return prompts_from_rows(read_jsonl(run_dir / "data" / f"{split}.jsonl"))


def chosen_ids(run_dir: Path) -> list[str]:
    """Ids of a finished selection, best first."""
    table = read_table(run_dir / "selection" / VALUES)
    places = {prompt_id: place for prompt_id, place in zip(table["prompt_id"], table["place"]) if place > 0}
    return sorted(places, key=places.__getitem__)


def read_groups(run_dir: Path, path: Path | None = None) -> list[Group]:
    """Training prompts with their completions, from `path` or from the finished rollouts."""
    from lean_align.rollouts import group_completions, read_completions

    path = path or run_dir / "rollouts" / "rollouts.jsonl"
    return group_completions(read_prompts(run_dir, "train"), read_completions(path))


def sampling_policy(recipe: Recipe, run_dir: Path) -> Policy:
    """The policy at the warm-up checkpoint; without a warm-up, a fresh adapter on the base."""
    warm = recipe.warmup.steps > 0
    return policy_at(recipe, run_dir, "warmup" if warm else None, fresh=not warm)


def reward(gold: str, completion: str) -> float:
    """1.0 where the completion gives the gold answer, 0.0 otherwise."""
    return verify(answer=gold, completion=completion)
