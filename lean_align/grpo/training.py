"""GRPO with trl's GRPOTrainer, for the warm-up and for the final training.

Differs from a plain GRPOTrainer call in: 1. every field is passed, so that neither a new default nor a
patched one changes a run; 2. the prompts of all steps are laid out beforehand, and each step's noise is
a function of (seed, stage, step): a resumed training is bit for bit an uninterrupted one; 3. adapter
weights stay float32 over a 4-bit base, where trl makes them bfloat16 and would round small updates away;
4. each prompt's rewards are kept, by step; 5. prompts are put to the model by the token ids of the rollouts, and
completions are judged by the text of theirs.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from lean_align.errors import StageError
from lean_align.grpo.checkpoints import COMPLETE, drop_checkpoints, last_checkpoint, steps_of
from lean_align.grpo.kept_adapters import keep_adapter
from lean_align.grpo.moments import write_second_moments
from lean_align.grpo.order import training_order
from lean_align.grpo.rewards import REWARDS, RewardLog, read_rewards, recorded, with_all_trained
from lean_align.grpo.settings import TrainerSettings, trainer_fields
from lean_align.memory import Shortage, within_memory
from lean_align.policy import Policy, PromptEncoder, adapter_kept, save_adapter
from lean_align.policy.saving import writing_tensors
from lean_align.progress import Progress
from lean_align.rng import seed_for
from lean_align.types import Prompt

REFERENCE = "ref"
OF_SAMPLING = ("reward", "reward_std", "share_zero_spread", "share_truncated", "mean_tokens")
"""What trl's log has of a step alone that samples; on further steps on the same completions it stays."""
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


def train_grpo(
    policy: Policy,
    prompts: Sequence[Prompt],
    settings: TrainerSettings,
    reward: Callable[[str, str], float],
    folder: Path,
) -> list[dict[str, float]] | Shortage:
    """Train the policy's adapter, continuing from the last whole checkpoint, and save it.

    Parameters
    ----------
    policy : Policy
        With trainable LoRA parameters; changed in place.
    prompts : sequence of Prompt
        Cycled through until the steps are done.
    settings : TrainerSettings
    reward : callable
        (gold, completion) -> 0.0 or 1.0.
    folder : Path
        Gets `adapter/`, `rewards.jsonl`, `second_moments.safetensors` from an Adam in full precision, and `at_steps/`
        with the adapters of the settings' `kept_steps`; holds `checkpoints/` meanwhile.

    Returns
    -------
    list of dict, or Shortage
        One row a step: step, reward, reward_std, share_zero_spread, share_truncated, loss, grad_norm, ...  Or what was
        lacking when memory ran out: checkpoints are kept, and a call with a fresh policy and a smaller
        `micro_batch` goes on from them.
    """
    from trl import GRPOConfig

    trainer, seed, stage = settings.trainer, settings.seed, settings.stage
    rows = training_order(prompts, trainer.steps * trainer.prompts_per_step, seed, stage)
    ids = {policy.encoder.text(prompt): policy.encoder.encode(prompt) for prompt in prompts}
    dataset = Dataset.from_list([_example(policy.encoder, prompt) for prompt in rows])
    device = policy.device.type
    bf16 = device == "cuda" and policy.model.dtype.is_floating_point and policy.model.dtype.itemsize == 2
    checkpoints = folder / "checkpoints"
    fields = trainer_fields(settings, checkpoints, device, bf16)
    resume = last_checkpoint(checkpoints)
    steps_done = steps_of(resume) if resume else 0
    rewards = RewardLog(folder / REWARDS, settings.num_generations, steps_done)
    callback = _StepCallback(settings, folder, rewards, Progress(stage, trainer.steps, steps_done, 0.0))
    judge = recorded(reward, policy.encoder.decode, rewards)
    grpo = _make_trainer(policy, GRPOConfig(**fields), dataset, judge, callback)
    give_token_ids(grpo, ids)
    if resume is not None:
        # With beta > 0 a checkpoint holds the reference adapter too, in a folder of its own; transformers then loads
        # that one alone, and would go on from the first weights.  The trainer has made it again, from the same start.
        shutil.rmtree(resume / REFERENCE, ignore_errors=True)
    with callback.progress, writing_tensors(folder):
        ended = within_memory(lambda: grpo.train(resume_from_checkpoint=str(resume) if resume else None))
    if isinstance(ended, Shortage):
        return ended
    save_adapter(grpo.model, folder / "adapter")
    write_second_moments(policy, grpo.optimizer, folder)
    drop_checkpoints(checkpoints)
    return with_all_trained(log_rows(grpo.state.log_history), read_rewards(folder))


