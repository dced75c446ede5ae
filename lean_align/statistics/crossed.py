"""Bootstrap over seeds and problems at once, which are crossed: every training meets every problem.

The values y of S trainings and P problems, (S, P), are seen as  mean + seed + problem + rest.  Seeds and problems are
drawn again with replacement, each independently (the pigeonhole bootstrap: Owen 2007, arXiv 0712.1111).  With
r* and k* the resampled means of the S row means and of the P column means, a replicate is

    y* = y.. + c (r* - y..) + h (k* - y..)

Differs from the pigeonhole bootstrap in:
1. The product of both draws is left out.  It counts the rest, which is the noise of single answers, three times
   in the variance; the two sums count it twice, and h takes the second away.
2. h = sqrt(1 - M_rest / M_problem), at least 0, from the mean squares of the two-way layout: of the spread between
   column means only what their noise does not explain is spread between problems.
3. c = sqrt(S / (S - 1)) t(q, S - 1) / z(q) for the quantile q.  The spread of a few resampled seeds is too small by
   (S - 1) / S in variance, and a spread estimated from few seeds wants Student's quantile.  At 95 % c is 1.29 for
   8 seeds, 2.69 for 3 and 9.17 for 2.

How often the 95 % interval of a difference between two equal methods holds the true one, in percent, and its mean half
width in points; 400 problems, 400 repeats a line (good to 2), by the spread of trainings in logits
(`python -m tests.interval_coverage`, which has more lines):

    seeds  spread  pigeonhole     sums          sums, c        sums, c, h
    8      0       100.0  3.1     99.0  2.5     99.2   2.9     95.0   2.2
    8      0.2      97.8  3.9     95.5  3.5     98.2   4.2     95.5   3.7
    8      0.4      93.8  5.7     90.8  5.4     97.0   6.7     95.0   6.5
    3      0        99.8  4.7     98.8  3.9     99.5   6.8     96.5   6.2
    3      0.4      84.0  8.0     78.8  7.5     95.0  18.7     94.2  18.9
    2      0        99.2  5.3     98.2  4.4     99.8  16.0     93.0  13.8
    2      0.4      81.2  8.3     73.8  7.4     97.0  46.6     93.8  44.5

The plain bootstrap is too wide where trainings are alike and too narrow where they differ; c and h correct both.
With two or three seeds the interval is honest and wide: train more seeds.
With one seed nothing is known of other seeds, and the interval is over problems alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from lean_align.rng import rng_for
from lean_align.statistics.bootstrap import REPLICATES, percentile_interval, resampled_means

Interval = tuple[float, float]


@dataclass(frozen=True)
class CrossedDraws:
    """Resampled means of an (S, P) array.

    Attributes
    ----------
    mean : float
        Mean of the array itself.
    seeds : (R,) float64, or None for one seed
        Means of resampled rows, as drawn.
    problems : (R,) float64
        Means of resampled columns, as drawn.
    n_seeds : int
    problem_share : float, in [0, 1]
        h: 1 for one seed.
    """

    mean: float
    seeds: NDArray[np.float64] | None
    problems: NDArray[np.float64]
    n_seeds: int
    problem_share: float

    def quantile(self, level: float) -> float:
        """One end of an interval over other seeds and other problems, never inside that of either alone.

        Few seeds can agree by chance, and then say nothing of their spread.
        """
        problems = self.problems - self.mean
        spreads = [problems]
        if self.seeds is not None:
            seeds = seed_factor(self.n_seeds, level) * (self.seeds - self.mean)
            spreads += [seeds, self.problem_share * problems + seeds]
        ends = [float(np.quantile(spread, level)) for spread in spreads]
        return self.mean + (min(ends) if level < 0.5 else max(ends))

    @property
    def interval(self) -> Interval:
        """95 % interval over other seeds and other problems."""
        return self.quantile(0.025), self.quantile(0.975)

    @property
    def over_seeds(self) -> Interval | None:
        """95 % interval over other seeds, on these problems; None for one seed."""
        if self.seeds is None:
            return None
        low, high = percentile_interval(seed_factor(self.n_seeds, 0.975) * (self.seeds - self.mean))
        return self.mean + low, self.mean + high

    @property
    def over_problems(self) -> Interval:
        """95 % interval over other problems, with these trainings."""
        return percentile_interval(self.problems)


def crossed_draws(
    values: NDArray[np.float64], two_more: tuple[float, float], seed: int, key: str, replicates: int = REPLICATES
) -> CrossedDraws:
    """Resample seeds and problems of an array.

    Parameters
    ----------
    values : (S, P) float64
        A row a training, a column a problem.
    two_more : tuple of float
        Two problems put among the resampled ones where there is one seed, as `bootstrap` does, or where the
        columns are all alike and would give an interval of width 0.
    seed : int
        Draws from (seed, "bootstrap over seeds", key) and (seed, "bootstrap over problems", key).
    key : str
        What is resampled.
    replicates : int
        R.

    Returns
    -------
    CrossedDraws
        Memory: 16 R bytes, and 16,000 bytes for each distinct column mean while it draws.
    """
    rows, columns = np.round(values.mean(axis=1), 12), np.round(values.mean(axis=0), 12)
    added = two_more if len(rows) == 1 or np.ptp(columns) == 0 else ()
    problems = resampled_means(columns.tolist(), added, rng_for(seed, "bootstrap over problems", key), replicates)
    seeds = None
    if len(rows) > 1:
        seeds = resampled_means(rows.tolist(), (), rng_for(seed, "bootstrap over seeds", key), replicates)
    return CrossedDraws(float(values.mean()), seeds, problems, len(rows), problem_share(values))


def seed_factor(n_seeds: int, level: float) -> float:
    """c: how far the spread of n resampled seeds is stretched for the quantile `level`, which is not 0.5."""
    return math.sqrt(n_seeds / (n_seeds - 1)) * t_quantile(level, n_seeds - 1) / NormalDist().inv_cdf(level)


def t_quantile(level: float, df: int) -> float:
    """The value that Student's t with `df` degrees of freedom stays below with probability `level`, in (0, 1)."""
    from scipy.special import stdtrit

    if not 0 < level < 1 or df < 1:
        raise ValueError(f"got level = {level} and df = {df}; expected 0 < level < 1 and df >= 1.")
    return float(stdtrit(df, level))


def problem_share(values: NDArray[np.float64]) -> float:
    """h: root of the share of the column means' variance that is not the noise of single entries.

    1 for one row or one column, where the noise cannot be told apart, and for columns that are all alike.
    """
    n_seeds, n_problems = values.shape
    columns, rows = values.mean(axis=0), values.mean(axis=1, keepdims=True)
    if n_seeds == 1 or n_problems == 1 or np.ptp(np.round(columns, 12)) == 0:
        return 1.0
    between = n_seeds * np.sum((columns - values.mean()) ** 2) / (n_problems - 1)
    rest = np.sum((values - rows - columns + values.mean()) ** 2) / ((n_seeds - 1) * (n_problems - 1))
    return math.sqrt(max(0.0, 1 - float(rest / between)))
