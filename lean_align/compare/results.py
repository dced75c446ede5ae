"""The figures of a comparison, from the facts of its cells: one record, which the report and the table show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lean_align.artifacts import read_json
from lean_align.compare.audit import faults_by_seed, recipe_facts
from lean_align.compare.cost_curves import cost_curve, goal_of, mean_of_known, to_goal
from lean_align.compare.facts import CellFacts, Cells, Pools, choice_facts, overlap_matrix, pools_of, scatter
from lean_align.compare.variants import Variant, cell_folder, find_variant, read_variant
from lean_align.errors import RecipeError
from lean_align.recipe import Recipe
from lean_align.report.comparison import BaseResult, Comparison, Curve, Method, Pair
from lean_align.report.costs import Cost
from lean_align.statistics import SeedComparison, detectable_difference, holm, mean_over_seeds, seed_differences

PRIMARY, SIZES, OTHERS = "primary", "other sizes", "others"
LEVEL = 0.05
Found = Sequence[tuple[str, int, str]]


@dataclass(frozen=True)
class Design:
    """What is compared: variants in order, the one that others are compared with, seeds, the family of primary ones."""

    recipe: Recipe
    variants: tuple[Variant, ...]
    reference: Variant
    seeds: tuple[int, ...]
    primary: frozenset[Variant]

    @classmethod
    def of(cls, recipe: Recipe, variants: Sequence[Variant], n_seeds: int) -> Design:
        """The comparison that a recipe means; the reference joins the variants where it is not among them."""
        if n_seeds < 1:
            raise RecipeError(f"the number of seeds is {n_seeds}; expected at least 1.")
        text = recipe.compare.reference
        reference = find_variant(text, variants, recipe) or read_variant(text, recipe)
        ordered = [reference, *(v for v in variants if v != reference)]
        facts = recipe_facts(reference.recipe(recipe, recipe.seed))
        for variant in ordered:
            own = recipe_facts(variant.recipe(recipe, recipe.seed))
            if unequal := [f"{key} {own[key]} for {facts[key]}" for key in facts if own[key] != facts[key]]:
                raise RecipeError(
                    f"{variant.label} would not be comparable with {reference.label}: {'; '.join(unequal)}. Change "
                    "these for all methods with --set, in a folder of its own."
                )
        primary = (find_variant(name, variants, recipe) for name in recipe.compare.primary)
        seeds = tuple(range(recipe.seed, recipe.seed + n_seeds))
        return cls(recipe, tuple(ordered), reference, seeds, frozenset(v for v in primary if v is not None))

    def reference_of(self, variant: Variant) -> Variant:
        """What a variant is compared with: the reference's method at its own size where that is there."""
        alike = Variant(self.reference.method, variant.n, self.reference.settings)
        return alike if alike in self.variants and alike != variant else self.reference

    def family_of(self, variant: Variant) -> str:
        """The comparisons that its p-value is corrected with."""
        if variant in self.primary:
            return PRIMARY
        return OTHERS if self.reference_of(variant) == self.reference else SIZES

    @property
    def n_cells(self) -> int:
        """Trainings in all."""
        return len(self.variants) * len(self.seeds)


def comparison_results(
    design: Design, folder: Path, cells: Cells, faults: Found, flags: Found, known: dict[Any, Any]
) -> Comparison:
    """All that a comparison found so far.

    `known` keeps bootstraps between calls: only those of methods with a new cell are drawn.
    """
    pools = pools_of(folder, cells)
    any_cell = next(iter(cells.values()), None)
    return Comparison(
        recipe=design.recipe.name,
        description=design.recipe.description,
        reference=design.reference.label,
        seeds=design.seeds,
        n_problems=len(any_cell.rewards) if any_cell else None,
        benchmark=_benchmarks(any_cell),
        **_machine(folder, cells),
        n_cells=design.n_cells,
        n_done=len(cells),
        training_steps=design.recipe.training.steps,
        prompts_per_step=design.recipe.training.prompts_per_step,
        base=_base(design, cells),
        goal=goal_of(design.variants, cells),
        methods=tuple(_method(design, v, cells, pools, flags, known) for v in design.variants),
        comparisons=tuple(_comparisons(design, cells, known)),
        overlap=overlap_matrix(design.variants, cells),
        scatter=scatter(design.reference, cells, pools),
        faults=tuple(
            f"{label}: {text}"
            for label in dict.fromkeys(label for label, _, _ in faults)
            for text in faults_by_seed([(seed, text) for own, seed, text in faults if own == label])
        ),
    )


def rewards_of(variant: Variant, seeds: Iterable[int], cells: Cells) -> dict[int, dict[str, float]]:
    """Rewards of each problem by seed, of the seeds that are done."""
    return {seed: cells[variant, seed].rewards for seed in seeds if (variant, seed) in cells}


def as_matrix(rewards: Mapping[int, Mapping[str, float]]) -> NDArray[np.float64]:
    """(S, P) float64; seeds and problems in the order of their names."""
    names = sorted(next(iter(rewards.values())))
    return np.array([[rewards[seed][name] for name in names] for seed in sorted(rewards)])


