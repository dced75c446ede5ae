"""What the stages of a run counted, as far as it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from lean_align import json_records


@dataclass(frozen=True)
class StageCounts:
    """What a stage counted: the figures that are shown, and `every` one as its manifest has them."""

    every: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any], where: str = "the counts of a stage") -> Self:
        """Read the figures, and keep every one."""
        return json_records.from_json(cls, {**tree, "every": tree}, where)

    def as_json(self) -> dict[str, Any]:
        """Every figure."""
        return dict(self.every)


@dataclass(frozen=True)
class PredictionRound:
    """What was known after a round of predicted rollouts: errors and correlations of predictions left out."""

    n_sampled: int | None = None
    rate_error: float | None = None
    rate_correlation: float | None = None
    alignment_error: float | None = None
    alignment_correlation: float | None = None
    expected_missing: float | None = None


@dataclass(frozen=True)
class CalibrationBin:
    """Prompts by their predicted success rate: how many, and the means predicted and measured."""

    n: int
    predicted: float
    measured: float


@dataclass(frozen=True)
class Prediction:
    """Which prompts were sampled because they were predicted to be chosen, and how good the predictions were.

    Attributes
    ----------
    stopped : str or None
        `settled`, `budget`, or `everything`.
    n_pool, n_first, n_most, n_sampled : int or None
        Prompts: all, those of the first share, the most that the budget allows, and those that were sampled.
    tokens, tokens_of_fixed : int or None
        Drawn, and what all prompts would have taken, as estimated.
    share_of_tokens : float or None
    expected_missing : float or None
        Expected number of the best N among the prompts that were not sampled.
    correlation : float or None
        Of predicted and measured success rates, over the prompts that were sampled after they were predicted.
    calibration : tuple of CalibrationBin
        Of the same prompts.
    expected_best, n_best : number or None
        How many of them were expected among the best N, and how many are.
    rounds : tuple of PredictionRound
    """

    stopped: str | None = None
    n_pool: int | None = None
    n_first: int | None = None
    n_most: int | None = None
    n_sampled: int | None = None
    tokens: int | None = None
    tokens_of_fixed: int | None = None
    share_of_tokens: float | None = None
    expected_missing: float | None = None
    correlation: float | None = None
    calibration: tuple[CalibrationBin, ...] = ()
    expected_best: float | None = None
    n_best: int | None = None
    rounds: tuple[PredictionRound, ...] = ()


@dataclass(frozen=True)
class Rollouts(StageCounts):
    """Completions of the pool; shares are of prompts (learnable, all wrong, all right) or of completions."""

    n_prompts: int | None = None
    num_generations: int | None = None
    n_completions: int | None = None
    tokens: int | None = None
    mean_reward: float | None = None
    share_learnable: float | None = None
    share_all_wrong: float | None = None
    share_all_right: float | None = None
    share_truncated: float | None = None
    share_unparsable: float | None = None
    prediction: Prediction | None = None


@dataclass(frozen=True)
class Target:
    """The problems that a selection aims at, and how near to them the chosen prompts and the pool are.

    Attributes
    ----------
    source : str or None
        selection.target of the recipe.
    n_problems, n_learnable, n_in_pool, n_near : int or None
        Problems; those that can teach; prompts of the pool that are among them; near matches of evaluation problems.
    success_rate, learnability : float or None
        Means of p and V.
    alignment_chosen, alignment_pool : float or None
        Mean cosine with the target's weighted mean row.
    """

    source: str | None = None
    n_problems: int | None = None
    n_learnable: int | None = None
    n_in_pool: int | None = None
    n_near: int | None = None
    success_rate: float | None = None
    learnability: float | None = None
    alignment_chosen: float | None = None
    alignment_pool: float | None = None


@dataclass(frozen=True)
class SelectionCounts(StageCounts):
    """How many prompts were chosen, by which method, out of how many; in how many rounds of the training, and what an
    online one drew."""

    method: str | None = None
    n: int | None = None
    pool_size: int | None = None
    n_without_signal: int | None = None
    explanation: str | None = None
    rounds: int | None = None
    target: Target | None = None
    online: Mapping[str, int] | None = None
