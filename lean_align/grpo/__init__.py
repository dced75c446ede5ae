"""GRPO with trl's trainer: `train_grpo` for the warm-up and for the final training."""

from lean_align.grpo.fields import trainer_fields
from lean_align.grpo.moments import SECOND_MOMENTS, read_second_moments, second_moments
from lean_align.grpo.training import COMPLETE, last_checkpoint, log_rows, train_grpo, training_order

__all__ = [
    "COMPLETE",
    "SECOND_MOMENTS",
    "last_checkpoint",
    "log_rows",
    "read_second_moments",
    "second_moments",
    "train_grpo",
    "trainer_fields",
    "training_order",
]
