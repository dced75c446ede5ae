"""A stage that ran out of memory and went on in smaller pieces says so, and keeps it in its manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

from lean_align.artifacts import StageFolder
from lean_align.errors import OutOfMemoryError
from lean_align.memory import Halving, Shortage
from lean_align.progress import say
from lean_align.recipe import TrainerRecipe

OUT_OF_MEMORY = "out_of_memory"


def recorder(folder: StageFolder, section: str) -> Callable[[Halving], None]:
    """What to call at each halving of a key of a recipe's section."""

    def record(halving: Halving) -> None:
        key = f"{section}.{halving.key}"
        say(f"{halving.work}: out of memory ({halving.shortage}); going on with {key} {halving.value}")
        row = {"work": halving.work, "key": key, "value": halving.value, **asdict(halving.shortage)}
        folder.counts.setdefault(OUT_OF_MEMORY, []).append(row)

    return record


def smaller_micro_batch(trainer: TrainerRecipe, stage: str, shortage: Shortage) -> TrainerRecipe:
    """The trainer with the largest smaller micro-batch that divides the one it has.

    Raises
    ------
    OutOfMemoryError
        When it takes one completion at a time already.
    """
    if trainer.micro_batch == 1:
        raise OutOfMemoryError(
            f"no memory for the {stage} with one completion at a time ({shortage}). Checkpoints are kept. Lower "
            f"rollouts.max_new_tokens or {stage}.prompts_per_step (trl samples all completions of a step at once), or "
            f"set {stage}.gradient_checkpointing=true."
        )
    size = next(n for n in range(trainer.micro_batch // 2, 0, -1) if trainer.micro_batch % n == 0)
    return replace(trainer, micro_batch=size)
