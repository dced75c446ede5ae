"""Frozen records that the stages hand to one another.  No I/O, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class Prompt:
    """A question with a checkable answer.

    `prompt_id` is unique in its split; `prompt` is the bare question (the chat template is the
    policy's business); `answer` is the gold that `verify` takes; `system` is the system message that came with it,
    which the recipe's own takes the place of.
    """

    prompt_id: str
    prompt: str
    answer: str
    system: str | None = None


@dataclass(frozen=True)
class Completion:
    """One sampled completion of a prompt.

    `index` counts from 0 to num_generations - 1.  `token_ids` holds the sampled tokens, the end token
    included.  `finished` is False where the token limit cut the completion short.  `reward` is 0.0 or 1.0.
    """

    prompt_id: str
    index: int
    completion: str
    token_ids: tuple[int, ...]
    n_tokens: int
    reward: float
    finished: bool


@dataclass(frozen=True)
class Group:
    """A prompt with all its completions, in the order of their index."""

    prompt: Prompt
    completions: tuple[Completion, ...]

    @property
    def rewards(self) -> tuple[float, ...]:
        """Reward of each completion."""
        return tuple(completion.reward for completion in self.completions)

    @property
    def success_rate(self) -> float:
        """Mean reward, in [0, 1]."""
        return sum(self.rewards) / len(self.completions)

    @property
    def learnability(self) -> float:
        """p (1 - p) of the success rate p, in [0, 0.25]."""
        return self.success_rate * (1.0 - self.success_rate)


@dataclass(frozen=True)
class Scores:
    """Score of each prompt and the parts it is made of; every array has one entry per prompt.

    Attributes
    ----------
    prompt_ids : tuple of str
    success_rate : (n,) float64, in [0, 1]
    learnability : (n,) float64, V = p (1 - p), in [0, 0.25]; an unbiased estimate of it can reach 0.5
    alignment : (n,) float64, <u_i, m> with m the learnability-weighted mean of the unit rows
    score : (n,) float64, V_i <u_i, m>
    rank : (n,) int64, 1 is best; ties go to the smaller prompt_id
    leave_one_out : (n,) float64, mean of S_ij over the other prompts j; 0 where there is no other
    """

    prompt_ids: tuple[str, ...]
    success_rate: NDArray[np.float64]
    learnability: NDArray[np.float64]
    alignment: NDArray[np.float64]
    score: NDArray[np.float64]
    rank: NDArray[np.int64]
    leave_one_out: NDArray[np.float64]


@dataclass(frozen=True)
class Selection:
    """The chosen prompts, best first, and what explains the choice.

    `scores` and `ranks` are None for methods that do not score.  `n_without_signal` counts chosen
    prompts whose learnability is 0: they add nothing to training.
    """

    method: str
    prompt_ids: tuple[str, ...]
    scores: tuple[float, ...] | None
    ranks: tuple[int, ...] | None
    pool_size: int
    n_without_signal: int | None
    explanation: str


@dataclass(frozen=True)
class Proportion:
    """A share of successes with its Wilson 95 % interval."""

    correct: int
    n: int
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class PairedDifference:
    """Trained minus base accuracy over the same problems.

    `interval` is the 95 % interval of the difference; `wins` counts problems that only the trained
    model solves, `losses` those that only the base solves; `p_value` is McNemar's exact two-sided test.
    """

    difference: float
    interval: tuple[float, float]
    wins: int
    losses: int
    p_value: float


@dataclass(frozen=True)
class Outcome:
    """What an evaluated completion came to, without its text.

    `reward` is 0.0 or 1.0; `finished` is False where the token limit cut the completion short; `answered` is
    False where no answer could be found in it.
    """

    reward: float
    n_tokens: int
    finished: bool
    answered: bool


@dataclass(frozen=True)
class AverageAtK:
    """avg@k: mean over n problems of the mean reward of their k samples, with a 95 % interval over problems."""

    value: float
    interval: tuple[float, float]
    n: int
    num_samples: int


@dataclass(frozen=True)
class BenchmarkScore:
    """A model on a benchmark of n problems, num_samples completions each.

    Attributes
    ----------
    metric : str
        `pass@1` for one completion a problem, `avg@k` for k.
    value, interval, interval_kind
        In [0, 1]; the 95 % interval, and how it was made.
    n_correct, n_truncated, n_unanswered : int
        Completions, of n x num_samples: right; cut off at the token limit; without an answer that could be found.
    mean_tokens : float
        Over all completions.
    pass_at_k : dict
        Mean pass@k for powers of two up to num_samples; keys are strings, as JSON has them.
    """

    metric: str
    value: float
    interval: tuple[float, float]
    interval_kind: str
    n: int
    num_samples: int
    n_correct: int
    n_truncated: int
    n_unanswered: int
    mean_tokens: float
    pass_at_k: dict[str, float]


@dataclass(frozen=True)
class ScoreDifference(PairedDifference):
    """Trained minus base over the same problems, and how p-value and interval were made.

    `wins` and `losses` count problems on which the trained model does better and worse.
    """

    test: str
    interval_kind: str


@dataclass(frozen=True)
class MeanScore:
    """Unweighted mean over the named benchmarks, with a 95 % interval over the problems of each."""

    value: float
    interval: tuple[float, float]
    benchmarks: tuple[str, ...]
    interval_kind: str
