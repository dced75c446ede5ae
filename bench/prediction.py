"""What predicted rollouts would have drawn and chosen, from the completions of a run with a fixed allocation.

Completion g of a prompt is the same whichever prompts are sampled, and so is its gradient, so that a run with all of
them holds what any rounds would have led to: which prompts are sampled, their tokens, and with the run's rows the
choice.

Differs from a run with `rollouts.allocation=predicted` in: completions that another batch rounded differently.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.prediction import Known, cover, forecast, round_size
from lean_align.prediction.ridge import correlation
from lean_align.recipe import RolloutRecipe
from lean_align.rng import rng_for
from lean_align.scoring import score_prompts


@dataclass(frozen=True)
class PredictionEffect:
    """Predicted rollouts against the fixed allocation that they are a part of.

    Attributes
    ----------
    n_prompts, n_sampled, n_rounds : int
    share_of_tokens : float
        Of the tokens of the fixed allocation.
    top_n : int
    covered, overlap : float
        Share of the fixed allocation's top_n that is sampled, and that is chosen.
    expected_missing : float
        Number of the top_n that the last forecast expected among the others; `covered` says how many are.
    correlation : float
        Of predicted and measured success rates over all prompts that were not in the first share, after it.
    """

    n_prompts: int
    n_sampled: int
    n_rounds: int
    share_of_tokens: float
    top_n: int
    covered: float
    overlap: float
    expected_missing: float
    correlation: float


def prediction_effect(
    features: NDArray[np.float32],
    rows: ArrayLike,
    rewards: ArrayLike,
    n_tokens: ArrayLike,
    shares: tuple[float, float],
    top_n: int,
    seed: int = 0,
    settle: bool = True,
) -> PredictionEffect:
    """Compare predicted rollouts, ranked by LearnAlign's score, with the fixed allocation of a run.

    Parameters
    ----------
    features : (n, d) float32
        Standardised states of the prompts.
    rows : (n, k) float
        The run's unit rows.
    rewards, n_tokens : (n, G)
        0 or 1, and lengths, by prompt and index.
    shares : tuple of float
        Share and budget, as of `rollouts.share` and `rollouts.budget_share`.
    top_n : int
    seed : int
    settle : bool
        False spends the budget, settled or not.
    """
    u, r = np.asarray(rows, dtype=np.float32), np.asarray(rewards)
    n, total, right = len(u), r.shape[1], r.sum(axis=1).astype(np.int64)
    settings = RolloutRecipe(allocation="predicted", share=shares[0], budget_share=shares[1])
    first, most = settings.sampled_of(n)
    ids = [f"{i:08d}" for i in range(n)]
    sampled = cover(features, first, rng_for(seed, "rollouts", "first share"))
    n_rounds, missing, agreement = 0, 0.0, 0.0
    while len(sampled) < n:
        found = forecast(features, _known(u, right, total, np.sort(sampled)), top_n, "score")
        missing = found.expected_missing
        if n_rounds == 0:
            agreement = correlation(found.success_rate, right[found.places] / total)
        if len(sampled) >= most or (settle and found.settles(top_n)):
            break
        count = min(round_size(first, most), most - len(sampled))
        sampled, n_rounds = np.concatenate([sampled, found.likeliest(count, ids)]), n_rounds + 1
    sampled, lengths = np.sort(sampled), np.asarray(n_tokens).sum(axis=1)
    best = set(np.flatnonzero(score_prompts(u, right / total).rank <= top_n).tolist())
    chosen = sampled[score_prompts(u[sampled], right[sampled] / total).rank <= top_n]
    return PredictionEffect(
        n_prompts=n,
        n_sampled=len(sampled),
        n_rounds=n_rounds,
        share_of_tokens=float(lengths[sampled].sum() / lengths.sum()),
        top_n=top_n,
        covered=len(best & set(sampled.tolist())) / top_n,
        overlap=len(best & set(chosen.tolist())) / top_n,
        expected_missing=missing,
        correlation=agreement,
    )


def _known(u: NDArray[np.float32], right: NDArray[np.int64], total: int, places: NDArray[np.int64]) -> Known:
    rate, own = right[places] / total, u[places].astype(np.float64)
    v = rate * (1 - rate)
    alignment = own @ (v @ own) - v * np.vecdot(own, own)
    return Known(places, right[places], total, np.where(v > 0, alignment, np.nan))
