"""GRPO with trl's GRPOTrainer, for the warm-up and for the final training.

Differs from a plain GRPOTrainer call in: 1. every field is passed, so that neither a new default nor a
patched one changes a run; 2. the prompts of all steps are laid out beforehand, and each step's noise is
a function of (seed, stage, step): a resumed training is bit for bit an uninterrupted one; 3. adapter
weights stay float32 over a 4-bit base, where trl makes them bfloat16 and would round small updates away.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from lean_align.policy import Policy, adapter_kept, save_adapter
from lean_align.progress import Progress
from lean_align.recipe import RolloutRecipe, TrainerRecipe
from lean_align.rng import rng_for, seed_for
from lean_align.types import Prompt

COMPLETE = "complete"
LOGGED = {
    "reward": "reward",
    "reward_std": "reward_std",
    "frac_reward_zero_std": "share_zero_spread",
    "completions/clipped_ratio": "share_truncated",
    "completions/mean_length": "mean_tokens",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "entropy": "entropy",
    "kl": "kl",
    "learning_rate": "learning_rate",
}


def training_order(prompts: Sequence[Prompt], n: int, seed: int, stage: str) -> list[Prompt]:
    """The first n prompts of an endless series of passes over `prompts`, each in a seeded order of its own."""
    order: list[Prompt] = []
    epoch = 0
    while len(order) < n:
        order += [prompts[i] for i in rng_for(seed, f"{stage}.order", epoch).permutation(len(prompts))]
        epoch += 1
    return order[:n]


def trainer_fields(
    trainer: TrainerRecipe, rollouts: RolloutRecipe, folder: Path, seed: int, device: str, bf16: bool
) -> dict[str, Any]:
    """Every GRPOConfig field that bears on the result, on memory or on what is written.

    Parameters
    ----------
    trainer : TrainerRecipe
    rollouts : RolloutRecipe
    folder : Path
        Where checkpoints go.
    seed : int
        In [0, 2**31).
    device : str
        `cpu` or `cuda`.
    bf16 : bool
        Mixed precision; on CUDA only.
    """
    completions = trainer.prompts_per_step * rollouts.num_generations
    return {
        **_optimiser_fields(trainer),
        "output_dir": str(folder),
        "per_device_train_batch_size": trainer.micro_batch,
        "gradient_accumulation_steps": completions // trainer.micro_batch,
        "generation_batch_size": None,
        "steps_per_generation": completions // trainer.micro_batch,
        "num_iterations": 1,
        "num_generations": rollouts.num_generations,
        "max_completion_length": rollouts.max_new_tokens,
        "temperature": rollouts.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": None,
        "repetition_penalty": 1.0,
        "generation_kwargs": None,
        "loss_type": "grpo",
        "scale_rewards": "group",
        "importance_sampling_level": "token",
        "beta": trainer.beta,
        "epsilon": trainer.epsilon,
        "epsilon_high": trainer.epsilon,
        "delta": None,
        "mask_truncated_completions": False,
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
        "save_steps": trainer.save_steps,
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
        "lr_scheduler_type": "constant_with_warmup" if trainer.lr_scheduler == "constant" else trainer.lr_scheduler,
        "lr_scheduler_kwargs": None,
        "warmup_steps": trainer.lr_warmup_steps,
        "optim": trainer.optimizer,
        "optim_args": None,
        "weight_decay": trainer.weight_decay,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "max_grad_norm": trainer.max_grad_norm,
        "label_smoothing_factor": 0.0,
        "neftune_noise_alpha": None,
        "gradient_checkpointing": trainer.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if trainer.gradient_checkpointing else None,
    }


def train_grpo(
    policy: Policy,
    prompts: Sequence[Prompt],
    trainer: TrainerRecipe,
    rollouts: RolloutRecipe,
    reward: Callable[[str, str], float],
    folder: Path,
    seed: int,
    stage: str,
) -> list[dict[str, float]]:
    """Train the policy's adapter, continuing from the last whole checkpoint, and save it.

    Parameters
    ----------
    policy : Policy
        With trainable LoRA parameters; changed in place.
    prompts : sequence of Prompt
        Cycled through until the steps are done.
    trainer, rollouts : TrainerRecipe, RolloutRecipe
    reward : callable
        (gold, completion) -> 0.0 or 1.0.
    folder : Path
        Gets `adapter/`; holds `checkpoints/` meanwhile.
    seed : int
        The recipe's seed.
    stage : str
        Names this training's random streams.

    Returns
    -------
    list of dict
        One row a step: step, reward, reward_std, share_zero_spread, share_truncated, loss, grad_norm, ...
    """
    from trl import GRPOConfig

    rows = training_order(prompts, trainer.steps * trainer.prompts_per_step, seed, stage)
    dataset = Dataset.from_list([{"prompt": policy.encoder.request(p), "answer": p.answer} for p in rows])
    device = policy.device.type
    bf16 = device == "cuda" and policy.model.dtype.is_floating_point and policy.model.dtype.itemsize == 2
    checkpoints = folder / "checkpoints"
    fields = trainer_fields(trainer, rollouts, checkpoints, seed_for(seed, stage) % 2**31, device, bf16)
    callback = _StepCallback(seed, stage, trainer.steps)
    grpo = _make_trainer(policy, GRPOConfig(**fields), dataset, _reward_function(reward), callback)
    resume = last_checkpoint(checkpoints)
    callback.progress = Progress(stage, trainer.steps, int(resume.name.split("-")[1]) if resume else 0, 0.0)
    with callback.progress:
        grpo.train(resume_from_checkpoint=str(resume) if resume else None)
    save_adapter(grpo.model, folder / "adapter")
    shutil.rmtree(checkpoints, ignore_errors=True)
    return log_rows(grpo.state.log_history)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole; later, torn ones are deleted."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    for path in found:
        if (path / COMPLETE).exists():
            return path
        shutil.rmtree(path)
    return None


def log_rows(history: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """The trainer's log without its timings: one row a step, under the names of `LOGGED`."""
    return [
        {"step": int(row["step"]), **{ours: row[theirs] for theirs, ours in LOGGED.items() if theirs in row}}
        for row in history
        if "reward" in row
    ]


