"""What several stages share: prompts, groups and the policy at a checkpoint, and the reward of a training prompt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lean_align.artifacts import read_json, read_jsonl
from lean_align.data import prompts_from_rows
from lean_align.pipeline.backends import policy_at
from lean_align.recipe import Recipe
from lean_align.scoring.tables import read_table
from lean_align.types import Group, Prompt
from lean_align.verify import verify

if TYPE_CHECKING:
    from lean_align.policy import Policy
ROLLOUTS = "rollouts.jsonl"
KINDS = "kinds.json"
"""Of a generated pool: kind of each prompt, and whether its gold is wrong.  For reports; no method may open it."""
SELECTED = "selected.jsonl"
VALUES = "values.parquet"
SAMPLED = "sampled.json"
"""Beside rollouts: ids of the prompts that have completions, where not every prompt was to have some."""
ROUNDS, ROWS = "rounds", "rows"
"""Beside rollouts that were drawn in rounds: a folder a round, with a store of the rows that were taken to choose."""


@dataclass(frozen=True)
class Sampled:
    """Prompts that completions and gradients are taken of, and where; all but the file are stages' folders.

    Attributes
    ----------
    file : str
        Of the prompts, below the run's folder.
    rollouts, gradients, features : str
    """

    file: str
    rollouts: str
    gradients: str
    features: str

    def prompts(self, run_dir: Path) -> list[Prompt]:
        """The prompts, in the order of their file."""
        return prompts_from_rows(read_jsonl(run_dir / self.file))

    def sampled_prompts(self, run_dir: Path, folder: Path | None = None) -> list[Prompt]:
        """Those that have completions, in the same order; `folder` holds these, the stage's own where not given."""
        prompts, listed = self.prompts(run_dir), (folder or run_dir / self.rollouts) / SAMPLED
        if not listed.exists():
            return prompts
        kept = set(read_json(listed))
        return [prompt for prompt in prompts if prompt.prompt_id in kept]

    def row_folders(self, run_dir: Path) -> list[Path]:
        """Stores of the rows that were taken while completions were drawn, round by round."""
        return round_rows(run_dir / self.rollouts)


def round_rows(folder: Path) -> list[Path]:
    """Stores of a stage that draws in rounds, in their order."""
    return sorted((folder / ROUNDS).glob(f"*/{ROWS}"), key=lambda rows: int(rows.parent.name))


POOL = Sampled("data/train.jsonl", "rollouts", "gradients", "features")
TARGET = Sampled("target/target.jsonl", "target_rollouts", "target_gradients", "target_features")
"""The problems that `selection.target` names."""


def read_prompts(run_dir: Path, split: str) -> list[Prompt]:
    """Prompts of a split, in the order of the data stage."""
    return prompts_from_rows(read_jsonl(run_dir / "data" / f"{split}.jsonl"))


def chosen_ids(run_dir: Path) -> list[str]:
    """Ids of a finished selection, best first."""
    table = read_table(run_dir / "selection" / VALUES)
    places = {prompt_id: place for prompt_id, place in zip(table["prompt_id"], table["place"]) if place > 0}
    return sorted(places, key=places.__getitem__)


def read_groups(run_dir: Path, which: Sampled = POOL, path: Path | None = None) -> list[Group]:
    """Prompts with their completions, from `path` or from their finished rollouts."""
    from lean_align.rollouts import group_completions, read_completions

    path = path or run_dir / which.rollouts / ROLLOUTS
    return group_completions(which.sampled_prompts(run_dir, path.parent), read_completions(path))


def sampling_policy(recipe: Recipe, run_dir: Path) -> Policy:
    """The policy at the warm-up checkpoint; without a warm-up, a fresh adapter on the base."""
    warm = recipe.warmup.steps > 0
    return policy_at(recipe, run_dir, "warmup" if warm else None, fresh=not warm)


def reward(gold: str, completion: str) -> float:
    """1.0 where the completion gives the gold answer, 0.0 otherwise."""
    return verify(answer=gold, completion=completion)