def _method(
    design: Design, variant: Variant, cells: Cells, pools: Pools, flags: Found, known: dict[Any, Any]
) -> Method:
    done = {seed: cells[variant, seed] for seed in design.seeds if (variant, seed) in cells}
    own = [(seed, text) for label, seed, text in flags if label == variant.label]
    row = Method(
        variant.label, variant.method, variant.n, dict(variant.settings), len(done), tuple(faults_by_seed(own))
    )
    if not done:
        return row
    if (variant, *done) not in known:
        rewards = as_matrix({seed: cell.rewards for seed, cell in done.items()})
        known[variant, *done] = mean_over_seeds(rewards, design.recipe.seed)
    mean = known[variant, *done]
    return replace(
        row,
        accuracy=mean.value,
        interval=mean.interval,
        by_seed={str(seed): _mean(cell.rewards.values()) for seed, cell in done.items()},
        cost=_cost(list(done.values())),
        learning_curve=_curve([cell.curve for cell in done.values()]),
        cost_curve=cost_curve([cell.steps for cell in done.values()]),
        to_goal=to_goal(variant, design.reference, design.variants, cells, design.recipe.seed),
        **choice_facts(list(done.values()), pools),
    )


def _comparisons(design: Design, cells: Cells, known: dict[Any, Any]) -> list[Pair]:
    found: dict[Variant, SeedComparison] = {}
    for variant in design.variants:
        own, reference = (rewards_of(v, design.seeds, cells) for v in (variant, design.reference_of(variant)))
        if variant != design.reference and own.keys() & reference.keys():
            key = ("difference", variant, *own, "from", *reference)
            if key not in known:
                known[key] = seed_differences(reference, own, design.recipe.seed)
            found[variant] = known[key]
    rows = []
    for family in (PRIMARY, SIZES, OTHERS):
        members = {v: c for v, c in found.items() if design.family_of(v) == family}
        corrected = holm({v.label: c.p_value for v, c in members.items()})
        rows += [
            Pair(
                variant.label,
                design.reference_of(variant).label,
                family,
                **vars(row),
                p_holm=corrected[variant.label],
                detectable=_detectable(design, row, len(members), known),
            )
            for variant, row in members.items()
        ]
    return rows


def _detectable(design: Design, row: SeedComparison, n_members: int, known: dict[Any, Any]) -> float | None:
    """The difference that the test would find in 80 of 100 comparisons, at a level corrected for the whole family."""
    n_seeds, spread = row.n_seeds, row.seed_sd
    if n_seeds < 2 or not spread:
        return None
    key = ("detectable", n_seeds, n_members)
    if key not in known:  # it is in proportion to the spread
        known[key] = detectable_difference(n_seeds, 1.0, design.recipe.seed, LEVEL / n_members)
    return None if known[key] is None else float(known[key] * spread)


def _base(design: Design, cells: Cells) -> BaseResult | None:
    by_seed = {seed: cell.base_rewards for (variant, seed), cell in cells.items() if variant == design.reference}
    if not by_seed:
        return None
    rewards = as_matrix(by_seed)
    alike = bool((rewards == rewards[0]).all())  # greedy answers are; sampled ones have the seed's own noise
    mean = mean_over_seeds(rewards[:1] if alike else rewards, design.recipe.seed)
    return BaseResult(mean.value, mean.interval)


def _benchmarks(cell: CellFacts | None) -> str | None:
    return None if cell is None else ", ".join(dict.fromkeys(key.rpartition("/")[0] for key in cell.rewards))


def _machine(folder: Path, cells: Cells) -> dict[str, Any]:
    """Commits and machine of the trainings; commits are joined where they differ."""
    folders = [cell_folder(folder, variant, seed) for variant, seed in cells]
    if not folders:
        return dict.fromkeys(("git_commit", "device", "processor", "pool_size"))
    runs = [read_json(cell / "run.json") for cell in folders]
    counts = read_json(folders[0] / "selection" / "manifest.json")["counts"]
    trained = [read_json(cell / "training" / "manifest.json").get("made_by") or {} for cell in folders]
    commits = dict.fromkeys(str(own.get("git_commit", run["git_commit"])) for own, run in zip(trained, runs))
    return {
        "git_commit": ", ".join(commits),
        "device": runs[0]["device"],
        "processor": runs[0]["host"]["processor"],
        "pool_size": counts["pool_size"],
    }


def _curve(curves: Sequence[Sequence[float]]) -> Curve:
    """Mean, least and largest reward of each step over the seeds."""
    steps = min(len(curve) for curve in curves)
    rewards = np.array([curve[:steps] for curve in curves])
    ends = (rewards.mean(axis=0), rewards.min(axis=0), rewards.max(axis=0))
    return Curve(tuple(range(1, steps + 1)), *(tuple(round(float(x), 4) for x in end) for end in ends))


def _cost(done: Sequence[CellFacts]) -> Cost:
    return Cost(**{key: mean_of_known([cell.cost[key] for cell in done]) for key in done[0].cost})


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)
