"""What stages depend on: recipe keys that several share, files, and whether the selection method asks for a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from lean_align.artifacts import file_hash
from lean_align.errors import RecipeError
from lean_align.recipe import Recipe, TrainerRecipe
from lean_align.selection.registry import recipe_method

PROMPT = ("data.prompt_format", "data.system_prompt", "data.prompt_template", "data.chat_template_kwargs")
POLICY = ("seed", "model", "lora", *PROMPT)
SAMPLED = ("rollouts.num_generations", "rollouts.temperature", "rollouts.max_new_tokens")
"""A training samples with its trainer, whatever the engine of the rollouts, their batch and window."""


def drawn(recipe: Recipe) -> tuple[str, ...]:
    """The key of the completions that are drawn to choose; without a value nothing names it, as before it was there."""
    return () if recipe.selection.num_generations is None else ("selection.num_generations",)


def aimed_at(recipe: Recipe) -> tuple[str, ...]:
    """The key of the target, where the selection method aims at one."""
    return ("selection.target",) if asked_for("target")(recipe) else ()


def predicts(recipe: Recipe) -> bool:
    """Whether a run samples the prompts that are predicted to be chosen."""
    return recipe.rollouts.predicts and asked_for("rollouts")(recipe)


def numbers_sampled(recipe: Recipe, n_pool: int) -> tuple[int, int]:
    """How many prompts are sampled first, and at most.

    Raises
    ------
    RecipeError
        When that is fewer than are to be chosen.
    """
    settings = recipe.rollouts
    first, most = settings.sampled_of(n_pool)
    if most < min(recipe.selection.n, n_pool):
        raise RecipeError(
            f"rollouts.budget_share is {settings.budget_share}, which is {most} of the {n_pool} prompts, and "
            f"selection.n {recipe.selection.n}; expected a budget of at least as many prompts as are chosen. Raise "
            "rollouts.budget_share, or lower selection.n."
        )
    return first, most


def kept_rows(trainer: TrainerRecipe) -> tuple[str, ...]:
    """Keys of the projection, where a training keeps rows."""
    keys = ("projection", "sjlt_nonzeros", "proj_dim")
    return tuple(f"gradients.{key}" for key in keys) if trainer.keep_rows else ()


def asked_for(*folders: str) -> Callable[[Recipe], bool]:
    """Whether the recipe's selection method looks at what some stages found out, at all of them."""
    return lambda recipe: recipe_method(recipe).needs.issuperset(folders)


def no_warmup(recipe: Recipe) -> tuple[str, ...]:
    """The warm-up, where the final training does not start from it."""
    return ("warmup",) if recipe.training.init == "base" else ()


def file_hashes(paths: Iterable[str]) -> dict[str, str]:
    """Hash of each file; what is not a file, such as a name on the hub, is left out."""
    return {path: file_hash(Path(path)) for path in sorted(paths) if Path(path).is_file()}
