"""How a training goes: the record that stages, bench and plan share, and trl's own configuration from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lean_align.gradients import GradientSettings
from lean_align.grpo.optimiser import BETAS, EPSILON, scheduler_name
from lean_align.recipe import Recipe, TrainerRecipe, WarmupRecipe
from lean_align.rng import seed_for
from lean_align.rollouts import Sampling

REFILL_SHARE = 2
"""Tokens of further prompts at most, as a multiple of the step's first ones, where the recipe names none."""


@dataclass(frozen=True)
class TrainerSettings:
    """How a training samples, and how it takes its steps.

    Attributes
    ----------
    trainer : TrainerRecipe
        Steps, batches and optimiser.
    num_generations : int
        Completions per prompt (G).
    max_new_tokens : int
        Longest completion, in tokens.
    temperature : float
    seed, stage : int, str
        What the training's random streams are drawn from.
    batch_size : int
        Completions that lean decodes at the same time where `trainer.sampling_batch` says nothing.
    logprob_chunk : int
        Of lean's passes, and `share_prompt`: see `GradientSettings`.
    share_prompt : bool
    kept_steps : tuple of int
        Optimiser steps, counted from 1, after which the adapter is kept too.
    """

    trainer: TrainerRecipe
    num_generations: int
    max_new_tokens: int
    temperature: float
    seed: int
    stage: str
    batch_size: int = 64
    logprob_chunk: int = 1024
    share_prompt: bool = True
    kept_steps: tuple[int, ...] = ()

    @classmethod
    def of(cls, recipe: Recipe, section: str, stage: str | None = None) -> TrainerSettings:
        """Those of a recipe's section, `warmup` or `training`; the stage is named after it unless another is given."""
        trainer = {"warmup": recipe.warmup, "training": recipe.training}[section]
        sampled = recipe.rollouts
        drawn = sampled.num_generations, sampled.max_new_tokens, sampled.temperature
        how = sampled.batch_size, recipe.gradients.logprob_chunk, recipe.gradients.share_prompt
        return cls(trainer, *drawn, recipe.seed, stage or section, *how)

    def with_trainer(self, **changes: Any) -> TrainerSettings:
        """The same with other keys of the trainer."""
        return replace(self, trainer=replace(self.trainer, **changes))

    @property
    def section(self) -> str:
        """The recipe's section that the keys of the trainer are in."""
        return "warmup" if isinstance(self.trainer, WarmupRecipe) else "training"

    @property
    def passes(self) -> GradientSettings:
        """How lean takes gradients, and log-probabilities of other policies."""
        budget, chunk, shared = self.trainer.token_budget, self.logprob_chunk, self.share_prompt
        return GradientSettings(
            self.temperature, budget, chunk, max_new_tokens=self.max_new_tokens, share_prompt=shared
        )

    def sampling(self, step: int) -> Sampling:
        """How lean draws the completions of a step, counted from 0: the noise is the step's own."""
        most = min(self.completions_per_step, self.trainer.sampling_batch or self.batch_size)
        drawn = self.num_generations, self.temperature, self.max_new_tokens
        return Sampling(*drawn, most, self.seed, f"{self.stage}/{step}")

    @property
    def completions_per_step(self) -> int:
        """Those of all prompts of a step."""
        return self.trainer.prompts_per_step * self.num_generations

    @property
    def most_completions(self) -> int:
        """Those that lean may sample in a step: with refill, to the budget of further ones at their longest."""
        first = self.completions_per_step
        if not self.trainer.refill:
            return first
        tokens = self.trainer.refill_tokens
        return first + (REFILL_SHARE * first if tokens is None else -(-tokens // self.max_new_tokens))

    @property
    def draws(self) -> int:
        """How often completions are sampled: each time's serve num_iterations steps."""
        return -(-self.trainer.steps // self.trainer.num_iterations)

    @property
    def sampled_at_once(self) -> int:
        """Completions that are sampled in one batch."""
        return self.trainer.sampled_at_once(self.num_generations)


def trainer_fields(settings: TrainerSettings, folder: Path, device: str, bf16: bool) -> dict[str, Any]:
    """Every GRPOConfig field that bears on the result, on memory or on what is written.

    Parameters
    ----------
    settings : TrainerSettings
    folder : Path
        Where checkpoints go.
    device : str
        `cpu` or `cuda`.
    bf16 : bool
        Mixed precision; on CUDA only.
    """
    trainer, seed = settings.trainer, seed_for(settings.seed, settings.stage) % 2**31
    return {
        **_optimiser_fields(trainer),
        "output_dir": str(folder),
        "per_device_train_batch_size": trainer.micro_batch,
        "gradient_accumulation_steps": settings.completions_per_step // trainer.micro_batch,
        "generation_batch_size": None,
        "steps_per_generation": settings.sampled_at_once // trainer.micro_batch,
        "num_iterations": trainer.num_iterations,
        "num_generations": settings.num_generations,
        "max_completion_length": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": None,
        "repetition_penalty": 1.0,
        "generation_kwargs": None,
        "loss_type": trainer.loss,
        "scale_rewards": "none" if trainer.loss == "dr_grpo" else "group",
        "importance_sampling_level": "token",
        "beta": trainer.beta,
        "use_bias_correction_kl": True,
        "epsilon": trainer.epsilon,
        "epsilon_high": trainer.epsilon,
        "delta": None,
        "mask_truncated_completions": trainer.mask_truncated,
        "sync_ref_model": False,
        "top_entropy_quantile": 1.0,
        "entropy_coef": 0.0,
        "use_adaptive_entropy": False,
        "off_policy_mask_threshold": None,
        "reward_weights": None,
        "multi_objective_aggregation": "sum_then_normalize",
        "disable_dropout": True,
        "cast_lm_head_to_fp32": False,
        "shuffle_dataset": False,
        "remove_unused_columns": False,
        "dataloader_drop_last": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": device == "cuda",
        "use_vllm": False,
        "use_liger_kernel": False,
        "use_transformers_continuous_batching": False,
        "bf16": bf16,
        "fp16": False,
        "tf32": None,
        "use_cpu": device == "cpu",
        "torch_compile": False,
        "auto_find_batch_size": False,
        "full_determinism": False,
        "seed": seed,
        "data_seed": seed,
        "save_strategy": "steps",
        # trl samples anew where it goes on from a checkpoint
        "save_steps": -(-trainer.save_steps // trainer.num_iterations) * trainer.num_iterations,
        "save_total_limit": 2,
        "save_only_model": False,
        "load_best_model_at_end": False,
        "eval_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_first_step": False,
        "logging_nan_inf_filter": False,
        "log_completions": False,
        "log_level": "error",
        "disable_tqdm": True,
        "report_to": "none",
        "push_to_hub": False,
    }


def _optimiser_fields(trainer: TrainerRecipe) -> dict[str, Any]:
    return {
        "max_steps": trainer.steps,
        "num_train_epochs": 1,
        "learning_rate": trainer.learning_rate,
        "lr_scheduler_type": scheduler_name(trainer),
        "lr_scheduler_kwargs": None,
        "warmup_steps": trainer.lr_warmup_steps,
        "optim": trainer.optimizer,
        "optim_args": None,
        "weight_decay": trainer.weight_decay,
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "adam_epsilon": EPSILON,
        "max_grad_norm": trainer.max_grad_norm,
        "label_smoothing_factor": 0.0,
        "neftune_noise_alpha": None,
        "gradient_checkpointing": trainer.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if trainer.gradient_checkpointing else None,
    }
