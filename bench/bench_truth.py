"""What projection does to the ranking: scores of projected gradients against the exact ones, on the demo.

Exact scores come from whole float32 gradients of every learnable prompt, in float64. `overlap` is the share of the
recipe's N best prompts that the projected scores pick too. Spreads are over seeds of the projection.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from bench.cases import ROOT, demo_run
from bench.measure import Row, Settings, attempt, pairwise_cosines, spread, top_overlap
from bench.passes import exact_scores, stored_scores, unprojected
from lean_align.gradients import GradientSettings
from lean_align.projection import make_projector
from lean_align.stages.inputs import sampling_policy
from lean_align.statistics import spearman

PROJ_DIMS = (256, 512, 1024, 2048, 4096, 8192)
KINDS = {
    "sjlt, 1 non-zero": ("sjlt", {}),
    "sjlt, 4 non-zeros": ("sjlt", {"nonzeros": 4}),
    "sjlt, 8 non-zeros": ("sjlt", {"nonzeros": 8}),
    "rademacher": ("rademacher", {}),
    "trak": ("trak", {}),
}
PLOT = ROOT / "docs" / "projection_truth.png"


def measure(settings: Settings) -> Iterator[Row]:
    run_dir, recipe, groups = demo_run()
    groups = groups[: settings.pick(8, None, None)]
    policy = sampling_policy(recipe, run_dir)
    whole = unprojected(policy, groups, GradientSettings.of(recipe))
    rates = np.array([group.success_rate for group in groups])
    truth = exact_scores(whole, rates), pairwise_cosines(whole)
    best = min(recipe.selection.n, len(groups))
    rows: list[Row] = []
    for name, (kind, options) in KINDS.items():
        dense = kind != "sjlt"  # slow: fewer seeds and lengths, except in full
        for proj_dim in settings.pick(PROJ_DIMS[:2], PROJ_DIMS[:3] if dense else PROJ_DIMS, PROJ_DIMS):
            columns: Row = {"projection": name, "proj_dim": proj_dim, "grad_dim": whole.shape[1]}
            columns |= {"learnable": len(groups), "best": best}
            seeds = range(settings.seed, settings.seed + settings.times(1 if dense else 3, 3))

            def one(proj_dim: int = proj_dim, kind: str = kind, options: Row = options, seeds: range = seeds) -> Row:
                makers = (make_projector(kind, whole.shape[1], proj_dim, seed, **options) for seed in seeds)
                return _compare((project(maker, whole) for maker in makers), truth, rates, best)

            rows.append(attempt(columns, one))
            yield rows[-1]
            if "note" in rows[-1]:
                break
    if settings.size == "full":
        plot(rows, PLOT)


def project(projector: object, whole: np.ndarray) -> np.ndarray:
    return projector.project(torch.from_numpy(whole)).numpy()


def _compare(
    projections: Iterator[np.ndarray], truth: tuple[np.ndarray, np.ndarray], rates: np.ndarray, best: int
) -> Row:
    scores, cosines = truth
    found: dict[str, list[float]] = {"spearman": [], "overlap": [], "cosine_error": []}
    for projected in projections:
        guess = stored_scores(projected, rates)
        found["spearman"].append(spearman(guess, scores))
        found["overlap"].append(top_overlap(guess, scores, best))
        found["cosine_error"].append(float(abs(pairwise_cosines(projected) - cosines).mean()))
    return {name: spread(values) for name, values in found.items()}


def plot(rows: list[Row], path: Path) -> None:
    """Spearman and overlap against the length of a row, one line per projection, bars over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    texts = {"spearman": "Spearman to the exact scores", "overlap": f"share of the {rows[0]['best']} best found"}
    for panel, (column, text) in zip(panels, texts.items()):
        for name in dict.fromkeys(row["projection"] for row in rows):
            mine = [row for row in rows if row["projection"] == name and row.get(column)]
            middle = [row[column]["median"] for row in mine]
            ends = [[abs(row[column][end] - row[column]["median"]) for row in mine] for end in ("min", "max")]
            panel.errorbar([row["proj_dim"] for row in mine], middle, yerr=ends, marker="o", capsize=2, label=name)
        panel.set_xscale("log", base=2)
        panel.set_xlabel("numbers a row (proj_dim)")
        panel.set_ylabel(text)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
