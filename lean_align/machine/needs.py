"""What each shipped recipe needs of a machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from lean_align.data import GENERATED
from lean_align.machine.findings import Machine
from lean_align.recipe import Recipe, load_recipe

GIB = 2**30


@dataclass(frozen=True)
class Needs:
    """Bytes that a recipe needs.

    Attributes
    ----------
    memory_bytes : int
        RAM, at the peak.
    download_bytes : int
        In the hub's cache.
    run_bytes : int
        In the run folder.
    card_bytes : int
        Of the card that the recipe is written for; 0 for a recipe that runs on a CPU.
    card_floor_bytes : int
        Below which no setting helps.
    """

    memory_bytes: int
    download_bytes: int
    run_bytes: int
    card_bytes: int = 0
    card_floor_bytes: int = 0


NEEDS = {
    "demo": Needs(2 * GIB, 0, 10**8),
    "gsm8k-cpu": Needs(7 * GIB, 3 * 10**8, 5 * 10**8),
    # Not measured yet.  RAM: the 3.1 GB checkpoint and the libraries.  Floor: 1.2 GB of 4-bit weights and embeddings,
    # 0.5 GB of CUDA's own, and twice 16 V bytes for 512 positions of V = 151,936 logits, 2.5 GB.
    "gsm8k": Needs(6 * GIB, 31 * 10**8, 10**9, card_bytes=20 * GIB, card_floor_bytes=4 * GIB),
}


def recipes_that(condition: Callable[[Needs, Recipe], bool]) -> tuple[str, ...]:
    """Recipes of `NEEDS` for which a condition on their needs and their keys holds."""
    return tuple(name for name, recipe in shipped().items() if condition(NEEDS[name], recipe))


@cache
def shipped() -> dict[str, Recipe]:
    """The recipes of `NEEDS`, read; `lean-align plan` has those for other cards."""
    return {name: load_recipe(name) for name in NEEDS}


def hub_sources(recipe: Recipe) -> tuple[str, ...]:
    """What the recipe takes from the hub: its model and its data sets, each once."""
    names = (recipe.model.name, recipe.data.train_path, recipe.data.test_path)
    return tuple(dict.fromkeys(name for name in names if name not in (*GENERATED, None)))


def reaches_hub(machine: Machine) -> bool:
    """Whether the hub may be asked, and answers."""
    report = machine.probes["hub"]
    return report.error is None and not report.values.get("offline") and report.values.get("fault") is None


def runs_on_cpu(machine: Machine) -> tuple[str, ...]:
    """Recipes for a CPU that get their model and data here."""
    missing = missing_sources(machine)
    names = recipes_that(lambda needs, _: needs.card_bytes == 0)
    return tuple(name for name in names if reaches_hub(machine) or not missing[name])


def missing_sources(machine: Machine) -> dict[str, list[str]]:
    """What each recipe takes from the hub and the cache lacks; all of it where the cache could not be read."""
    missing = machine.probes["cache"].values.get("missing")
    return {name: list(hub_sources(recipe)) for name, recipe in shipped().items()} if missing is None else dict(missing)
