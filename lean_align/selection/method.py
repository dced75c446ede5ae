"""What a selection method is: what it may look at, what it gives back, and what is shown with it in tables.

`select_prompts` asks a method for its prompts, and holds what comes back to its contract.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lean_align.errors import DataError, LeanAlignError, RecipeError
from lean_align.prediction.forecasting import ValueRule
from lean_align.recipe import Recipe, TrainingRecipe
from lean_align.scoring.ranks import rank_scores
from lean_align.selection.pool import FIELDS, SelectionPool, given
from lean_align.types import Selection

_IMPLIED = {
    "scores": ("gradients", "rollouts"),
    "gradients": ("rollouts",),
    "perplexity": ("rollouts",),
    "ratings": ("rollouts",),
    "features": ("rollouts",),
    "target": ("rollouts",),
}


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
    keys : tuple of str
        Recipe keys that its choice depends on, beside seed, method and n; each came later than stages that were made
        without it, at its default.
    trains_with : mapping of str to bool, int, float or str
        Keys of the recipe's section `training` that the method is one only with.  A comparison sets them for it; a run
        whose recipe says otherwise is refused.
    ranks_by : str or None
        What it ranks by, of a method that can choose among prompts that were sampled because that is predicted to be
        high (`rollouts.allocation=predicted`); see `lean_align.prediction.ValueRule`.  None of one that must see every
        prompt.
    """

    name: str
    needs: frozenset[str]
    choose: Callable[[SelectionPool, int], Choice]
    source: str
    departures: tuple[str, ...] = ()
    costly: str | None = None
    keeps_all: bool = False
    keys: tuple[str, ...] = ()
    trains_with: Mapping[str, bool | int | float | str] = field(default_factory=dict, hash=False)
    ranks_by: ValueRule | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", close_needs(self.needs, self.name))
        unknown = sorted(set(self.trains_with) - {own.name for own in fields(TrainingRecipe)})
        if unknown:
            raise RecipeError(
                f"the selection method {self.name!r} trains with {unknown[0]!r}; expected keys of the section training."
            )

    @property
    def training_keys(self) -> dict[str, Any]:
        """`trains_with` as keys of a recipe."""
        return {f"training.{key}": value for key, value in self.trains_with.items()}


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
            "Lower selection.n, take more prompts (data.limit, or data.demo_train of the demo), or set "
            "selection.method=full."
        )


def check_training(method: SelectionMethod, recipe: Recipe) -> None:
    """Refuse a recipe whose training is not the one that a method means.

    Raises
    ------
    RecipeError
    """
    for key, wanted in method.trains_with.items():
        if (found := getattr(recipe.training, key)) != wanted:
            shown = str(wanted).lower() if isinstance(wanted, bool) else wanted
            raise RecipeError(
                f"selection.method is {method.name}, which trains with training.{key} {wanted!r}, and the recipe says "
                f"{found!r}. Add --set training.{key}={shown}, or choose another method."
            )


def select_prompts(method: SelectionMethod, pool: SelectionPool, n: int) -> tuple[Selection, Choice]:
    """Choose n prompts.

    Parameters
    ----------
    method : SelectionMethod
        See `find_method`.
    pool : SelectionPool
        With what the method needs.
    n : int
        In [1, number of prompts]; a method that keeps all takes the whole pool.

    Returns
    -------
    Selection
        Ids, best first, with the method's own values.
    Choice
        Indices, and the values of the whole pool.

    Raises
    ------
    RecipeError
        When n is out of range, the method fails, or it gives back anything but n prompts of the pool.
    DataError
        When the pool lacks what the method needs, or its scores and rewards are not of the same completions.
    """
    n = len(pool) if method.keeps_all else n
    check_n(n, len(pool))
    _check_needs(method, pool)
    _check_scores(pool)
    try:
        choice = method.choose(pool, n)
    except (LeanAlignError, MemoryError):
        raise
    except Exception as error:  # whatever a method of another's does
        raise RecipeError(
            f"the selection method {method.name} failed ({type(error).__name__}: {error}). Fix it, or set "
            "selection.method to another."
        ) from error
    fault = _fault_of(choice, len(pool), n)
    if fault:
        raise RecipeError(f"the selection method {method.name} {fault}. Fix it, or set selection.method to another.")
    return describe(method.name, pool, choice), choice


