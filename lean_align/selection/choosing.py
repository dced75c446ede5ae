"""Ask a selection method for its prompts, and hold what comes back to its contract."""

from __future__ import annotations

import numpy as np

from lean_align.errors import DataError, LeanAlignError, RecipeError
from lean_align.scoring import rank_scores
from lean_align.selection.base import FIELDS, Choice, SelectionMethod, SelectionPool, check_n, given
from lean_align.types import Selection


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
            f"the selection method {method.name} failed ({type(error).__name__}: {error}). Mend it, or set "
            "selection.method to another."
        ) from error
    fault = _fault_of(choice, len(pool), n)
    if fault:
        raise RecipeError(f"the selection method {method.name} {fault}. Mend it, or set selection.method to another.")
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
        explanation=choice.explanation
        + (f"; {without_signal} of them have learnability 0 and teach nothing" if without_signal else ""),
    )


def _check_needs(method: SelectionMethod, pool: SelectionPool) -> None:
    for need in sorted(method.needs):
        for field in FIELDS[need]:
            try:
                given(getattr(pool, field), field)
            except DataError as error:
                raise DataError(f"the selection method {method.name} needs {field}, but {error}") from None


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
            f"the scores give prompt {pool.prompt_ids[int(np.argmax(wrong))]} {what}, and so to "
            f"{int(wrong.sum())} of {len(pool)}. They are of other completions, or were changed. Delete RUN/scores and "
            "run the score stage again."
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
        return f"chose {n - len(np.unique(order))} prompts twice; expected each once"
    return _fault_of_values(choice.values, pool_size) or _fault_of_explanation(choice.explanation)


def _fault_of_values(values: object, pool_size: int) -> str | None:
    if values is None:
        return None
    if not isinstance(values, np.ndarray) or values.dtype != np.float64 or values.shape != (pool_size,):
        return f"gave values that are {_shown(values)}; expected ({pool_size},) float64, one a prompt of the pool"
    if np.isinf(values).any():
        return f"gave the value {values[np.isinf(values)][0]}; expected finite numbers, or NaN where there is none"
    return None


def _fault_of_explanation(explanation: object) -> str | None:
    if isinstance(explanation, str) and explanation:
        return None
    return f"explained its choice with {explanation!r}; expected a clause"


def _shown(found: object) -> str:
    return f"{found.shape} {found.dtype}" if isinstance(found, np.ndarray) else type(found).__name__