def _example(encoder: PromptEncoder, prompt: Prompt) -> dict[str, Any]:
    return {"prompt": encoder.text(prompt), "answer": prompt.answer, "prompt_id": prompt.prompt_id}


def give_token_ids(trainer: Any, ids: Mapping[str, Sequence[int]]) -> None:
    """Have trl's trainer put prompts to the model by token ids that are given.

    Its own way takes the name of a control token in a prompt for the token.

    Parameters
    ----------
    trainer : GRPOTrainer
    ids : mapping of str to sequence of int
        Of each `prompt` in its data set.

    Raises
    ------
    StageError
        When the trainer has no such place.
    """
    if not hasattr(trainer, "_tokenize_prompts"):
        raise StageError("the trainer does not tokenise prompts as expected. Use the tested version of trl.")
    # token ids, images, other fields; a list of its own for each prompt, as trl has them
    trainer._tokenize_prompts = lambda texts: ([list(ids[text]) for text in texts], None, {})


def log_rows(history: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """The trainer's log without its timings: one row a step, under the names of `LOGGED`."""
    rows: list[dict[str, float]] = []
    for row in history:
        if "loss" in row or "reward" in row:
            rows.append({"step": int(row["step"]), **_sampled(rows[-1] if rows else {}), **_named(row)})
    return rows


def _sampled(row: Mapping[str, float]) -> dict[str, float]:
    return {name: row[name] for name in OF_SAMPLING if name in row}


def _named(logs: Mapping[str, float]) -> dict[str, float]:
    return {ours: logs[theirs] for theirs, ours in LOGGED.items() if theirs in logs}


def what_moves(row: Mapping[str, float]) -> str:
    """What a step's line shows: its loss is 0 but for rounding where each prompt is sampled and used once."""
    parts = [f"reward {float(row['reward']):.2f}"]
    if "share_zero_spread" in row:
        parts.append(f"with signal {1 - float(row['share_zero_spread']):.0%}")
    if "mean_tokens" in row:
        parts.append(f"tokens {float(row['mean_tokens']):.0f}")
    if "kl" in row:
        parts.append(f"KL {float(row['kl']):.4f}")
    return ", ".join(parts)


class _StepCallback(TrainerCallback):  # type: ignore[misc]
    """Seeds each step, writes its rewards, keeps its adapter, shows progress, and marks whole checkpoints."""

    def __init__(self, settings: TrainerSettings, folder: Path, rewards: RewardLog, progress: Progress) -> None:
        self.settings, self.folder, self.rewards, self.progress = settings, folder, rewards, progress
        self._row: dict[str, float] = {}

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Draw all of the step's completions from (seed, stage, step)."""
        from transformers import set_seed

        set_seed(seed_for(self.settings.seed, self.settings.stage, state.global_step) % 2**31)
        self.rewards.begin_step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Write the step's rewards, and its adapter where it is kept; its checkpoint, if it has one, comes after."""
        self.rewards.end_step(state.global_step)
        keep_adapter(kw["model"], self.folder, state.global_step, self.settings.kept_steps)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kw: Any,
    ) -> None:
        """Show one line a step."""
        if logs and "loss" in logs:
            self._row = {**_sampled(self._row), **_named(logs)}
            self.progress.advance(1, what_moves(self._row))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Mark the checkpoint: everything of it is on disk."""
        (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def _make_trainer(policy: Policy, config: Any, dataset: Dataset, reward: Any, callback: _StepCallback) -> Any:
    from trl import GRPOTrainer

    logging.getLogger("trl").setLevel(logging.ERROR)
    # trl reads the ends of a completion from here, and asks the tokenizer for one more
    policy.causal_lm.generation_config.eos_token_id = list(policy.eos_token_ids)
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