def describe(name: str, pool: SelectionPool, choice: Choice) -> Selection:
    """A choice as the record that names its prompts and counts those without signal."""
    order, v, values = choice.order.tolist(), pool.learnability(), choice.values
    without_signal = None if v is None else int((v[order] == 0).sum())
    return Selection(
        method=name,
        prompt_ids=tuple(pool.prompt_ids[i] for i in order),
        scores=None if values is None else tuple(float(values[i]) for i in order),
        ranks=None if values is None else tuple(range(1, len(order) + 1)),
        pool_size=len(pool),
        n_without_signal=without_signal,
        explanation=choice.explanation + (f"; {_without_signal(without_signal)}" if without_signal else ""),
    )


def _without_signal(n: int) -> str:
    verbs = "has learnability 0 and teaches" if n == 1 else "have learnability 0 and teach"
    return f"{n} of them {verbs} nothing"


def _check_needs(method: SelectionMethod, pool: SelectionPool) -> None:
    for need in sorted(method.needs):
        for name in FIELDS[need]:
            try:
                given(getattr(pool, name), name)
            except DataError as error:
                raise DataError(f"the selection method {method.name} needs {name}, but {error}") from None


def _check_scores(pool: SelectionPool) -> None:
    """Refuse scores whose columns do not belong together, or not to the completions: a file that was changed."""
    scores = pool.scores
    if scores is None:
        return
    wrong = scores.rank != rank_scores(scores.score, scores.prompt_ids)
    what = "a rank that is not that of its score"
    if not wrong.any():
        wrong, what = scores.score != scores.learnability * scores.alignment, "a score that is not V <u, m>"
    if not wrong.any() and pool.rewards is not None:
        differ = np.array([len(set(rewards)) > 1 for rewards in pool.rewards])
        wrong, what = differ != (scores.learnability != 0), "a learnability that is not that of its rewards"
    if wrong.any():
        raise DataError(
            f"the scores give prompt {pool.prompt_ids[int(np.argmax(wrong))]} {what}, and so for {int(wrong.sum())} of "
            f"{len(pool)} prompts. They are of other completions, or were changed. Delete RUN/scores and run the score "
            "stage again."
        )


def _fault_of(choice: object, pool_size: int, n: int) -> str | None:
    """What is wrong with a method's answer, as the rest of a sentence; None where nothing is."""
    if not isinstance(choice, Choice):
        return f"gave {type(choice).__name__}; expected a lean_align.selection.Choice"
    order = choice.order
    if not isinstance(order, np.ndarray) or order.dtype != np.int64 or order.ndim != 1:
        return f"gave an order that is {_shown(order)}; expected ({n},) int64 indices"
    if len(order) != n:
        return f"chose {len(order)} prompts; expected {n}"
    outside = order[(order < 0) | (order >= pool_size)]
    if len(outside):
        return f"chose index {outside[0]}; expected 0 to {pool_size - 1}"
    if len(np.unique(order)) < n:
        return f"named {n} indices, of which {len(np.unique(order))} are distinct; expected each once"
    return _fault_of_values(choice.values, pool_size) or _fault_of_explanation(choice.explanation)


def _fault_of_values(values: object, pool_size: int) -> str | None:
    if values is None:
        return None
    if not isinstance(values, np.ndarray) or values.dtype != np.float64 or values.shape != (pool_size,):
        return f"gave values that are {_shown(values)}; expected ({pool_size},) float64, one per prompt of the pool"
    if np.isinf(values).any():
        return f"gave the value {values[np.isinf(values)][0]}; expected finite numbers, or NaN where there is none"
    return None


def _fault_of_explanation(explanation: object) -> str | None:
    if isinstance(explanation, str) and explanation:
        return None
    return f"explained its choice with {explanation!r}; expected a clause"


def _shown(found: object) -> str:
    return f"{found.shape} {found.dtype}" if isinstance(found, np.ndarray) else type(found).__name__
