"""Runs that drew every completion, up to their gradients: what other ways of drawing are held against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.cases import demo_folder, run_recipe
from lean_align.errors import StageError
from lean_align.recipe import Recipe, load_recipe
from lean_align.stages.inputs import read_groups
from lean_align.store import GradientStore, open_store


@dataclass(frozen=True)
class FixedRun:
    """Rewards and numbers of tokens by prompt and completion, rows by prompt, and how many prompts are chosen."""

    recipe: Recipe
    store: GradientStore
    rewards: NDArray[np.float64]
    n_tokens: NDArray[np.int64]
    most: int


def fixed_run(run_dir: Path) -> FixedRun:
    """Read a run.

    Raises
    ------
    StageError
        When it did not draw every completion.
    """
    recipe = load_recipe(run_dir / "recipe.yaml")
    if recipe.rollouts.allocation != "fixed":
        raise StageError(f"{run_dir} did not draw every completion; expected one with rollouts.allocation=fixed.")
    store, groups = open_store(run_dir / "gradients"), read_groups(run_dir)
    rewards = np.array([group.rewards for group in groups])
    n_tokens = np.array([[c.n_tokens for c in group.completions] for group in groups])
    most = min(recipe.selection.n, sum(group.learnability > 0 for group in groups))
    return FixedRun(recipe, store, rewards, n_tokens, most)


def demo_run() -> Path:
    """The demo's folder, run as far as its gradients."""
    folder = demo_folder()
    if not (folder / "gradients" / "manifest.json").exists():
        run_recipe("demo", folder, "gradients")
    return folder
