"""What the trainings of a run share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lean_align.artifacts import StageFolder, write_jsonl
from lean_align.memory import Halving, Shortage, release_memory
from lean_align.pipeline.backends import policy_at, policy_to_train, training_backend
from lean_align.pipeline.engines import keep_share, live_engine, longest_of
from lean_align.pipeline.halving import recorder, smaller_trainer
from lean_align.recipe import Recipe, TrainerRecipe, WarmupRecipe
from lean_align.stages.inputs import reward
from lean_align.stages.online import online_selector
from lean_align.types import Prompt

if TYPE_CHECKING:
    from lean_align.grpo import TrainerSettings
    from lean_align.rollouts import Reward


def train_policy(
    recipe: Recipe,
    trainer: TrainerRecipe,
    start: str | None,
    prompts: Sequence[Prompt],
    stage: str,
    folder: StageFolder,
    judge: Reward = reward,
    on_loaded: Callable[[], None] = lambda: None,
) -> list[dict[str, float]]:
    """Train from a finished stage's adapter or a fresh one, in smaller pieces where memory runs out.

    Parameters
    ----------
    recipe : Recipe
    trainer : TrainerRecipe
        The recipe's training or warm-up, perhaps with other steps.
    start : str or None
        Folder of the run's stage whose adapter is trained on.
    prompts : sequence of Prompt
    stage : str
        Names the training's random streams.  That of `training` keeps the adapters of the recipe's `kept_steps`.
    folder : StageFolder
        Below the run's own; gets what `train_lean` and `train_grpo` write.
    judge : callable
        (gold, completion) -> reward; the verifier when not given.
    on_loaded : callable
        Called when policy and engine are loaded, before the first step.

    Returns
    -------
    list of dict
        The log, one row per step.
    """
    run_dir = folder.final.parent
    section = "warmup" if isinstance(trainer, WarmupRecipe) else "training"
    with training_backend(recipe, trainer, run_dir, folder) as backend:
        from lean_align.grpo import TrainerSettings, train_grpo

        settings = TrainerSettings.of(replace(recipe, **{section: trainer}), section, stage)  # type: ignore[arg-type]
        settings = replace(settings, kept_steps=recipe.kept_steps if stage == "training" else ())
        if backend["backend"] == "lean":
            return _train_lean(recipe, settings, run_dir, start, prompts, folder, judge, on_loaded)
        while True:
            policy = policy_to_train(recipe, settings.trainer, run_dir, start, prompts, backend)
            keep_share(policy, folder)
            on_loaded()
            found = train_grpo(policy, prompts, settings, judge, folder.path)
            if not isinstance(found, Shortage):
                return found
            del policy
            release_memory()
            settings, halvings = smaller_trainer(settings, section, found)
            for halving in halvings:
                recorder(folder, section)(halving)


def _train_lean(
    recipe: Recipe,
    settings: TrainerSettings,
    run_dir: Path,
    start: str | None,
    prompts: Sequence[Prompt],
    folder: StageFolder,
    judge: Reward,
    on_loaded: Callable[[], None],
) -> list[dict[str, float]]:
    from lean_align.grpo import Sampler, train_lean
    from lean_align.stages.training_rows import training_rows

    record = recorder(folder, settings.section)

    def fewer_slots(halving: Halving) -> None:
        record(replace(halving, key="sampling_batch"))

    policy = policy_at(recipe, run_dir, start, fresh=start is None)
    keep_share(policy, folder)
    longest, slots = longest_of(prompts, settings.max_new_tokens), settings.sampling(0).slots
    with (
        training_rows(recipe, settings, policy, folder) as rows,
        live_engine(recipe, policy, folder, longest, slots, fewer_slots) as (engine, follow),
    ):
        on_loaded()
        online = online_selector(recipe, settings, prompts, folder)
        sampler = Sampler(engine, follow, online)
        return train_lean(policy, prompts, settings, judge, folder.path, sampler, record, rows)


def keep_log(folder: StageFolder, log: Sequence[Mapping[str, float]], prompts: Sequence[Prompt], steps: int) -> None:
    """Write a training's log, and leave its counts."""
    from lean_align.grpo import generated_tokens, read_rewards, trained_tokens

    write_jsonl(folder.path / "log.jsonl", [dict(row) for row in log])
    folder.counts |= {"n_prompts": len(prompts), "steps": steps}
    folder.counts |= {"generated_tokens": generated_tokens(read_rewards(folder.path))}
    folder.counts |= {"trained_tokens": trained_tokens(log)}
