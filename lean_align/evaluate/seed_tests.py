"""Tests of two methods over the same seeds and problems.

The seed is the unit.  A training is one draw of a method: what its choice, its rollouts and its order of prompts did
to the adapter shows in all its answers, which therefore move together.  S seeds are S pieces of evidence, however
many problems each of them answers.  Flipping signs problem by problem counts a training's answers as pieces of their
own: for two methods that are the same, with 8 seeds, 400 problems and accuracies that spread by 3.3 points from
training to training, it rejects 25 times in 100 at 5 %, the flips over seeds 4.3 times
(tests/test_comparison_statistics.py measures both).

The p-value counts all 2^S sign patterns of the seeds' mean differences: under the null a seed's two trainings could
be exchanged, and nothing else is assumed.  A difference of 0 is the same with either sign and leaves the share as it
is.  The smallest p is 2 / 2^S: with 5 seeds or fewer nothing can reach 5 %, and `seeds_needed` says what a family
of comparisons takes.

It speaks of these problems.  Problems that favour one method are a real difference on them, even where others would
make up for it; what other problems could do is in the interval (`crossed`), so the two need not agree near 5 %.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lean_align.evaluate.benchmark import MCNEMAR, SIGN_FLIPS
from lean_align.evaluate.paired import mcnemar
from lean_align.evaluate.signs import FLIPS, MAX_EXACT, sign_flip_p

SEED_FLIPS = "sign flips over seeds, exact"
DRAWN_SEED_FLIPS = "sign flips over seeds, drawn"


def seed_p_value(differences: NDArray[np.float64], rng: np.random.Generator) -> float:
    """Sign flips over the rows' means of (S, P) differences: a row is one seed."""
    return sign_flip_p(row_means(differences).tolist(), rng)


def problem_p_value(differences: NDArray[np.float64], rng: np.random.Generator, flips: int = FLIPS) -> float:
    """Sign flips over the columns' means of (S, P) differences: it speaks of these trainings only."""
    return sign_flip_p(np.round(differences.mean(axis=0), 12).tolist(), rng, flips)


def smallest_p(n_seeds: int) -> float:
    """The smallest p-value that flips over n seeds can give: 2 / 2^n, or 1 / (1 + flips) where patterns are drawn."""
    return 2 / 2**n_seeds if n_seeds <= MAX_EXACT else 1 / (1 + FLIPS)


def paired_test(differences: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, str]:
    """p-value of (S, P) differences, and the name of the test: over seeds, or over problems for one seed."""
    if len(differences) > 1:
        exact = np.count_nonzero(row_means(differences)) <= MAX_EXACT
        return seed_p_value(differences, rng), SEED_FLIPS if exact else DRAWN_SEED_FLIPS
    if np.isin(differences, (-1, 0, 1)).all():
        return mcnemar(int((differences > 0).sum()), int((differences < 0).sum())), MCNEMAR
    return problem_p_value(differences, rng), SIGN_FLIPS


def row_means(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean difference of each seed.  A zero is exactly 0."""
    # Thirds that cancel leave 1e-17, which would count as a win.
    return np.asarray(np.round(differences.mean(axis=1), 12), dtype=np.float64)
