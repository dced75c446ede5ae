"""What a sequential allocation would have drawn and chosen, from the completions of a run with a fixed one.

Completion g of a prompt is the same in both allocations (`rollouts.allocation`), so a run with G completions of every
prompt holds what any first look at `first` of them would have led to: which prompts stop, the tokens of completions
that would not have been drawn, the estimates, and with the run's gradients the choice.  A kept prompt's gradient is of
the same G completions; a stopped one's learnability is 0, so that its row counts for nothing.

Differs from a sequential run in: completions that another batch rounded differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.scoring import learnability, score_prompts, unbiased_estimates
from lean_align.scoring.row_chunks import Source


@dataclass(frozen=True)
class AllocationEffect:
    """A sequential allocation against the fixed one that it is a part of.

    Attributes
    ----------
    first, total : int
        Completions of every prompt, and of undecided ones (G).
    n_prompts, n_stopped, n_lost : int
        Prompts; those whose first rewards are equal; those of them whose G rewards differ, so that V > 0 is lost.
    completions_saved, tokens_saved, n_tokens : int
        Not drawn, and the tokens of those; tokens of the fixed allocation.
    top_n : int or None
    overlap : float or None
        Share of the fixed allocation's top_n, by plug-in V of G completions, that are chosen with unbiased estimates.
    overlap_plug_in : float or None
        The same with plug-in V of the completions drawn: changed by the lost prompts alone.
    """

    first: int
    total: int
    n_prompts: int
    n_stopped: int
    n_lost: int
    completions_saved: int
    tokens_saved: int
    n_tokens: int
    top_n: int | None = None
    overlap: float | None = None
    overlap_plug_in: float | None = None

    @property
    def share_saved(self) -> float:
        """Share of the fixed allocation's tokens that are not generated."""
        return self.tokens_saved / self.n_tokens


def allocation_effect(
    rewards: ArrayLike,
    n_tokens: ArrayLike,
    first: int,
    rows: Source | ArrayLike | None = None,
    top_n: int | None = None,
    threads: int | None = None,
) -> AllocationEffect:
    """Compare a sequential allocation with the fixed one of a run.

    Parameters
    ----------
    rewards : (n, G) float
        0 or 1, by prompt and index.
    n_tokens : (n, G) int
        Lengths of the completions.
    first : int
        Completions of every prompt, in [2, G].
    rows : GradientStore, FirstColumns or (n, k) array, optional
        The fixed run's unit rows, for the overlaps.
    top_n : int, optional
        Prompts chosen; with `rows`.
    threads : int, optional

    Returns
    -------
    AllocationEffect

    Raises
    ------
    ValueError
        When shapes differ, rewards are not 0 or 1, `first` or `top_n` is out of range, or one of `rows` and `top_n` is
        missing.
    """
    r, lengths = np.asarray(rewards, dtype=np.float64), np.asarray(n_tokens)
    _check(r, lengths, first, rows is None, top_n)
    right, total = r.sum(axis=1), r.shape[1]
    stopped = (r[:, :first] == r[:, :1]).all(axis=1) & (first < total)
    n_stopped = int(stopped.sum())
    overlaps = (None, None) if rows is None or top_n is None else _overlaps(r, stopped, first, rows, top_n, threads)
    return AllocationEffect(
        first=first,
        total=total,
        n_prompts=len(r),
        n_stopped=n_stopped,
        n_lost=int((stopped & (right > 0) & (right < total)).sum()),
        completions_saved=n_stopped * (total - first),
        tokens_saved=int(lengths[stopped, first:].sum()),
        n_tokens=int(lengths.sum()),
        top_n=top_n,
        overlap=overlaps[0],
        overlap_plug_in=overlaps[1],
    )


def _check(r: NDArray[np.float64], lengths: NDArray[Any], first: int, no_rows: bool, top_n: int | None) -> None:
    if r.ndim != 2 or r.shape != lengths.shape or not np.isin(r, (0, 1)).all():
        raise ValueError(
            f"rewards have shape {r.shape} and n_tokens {lengths.shape}; expected one (n, G) of both, rewards 0 or 1: "
            "the completions of a run with rollouts.allocation=fixed."
        )
    if not 2 <= first <= r.shape[1]:
        raise ValueError(f"first is {first}; expected 2 to {r.shape[1]}, the completions of a prompt.")
    if no_rows != (top_n is None) or not 1 <= (1 if top_n is None else top_n) <= len(r):
        raise ValueError(f"top_n is {top_n}; expected 1 to {len(r)} with rows, and None without.")


def _overlaps(
    r: NDArray[np.float64],
    stopped: NDArray[np.bool_],
    first: int,
    rows: Source | ArrayLike,
    top_n: int,
    threads: int | None,
) -> tuple[float, float]:
    """Share of the fixed choice that unbiased V keeps, and that plug-in V without the lost prompts keeps."""
    total, rate = r.shape[1], r.mean(axis=1)
    drawn = np.where(stopped, first, total)
    right = np.where(stopped, r[:, :first].sum(axis=1), r.sum(axis=1)).astype(np.int64)
    plug_in, (_, unbiased) = learnability(rate), unbiased_estimates(right, drawn, first, total)
    fixed, *others = (_top(rows, rate, v, top_n, threads) for v in (plug_in, unbiased, np.where(stopped, 0.0, plug_in)))
    return len(fixed & others[0]) / top_n, len(fixed & others[1]) / top_n


def _top(
    rows: Source | ArrayLike, p: NDArray[np.float64], v: NDArray[np.float64], n: int, threads: int | None
) -> set[int]:
    rank = score_prompts(rows, p, threads=threads, learnability=v).rank
    return set(np.flatnonzero(rank <= n).tolist())
