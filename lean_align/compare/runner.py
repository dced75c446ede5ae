"""The comparison: every cell, seed by seed, and a table that fills in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lean_align.artifacts import changes, write_json, write_text
from lean_align.compare.audit import cell_faults, cell_flags, pair_faults, problems_hash
from lean_align.compare.cells import in_one_line, is_done, run_cell
from lean_align.compare.facts import CellFacts, read_cell
from lean_align.compare.pace import Pace, outcome
from lean_align.compare.results import Design, comparison_results
from lean_align.compare.variants import Variant, cell_folder, read_variants
from lean_align.errors import LeanAlignError, StageError, StaleStageError
from lean_align.pipeline.folder_locks import lock
from lean_align.pipeline.graph import COMPARISON
from lean_align.progress import part_of_more, say
from lean_align.recipe import Recipe, dump_recipe, load_recipe, recipe_tree
from lean_align.report import Comparison, comparison_lines, write_comparison

FOLDER = "compare"
NOT_SHARED = ("name", "description", "compare", "seed", "threads")
"""Keys that may differ between calls in the same folder."""
RESULTS = "results.json"


def compare(
    recipe: Recipe,
    folder: Path,
    methods: Sequence[str] = (),
    seeds: int = 3,
    sizes: Sequence[int] = (),
    show: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train on the choice of every method with every seed, and compare the results.

    Parameters
    ----------
    recipe : Recipe
    folder : Path
        Made when absent; finished cells and stages are not made again, so that the same call continues.
    methods : sequence of str
        As `METHOD[@N][+KEY=VALUE]...`; `compare.methods` of the recipe when empty.
    seeds : int
        How many, counting up from the recipe's seed.
    sizes : sequence of int
        Sizes for methods without one of their own; selection.n when empty.
    show : callable, optional
        Called with the table, as one text, whenever a cell has ended.

    Returns
    -------
    dict
        What `DIR/compare/results.json` holds.

    Raises
    ------
    RecipeError
        When a method, a size, a key or the reference is not valid.
    StageError
        When the folder is a run, holds a comparison under another recipe, or another process works there.
    """
    variants = read_variants(methods or recipe.compare.methods, sizes, recipe)
    base = Design.of(recipe, variants, seeds)
    if base.reference not in variants:
        say(f"compare: {base.reference.label} is trained too, as the reference (--set compare.reference=METHOD)")
    if (folder / "recipe.yaml").exists():
        raise StageError(f"{folder} is a run, not a comparison. Choose another --run-dir.")
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder), part_of_more():
        _keep_recipe(folder / COMPARISON, recipe)
        progress = _Progress(base, folder)
        for seed in base.seeds:
            for variant in base.variants:
                if progress.take(variant, seed):
                    results = progress.publish(page=False)
                    if show is not None:
                        show("\n".join(comparison_lines(Comparison.from_json(results))))
            if seed != base.seeds[-1]:
                progress.publish(page=True)
        return progress.publish(page=True)


def _keep_recipe(path: Path, recipe: Recipe) -> None:
    """Write the recipe, or refuse one that differs in more than what is compared: no cell could go on."""
    if path.exists():
        before, now = (
            {key: value for key, value in recipe_tree(one).items() if key not in NOT_SHARED}
            for one in (load_recipe(path), recipe)
        )
        found = changes(before, now)
        if found:
            raise StaleStageError(
                f"{path.parent} holds a comparison under another recipe:\n  "
                + "\n  ".join(found)
                + "\nChange it back, choose another --run-dir, or put what differs after a method: METHOD+KEY=VALUE."
            )
    write_text(path, dump_recipe(recipe))


@dataclass
class _Progress:
    """Cells that are done and may count, and what was wrong with the others."""

    plan: Design
    folder: Path
    cells: dict[tuple[Variant, int], CellFacts] = field(default_factory=dict)
    faults: list[tuple[str, int, str]] = field(default_factory=list)
    flags: list[tuple[str, int, str]] = field(default_factory=list)
    known: dict[Any, Any] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)

    def take(self, variant: Variant, seed: int) -> bool:
        """Run a cell unless it is done, audit it, and keep its facts; returns whether anything was run."""
        cell, done = cell_folder(self.folder, variant, seed), False
        try:
            done = is_done(cell)
            if not done:
                to_go = self.pace.to_go(self._still_to_come(variant, seed))
                say(f"compare: {variant.label}, seed {seed} ({len(self.cells)} of {self.plan.n_cells} done{to_go})")
            with self.pace.timed(variant == self.plan.variants[0]) if not done else nullcontext():
                finished = [cell_folder(self.folder, *key) for key in self.cells]
                run_cell(self.folder, variant, self.plan.recipe, seed, self.failed, finished)
            found = [*cell_faults(cell), *self._against_reference(cell, seed)]
            if not found:
                self.cells[variant, seed] = facts = read_cell(cell)
                self.flags += [(variant.label, seed, text) for text in cell_flags(cell)]
                if not done:
                    say(f"compare: {variant.label}, seed {seed}: {outcome(facts)}")
        except (LeanAlignError, OSError) as error:
            found = [in_one_line(error)]
        for text in found:
            say(f"compare: {variant.label}, seed {seed} does not count: {text}")
        self.faults += [(variant.label, seed, text) for text in found]
        return not done

    def _still_to_come(self, variant: Variant, seed: int) -> list[bool]:
        """Of each cell that has not ended, this one first, whether it is the first of its seed."""
        order = [(s, v) for s in self.plan.seeds for v in self.plan.variants]
        later = order[order.index((seed, variant)) :]
        return [v == self.plan.variants[0] for s, v in later if not is_done(cell_folder(self.folder, v, s))]

    def publish(self, page: bool) -> dict[str, Any]:
        """Write the results so far; the page too, which takes seconds, where it is asked for."""
        target = self.folder / FOLDER
        target.mkdir(exist_ok=True)
        found = comparison_results(self.plan, self.folder, self.cells, self.faults, self.flags, self.known)
        results = found.as_json()
        write_json(target / RESULTS, results)
        write_comparison(target, Comparison.from_json(results), page)
        return results

    def _against_reference(self, cell: Path, seed: int) -> list[str]:
        """Faults against the reference of the same seed, and of the first: all seeds answer the same problems."""
        reference = cell_folder(self.folder, self.plan.reference, seed)
        found = pair_faults(cell, reference) if cell != reference and is_done(reference) else []
        first = cell_folder(self.folder, self.plan.reference, self.plan.seeds[0])
        if not found and is_done(first) and problems_hash(cell) != problems_hash(first):
            found.append(f"it was evaluated on different problems from seed {self.plan.seeds[0]}")
        return found
