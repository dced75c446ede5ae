"""GRPO for the warm-up and for the final training: by the project's own engine (`train_lean`), or by trl's trainer
(`train_grpo`)."""

from __future__ import annotations

import warnings

from lean_align.grpo.checkpoints import COMPLETE, last_checkpoint
from lean_align.grpo.kept_adapters import kept_adapter
from lean_align.grpo.lean import RowKeeper, Sampler, train_lean
from lean_align.grpo.moments import SECOND_MOMENTS, read_second_moments, second_moments
from lean_align.grpo.order import training_order
from lean_align.grpo.rewards import (
    REWARDS,
    TRAINED_TOKENS,
    RewardLog,
    generated_tokens,
    read_rewards,
    recorded,
    reward_curves,
    trained_tokens,
)
from lean_align.grpo.settings import TrainerSettings, trainer_fields
from lean_align.grpo.training import log_rows, train_grpo

# trl warns, once a module, of a vLLM that it does not call here
warnings.filterwarnings("ignore", category=UserWarning, module="(trl|peft|torch).*")

__all__ = [
    "COMPLETE",
    "REWARDS",
    "SECOND_MOMENTS",
    "TRAINED_TOKENS",
    "RewardLog",
    "RowKeeper",
    "Sampler",
    "TrainerSettings",
    "generated_tokens",
    "kept_adapter",
    "last_checkpoint",
    "log_rows",
    "read_rewards",
    "read_second_moments",
    "recorded",
    "reward_curves",
    "second_moments",
    "train_grpo",
    "train_lean",
    "trained_tokens",
    "trainer_fields",
    "training_order",
]
