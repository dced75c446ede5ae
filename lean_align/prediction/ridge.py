"""Ridge regression in closed form, with its penalty by exact leave-one-out and with predictive variances.

    min_{a, w}  sum_i (y_i - a - <w, x_i>)^2 + lambda |w|^2

With rows centred at their mean and X = U S W^T, the fitted values are H y,

    H = 1 1^T / n + U diag(s^2 / (s^2 + lambda)) U^T

and the error for y_i of a fit without i, intercept included, is (y_i - (H y)_i) / (1 - H_ii), exactly.  The penalty of
least squared error is taken.  Read as a Gaussian prior on w, the fit predicts at x with the variance

    sigma^2 (1 + 1/n + x^T (X^T X + lambda I)^-1 x)

which grows away from what was seen.  sigma^2 is the value that the errors left out are likeliest under, given that
prediction i has variance sigma^2 / (1 - H_ii): the mean of (1 - H_ii) times the squared error.

Source: Allen (1974), Technometrics 16, 125-127; Rasmussen and Williams (2006), Gaussian Processes for Machine Learning,
sections 2.1 and 5.4.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

PENALTIES = np.logspace(-4, 4, 33)
"""Penalties that are tried, in units of the mean squared length of a centred row."""
_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Ridge:
    """A fitted regression.

    Attributes
    ----------
    intercept : float
    weights : (d,) float64
    centre : (d,) float64
        Mean of the rows that it was fitted to.
    axes : (r, d) float64
        Right singular vectors of the centred rows.
    shrinkage : (r,) float64
        1 / (s^2 + lambda).
    penalty : float
        lambda.
    noise : float
        sigma^2.
    left_out : (n,) float64
        Prediction of each y_i by a fit without i.
    error : float
        Root mean square error of these.
    correlation : float
        Of these with y; 0 where either is constant.
    """

    intercept: float
    weights: NDArray[np.float64]
    centre: NDArray[np.float64]
    axes: NDArray[np.float64]
    shrinkage: NDArray[np.float64]
    penalty: float
    noise: float
    left_out: NDArray[np.float64]
    error: float
    correlation: float

    def predict(self, features: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of a new y at each row.

        Parameters
        ----------
        features : (m, d) float

        Returns
        -------
        mean, variance : (m,) float64

        Notes
        -----
        Memory: 8 d bytes for each of 1,024 rows, twice.
        """
        rows = np.asarray(features)
        mean, variance = np.empty(len(rows)), np.empty(len(rows))
        for start in range(0, len(rows), _BLOCK_ROWS):
            part = slice(start, start + _BLOCK_ROWS)
            away = rows[part].astype(np.float64) - self.centre
            seen = away @ self.axes.T
            unseen = np.maximum(0.0, np.vecdot(away, away) - np.vecdot(seen, seen))
            spread = seen**2 @ self.shrinkage + unseen / self.penalty
            mean[part] = self.intercept + away @ self.weights
            variance[part] = self.noise * (1 + 1 / len(self.left_out) + spread)
        return mean, variance


def fit_ridge(features: ArrayLike, y: ArrayLike) -> Ridge:
    """Fit a ridge regression.

    Parameters
    ----------
    features : (n, d) float
        On comparable scales: see `standardised`.
    y : (n,) float
        n at least 2.

    Returns
    -------
    Ridge

    Raises
    ------
    ValueError
        When shapes do not fit, there are fewer than two rows, or a number is not finite.

    Notes
    -----
    Time n d min(n, d), once for all penalties.  Memory: three times 8 n d bytes.
    """
    rows, target = np.asarray(features, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if rows.ndim != 2 or target.shape != rows.shape[:1] or len(rows) < 2:
        raise ValueError(f"features have shape {rows.shape} and y {target.shape}; expected (n, d) and (n,), n >= 2.")
    if not (np.isfinite(rows).all() and np.isfinite(target).all()):
        raise ValueError("features or y hold NaN or Inf; expected finite numbers.")
    n, centre, intercept = len(rows), rows.mean(axis=0), float(target.mean())
    left, singular, axes = np.linalg.svd(rows - centre, full_matrices=False)
    singular[singular <= np.finfo(np.float64).eps * max(rows.shape) * singular.max(initial=0.0)] = 0.0
    along = left.T @ (target - intercept)
    unit = float(np.sum(singular**2)) / n or 1.0
    best: tuple[float, float, NDArray[np.float64], NDArray[np.float64]] | None = None
    for penalty in PENALTIES * unit:
        kept = singular**2 / (singular**2 + penalty)
        hat = np.minimum(1 / n + left**2 @ kept, 1 - 1e-12)
        errors = (target - intercept - left @ (kept * along)) / (1 - hat)
        loss = float(np.mean(errors**2))
        if best is None or loss <= best[0]:  # of equals the larger penalty
            best = loss, penalty, hat, errors
    assert best is not None
    loss, penalty, hat, errors = best
    shrinkage = 1 / (singular**2 + penalty)
    left_out = target - errors
    return Ridge(
        intercept=intercept,
        weights=axes.T @ (singular * shrinkage * along),
        centre=centre,
        axes=axes,
        shrinkage=shrinkage,
        penalty=penalty,
        noise=float(np.mean(errors**2 * (1 - hat))),
        left_out=left_out,
        error=loss**0.5,
        correlation=correlation(left_out, target),
    )


def correlation(one: ArrayLike, other: ArrayLike) -> float:
    """Pearson's correlation of two columns of numbers; 0 where either is constant or there are fewer than two."""
    a, b = (np.asarray(column, dtype=np.float64) for column in (one, other))
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def standardised(features: ArrayLike) -> NDArray[np.float32]:
    """Each column at mean 0 and standard deviation 1, (n, d) float32; a constant column becomes 0.

    Notes
    -----
    Memory: 4 n d bytes of result, and 8 bytes for each number of 1,024 rows.
    """
    rows = np.asarray(features)
    parts = [slice(start, start + _BLOCK_ROWS) for start in range(0, len(rows), _BLOCK_ROWS)]
    centre = sum((rows[part].sum(axis=0, dtype=np.float64) for part in parts), np.zeros(rows.shape[1])) / len(rows)
    squares = sum((np.square(rows[part] - centre).sum(axis=0) for part in parts), np.zeros(rows.shape[1]))
    scale = np.sqrt(squares / len(rows))
    scale[scale <= 1e-6 * np.abs(centre)] = np.inf  # nothing but rounding
    scale[scale == 0] = np.inf
    found = np.empty(rows.shape, dtype=np.float32)
    for part in parts:
        found[part] = (rows[part] - centre) / scale
    return found
