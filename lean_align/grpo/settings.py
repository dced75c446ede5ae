"""How a training goes: the record that the stages, the bench and the plan share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lean_align.recipe import Recipe, TrainerRecipe


@dataclass(frozen=True)
class TrainerSettings:
    """How a training samples, and how it takes its steps.

    Attributes
    ----------
    trainer : TrainerRecipe
        Steps, batches and optimiser.
    num_generations : int
        Completions a prompt (G).
    max_new_tokens : int
        Longest completion, in tokens.
    temperature : float
    seed, stage : int, str
        What the training's random streams are drawn from.
    """

    trainer: TrainerRecipe
    num_generations: int
    max_new_tokens: int
    temperature: float
    seed: int
    stage: str

    @classmethod
    def of(cls, recipe: Recipe, section: str, stage: str | None = None) -> TrainerSettings:
        """Those of a recipe's section, `warmup` or `training`; the stage is named after it unless another is given."""
        trainer = {"warmup": recipe.warmup, "training": recipe.training}[section]
        sampled = recipe.rollouts
        drawn = sampled.num_generations, sampled.max_new_tokens, sampled.temperature
        return cls(trainer, *drawn, recipe.seed, stage or section)

    def with_trainer(self, **changes: Any) -> TrainerSettings:
        """The same with other keys of the trainer."""
        return replace(self, trainer=replace(self.trainer, **changes))

    @property
    def completions_per_step(self) -> int:
        """Those of all prompts of a step."""
        return self.trainer.prompts_per_step * self.num_generations

    @property
    def sampled_at_once(self) -> int:
        """Completions that are sampled in one batch."""
        return self.trainer.sampled_at_once(self.num_generations)
