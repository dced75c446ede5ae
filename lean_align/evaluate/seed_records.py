"""What is reported of two methods over the same seeds, and of one over its seeds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lean_align.evaluate.crossed import Interval


@dataclass(frozen=True)
class SeedComparison:
    """Other minus reference, over the same seeds and problems.

    Attributes
    ----------
    difference : float, in [-1, 1]
        Mean over seeds and problems.
    interval, interval_kind
        95 %, over other seeds and other problems; over other problems for one seed.
    interval_seeds, interval_problems : tuple of float
        95 % over other seeds on these problems (None for one seed), and over other problems with these trainings.
    reference_at_least, other_at_least : float
        Lower end of the one-sided 95 % interval of reference minus other, and of other minus reference: with
        `reference_at_least` -0.012 the reference is at least as good within 1.2 points.
    p_value, test, smallest_p
        Two-sided; how it was made; the smallest value that the test can give with so many seeds (None for one seed).
    wins, losses : int
        Pairs of seed and problem on which the other method does better and worse.
    seed_wins, seed_losses, seed_ties : int
        Seeds on whose problems the other method does better, worse and alike on average.
    seed_sd : float or None
        Standard deviation of the seeds' mean differences, for `detectable_difference`; None for one seed.
    n_seeds : int
    seeds, seeds_left_out : tuple of int
        The seeds compared, and those that only one of the methods has.
    n_problems : int
    """

    difference: float
    interval: Interval
    interval_kind: str
    interval_seeds: Interval | None
    interval_problems: Interval
    reference_at_least: float
    other_at_least: float
    p_value: float
    test: str
    smallest_p: float | None
    wins: int
    losses: int
    seed_wins: int
    seed_losses: int
    seed_ties: int
    seed_sd: float | None
    n_seeds: int
    seeds: tuple[int, ...]
    seeds_left_out: tuple[int, ...]
    n_problems: int

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON holds them: tuples become lists."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class SeedMean:
    """Accuracy of a method over its seeds and problems; intervals as in `SeedComparison`.

    `by_seed` are the accuracies of the seeds, in their order; `seed_sd` is their standard deviation, None for one.
    """

    value: float
    interval: Interval
    interval_kind: str
    interval_seeds: Interval | None
    interval_problems: Interval
    by_seed: tuple[float, ...]
    seed_sd: float | None
    n_problems: int
