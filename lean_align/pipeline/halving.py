"""A stage that ran out of memory and went on in smaller pieces says so, and keeps it in its manifest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lean_align.artifacts import StageFolder
from lean_align.errors import OutOfMemoryError
from lean_align.memory import Halving, Shortage
from lean_align.progress import say

if TYPE_CHECKING:
    from lean_align.grpo import TrainerSettings

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
    settings: TrainerSettings, section: str, shortage: Shortage
) -> tuple[TrainerSettings, list[Halving]]:
    """The settings with at most half the micro-batch and half the completions sampled at once, and what changed.

    Both, since either may have been what did not fit.

    Raises
    ------
    OutOfMemoryError
        When it already takes and samples as little at a time as it can.
    """
    trainer, step, sampled = settings.trainer, settings.completions_per_step, settings.sampled_at_once
    micro = next((n for n in range(trainer.micro_batch // 2, 0, -1) if trainer.micro_batch % n == 0), 1)
    unit = math.lcm(micro, settings.num_generations)
    smaller = next((n for n in range(sampled // 2 // unit * unit, 0, -unit) if step % n == 0), sampled)
    changes: dict[str, Any] = {"micro_batch": micro} if micro != trainer.micro_batch else {}
    changes |= {"sampling_batch": smaller} if smaller != sampled else {}
    if not changes:
        raise OutOfMemoryError(
            f"not enough memory for the {section}, even with one completion at a time ({shortage}). Checkpoints are "
            f"kept. Lower rollouts.max_new_tokens or rollouts.num_generations, or set "
            f"{section}.gradient_checkpointing=true."
        )
    return settings.with_trainer(**changes), [Halving(section, key, value, shortage) for key, value in changes.items()]
