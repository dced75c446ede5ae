"""What each method chose: lengths, kinds, overlaps, and whether its values follow length or gradient norm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lean_align.compare.cells import cell_folder
from lean_align.compare.facts import CellFacts, PoolFacts, read_pool_facts
from lean_align.compare.variants import Variant
from lean_align.report.comparison import Correlation, Correlations, Lengths, Overlap, Scatter
from lean_align.statistics import value_correlations

BINS = 16
"""Bars of a histogram of lengths, from 0 to the longest mean completion of the pool."""
Cells = Mapping[tuple[Variant, int], CellFacts]
Pools = Mapping[Path, PoolFacts]


def pools_of(folder: Path, cells: Cells) -> dict[Path, PoolFacts]:
    """Each pool, by its data folder, as the first variant that took scores found it; those without settings first."""
    found: dict[Path, PoolFacts] = {}
    for variant, seed in sorted(cells, key=lambda key: len(key[0].settings)):
        cell, pool = cell_folder(folder, variant, seed), cells[variant, seed].pool
        if pool not in found and (cell / "scores").exists():
            found[pool] = read_pool_facts(cell)
    return found


def choice_facts(done: Sequence[CellFacts], pools: Pools) -> dict[str, Any]:
    """Of one variant, over the seeds: lengths, kinds and correlations of what it chose."""
    known = [(cell, pools[cell.pool]) for cell in done if cell.pool in pools]
    without = [cell.n_without_signal for cell in done if cell.n_without_signal is not None]
    found: dict[str, Any] = {"n_without_signal": float(np.mean(without)) if without else None}
    if not known:
        return found
    chosen = [np.isin(pool.prompt_ids, cell.chosen) for cell, pool in known]
    top = max(float(pool.n_tokens.max()) for _, pool in known)
    lengths = [pool.n_tokens[mask] for mask, (_, pool) in zip(chosen, known)]
    counts, edges = np.histogram(np.concatenate(lengths), bins=BINS, range=(0.0, top))
    found["n_without_signal"] = float(
        np.mean([np.sum(pool.learnability[mask] <= 0) for mask, (_, pool) in zip(chosen, known)])
    )
    found["lengths"] = Lengths(tuple(edges.tolist()), tuple((counts / len(known)).tolist()))
    found["mean_tokens"] = float(np.mean([values.mean() for values in lengths]))
    return found | _kinds(known) | {"correlations": _correlations(known)}


def overlap_matrix(variants: Sequence[Variant], cells: Cells) -> Overlap:
    """Mean over seeds of the share of the smaller choice that the other holds too."""
    there = [v for v in variants if any(own == v for own, _ in cells)]
    share = tuple(tuple(_overlap(a, b, cells) for b in there) for a in there)
    return Overlap(tuple(v.label for v in there), share)


def scatter(reference: Variant, cells: Cells, pools: Pools) -> Scatter | None:
    """Learnability and alignment of every prompt of one seed, and which the reference chose."""
    seeds = [seed for (variant, seed), cell in cells.items() if variant == reference and cell.pool in pools]
    if not seeds:
        return None
    seed = min(seeds)
    pool, chosen = pools[cells[reference, seed].pool], set(cells[reference, seed].chosen)
    kinds = [pool.kinds.get(i, "") for i in pool.prompt_ids]
    return Scatter(
        seed=seed,
        label=reference.label,
        learnability=tuple(pool.learnability.tolist()),
        alignment=tuple(pool.alignment.tolist()),
        chosen=tuple(int(i in chosen) for i in pool.prompt_ids),
        kind=tuple(kinds) if any(kinds) else None,
    )


def _overlap(a: Variant, b: Variant, cells: Cells) -> float | None:
    seeds = [seed for own, seed in cells if own == a and (b, seed) in cells]
    pairs = [(set(cells[a, seed].chosen), set(cells[b, seed].chosen)) for seed in seeds]
    return float(np.mean([len(x & y) / min(len(x), len(y)) for x, y in pairs])) if pairs else None


def _kinds(known: Sequence[tuple[CellFacts, PoolFacts]]) -> dict[str, Any]:
    """Mean number of chosen prompts of each kind, and of wrong golds, where the pool says what they are."""
    if not any(pool.kinds for _, pool in known):
        return {"kinds": None, "n_wrong_gold": None}
    counts = Counter(pool.kinds[i] for cell, pool in known for i in cell.chosen)
    kinds = sorted({kind for _, pool in known for kind in pool.kinds.values()})
    wrong = sum(i in pool.wrong for cell, pool in known for i in cell.chosen)
    return {"kinds": {kind: counts[kind] / len(known) for kind in kinds}, "n_wrong_gold": wrong / len(known)}


def _correlations(known: Sequence[tuple[CellFacts, PoolFacts]]) -> Correlations | None:
    """Mean over seeds of the correlations of values with length and gradient norm, over prompts with a gradient.

    Over the whole pool most of it would be that prompts without signal have neither value nor gradient.
    """
    ranked = [(cell, pool) for cell, pool in known if len(cell.values) > 1]
    if not ranked:
        return None
    return Correlations(*(_mean_correlation(ranked, name) for name in ("n_tokens", "gradient_norm")))


def _mean_correlation(ranked: Sequence[tuple[CellFacts, PoolFacts]], name: str) -> Correlation:
    found: dict[str, list[float]] = {"spearman": [], "pearson": [], "partial": []}
    for cell, pool in ranked:
        values = np.array([cell.values.get(i, np.nan) for i in pool.prompt_ids])
        teaches = pool.gradient_norm > 0
        one = value_correlations(values[teaches], getattr(pool, name)[teaches], pool.learnability[teaches])
        for key, numbers in found.items():
            number = getattr(one, key)
            numbers += [] if number is None else [number]
    return Correlation(**{key: float(np.mean(numbers)) if numbers else None for key, numbers in found.items()})
