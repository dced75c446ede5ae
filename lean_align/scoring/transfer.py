"""How far the mean gradient of chosen prompts points where a target's does.

    g_S = (1/|S|) sum_{i in S} w_i u_i,    g_T = (1/|T|) sum_{j in T} w_j u_j,    transfer = cos(g_S, g_T)

u are unit rows of projected gradients (k,).  A small step along g_S changes the target's objective by the step's length
times |g_T| cos(g_S, g_T): to first order the cosine is all of what a choice does for the target, and it takes no
training.  Two weights w make sense, and both are reported:

- V, the learnability, as in the score: a prompt's gradient is taken to be as long as it can be learned;
- the norm of the projected gradient, so that w u is the gradient itself.  A GRPO step adds up these: a group's gradient
  has its advantages in it, which are divided by the spread of its rewards, so that its length grows with V's root and
  falls with the number of tokens.

A mean of n nearly orthogonal gradients is mostly noise, of length about 1 / sqrt(n): a cosine of 0.1 may be all that
there is to have.  What can be read is the difference to a random choice of the same size, with its interval; not the
figure alone.  Of a prompt that is a problem of the target too, the product with itself counts 0.

Intervals come from a bootstrap over the chosen prompts and over the target's problems together.  Each prompt counts a
Poisson number of times with mean 1, the same in every choice that holds it, and the target's problems are drawn with
replacement, the same for every choice, so that differences are paired.  Only the products <u_i, u_j> are drawn again;
the lengths |g_S| and |g_T| are held.  Drawn too, they would be too long in every replicate, as a prompt that counts
twice adds to the noise in one direction, and the interval would lie below the cosine that it is of.

Source: ours; LESS (arXiv 2402.04333) and GradAlign compare single gradients with a target's in this way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.rng import rng_for
from lean_align.scoring.row_chunks import Chunks, Source, as_source
from lean_align.scoring.score import row_products
from lean_align.statistics.bootstrap import percentile_interval

REPLICATES = 2_000
_BLOCK_ROWS = 64
Array = NDArray[np.float64]


@dataclass(frozen=True)
class MeanCosine:
    """Cosine of a choice's mean gradient with the target's.

    Attributes
    ----------
    cosine : float or None
        In [-1, 1]; None where one of the means is zero.
    interval : tuple of float or None
        95 %, over prompts and target problems.
    lead, lead_interval : float, tuple of float, or None
        The first choice's cosine minus this one, and its 95 % interval; None of the first.
    """

    cosine: float | None
    interval: tuple[float, float] | None
    lead: float | None = None
    lead_interval: tuple[float, float] | None = None


def mean_cosines(
    rows: Source | ArrayLike,
    weights: ArrayLike,
    choices: Mapping[str, ArrayLike],
    target_rows: Source | ArrayLike,
    target_weights: ArrayLike,
    seed: int,
    in_both: Mapping[int, Sequence[int]] | None = None,
    replicates: int = REPLICATES,
) -> dict[str, MeanCosine]:
    """Compare the mean gradient of several choices with that of a target.

    Parameters
    ----------
    rows : GradientStore, FirstColumns or (n, k) array
        Unit rows of the pool.
    weights : (n,) float
        Of the pool's rows, 0 or more.
    choices : mapping of str to (N,) int
        Rows of each choice, each once; the others are compared with the first.
    target_rows : as rows, (n_T, k)
    target_weights : (n_T,) float
    seed : int
        Of the bootstrap.
    in_both : mapping of int to sequence of int, optional
        Row of a prompt in the pool -> its rows in the target, for prompts that are in both.
    replicates : int
        0 for no intervals.

    Returns
    -------
    dict of str to MeanCosine
        In the order of the choices.

    Raises
    ------
    ValueError
        When there is nothing to compare, shapes differ, a weight is negative or not finite, or a row is chosen twice.

    Notes
    -----
    Memory, with N rows that are in some choice: 8 N n_T bytes of products, 8 n_T k of the target's rows, 9 N replicates
    and 8 n_T replicates bytes of counts, 8 k a choice.
    """
    pool, target = (Chunks(as_source(source, None)) for source in (rows, target_rows))
    w, w_target = _weights(pool, weights, "pool"), _weights(target, target_weights, "target")
    if pool.source.proj_dim != target.source.proj_dim:
        raise ValueError(
            f"the pool's rows have {pool.source.proj_dim} columns and the target's {target.source.proj_dim}; expected "
            "rows of one projection."
        )
    held = {name: _places(name, chosen, len(w)) for name, chosen in choices.items()}
    if not held:
        raise ValueError("got no choice to compare with the target; expected at least one.")
    places = np.unique(np.concatenate(list(held.values())))
    problems = _gathered(target, np.arange(len(w_target)), w_target)
    products, means = _products(pool, w, places, held, problems)
    for number, place in enumerate(places.tolist()):
        products[number, list((in_both or {}).get(place, ()))] = 0
    draws = _mean_products(
        products, {name: np.searchsorted(places, own) for name, own in held.items()}, seed, replicates
    )
    length = float(np.linalg.norm(problems.mean(axis=0)))
    found: dict[str, MeanCosine] = {}
    first: tuple[float, Array] | None = None
    for name, (mean, drawn) in draws.items():
        scale = float(np.linalg.norm(means[name])) * length
        if scale == 0:
            found[name] = MeanCosine(None, None)
            continue
        cosine, replicate_cosines = mean / scale, np.clip(drawn / scale, -1, 1)
        found[name] = MeanCosine(_short(cosine), _ends(replicate_cosines))
        if name == next(iter(held)):
            first = cosine, replicate_cosines
        elif first is not None:
            lead = _short(first[0] - cosine)
            found[name] = replace(found[name], lead=lead, lead_interval=_ends(first[1] - replicate_cosines))
    return found


def _weights(chunks: Chunks, weights: ArrayLike, whose: str) -> Array:
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (len(chunks.source),) or not len(w) or not (np.isfinite(w).all() and (w >= 0).all()):
        raise ValueError(
            f"the {whose}'s weights have shape {w.shape}; expected ({len(chunks.source)},), one finite number of at "
            "least 0 a row, and at least one row."
        )
    return w


def _places(name: str, chosen: ArrayLike, n: int) -> NDArray[np.int64]:
    places = np.sort(np.asarray(chosen, dtype=np.int64))
    if places.ndim != 1 or not len(places) or places[0] < 0 or places[-1] >= n or (np.diff(places) == 0).any():
        raise ValueError(
            f"the choice {name} has {len(places)} rows; expected distinct ones of 0 to {n - 1}, at least 1."
        )
    return places


def _products(
    pool: Chunks,
    w: Array,
    places: NDArray[np.int64],
    held: Mapping[str, NDArray[np.int64]],
    aims: Array,
) -> tuple[Array, dict[str, Array]]:
    """w_i w_j <u_i, u_j> of every chosen row and every problem, and the mean of each choice."""
    products, sums = np.empty((len(places), len(aims))), {name: np.zeros(aims.shape[1]) for name in held}
    for start in range(0, len(places), _BLOCK_ROWS):
        own = places[start : start + _BLOCK_ROWS]
        block = _gathered(pool, own, w[own])
        for j, aim in enumerate(aims):
            products[start : start + len(own), j] = row_products(block, aim)
        for name, chosen in held.items():
            sums[name] += block[np.isin(own, chosen)].sum(axis=0)
    return products, {name: total / len(held[name]) for name, total in sums.items()}


def _gathered(chunks: Chunks, places: NDArray[np.int64], weights: Array) -> Array:
    """Some rows, each times its weight, in float64."""
    block = np.empty((len(places), chunks.source.proj_dim))
    chunks.gather(places, block)
    if not np.isfinite(block).all():
        row = int(places[np.argwhere(~np.isfinite(block))[0, 0]])
        raise ValueError(f"row {row} ({chunks.source.prompt_ids[row]}) holds NaN or Inf; expected unit rows.")
    block *= weights[:, None]
    return block


def _mean_products(
    products: Array, members: Mapping[str, NDArray[np.intp]], seed: int, replicates: int
) -> dict[str, tuple[float, Array]]:
    """<g_S, g_T> of each choice, and its bootstrap replicates, (replicates,)."""
    n, n_target = products.shape
    problems = rng_for(seed, "transfer", "problems").multinomial(n_target, np.full(n_target, 1 / n_target), replicates)
    prompts = rng_for(seed, "transfer", "prompts").poisson(1.0, (replicates, n)).astype(np.uint8)
    found = {}
    for name, rows in members.items():
        counts = prompts[:, rows].astype(np.float64)
        total = np.maximum(counts.sum(axis=1), 1)
        drawn = np.vecdot(np.einsum("bi,ij->bj", counts, products[rows]), problems) / (total * n_target)
        found[name] = float(products[rows].mean()), drawn
    return found


def _short(value: float) -> float:
    """Without the digits that are rounding."""
    return round(float(value), 12)


def _ends(drawn: Array) -> tuple[float, float] | None:
    if not len(drawn):
        return None
    low, high = percentile_interval(drawn)
    return _short(low), _short(high)
