"""The keys of sampling and of the two trainings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lean_align.recipe.ranges import choice, number


@dataclass(frozen=True)
class RolloutRecipe:
    """Sampling, everywhere that completions are sampled: warm-up, rollouts and training."""

    num_generations: int = number(8, 2)
    """Completions a prompt (G)."""
    allocation: str = choice("fixed", "sequential")
    """`fixed`: G completions of every prompt; `sequential`: first_generations of every prompt, the others only where
    the first rewards differ, and success rates estimated without bias."""
    first_generations: int = number(4, 2)
    """Completions that `sequential` draws first; less than num_generations."""
    temperature: float = number(1.0, 0.01, 10.0)
    """Sampling temperature; log-probabilities in gradients are taken at it too."""
    max_new_tokens: int = number(512, 1)
    """Longest completion, in tokens. 64 where a recipe names none and the model is `demo`."""
    batch_size: int = number(64, 1)
    """Completions decoded at the same time; the noise is each completion's own, rounding the batch's."""
    window: int = number(512, 1)
    """Completions that share a continuous batch and are written together: what a killed run loses at most. The batch
    runs empty at the end of each, so it should be several times batch_size."""
    engine: str = choice("auto", "transformers", "vllm")
    """What samples rollouts and evaluation. `auto`: vllm where there is a card and it is installed."""
    vllm_adapter: str = choice("auto", "merged", "request")
    """vllm reads whole weights in the place of 4-bit ones. `merged`: the adapter is added to them, in float32;
    `request`: it stays beside them, in model.dtype; `auto`: request on a card, merged on a CPU, where requests are
    slow."""


@dataclass(frozen=True)
class TrainerRecipe:
    """GRPO by trl or Unsloth, for the warm-up and for the final training."""

    backend: str = choice("auto", "trl", "unsloth")
    """What trains. `auto`: unsloth where there is a card and it is installed. On a card Unsloth samples with vllm,
    unless rollouts.engine is transformers."""
    steps: int = number(100, 1)
    """Optimiser steps; of the final training 20 where a recipe names none and the model is `demo`."""
    prompts_per_step: int = number(48, 1)
    """Prompts a step; each has num_generations completions. Where a recipe names none and the model is `demo`, 8 in the
    warm-up and 12 in the final training."""
    micro_batch: int = number(8, 1)
    """Completions a forward and backward pass; divides prompts_per_step x num_generations."""
    sampling_batch: int | None = number(None, 1)  # type: ignore[arg-type]
    """Completions sampled at once, at most; whole groups and micro-batches that divide a step. `null`: all of a step,
    which is fastest and takes the most memory."""
    learning_rate: float = number(1e-5, 0.0)
    """Peak learning rate of AdamW."""
    lr_scheduler: str = choice("constant", "linear", "cosine")
    """Shape of the learning rate after the first lr_warmup_steps."""
    lr_warmup_steps: int = number(0, 0)
    """Steps of linear increase."""
    beta: float = number(0.0, 0.0)
    """Weight of the KL term towards the initial policy."""
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
    """Steps between checkpoints; a killed run loses at most so many."""

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
