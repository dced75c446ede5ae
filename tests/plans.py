"""A plan of every stage that a recipe needs, as `lean-align plan` makes it."""

from __future__ import annotations

from typing import Any

from lean_align.machine.plan import plan_run
from lean_align.machine.plan_records import Plan
from lean_align.recipe import Recipe
from lean_align.stages import GRAPH


def plan_of(recipe: Recipe, *given: Any, **named: Any) -> Plan:
    return plan_run(recipe, GRAPH.planned(recipe), *given, **named)
