"""Alignment in the metric of the gradients' own second moment: a direction that many prompts share counts once.

    score_i = V_i u_i^T (C + lambda I)^-1 m,    C = (1/n) sum_j V_j u_j u_j^T  (k x k),    m = (1/n) sum_j V_j u_j  (k,)

u (n, k) are unit rows of projected gradients, V (n,) learnabilities.  A step along m changes most what most prompts
agree in, and the plain score V_i <u_i, m> rewards a prompt for that once a prompt that agrees.  (C + lambda I)^-1 m is
the natural gradient's step instead, with C for the Fisher matrix (Amari 1998): what is shared is divided by how widely
it is shared.  m may be a target's mean (`mean`), and then asks for what the target's problems need.

z = (C + lambda I)^-1 m of the pool's own m is the ridge regression of 1 on the rows, since it minimises

    (1/n) sum_j V_j (1 - <u_j, z>)^2 + lambda |z|^2,

so that a score is V_i times a fitted value.  Two things follow.

1. **Prompt i is left out of m and of C** unless asked otherwise.  With at least as many dimensions as prompts, fitted
   values go to 1 as lambda falls, whatever the prompts are: each votes for itself, and the score is V_i alone.  Left
   out, it is the prediction of prompt i from the others.  By Sherman and Morrison, with w = V_i / n, q = u_i^T (C +
   lambda I)^-1 u_i and r = u_i^T (C + lambda I)^-1 m,

       score_i = V_i (r - w q) / (1 - w q)        (m of the pool),        V_i r / (1 - w q)        (m of a target).

   It costs the q's: as many operations again as the factorisation.
2. **lambda = ridge x trace(C)**, 0.002 by default, where trace(C) = (1/n) sum_j V_j |u_j|^2 is the mean of V.  An
   eigenvalue of C is the share of the trace that lies along its direction: with 0.002, what holds more than 0.2 % of it
   is divided by that share, and what holds less is compared plainly.  A large ridge gives the order of LearnAlign's
   leave-one-out score back, (C + lambda I)^-1 going to 1 / lambda.

With x_j = sqrt(V_j / n) u_j, C = X^T X over the n' rows of V > 0; the others add nothing.  Where k <= n' the k x k
matrix C + lambda I is factored; otherwise the n' x n' one of products, G = X X^T + lambda I, by X (C + lambda I)^-1 =
G^-1 X (Woodbury).  With a_j = sqrt(V_j / n), so that m = X^T a,

    1 - w q = lambda (G^-1)_ii,    r = (G^-1 X m)_i / a_i,    (r - w q) / (1 - w q) = 1 - (G^-1 a)_i / (a_i (G^-1)_ii).

The two agree to 1e-6 (tests/test_whitening.py).

Everything is in float64: rows are widened, scaled by a power of two, and read 64 at a time.  The result has the same
bits whatever the number of threads, ours or BLAS's (`tiles`), and is rounded to 2^-40 of the largest score, so that
prompts that are alike tie.

Source: ours, after LearnAlign, arXiv 2506.11480; the natural gradient, doi:10.1162/089976698300017746.  The
leave-one-out prediction of a ridge regression is Golub, Heath and Wahba's (1979).

Differs from LearnAlign in:

1. The metric, and the prompt itself left out.
2. Only the order of the scores means something: their scale is that of V / trace(C).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.scoring.row_chunks import Chunks, Source, as_source
from lean_align.scoring.tiles import TILE, LowerTiles, finish_all, tiles_of

RIDGE = 0.002
LEAST_RIDGE, MOST_RIDGE = 1e-4, 1e4
SECOND_MOMENT, GRAM = "second moment", "gram"
_STRIP = 8  # tiles of rows of the Gram matrix that are held while the others pass by
_ROUND_BITS = 40
Array = NDArray[np.float64]


@dataclass(frozen=True)
class WhitenedScores:
    """Whitened scores, and what they were made with.

    Attributes
    ----------
    score : (n,) float64
        0 where V is 0.
    form : str
        `second moment`, the k x k matrix, or `gram`, the n' x n' one.
    n_rows : int
        Rows of V > 0 (n').
    ridge : float
        lambda as a multiple of trace(C).
    leave_one_out : bool
    """

    score: Array
    form: str
    n_rows: int
    ridge: float
    leave_one_out: bool


@dataclass(frozen=True)
class Aim:
    """A mean that is not the pool's, such as a target's.

    Attributes
    ----------
    mean : (k,) float
        m.
    own_terms : mapping of int to (k,) float
        By row, what a prompt that is in the pool and in the target added to `mean`.  It is taken off where the prompt
        is left out.
    """

    mean: ArrayLike
    own_terms: Mapping[int, ArrayLike] = field(default_factory=dict)


def whitened_scores(
    rows: Source | ArrayLike,
    learnability: ArrayLike,
    aim: Aim | None = None,
    ridge: float = RIDGE,
    leave_one_out: bool = True,
    form: str | None = None,
    block_rows: int | None = None,
    threads: int | None = None,
) -> WhitenedScores:
    """Score every prompt by its whitened alignment.

    Parameters
    ----------
    rows : GradientStore, FirstColumns or (n, k) array
        Unit rows, as for `score_prompts`.
    learnability : (n,) float
        V, 0 or more: C is a second moment, which has no meaning with a negative weight.
    aim : Aim, optional
        Where another m than the pool's comes from.
    ridge : float
        lambda as a multiple of trace(C), in [1e-4, 1e4].
    leave_one_out : bool
        Leave prompt i out of C and, where it is in it, of m.
    form : str, optional
        `second moment` or `gram`; the smaller matrix when not given.
    block_rows, threads : int, optional
        As for `score_prompts`; the result depends on neither.

    Returns
    -------
    WhitenedScores

    Raises
    ------
    ValueError
        When lengths differ, V is negative somewhere, a row or the mean is not finite, or the ridge is out of range.

    Notes
    -----
    Memory, with d the smaller of k and n': 4 d (d + 64) bytes of the matrix, 270 MB where d = 8,192; 2,048 d a
    thread; a chunk of rows a thread as in `score_prompts`; 8,192 k bytes of rows for the Gram matrix, 67 MB where
    k = 8,192.  (n = 7,473 prompts of which a third have V > 0 and k = 8,192: 25 MB for the matrix.)
    Operations: n' k d for the matrix, d^3 / 3 to factor it, and the prompt left out d^3 / 3 (Gram) or n' k^2.
    """
    source = as_source(rows, None)
    v = _checked(learnability, source, ridge, form)
    chunks = Chunks(source, block_rows, threads)
    exponent = _exponent(chunks, v)
    taught = np.flatnonzero(v > 0)
    form = form or (SECOND_MOMENT if source.proj_dim <= len(taught) else GRAM)
    x = _Rows(chunks, taught, v[taught] / len(v), exponent)
    aims = None if aim is None else _aims(aim, source.proj_dim, taught)
    with ThreadPoolExecutor(chunks.threads) as pool:
        value = (_by_second_moment if form == SECOND_MOMENT else _by_gram)(x, aims, ridge, leave_one_out, pool)
    score = np.zeros(len(v))
    score[taught] = v[taught] * (value if aims is None else np.ldexp(value, -exponent))
    return WhitenedScores(_rounded(score), form, len(taught), ridge, leave_one_out)


@dataclass(frozen=True)
class _Aims:
    """A mean that is not the pool's, (k,), and the terms to take off it: by number among the rows of V > 0."""

    mean: Array
    own_terms: dict[int, Array]

    def columns(self) -> Array:
        """The mean and all terms, (k, 1 + terms)."""
        return np.column_stack([self.mean, *self.own_terms.values()])


class _Rows:
    """The rows of V > 0 as x_j = sqrt(V_j / n) u_j, times a power of two; read when they are asked for."""

    def __init__(self, chunks: Chunks, places: NDArray[np.intp], weights: Array, exponent: int) -> None:
        self.chunks, self.places, self.a, self.exponent = chunks, places, np.sqrt(weights), exponent
        self.count, self.columns = tiles_of(len(places)), tiles_of(chunks.source.proj_dim)

    def tiles(self, first: int, last: int) -> Array:
        """Tiles of rows first .. last - 1, (last - first, columns, 64, 64); what is beyond the matrix is zero."""
        numbers = slice(first * TILE, min(last * TILE, len(self.places)))
        k = self.chunks.source.proj_dim
        padded = np.zeros(((last - first) * TILE, self.columns * TILE))
        found = padded[: numbers.stop - numbers.start, :k]
        self.chunks.gather(self.places[numbers], found)
        found *= np.ldexp(self.a[numbers], -self.exponent)[:, None]
        by_tile = padded.reshape(last - first, TILE, self.columns, TILE).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(by_tile)


def _by_second_moment(
    x: _Rows, aims: _Aims | None, ridge: float, leave_one_out: bool, pool: ThreadPoolExecutor
) -> Array:
    """What V_i is multiplied by in each score, (n',)."""
    matrix, mean = LowerTiles(x.chunks.source.proj_dim), np.zeros((x.columns, TILE))
    a = _padded(x.a[:, None], x.count)
    for number in range(x.count):
        tiles = x.tiles(number, number + 1)[0]
        mean += (tiles * a[number]).sum(axis=1)
        finish_all(pool.map(partial(_add_products, matrix, tiles), range(x.columns)))
    trace = matrix.trace()
    if trace == 0:
        return np.zeros(len(x.places))
    matrix.add_to_diagonal(ridge * trace)
    matrix.factor(pool)
    wanted = mean[:, :, None] if aims is None else _padded(aims.columns(), x.columns)
    squares, products = _inverse_products(
        matrix, wanted, x, aims, lambda number: x.tiles(number, number + 1)[0].transpose(0, 2, 1).copy(), pool
    )
    r, left = products / x.a, 1 - squares if leave_one_out else 1.0
    value: Array = (r - squares if leave_one_out and aims is None else r) / left
    return value


def _add_products(matrix: LowerTiles, tiles: Array, i: int) -> None:
    """Add what 64 rows give to row i of the second moment."""
    matrix.row(i)[:] += np.matmul(tiles[i].T, tiles[: i + 1])


def _set_product(matrix: LowerTiles, j: int, flipped: Array, i: int, rows: Array) -> None:
    """One tile of the Gram matrix."""
    matrix.row(i)[j] = np.matmul(rows, flipped).sum(axis=0)


def _by_gram(x: _Rows, aims: _Aims | None, ridge: float, leave_one_out: bool, pool: ThreadPoolExecutor) -> Array:
    """The same by the n' x n' matrix."""
    matrix, columns = LowerTiles(len(x.places)), None if aims is None else _padded(aims.columns(), x.columns)
    targets = _padded(x.a[:, None], x.count) if columns is None else np.zeros((x.count, TILE, columns.shape[2]))
    for first in range(0, x.count, _STRIP):
        last = min(first + _STRIP, x.count)
        strip = x.tiles(first, last)
        if columns is not None:
            for number in range(first, last):
                targets[number] = _blockwise(strip[number - first], columns)
        for j in range(last):
            flipped = (strip[j - first] if j >= first else x.tiles(j, j + 1)[0]).transpose(0, 2, 1)
            numbers = range(max(first, j), last)
            finish_all(pool.map(partial(_set_product, matrix, j, flipped), numbers, strip[numbers.start - first :]))
    trace = matrix.trace()
    if trace == 0:
        return np.zeros(len(x.places))
    matrix.add_to_diagonal(ridge * trace)
    matrix.factor(pool)

    def unit_columns(number: int) -> Array:
        columns = np.zeros((x.count, TILE, TILE))
        columns[number] = np.eye(TILE)
        return columns

    squares, products = _inverse_products(matrix, targets, x, aims, unit_columns, pool, from_own_tile=True)
    scale = ridge * trace
    if aims is None:
        return 1 - products / (x.a * squares) if leave_one_out else 1 - scale * products / x.a
    return products / (x.a * scale * squares) if leave_one_out else products / x.a


def _inverse_products(
    matrix: LowerTiles,
    wanted: Array,
    x: _Rows,
    aims: _Aims | None,
    columns_of: Callable[[int], Array],
    pool: ThreadPoolExecutor,
    from_own_tile: bool = False,
) -> tuple[Array, Array]:
    """c_i^T A^-1 c_i and c_i^T A^-1 b of every column c_i, (n',) each: both are products with L^-1 c_i.

    b is the first of the wanted columns; of a prompt with a term of its own, that column is taken off it.
    """
    width = wanted.shape[2]
    for start in range(0, width, TILE):
        wanted[:, :, start : start + TILE] = matrix.solve(wanted[:, :, start : start + TILE].copy())
    own = {} if aims is None else {row: 1 + number for number, row in enumerate(aims.own_terms)}

    def multiply(number: int) -> tuple[Array, Array]:
        solved = matrix.solve(columns_of(number), number if from_own_tile else 0)
        products = (solved * wanted[:, :, :1]).sum(axis=(0, 1))
        for row in range(number * TILE, (number + 1) * TILE):
            if row in own:
                products[row - number * TILE] -= (solved[:, :, row - number * TILE] * wanted[:, :, own[row]]).sum()
        return (solved * solved).sum(axis=(0, 1)), products

    found = list(pool.map(multiply, range(x.count)))
    squares, products = (np.concatenate([pair[side] for pair in found]) for side in (0, 1))
    return squares[: len(x.places)], products[: len(x.places)]


def _blockwise(tiles: Array, columns: Array) -> Array:
    """X times columns for one tile of rows, (64, c): 64 columns at a time."""
    parts = [
        np.matmul(tiles, columns[:, :, start : start + TILE]).sum(axis=0) for start in range(0, columns.shape[2], TILE)
    ]
    return np.concatenate(parts, axis=1)


def _padded(columns: Array, count: int) -> Array:
    """(d, c) as tiles of rows, (count, 64, c), zero beyond d."""
    padded = np.zeros((count * TILE, columns.shape[1]))
    padded[: len(columns)] = columns
    return padded.reshape(count, TILE, columns.shape[1])


def _checked(learnability: ArrayLike, source: Source, ridge: float, form: str | None) -> Array:
    v = np.asarray(learnability, dtype=np.float64)
    if v.shape != (len(source),) or not np.isfinite(v).all():
        raise ValueError(f"learnability has shape {v.shape}; expected ({len(source)},), one finite number per row.")
    if (v < 0).any():
        row = int(np.argmin(v))
        raise ValueError(
            f"learnability of row {row} ({source.prompt_ids[row]}) is {v[row]:g}; whitening expects 0 or more, since "
            "the rows' second moment has V for weights. Clip the estimates at 0, or choose without whitening."
        )
    if not LEAST_RIDGE <= ridge <= MOST_RIDGE:
        raise ValueError(f"ridge is {ridge}; expected a multiple of trace(C) in [{LEAST_RIDGE:g}, {MOST_RIDGE:g}].")
    if form not in (None, SECOND_MOMENT, GRAM):
        raise ValueError(f"form is {form!r}; expected {SECOND_MOMENT!r}, {GRAM!r} or None for the smaller matrix.")
    return v


def _aims(aim: Aim, k: int, taught: NDArray[np.intp]) -> _Aims:
    number = {int(row): i for i, row in enumerate(taught)}
    terms = {number[row]: np.asarray(term, dtype=np.float64) for row, term in aim.own_terms.items() if row in number}
    found = _Aims(np.asarray(aim.mean, dtype=np.float64), terms)
    for vector in (found.mean, *terms.values()):
        if vector.shape != (k,) or not np.isfinite(vector).all():
            raise ValueError(f"the mean has shape {vector.shape}; expected ({k},) finite numbers, as the rows have.")
    return found


def _exponent(chunks: Chunks, v: Array) -> int:
    """e, with every number of the rows of V > 0 below 2^e in size; every row is looked at for NaN and Inf."""

    def largest(starts: range) -> float:
        found = 0.0
        for start in starts:
            block = np.abs(chunks.load(start, check=True))[v[start : start + chunks.height] > 0]
            found = max(found, float(block.max(initial=0.0)))
        return found

    return int(np.frexp(max(chunks.map(largest), default=0.0) / chunks.scale)[1])


def _rounded(score: Array) -> Array:
    """Whole multiples of 2^-40 of the largest."""
    unit = int(np.frexp(np.abs(score).max(initial=0.0))[1]) - _ROUND_BITS
    return np.ldexp(np.rint(np.ldexp(score, -unit)), unit)
