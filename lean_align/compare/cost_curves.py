"""Accuracy by what was spent, and what it costs until the accuracy that the whole pool gives is reached."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lean_align.compare.costs import SpentAt
from lean_align.compare.facts import Cells
from lean_align.compare.variants import Variant
from lean_align.report.costs import CostCurve, Goal, ToGoal, Until
from lean_align.selection import full, random_subset
from lean_align.statistics import Reached, cost_ratio, cost_to_reach, reached_costs, seed_draws

HOUR = 3600.0
Steps = Mapping[int, tuple[SpentAt, ...]]
"""A variant's evaluated steps by seed."""


def cost_curve(seeds: Sequence[Sequence[SpentAt]]) -> CostCurve | None:
    """A method's curve as a mean over its seeds; None where no steps were evaluated."""
    if not seeds or not all(seeds):
        return None
    accuracy = np.array([[at.accuracy for at in steps] for steps in seeds])
    by_step = [[steps[k].spent for steps in seeds] for k in range(len(seeds[0]))]
    return CostCurve(
        step=tuple(at.step for at in seeds[0]),
        accuracy=tuple(accuracy.mean(axis=0).tolist()),
        low=tuple(accuracy.min(axis=0).tolist()),
        high=tuple(accuracy.max(axis=0).tolist()),
        generated_tokens=tuple(mean_of_known([one.generated_tokens for one in spent]) for spent in by_step),
        trained_tokens=tuple(mean_of_known([one.trained_tokens for one in spent]) for spent in by_step),
        total_tokens=tuple(mean_of_known([one.tokens for one in spent]) for spent in by_step),
        hours=tuple(mean_of_known([one.seconds / HOUR for one in spent]) for spent in by_step),
    )


def goal_of(variants: Sequence[Variant], cells: Cells) -> Goal | None:
    """The accuracy of `full` at its last evaluated step, over its seeds; None where that is not known."""
    whole = _whole(variants)
    steps = {} if whole is None else _steps(whole, cells)
    if whole is None or not steps:
        return None
    last = [found[-1] for found in steps.values()]
    return Goal(whole.label, last[0].step, mean_of_known([at.accuracy for at in last]), last[0].n_problems)


def to_goal(
    variant: Variant, reference: Variant, variants: Sequence[Variant], cells: Cells, seed: int
) -> ToGoal | None:
    """What a method costs until the goal, and its tokens as a multiple of others'.

    Parameters
    ----------
    variant, reference : Variant
    variants : sequence of Variant
        All that are compared.
    cells : mapping
    seed : int
        Of the bootstrap.

    Returns
    -------
    ToGoal or None
        None before it and `full` have a seed in common, or where a stage of theirs did not count its tokens.
    """
    whole = _whole(variants)
    if whole is None:
        return None
    own, aim = _steps(variant, cells), _steps(whole, cells)
    seeds = sorted(own.keys() & aim.keys())
    if not seeds or not _is_counted(own):
        return None
    control = _variant(random_subset.METHOD.name, reference.n, variants)
    others = [None if v is None or v == variant else _steps(v, cells) for v in (reference, control)]
    tokens, hours = _Costs.of(own, aim, seeds, seed), _Costs.of(own, aim, seeds, seed, hours=True)
    return ToGoal(len(seeds), tokens.until(), hours.until(), *(_ratio(own, other, aim, seed) for other in others))


@dataclass(frozen=True)
class _Costs:
    """What a method costs until the goal in each draw of the seeds, (R,), and by its last evaluated step."""

    drawn: NDArray[np.float64]
    last: float
    n_seeds: int

    @classmethod
    def of(cls, own: Steps, aim: Steps, seeds: Sequence[int], seed: int, hours: bool = False) -> _Costs:
        cost = [[at.spent.seconds / HOUR if hours else at.spent.tokens for at in own[s]] for s in seeds]
        accuracy = np.array([[at.accuracy for at in own[s]] for s in seeds])
        goals = np.array([aim[s][-1].accuracy for s in seeds])
        costs = np.array(cost, dtype=np.float64)
        drawn = reached_costs(costs, accuracy, goals, seed_draws(len(seeds), seed))
        return cls(drawn, float(costs[:, -1].mean()), len(seeds))

    def until(self) -> Until:
        found = cost_to_reach(self.drawn, self.n_seeds)
        return _until(found, at_least=self.last if math.isinf(found.value) else None)


def _ratio(own: Steps, other: Steps | None, aim: Steps, seed: int) -> Until | None:
    """Own tokens until the goal as a multiple of another's, on the seeds that all three have."""
    seeds = sorted(own.keys() & other.keys() & aim.keys()) if other is not None else []
    if other is None or not seeds or not _is_counted(other):
        return None
    mine, theirs = (_Costs.of(steps, aim, seeds, seed) for steps in (own, other))
    found = cost_ratio(mine.drawn, theirs.drawn, len(seeds))
    reached = [math.isfinite(costs.drawn[0]) for costs in (mine, theirs)]
    if all(reached):
        return _until(found)
    at_least = mine.last / theirs.drawn[0] if reached[1] and theirs.drawn[0] > 0 else None
    at_most = mine.drawn[0] / theirs.last if reached[0] else None
    return _until(found, at_least, at_most, known=False)


def _until(found: Reached, at_least: float | None = None, at_most: float | None = None, known: bool = True) -> Until:
    """As results.json has it, without infinity."""
    value = found.value if known and math.isfinite(found.value) else None
    ends = None if found.interval is None else tuple(e if math.isfinite(e) else None for e in found.interval)
    return Until(value, ends, found.share_reached, *(None if x is None else float(x) for x in (at_least, at_most)))


def _steps(variant: Variant, cells: Cells) -> dict[int, tuple[SpentAt, ...]]:
    return {seed: cell.steps for (own, seed), cell in cells.items() if own == variant and cell.steps}


def _is_counted(steps: Steps) -> bool:
    return all(at.spent.tokens is not None for found in steps.values() for at in found)


def _whole(variants: Sequence[Variant]) -> Variant | None:
    return _variant(full.METHOD.name, None, variants)


def _variant(method: str, n: int | None, among: Sequence[Variant]) -> Variant | None:
    """A method of a size with the recipe's settings."""
    wanted = Variant(method, n)
    return wanted if wanted in among else None


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """The mean, or None where one is not known."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None
