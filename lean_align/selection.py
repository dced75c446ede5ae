"""Which prompts to train on: the N of highest score, a seeded random subset, or all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lean_align.errors import RecipeError
from lean_align.rng import rng_for
from lean_align.types import Scores, Selection

NEEDS_SCORES = {"learnalign": True, "random": False, "full": False}


def select_top(scores: Scores, n: int) -> Selection:
    """Keep the n prompts of highest score, ties by prompt_id.

    Parameters
    ----------
    scores : Scores
    n : int
        In [1, number of prompts].

    Returns
    -------
    Selection
        Best first.

    Raises
    ------
    RecipeError
        When there are fewer than n prompts.

    Notes
    -----
    Prompts of learnability 0 score 0.  They are chosen when fewer than n prompts score above 0, as the
    method says; `n_without_signal` counts them.
    """
    check_n(n, len(scores.prompt_ids))
    order = np.argsort(scores.rank)[:n]
    without_signal = int(np.sum(scores.learnability[order] == 0))
    return Selection(
        method="learnalign",
        prompt_ids=tuple(scores.prompt_ids[i] for i in order),
        scores=tuple(float(scores.score[i]) for i in order),
        ranks=tuple(int(scores.rank[i]) for i in order),
        pool_size=len(scores.prompt_ids),
        n_without_signal=without_signal,
        explanation=f"the {n} highest scores V_i <u_i, m> of {len(scores.prompt_ids)} prompts"
        + (f"; {without_signal} of them have learnability 0 and teach nothing" if without_signal else ""),
    )


def select_random(prompt_ids: Sequence[str], n: int, seed: int) -> Selection:
    """Draw n prompts without replacement from a generator of (seed, "selection")."""
    check_n(n, len(prompt_ids))
    chosen = rng_for(seed, "selection").permutation(len(prompt_ids))[:n]
    return _unscored("random", [prompt_ids[i] for i in chosen], len(prompt_ids), f"{n} at random, seed {seed}")


def select_full(prompt_ids: Sequence[str]) -> Selection:
    """Keep every prompt, in the order given."""
    return _unscored("full", list(prompt_ids), len(prompt_ids), "every prompt of the pool")


def _unscored(method: str, prompt_ids: list[str], pool_size: int, explanation: str) -> Selection:
    return Selection(method, tuple(prompt_ids), None, None, pool_size, None, explanation)


def check_n(n: int, pool_size: int) -> None:
    """Refuse to choose n prompts from fewer.

    Raises
    ------
    RecipeError
        When n is not in [1, pool_size].
    """
    if not 1 <= n <= pool_size:
        raise RecipeError(
            f"selection.n is {n} and the pool has {pool_size} prompts; expected 1 to {pool_size}. "
            "Lower selection.n, raise data.limit, or set selection.method=full."
        )
