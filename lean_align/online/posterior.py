"""What is believed of each prompt's success rate p: a Beta distribution, whose evidence fades as the policy moves.

    a_i = s mu_i + c_i,   b_i = s (1 - mu_i) + w_i

c_i, w_i : right and wrong completions of prompt i, those of t steps ago counted gamma^t times.
mu_i, s  : mean and strength of the prior, in completions.  Without a prediction mu is the pool's running mean: of the
           prompts met, each once, at the rate of its last visit, weighted gamma^age, and one prompt of rate 1/2 more.

    E[p (1 - p)] = a b / ((a + b) (a + b + 1))

Source: Beta-Bernoulli posteriors of p for choosing prompts, MoPPS (arXiv 2507.04632).

Differs from MoPPS in: 1. evidence fades by steps, whether the prompt is met or not; 2. the prior of a prompt that was
not met is the pool's mean or a prediction, and does not fade; 3. what is drawn is p (1 - p), not the distance of p to a
target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lean_align.errors import DataError

_EDGE = 0.01
"""A prior's mean is kept this far from 0 and 1, where no evidence could move it."""


@dataclass(frozen=True)
class Prior:
    """A prediction of p for each prompt of a pool.

    Attributes
    ----------
    mean : (n,) float64, in [0, 1]
    strength : (n,) float64, above 0
        Completions that the prediction is worth.

    Raises
    ------
    DataError
        When the two do not fit one another, or hold other numbers.
    """

    mean: NDArray[np.float64]
    strength: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.mean.shape != self.strength.shape:
            raise DataError(
                f"the prior has means of shape {self.mean.shape} and strengths of {self.strength.shape}; expected one "
                "of each per prompt."
            )
        within = (self.mean >= 0) & (self.mean <= 1) & (self.strength > 0) & np.isfinite(self.strength)
        if not within.all():
            i = int(np.argmin(within))
            raise DataError(
                f"the prior of prompt {i} has mean {self.mean[i]} and strength {self.strength[i]}; expected a mean in "
                "[0, 1] and a finite strength above 0."
            )


class SuccessPosterior:
    """Beta distributions of p for a pool of prompts.

    Parameters
    ----------
    n : int
        Size of the pool.
    discount : float
        gamma, in (0, 1]: what evidence keeps of its weight per step.
    strength : float
        Of the prior, where no prediction is given.
    prior : Prior, optional
        Of the pool's prompts.

    Attributes
    ----------
    right, wrong : (n,) float64
        Completions, discounted to the prompt's last visit.
    rate : (n,) float64
        Success rate at the last visit; 0 of a prompt that was not met.
    last : (n,) int64
        Step of the last visit; -1 of a prompt that was not met.
    """

    def __init__(self, n: int, discount: float, strength: float, prior: Prior | None = None) -> None:
        if prior is not None and len(prior.mean) != n:
            raise DataError(f"the prior is of {len(prior.mean)} prompts and the pool has {n}; expected one per prompt.")
        self.discount, self.strength, self.prior = discount, strength, prior
        self.right, self.wrong, self.rate = np.zeros(n), np.zeros(n), np.zeros(n)
        self.last = np.full(n, -1, dtype=np.int64)

    def observe(self, step: int, place: int, rewards: NDArray[np.float64]) -> None:
        """Take the rewards, in [0, 1], of a prompt's completions at a step, counted from 0."""
        kept = self.discount ** (step - self.last[place])
        self.right[place] = self.right[place] * kept + rewards.sum()
        self.wrong[place] = self.wrong[place] * kept + (1 - rewards).sum()
        self.rate[place] = rewards.mean()
        self.last[place] = step

    def weights(self, step: int) -> NDArray[np.float64]:
        """gamma^age of each prompt's last visit, (n,) float64; 0 of a prompt that was not met."""
        return np.where(self.last >= 0, self.discount ** np.maximum(step - self.last, 0), 0.0)

    def pool_mean(self, step: int) -> float:
        """The running mean of p over the pool."""
        weights = self.weights(step)
        return float((0.5 + weights @ self.rate) / (1.0 + weights.sum()))

    def parameters(self, step: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """a and b of each prompt at a step, (n,) float64 each."""
        mean = self.prior.mean if self.prior is not None else np.full(len(self.last), self.pool_mean(step))
        strength = self.prior.strength if self.prior is not None else np.full(len(self.last), self.strength)
        mean, weights = np.clip(mean, _EDGE, 1 - _EDGE), self.weights(step)
        return strength * mean + weights * self.right, strength * (1 - mean) + weights * self.wrong

    def mean(self, step: int) -> NDArray[np.float64]:
        """E[p] of each prompt, (n,) float64."""
        a, b = self.parameters(step)
        return a / (a + b)

    def expected_learnability(self, step: int) -> NDArray[np.float64]:
        """E[p (1 - p)] of each prompt, (n,) float64, in (0, 0.25)."""
        a, b = self.parameters(step)
        return a * b / ((a + b) * (a + b + 1))

    def draw_learnability(self, step: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """p (1 - p) of one draw of p for each prompt, (n,) float64, in [0, 0.25]."""
        p = rng.beta(*self.parameters(step))
        return p * (1 - p)
