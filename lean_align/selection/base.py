"""What a selection method is: what it may look at, what it gives back, and what stands beside it in tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lean_align.errors import DataError, RecipeError
from lean_align.scoring import learnability, rank_scores
from lean_align.selection.peeking import refuse_gold
from lean_align.store import GradientStore
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
}
"""Fields of `SelectionPool` by the stage folder that they are read from."""

_IMPLIED = {
    "scores": ("gradients", "rollouts"),
    "gradients": ("rollouts",),
    "perplexity": ("rollouts",),
    "ratings": ("rollouts",),
    "features": ("rollouts",),
}


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

    def __post_init__(self) -> None:
        n = len(self.prompt_ids)
        if len(set(self.prompt_ids)) < n:
            raise DataError(f"the pool names {n - len(set(self.prompt_ids))} prompts twice; expected each id once.")
        for name in ("scores", "gradients", "features"):
            found = getattr(self, name)
            if found is not None and found.prompt_ids != self.prompt_ids:
                raise DataError(f"{name} are of other prompts than the pool, or of another order. Make them again.")
        arrays = ("n_tokens", "perplexity", "ifd", "rating", "reward_curves", "estimated_learnability")
        for name in ("prompts", "rewards", *arrays):
            found = getattr(self, name)
            if found is not None and len(found) != n:
                raise DataError(f"the pool has {n} prompts and {len(found)} of {name}; expected one a prompt.")

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


@dataclass(frozen=True)
class Choice:
    """What a method gives back.

    Attributes
    ----------
    order : (N,) int64
        Indices into the pool, best first.
    values : (n,) float64 or None
        Of every prompt of the pool, higher is better; NaN where there is none.  None of a method that does not rank.
    explanation : str
        One clause.
    """

    order: NDArray[np.int64]
    values: NDArray[np.float64] | None
    explanation: str


@dataclass(frozen=True)
class SelectionMethod:
    """A selection method, as `selection.method` and entry points of `lean_align.selection_methods` name it.

    Attributes
    ----------
    name : str
    needs : frozenset of str
        Stage folders that it reads, keys of `FIELDS`; what those are made from is added.
    choose : callable
        (pool, n) -> Choice of n prompts.
    source : str
        Paper or project, with its arXiv number.
    departures : tuple of str
        In what it differs from the source.
    costly : str or None
        Why it costs more than the rest.
    keeps_all : bool
        It takes the whole pool, whatever n is asked for.
    """

    name: str
    needs: frozenset[str]
    choose: Callable[[SelectionPool, int], Choice]
    source: str
    departures: tuple[str, ...] = ()
    costly: str | None = None
    keeps_all: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", close_needs(self.needs, self.name))


def close_needs(needs: frozenset[str] | set[str], name: str = "") -> frozenset[str]:
    """Stage folders together with those that they are made from.

    Raises
    ------
    RecipeError
        When there is no such stage to need.
    """
    unknown = sorted(set(needs) - set(FIELDS))
    if unknown:
        raise RecipeError(f"the selection method {name!r} needs {unknown[0]!r}; expected some of {', '.join(FIELDS)}.")
    return frozenset(needs).union(*(_IMPLIED.get(need, ()) for need in needs))


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


def best(pool: SelectionPool, values: NDArray[np.float64], n: int, explanation: str) -> Choice:
    """The n prompts of highest value; equal ones go by prompt_id, those without a value (NaN) come last."""
    return Choice(np.argsort(rank_scores(values, pool.prompt_ids))[:n], values, explanation)


def check_n(n: int, pool_size: int, left_out: Mapping[str, int] | None = None) -> None:
    """Refuse to choose n prompts from fewer.

    Parameters
    ----------
    n, pool_size : int
    left_out : mapping of str to int, optional
        Rows that are not in the pool, by the kind of their reason, for the message.

    Raises
    ------
    RecipeError
        When n is not in [1, pool_size].
    """
    if not 1 <= n <= pool_size:
        found = Counter(left_out or {})
        often = ", ".join(f"{count} {kind}" for kind, count in found.most_common(3))
        gone = f"{found.total()} rows of the file were left out, most often: {often}. " if found else ""
        raise RecipeError(
            f"selection.n is {n} and the pool has {pool_size} prompts; expected 1 to {pool_size}. {gone}"
            "Lower selection.n, raise data.limit, or set selection.method=full."
        )
