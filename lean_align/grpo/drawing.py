"""The groups of a training step, sampled with the run's engine.

Completion g of a prompt in step s has the noise of (seed, stage, s, prompt_id, g), whatever was sampled before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lean_align.grpo.order import Series
from lean_align.grpo.settings import REFILL_SHARE, TrainerSettings
from lean_align.memory import Halving
from lean_align.rollouts import Engine, Reward, generate_within_memory
from lean_align.types import Completion, Group, Prompt


@dataclass(frozen=True)
class StepGroups:
    """What a step sampled.

    Attributes
    ----------
    groups : tuple of Group
        All of them, in the order of sampling.
    counted : tuple of int
        Places of those that the step's mean is over.
    refilled : int
        How many were sampled in place of others.
    """

    groups: tuple[Group, ...]
    counted: tuple[int, ...]
    refilled: int

    @property
    def completions(self) -> list[Completion]:
        """Of all groups."""
        return [completion for group in self.groups for completion in group.completions]


class StepSampler:
    """Draws the groups of one step after another.

    Parameters
    ----------
    engine : Engine
    series : Series
    settings : TrainerSettings
    reward : callable
        (gold, completion) -> reward.
    on_halving : callable
        Told when a batch ran out of memory and `sampling_batch` was halved, for it and all that follow.
    """

    def __init__(
        self,
        engine: Engine,
        series: Series,
        settings: TrainerSettings,
        reward: Reward,
        on_halving: Callable[[Halving], None],
    ) -> None:
        self.engine, self.series, self.settings, self.reward, self.on_halving = (
            engine,
            series,
            settings,
            reward,
            on_halving,
        )

    def draw(self, step: int, first: int) -> StepGroups:
        """The groups of a step, counted from 0, from place `first` of the series on.

        Raises
        ------
        OutOfMemoryError
            When the completions of a single prompt do not fit into memory.
        """
        trainer, seen = self.settings.trainer, Counter[str]()
        n = trainer.prompts_per_step
        groups = self._sample(self.series.take(first, n), step, seen)
        counted = list(range(n))
        if trainer.refill:
            budget = trainer.refill_tokens or REFILL_SHARE * tokens_of(groups)
            counted, spent = teaching(groups), 0
            while len(counted) < n and spent < budget:
                prompts = self.series.take(first + len(groups), n - len(counted))
                if not prompts:
                    break
                further = self._sample(prompts, step, seen)
                groups, spent = groups + further, spent + tokens_of(further)
                counted = teaching(groups)
        return StepGroups(tuple(groups), tuple(counted), len(groups) - n)

    def _sample(self, prompts: Sequence[Prompt], step: int, seen: Counter[str]) -> list[Group]:
        """Groups of some prompts; one that the step has met before gets noise of its own."""
        named = []
        for prompt in prompts:
            seen[prompt.prompt_id] += 1
            again = seen[prompt.prompt_id]
            named.append(prompt if again == 1 else replace(prompt, prompt_id=f"{prompt.prompt_id}#{again}"))
        completions, _ = generate_within_memory(
            self.engine, named, self.settings.sampling(step), self.reward, self._halved
        )
        size = self.settings.num_generations
        return [
            Group(prompt, tuple(replace(c, prompt_id=prompt.prompt_id) for c in completions[i * size : (i + 1) * size]))
            for i, prompt in enumerate(prompts)
        ]

    def _halved(self, halving: Halving) -> None:
        self.settings = self.settings.with_trainer(sampling_batch=halving.value)
        self.on_halving(replace(halving, work=f"sampling of the {self.settings.stage}", key="sampling_batch"))


def teaching(groups: Sequence[Group]) -> list[int]:
    """Places of the groups whose rewards differ."""
    return [i for i, group in enumerate(groups) if len(set(group.rewards)) > 1]


def tokens_of(groups: Sequence[Group]) -> int:
    """Completion tokens of some groups."""
    return sum(completion.n_tokens for group in groups for completion in group.completions)