class _StepCallback(TrainerCallback):  # type: ignore[misc]
    """Seeds each step, shows progress, and marks whole checkpoints."""

    def __init__(self, seed: int, stage: str, steps: int) -> None:
        self.seed, self.stage, self.steps = seed, stage, steps
        self.progress: Progress | None = None

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Draw all of the step's completions from (seed, stage, step)."""
        from transformers import set_seed

        set_seed(seed_for(self.seed, self.stage, state.global_step) % 2**31)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kw: Any,
    ) -> None:
        """Show one line a step."""
        if logs and "reward" in logs and self.progress is not None:
            self.progress.advance(1, f"reward {float(logs['reward']):.2f} loss {float(logs.get('loss', 0)):.3f}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Mark the checkpoint: everything of it is on disk."""
        (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def _make_trainer(policy: Policy, config: Any, dataset: Dataset, reward: Any, callback: _StepCallback) -> Any:
    from trl import GRPOTrainer

    logging.getLogger("trl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="(trl|peft|torch).*")
    with adapter_kept(policy.model):
        trainer = GRPOTrainer(
            model=policy.model,
            reward_funcs=reward,
            args=config,
            train_dataset=dataset,
            processing_class=policy.encoder.tokenizer,
            callbacks=[callback],
        )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def _reward_function(reward: Callable[[str, str], float]) -> Callable[..., list[float]]:
    def correctness(completions: Sequence[Any], answer: Sequence[str], **kwargs: Any) -> list[float]:
        texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
        return [reward(gold, text) for gold, text in zip(answer, texts)]

    return correctness
