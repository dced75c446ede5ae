"""A stage that ran out of memory and went on in smaller pieces says so, and keeps it in its manifest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

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


def smaller_trainer(
    trainer: TrainerRecipe, num_generations: int, stage: str, shortage: Shortage
) -> tuple[TrainerRecipe, list[Halving]]:
    """The trainer with at most half the micro-batch and half the completions sampled at once, and what changed.

    Both, since either may have been what did not fit.

    Raises
    ------
    OutOfMemoryError
        When it takes and samples as little at a time as it can already.
    """
    step = trainer.prompts_per_step * num_generations
    micro = next((n for n in range(trainer.micro_batch // 2, 0, -1) if trainer.micro_batch % n == 0), 1)
    sampled, unit = trainer.sampled_at_once(num_generations), math.lcm(micro, num_generations)
    smaller = next((n for n in range(sampled // 2 // unit * unit, 0, -unit) if step % n == 0), sampled)
    changes: dict[str, Any] = {"micro_batch": micro} if micro != trainer.micro_batch else {}
    changes |= {"sampling_batch": smaller} if smaller != sampled else {}
    if not changes:
        raise OutOfMemoryError(
            f"no memory for the {stage} with one completion at a time ({shortage}). Checkpoints are kept. Lower "
            f"rollouts.max_new_tokens or rollouts.num_generations, or set {stage}.gradient_checkpointing=true."
        )
    return replace(trainer, **changes), [Halving(stage, key, value, shortage) for key, value in changes.items()]
