"""GRPO with trl's trainer: `train_grpo` for the warm-up and for the final training."""

from __future__ import annotations

import warnings

from lean_align.grpo.moments import SECOND_MOMENTS, read_second_moments, second_moments
from lean_align.grpo.rewards import REWARDS, RewardLog, generated_tokens, read_rewards, recorded, reward_curves
from lean_align.grpo.settings import TrainerSettings, trainer_fields
from lean_align.grpo.training import COMPLETE, last_checkpoint, log_rows, train_grpo, training_order

# trl warns, once a module, of a vLLM that it does not call here
warnings.filterwarnings("ignore", category=UserWarning, module="(trl|peft|torch).*")

__all__ = [
    "COMPLETE",
    "REWARDS",
    "SECOND_MOMENTS",
    "RewardLog",
    "TrainerSettings",
    "generated_tokens",
    "last_checkpoint",
    "log_rows",
    "read_rewards",
    "read_second_moments",
    "recorded",
    "reward_curves",
    "second_moments",
    "train_grpo",
    "trainer_fields",
    "training_order",
]
