"""How often a paired test rejects when two selection methods are the same.

A training of either method answers problem p correctly with probability

    sigmoid(d_p + seed_sd a + noise_sd e_p),   a and e_p standard normal, drawn afresh for each training

d_p is the problem's difficulty, shared by all; a is what this training did to all its answers; e_p is what it did to
this one.  The two methods differ in nothing: whatever a test rejects beyond its level is its own fault.

`resampled_null` takes difficulties and the spread between seeds from measured outcomes: d_p from the share
(c + 1/2) / (S + 1) for c of S seeds that solve p; seed_sd from what the variance of the seeds' accuracies has beyond
sum_p p (1 - p) / P^2, over the slope mean_p p (1 - p) of the accuracy in a.  noise_sd is 0 there: what a training
did to single answers shows in their coin flips.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.errors import DataError
from lean_align.rng import rng_for
from lean_align.statistics import seed_p_value, wilson

PairedTest = Callable[[NDArray[np.float64], np.random.Generator], float]
"""p-value of (S, P) differences: `seed_p_value`, `problem_p_value`, or another."""


@dataclass(frozen=True)
class AnswerModel:
    """How trainings answer: (P,) difficulties in logits, high is easy, and spreads in logits."""

    logits: NDArray[np.float64]
    seed_sd: float
    noise_sd: float = 0.0


@dataclass(frozen=True)
class RejectionRate:
    """Share of simulated comparisons that a test rejects at `level`, with Wilson's 95 % interval.

    `seed_spread` is the standard deviation of the simulated trainings' accuracies, in [0, 1], as it came out.
    """

    rate: float
    interval: tuple[float, float]
    repeats: int
    level: float
    seed_spread: float


def simulate_null(
    n_seeds: int,
    n_problems: int,
    seed_sd: float,
    repeats: int,
    seed: int,
    *,
    difficulty: tuple[float, float] = (1.0, 2.0),
    noise_sd: float = 0.5,
    test: PairedTest = seed_p_value,
    level: float = 0.05,
) -> RejectionRate:
    """Rejection rate of a test between two methods that are the same, on made-up problems.

    Parameters
    ----------
    n_seeds, n_problems : int
        Of each comparison, at least 1.
    seed_sd : float
        Spread between trainings in logits; 0.2 is about 3 points of accuracy.
    repeats : int
        Comparisons; each has problems of its own.
    seed : int
    difficulty : (float, float)
        Mean and spread of the problems' logits.
    noise_sd : float
        Spread of single answers in logits.
    test : callable
    level : float
        With S seeds, only multiples of 2 / 2^S can be kept: 12 / 256 = 4.7 % for 8 seeds at 5 %.

    Returns
    -------
    RejectionRate

    Raises
    ------
    DataError
        When a number is out of range.
    """
    if min(n_seeds, n_problems, repeats) < 1 or min(seed_sd, noise_sd, difficulty[1]) < 0 or not 0 < level < 1:
        raise DataError(
            f"got {n_seeds} seeds, {n_problems} problems, {repeats} repeats, spreads {seed_sd}, {noise_sd} and "
            f"{difficulty[1]}, level {level}; expected counts of 1 or more, spreads of 0 or more, a level in (0, 1)."
        )

    def model(rng: np.random.Generator) -> AnswerModel:
        return AnswerModel(rng.normal(*difficulty, size=n_problems), seed_sd, noise_sd)

    return _rejections(model, n_seeds, repeats, seed, test, level)


def resampled_null(
    outcomes: ArrayLike, repeats: int, seed: int, *, test: PairedTest = seed_p_value, level: float = 0.05
) -> RejectionRate:
    """Rejection rate of a test between two methods that both are the measured one.

    Parameters
    ----------
    outcomes : (S, P) float
        Rewards in {0, 1} of the trainings of one method, `random` say; S of at least 2.
    repeats : int
        Comparisons of S trainings with S.
    seed : int
    test : callable
    level : float

    Returns
    -------
    RejectionRate

    Raises
    ------
    DataError
        When `outcomes` is not of that kind, or `repeats` is below 1.
    """
    fitted = fit_answers(outcomes)
    if repeats < 1:
        raise DataError(f"got repeats = {repeats}; expected 1 or more.")
    return _rejections(lambda _: fitted, len(np.asarray(outcomes)), repeats, seed, test, level)


def fit_answers(outcomes: ArrayLike) -> AnswerModel:
    """Difficulties and the spread between trainings, from (S, P) rewards in {0, 1} of one method.

    Raises
    ------
    DataError
        When there are fewer than 2 seeds or 1 problem, or a reward is neither 0 nor 1.
    """
    rewards = np.asarray(outcomes, dtype=np.float64)
    if rewards.ndim != 2 or len(rewards) < 2 or rewards.shape[1] < 1 or not np.isin(rewards, (0, 1)).all():
        raise DataError(
            f"got outcomes of shape {rewards.shape}; expected (S, P) rewards of 0 or 1 with S >= 2, P >= 1."
        )
    n_seeds, n_problems = rewards.shape
    means = rewards.mean(axis=0)
    coin = means * (1 - means) * n_seeds / (n_seeds - 1)  # unbiased for p (1 - p)
    excess = float(rewards.mean(axis=1).var(ddof=1)) - float(coin.sum()) / n_problems**2
    slope = float(coin.mean())
    shares = (rewards.sum(axis=0) + 0.5) / (n_seeds + 1)
    return AnswerModel(np.log(shares / (1 - shares)), math.sqrt(max(0.0, excess)) / slope if slope > 0 else 0.0)


def draw_rewards(model: AnswerModel, n_seeds: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Rewards (S, P) in {0, 1} of new trainings."""
    shape = (n_seeds, len(model.logits))
    logits = (
        model.logits + model.seed_sd * rng.standard_normal((n_seeds, 1)) + model.noise_sd * rng.standard_normal(shape)
    )
    return (rng.random(shape) < 1 / (1 + np.exp(-logits))).astype(np.float64)


def _rejections(
    model: Callable[[np.random.Generator], AnswerModel],
    n_seeds: int,
    repeats: int,
    seed: int,
    test: PairedTest,
    level: float,
) -> RejectionRate:
    rejected, accuracies = 0, []
    for repeat in range(repeats):
        rng = rng_for(seed, "null", repeat)
        answers = model(rng)
        a, b = draw_rewards(answers, n_seeds, rng), draw_rewards(answers, n_seeds, rng)
        rejected += test(b - a, rng) <= level
        accuracies.append(np.concatenate([a, b]).mean(axis=1))
    share = wilson(rejected, repeats)
    spread = float(np.sqrt(np.mean([np.var(values, ddof=1) for values in accuracies])))
    return RejectionRate(share.accuracy, share.interval, repeats, level, spread)
