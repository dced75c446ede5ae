"""The keys of the warm-up and of the final training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lean_align.recipe.field_kinds import LATER, choice, number, switch


@dataclass(frozen=True)
class TrainerRecipe:
    """GRPO by the engine that takes the gradients (lean), by trl or by Unsloth, for the warm-up and for the final
    training."""

    backend: str = choice("auto", "lean", "trl", "unsloth")
    """What trains. `lean`: completions come from rollouts.engine, and gradients are taken as in the gradient stage:
    prompts once for their completions, without padding, logits some positions at a time. `auto`: unsloth where there is
    a card and it is installed, else lean. On a card Unsloth samples with vllm, unless rollouts.engine is
    transformers."""
    loss: str = choice("grpo", "dr_grpo", "dapo", "bnpo", **LATER)
    """`grpo`: each completion's mean over its tokens; `dr_grpo`: sum over tokens, divided by rollouts.max_new_tokens,
    advantages only centred; `dapo`: mean over all tokens of the step; `bnpo`: mean over the tokens of each
    micro_batch."""
    num_iterations: int = number(1, 1, **LATER)
    """Optimiser steps on the same completions; from the second on the probability ratio is clipped to epsilon."""
    mask_truncated: bool = switch(False, **LATER)
    """Leave completions that the token limit cut out of the loss; their rewards still count in the advantages."""
    steps: int = number(100, 1)
    """Optimiser steps; of the final training 20 where a recipe names none and the model is `demo`."""
    prompts_per_step: int = number(48, 1)
    """Prompts per step; each has num_generations completions. Where a recipe names none and the model is `demo`, 8 in
    the warm-up and 12 in the final training."""
    micro_batch: int = number(8, 1)
    """Completions per forward and backward pass of trl and Unsloth, and what the loss bnpo means by one; must divide
    prompts_per_step x num_generations there. Of lean see token_budget."""
    token_budget: int = number(4096, 1, **LATER)
    """Completion tokens per forward and backward pass of lean; a single completion always fits. Logits exist for
    gradients.logprob_chunk positions at a time."""
    sampling_batch: int | None = number(None, 1)
    """Most completions sampled at once. trl and Unsloth: in whole groups and micro-batches that divide a step; `null`:
    all of a step, which is fastest and takes the most memory. lean: `null` is rollouts.batch_size."""
    refill: bool = switch(False, **LATER)
    """Of lean: sample further prompts in place of those whose rewards are all equal, until the step has
    prompts_per_step that teach or refill_tokens is spent."""
    refill_tokens: int | None = number(None, 1, **LATER)
    """Most completion tokens of a step's further prompts; `null`: twice those of its first ones."""
    keep_rows: bool = switch(False, **LATER)
    """Of lean: keep each group's projected gradient as it passes, in the training's folder rows/, as the gradient stage
    would (gradients.projection, proj_dim)."""
    learning_rate: float = number(1e-5, 0.0)
    """Peak learning rate of AdamW."""
    lr_scheduler: str = choice("constant", "linear", "cosine")
    """Shape of the learning rate after the first lr_warmup_steps."""
    lr_warmup_steps: int = number(0, 0)
    """Steps of linear increase."""
    beta: float = number(0.0, 0.0)
    """Weight of the KL term towards the initial policy."""
    kl_groups: str = choice("all", "spread", **LATER)
    """Groups that the KL term counts: `all`, as in trl, or those whose rewards differ, which saves lean the passes over
    the others."""
    epsilon: float = number(0.2, 0.0)
    """Clip range of the probability ratio."""
    weight_decay: float = number(0.0, 0.0)
    """Decoupled weight decay."""
    max_grad_norm: float = number(1.0, 0.0)
    """Gradients are clipped to this norm."""
    optimizer: str = choice("adamw_torch", "paged_adamw_8bit", "adamw_8bit")
    """AdamW in full precision, or one of its 8-bit forms."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    save_steps: int = number(10, 1)
    """Steps between checkpoints, rounded up to a multiple of num_iterations; a killed run loses at most this many."""

    def only_lean(self) -> str | None:
        """The first key that asks for what only lean can do; None where there is none."""
        asked = {"refill": self.refill, "keep_rows": self.keep_rows, "kl_groups": self.kl_groups != "all"}
        return next((key for key, value in asked.items() if value), None)

    def sampled_at_once(self, num_generations: int) -> int:
        """Completions that are sampled in one batch: the largest size that `sampling_batch` allows."""
        step, unit = self.prompts_per_step * num_generations, math.lcm(self.micro_batch, num_generations)
        most = max(unit, min(self.sampling_batch or step, step))
        return next((n for n in range(most // unit * unit, 0, -unit) if step % n == 0), unit)


@dataclass(frozen=True)
class WarmupRecipe(TrainerRecipe):
    """The short training before gradients are taken; steps = 0 leaves it out."""

    steps: int = number(6, 0)
    """Optimiser steps; 0 leaves the warm-up out."""
    n_prompts: int = number(300, 1)
    """Size of the seeded random subset that it trains on."""


@dataclass(frozen=True)
class TrainingRecipe(TrainerRecipe):
    """The final training, on the selected prompts."""

    init: str = choice("base", "warmup")
    """Adapter to start from: a fresh one, or the warm-up's."""
