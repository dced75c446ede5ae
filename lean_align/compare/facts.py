"""What one finished cell gives to the tables: rewards, costs, lengths of its choice, its curve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lean_align.artifacts import read_json, read_jsonl, read_manifest
from lean_align.evaluation.solving import BASE, TRAINED
from lean_align.pipeline.graph import stored_recipe
from lean_align.scoring.tables import read_table
from lean_align.stages import GRAPH
from lean_align.stages.inputs import KINDS, VALUES, chosen_ids


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
        selection_seconds, generated_tokens (before the training), training_tokens, training_seconds.
    curve : tuple of float
        Mean reward of each training step.
    """

    seed: int
    pool: Path
    chosen: tuple[str, ...]
    values: dict[str, float]
    n_without_signal: int | None
    rewards: dict[str, float]
    base_rewards: dict[str, float]
    cost: dict[str, float]
    curve: tuple[float, ...]


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
    )


def _rewards(folder: Path) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for row in read_jsonl(path):
            found.setdefault(f"{path.stem}/{row['prompt_id']}", []).append(row["reward"])
    return {key: float(np.mean(rewards)) for key, rewards in found.items()}


def _cost(cell: Path) -> dict[str, float]:
    stages = (s for s in GRAPH.needed_stages(stored_recipe(cell)) if s.for_selection)
    before = [manifest for s in stages if (manifest := read_manifest(cell / s.folder)) is not None]
    training = read_json(cell / "training" / "manifest.json")
    counts = training["counts"]
    tokens = sum(m["counts"].get("generated_tokens", 0) for m in before)
    later = counts.get("selection_seconds", 0.0)  # of a training in rounds
    return {
        "selection_seconds": round(sum(m["wall_seconds"] for m in before) + later, 3),
        "generated_tokens": tokens + counts.get("selection_tokens", 0),
        "training_tokens": counts.get("generated_tokens", 0),
        "training_seconds": counts.get("training_seconds", training["wall_seconds"]),
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
