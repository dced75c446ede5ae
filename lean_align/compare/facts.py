"""What the finished cells of a comparison give to its tables: rewards, costs, curves, and what each method chose.

Of the choices: lengths, kinds, overlaps, and whether a method's values follow length or gradient norm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lean_align.artifacts import read_json, read_jsonl
from lean_align.compare.costs import SpentAt, reselections, selection_spent, spent_at_steps, total, training_spent
from lean_align.compare.variants import Variant, cell_folder
from lean_align.evaluation.solving import BASE, TRAINED
from lean_align.pipeline.graph import stored_recipe
from lean_align.report.comparison import Correlation, Correlations, Lengths, Overlap, Scatter
from lean_align.scoring.tables import read_table
from lean_align.stages.inputs import KINDS, VALUES, chosen_ids
from lean_align.statistics import value_correlations

BINS = 16
"""Bars of a histogram of lengths, from 0 to the longest mean completion of the pool."""


@dataclass(frozen=True)
class CellFacts:
    """A finished cell.

    Attributes
    ----------
    seed : int
    pool : Path
        The data folder, which cells of the same pool and seed share.
    chosen : tuple of str
        Best first.
    values : dict of str to float
        The method's value of each prompt of the pool; empty where it does not rank.
    rewards, base_rewards : dict of str to float
        Mean reward of each evaluation problem's completions, in [0, 1], under `<set>/<problem>`.
    cost : dict
        The fields of `report.comparison.Cost`; None where an earlier version did not count.
    curve : tuple of float
        Mean reward of each training step.
    steps : tuple of SpentAt
        The evaluated steps of the training; empty where none were asked for.
    """

    seed: int
    pool: Path
    chosen: tuple[str, ...]
    values: dict[str, float]
    n_without_signal: int | None
    rewards: dict[str, float]
    base_rewards: dict[str, float]
    cost: dict[str, float | None]
    curve: tuple[float, ...]
    steps: tuple[SpentAt, ...] = ()


def read_cell(cell: Path) -> CellFacts:
    """Read a finished cell."""
    recipe = stored_recipe(cell)
    table = read_table(cell / "selection" / VALUES)
    values = {i: float(v) for i, v in zip(table["prompt_id"], table["value"]) if np.isfinite(v)}
    return CellFacts(
        recipe.seed,
        (cell / "data").resolve(),
        tuple(chosen_ids(cell)),
        values,
        read_json(cell / "selection" / "manifest.json")["counts"]["n_without_signal"],
        _rewards(cell / "evaluation" / TRAINED),
        _rewards(cell / "evaluation" / BASE),
        _cost(cell),
        tuple(row["reward"] for row in read_jsonl(cell / "training" / "log.jsonl")),
        spent_at_steps(cell),
    )


def _rewards(folder: Path) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for row in read_jsonl(path):
            found.setdefault(f"{path.stem}/{row['prompt_id']}", []).append(row["reward"])
    return {key: float(np.mean(rewards)) for key, rewards in found.items()}


def _cost(cell: Path) -> dict[str, float | None]:
    before = total([selection_spent(cell), *(spent for _, spent in reselections(cell))])
    training = training_spent(cell)
    return {
        "selection_seconds": round(before.seconds, 3),
        "generated_tokens": before.generated_tokens,
        "training_tokens": training.generated_tokens,
        "training_seconds": training.seconds,
        "selection_trained_tokens": before.trained_tokens,
        "selection_read_tokens": before.read_tokens,
        "trained_tokens": training.trained_tokens,
        "total_tokens": (before + training).tokens,
    }


@dataclass(frozen=True)
class PoolFacts:
    """The pool as one seed's rollouts and gradients show it, (n,) each, in the order of `prompt_ids`."""

    prompt_ids: tuple[str, ...]
    n_tokens: NDArray[np.float64]
    learnability: NDArray[np.float64]
    alignment: NDArray[np.float64]
    gradient_norm: NDArray[np.float64]
    kinds: dict[str, str]
    wrong: frozenset[str]


def read_pool_facts(cell: Path) -> PoolFacts:
    """The pool of a cell whose method took scores."""
    table = read_table(cell / "scores" / "scores.parquet")
    path = cell / "data" / KINDS
    kinds = read_json(path) if path.exists() else {}
    return PoolFacts(
        tuple(table["prompt_id"]),
        table["n_tokens"],
        table["learnability"],
        table["alignment"],
        table["gradient_norm"].astype(np.float64),
        {i: row["kind"] for i, row in kinds.items()},
        frozenset(i for i, row in kinds.items() if row["wrong"]),
    )


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

    Over the whole pool it would mostly reflect that prompts without signal have neither value nor gradient.
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
