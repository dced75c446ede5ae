"""What a selection method may look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lean_align.errors import DataError
from lean_align.scoring.estimates import learnability
from lean_align.scoring.whitening import RIDGE
from lean_align.selection.peeking import refuse_gold
from lean_align.selection.target import TargetProblems
from lean_align.store.gradient_store import GradientStore
from lean_align.types import Scores

T = TypeVar("T")


FIELDS = {
    "rollouts": ("n_tokens", "rewards"),
    "gradients": ("gradients",),
    "scores": ("scores",),
    "perplexity": ("perplexity", "ifd"),
    "ratings": ("rating",),
    "features": ("features",),
    "reward_curves": ("reward_curves",),
    "target": ("target",),
}
"""Fields of `SelectionPool` by the stage folder that they are read from."""


@dataclass(frozen=True)
class SelectionPool:
    """What a method may look at, in the order of `prompt_ids`.  Gold answers and evaluation problems are not in it.

    Attributes
    ----------
    prompt_ids, prompts : tuple of str
        Names and questions.
    seed : int
        The run's; methods that draw take `rng_for(seed, "selection", ...)`.
    scores : Scores or None
        From RUN/scores.
    n_tokens : (n,) float64 or None
        Mean length of a prompt's completions, from RUN/rollouts.
    rewards : tuple of tuple of float, or None
        Of each prompt's completions, from RUN/rollouts; their number may differ.
    gradients : GradientStore or None
        Unit rows and norms, from RUN/gradients.
    perplexity : (n,) float64 or None
        Of the question under the policy, from RUN/perplexity.
    ifd : (n,) float64 or None
        Instruction-following difficulty, from RUN/perplexity; NaN where there is none.
    rating : (n,) float64 or None
        SelectIT's, from RUN/ratings.
    features : GradientStore or None
        Unit rows of mean hidden states, from RUN/features.
    reward_curves : (n, epochs) float64 or None
        Mean reward of each prompt in each pass of a training on the whole pool, from RUN/reward_curves.
    estimated_learnability : (n,) float64 or None
        V where it is not p (1 - p) of the rewards, and there are no scores to hold it: sequential rollouts.
    whiten_ridge : float
        selection.whiten_ridge of the recipe.
    target : TargetProblems or None
        What `selection.target` names, from RUN/target_rollouts, and RUN/target_gradients and RUN/target_features where
        `needs` has those of the pool too.

    Raises
    ------
    DataError
        When a field is of other prompts, or of another order.
    """

    prompt_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    seed: int
    scores: Scores | None = None
    n_tokens: NDArray[np.float64] | None = None
    rewards: tuple[tuple[float, ...], ...] | None = None
    gradients: GradientStore | None = None
    perplexity: NDArray[np.float64] | None = None
    ifd: NDArray[np.float64] | None = None
    rating: NDArray[np.float64] | None = None
    features: GradientStore | None = None
    reward_curves: NDArray[np.float64] | None = None
    estimated_learnability: NDArray[np.float64] | None = None
    whiten_ridge: float = RIDGE
    target: TargetProblems | None = None

    def __post_init__(self) -> None:
        n = len(self.prompt_ids)
        if len(set(self.prompt_ids)) < n:
            raise DataError(f"the pool names {n - len(set(self.prompt_ids))} prompts twice; expected each id once.")
        for name in ("scores", "gradients", "features"):
            found = getattr(self, name)
            if found is not None and found.prompt_ids != self.prompt_ids:
                raise DataError(f"{name} are of other prompts than the pool's, or in another order. Make them again.")
        arrays = ("n_tokens", "perplexity", "ifd", "rating", "reward_curves", "estimated_learnability")
        for name in ("prompts", "rewards", *arrays):
            found = getattr(self, name)
            if found is not None and len(found) != n:
                raise DataError(f"the pool has {n} prompts and {len(found)} of {name}; expected one per prompt.")
        if self.target is not None:
            self.target.check_pool(self)

    if not TYPE_CHECKING:  # else every misspelt field would pass for one

        def __getattr__(self, name: str) -> Any:
            refuse_gold(name)
            raise AttributeError(f"SelectionPool has no {name}; it has {', '.join(self.__dataclass_fields__)}.")

    def __len__(self) -> int:
        return len(self.prompt_ids)

    def success_rate(self) -> NDArray[np.float64] | None:
        """p of each prompt, (n,) float64: that of the scores, else the mean reward; None where neither is known."""
        if self.scores is not None:
            return self.scores.success_rate
        return None if self.rewards is None else np.array([np.mean(row) for row in self.rewards])

    def learnability(self) -> NDArray[np.float64] | None:
        """V of each prompt, (n,) float64: that of the scores, else the estimate, else p (1 - p); None likewise."""
        if self.scores is not None:
            return self.scores.learnability
        p = self.success_rate()
        if self.estimated_learnability is not None or p is None:
            return self.estimated_learnability
        return learnability(p)


def given(found: T | None, field: str) -> T:
    """A field of the pool that a method cannot do without.

    Raises
    ------
    DataError
        When the pool has none.
    """
    if found is None:
        stage = next(stage for stage, fields in FIELDS.items() if field in fields)
        raise DataError(f"the pool has no {field}. Run the stage {stage} first, and read it into the SelectionPool.")
    return found
