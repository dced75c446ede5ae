"""What the kinds of the test bed's pool have in common: why the alignment prefers one kind to another.

`python -m bench kinds` runs the test bed up to its choice; `python -m bench.bench_kinds RUN_DIR...` prints the table of
any run on a pool of the test bed. Over the prompts of a kind that have a gradient: their share of the pool's summed V,
the mean cosine of two prompts of the kind (`alike`), of one with one of the target (`with target`), and with the pool's
mean gradient, to which each prompt adds its V_j u_j (`with pool`: the alignment is that times a constant); and how many
prompts of the kind are among the n of the highest score, and would be if each were aligned with the target's other
prompts alone (`chosen by target`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.cases import CACHE, run_recipe
from bench.measure import Row, Settings, commit
from bench.table import of_runs
from lean_align.artifacts import read_json
from lean_align.errors import StageError
from lean_align.recipe import load_recipe
from lean_align.scoring.tables import read_scores
from lean_align.store import open_store

TARGET = "target"


def measure(settings: Settings) -> Iterator[Row]:
    folder = CACHE / f"testbed-run-{commit()}"
    if not (folder / "selection" / "manifest.json").exists():
        run_recipe("testbed", folder, "select")
    yield from rows_of(folder)


def rows_of(run_dir: Path) -> Iterator[Row]:
    """A row for each kind of which a prompt has a gradient, the largest share first."""
    path = run_dir / "data" / "kinds.json"
    if not path.exists():
        raise StageError(f"{run_dir} has no data/kinds.json; expected a run on a pool of the test bed.")
    scores, kind_of = read_scores(run_dir / "scores" / "scores.parquet"), read_json(path)
    kinds = np.array([kind_of[prompt_id]["kind"] for prompt_id in scores.prompt_ids])
    rows = np.concatenate([block for _, block in open_store(run_dir / "gradients").blocks()]).astype(np.float64)
    norms = np.linalg.norm(rows, axis=1)
    has = norms > 0
    units = np.divide(rows, norms[:, None], where=has[:, None], out=np.zeros_like(rows))
    weighted = scores.learnability[:, None] * units
    mean, top_n = weighted.mean(axis=0), load_recipe(run_dir / "recipe.yaml").selection.n
    own_part = np.where((kinds == TARGET) & has, scores.learnability, 0.0)  # of the sum, what the prompt itself brings
    aimed = scores.learnability * (units @ weighted[kinds == TARGET].sum(axis=0) - own_part)
    chosen = {"chosen": np.argsort(scores.rank)[:top_n], "chosen_by_target": np.argsort(-aimed)[:top_n]}
    target = units[(kinds == TARGET) & has]
    total = scores.learnability.sum()
    for kind in sorted(set(kinds[has]), key=lambda k: -scores.learnability[kinds == k].sum()):
        own = units[(kinds == kind) & has]
        alike = _between(own)
        yield {
            "kind": kind,
            "prompts": len(own),
            "share_of_v": float(scores.learnability[kinds == kind].sum() / total),
            "alike": alike,
            "with_target": alike if kind == TARGET else float((own @ target.T).mean()),
            "with_pool": float((own @ mean).mean() / np.linalg.norm(mean)),
            **{name: int((kinds[best] == kind).sum()) for name, best in chosen.items()},
        }


def _between(units: np.ndarray) -> float | None:
    """Mean cosine of two different rows of unit length."""
    n = len(units)
    return float((np.linalg.norm(units.sum(axis=0)) ** 2 - n) / (n * (n - 1))) if n > 1 else None


if __name__ == "__main__":
    print(of_runs(rows_of, sys.argv[1:]))
