"""Will a choice help with a target?  `lean-align transfer`: the stages that the answer needs, and the answer.

    RUN/transfer/<target>/                  a run of its own, whose earlier stages are links to RUN's; transfer.json
    COMPARISON/transfer/<target>/seed-S-*/  likewise for each seed; made stages go to COMPARISON/stages/, as cells' do

Of a comparison that is finished, the cosines are held against the accuracies that were measured: how far can the answer
be trusted?
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lean_align.advice import quoted
from lean_align.artifacts import read_json, read_manifest, safe_name, text_hash, write_json
from lean_align.compare.cells import share_stage, shared_key
from lean_align.compare.runner import FOLDER, RESULTS
from lean_align.compare.variants import Variant, cell_folder
from lean_align.errors import RecipeError, StageError
from lean_align.pipeline.folder_locks import lock, stage_lock
from lean_align.pipeline.graph import COMPARISON, stored_recipe
from lean_align.progress import part_of_more, say
from lean_align.recipe import Recipe, changed_recipe, load_recipe
from lean_align.report import Comparison
from lean_align.report.transfer import NAME, ComparisonTransfer, MethodTransfer, Transfer, Trust
from lean_align.selection import rows_set_apart
from lean_align.stages import GRAPH, gradients, report, run, run_stage, selection, target_gradients
from lean_align.stages.inputs import chosen_ids
from lean_align.stages.transfers import AIMED, TRANSFER, AimedPool, aims_by_gradients, choice_transfer
from lean_align.statistics import spearman
from lean_align.statistics.rank_tests import FEWEST, rank_correlation_test


def run_transfer(run_dir: Path, target: str | None = None) -> Transfer:
    """Hold a run's choice against a target; rollouts and gradients that are not there are made.

    Parameters
    ----------
    run_dir : Path
        A run with a finished selection.
    target : str, optional
        As `selection.target`; the run's own when not given.

    Returns
    -------
    Transfer
        What RUN/transfer/<target>/transfer.json holds.  A report that the run has is written again, with it.

    Raises
    ------
    RecipeError
        When there is no target, or it would take rows out of the pool that was chosen from.
    StageError
        When the selection has not finished, or as a run does.
    """
    recipe = stored_recipe(run_dir)
    if read_manifest(run_dir / selection.STAGE.folder) is None:
        raise StageError(
            f"{run_dir} has chosen nothing yet; expected a finished selection. Run: lean-align run RECIPE --run-dir "
            f"{quoted(run_dir)} --stop-after {selection.STAGE.command}"
        )
    name = _target(recipe, target)
    own, place = _aimed_recipe(recipe, name), run_dir / TRANSFER / _folder_name(name)
    if aims_by_gradients(recipe) and name == recipe.selection.target:
        aimed = AimedPool.read(recipe, run_dir)
    else:
        _link_stages(own, run_dir, place)
        run(own, place, stop_after=gradients.STAGE.command)
        aimed = AimedPool.read(own, place)
    found = choice_transfer(recipe, run_dir, aimed, name)
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / NAME, found.as_json())
    _report_again(run_dir)
    return found


def comparison_transfer(folder: Path, target: str | None = None) -> ComparisonTransfer:
    """Hold the choices of a comparison against a target, and the cosines against the accuracies.

    Parameters
    ----------
    folder : Path
        Of a comparison with results; trainings that are still to come, or do not count, are left out.
    target : str, optional
        As `selection.target`; the comparison's own when not given.

    Returns
    -------
    ComparisonTransfer
        What DIR/transfer/<target>/transfer.json holds.  Spearman's correlation over the methods' means, with a
        bootstrap over methods, and the mean of those within each seed.  Methods are not drawn from anything, and sizes
        of one method are not independent: the interval says how much hangs on a few of them.

    Raises
    ------
    RecipeError
        When there is no target, or it would take rows out of the pool that was chosen from.
    StageError
        When the comparison has fewer than 4 methods with results.
    """
    recipe, results = load_recipe(folder / COMPARISON), _results(folder)
    name = _target(recipe, target)
    place = folder / TRANSFER / _folder_name(name)
    cells = [
        _Cell(Variant(str(m.method), m.n, tuple(m.settings.items())), int(seed), float(accuracy))
        for m in results.methods
        for seed, accuracy in m.by_seed.items()
        if accuracy is not None
    ]
    labels = list(dict.fromkeys(cell.variant.label for cell in cells))
    if len(labels) < FEWEST:
        raise StageError(
            f"{folder} has results of {len(labels)} methods; expected at least {FEWEST} to rank. Continue it with "
            "lean-align compare."
        )
    with lock(folder), part_of_more():
        _find_cosines(folder, place, recipe, name, cells)
    found = _trusted(name, cells, labels, recipe.seed)
    write_json(place / NAME, found.as_json())
    return found


@dataclass
class _Cell:
    """A finished cell: its accuracy, its cosines by V and by norm, and how many problems its target has."""

    variant: Variant
    seed: int
    accuracy: float
    cosines: tuple[float | None, float | None] = (None, None)
    n_target: int = 0


def _find_cosines(folder: Path, place: Path, recipe: Recipe, target: str, cells: list[_Cell]) -> None:
    """Fill in the cosines: cells that agree in the stages before the choice share an aimed run."""
    groups: dict[Path, list[_Cell]] = {}
    recipes: dict[Path, Recipe] = {}
    for cell in cells:
        own = _aimed_recipe(cell.variant.recipe(recipe, cell.seed), target)
        keys = "".join(shared_key(stage.STAGE, own) for stage in (gradients, target_gradients))
        aimed = place / f"seed-{cell.seed}-{text_hash(keys)[:8]}"
        groups.setdefault(aimed, []).append(cell)
        recipes.setdefault(aimed, own)
    for number, (aimed, members) in enumerate(groups.items(), start=1):
        say(f"transfer: seed {members[0].seed}, {len(members)} choices ({number} of {len(groups)})")
        aimed.mkdir(parents=True, exist_ok=True)
        own, failed = recipes[aimed], dict[Path, str]()
        for stage in GRAPH.needed_stages(own):
            if stage.shared:
                share_stage(folder, aimed, stage, own, failed)
        pool = AimedPool.read(own, aimed)
        choices = {
            cell.variant.label: pool.places(
                chosen_ids(cell_folder(folder, cell.variant, cell.seed)), cell.variant.label
            )
            for cell in members
        }
        by_v, by_norm = pool.cosines(choices, own.seed, replicates=0)
        for cell in members:
            label = cell.variant.label
            cell.cosines, cell.n_target = (by_v[label].cosine, by_norm[label].cosine), len(pool.target)


def _trusted(target: str, cells: list[_Cell], labels: list[str], seed: int) -> ComparisonTransfer:
    """Means of each method over its seeds, and the correlations."""
    methods, left_out = [], []
    for label in labels:
        known = [c for c in cells if c.variant.label == label and None not in c.cosines]
        if not known:
            left_out.append(f"{label}: no chosen prompt has a gradient")
            continue
        both = np.array([cell.cosines for cell in known], dtype=np.float64)
        means = [round(float(mean), 12) for mean in both.mean(axis=0)]
        by_seed = {str(cell.seed): (float(pair[0]), float(pair[1])) for cell, pair in zip(known, both)}
        accuracy = float(np.mean([cell.accuracy for cell in known]))
        methods.append(MethodTransfer(label, accuracy, len(known), means[0], means[1], by_seed))
    by_v, by_norm = (
        _trust([getattr(m, weight) for m in methods], [m.accuracy for m in methods], cells, side, seed)
        for side, weight in enumerate(("by_learnability", "by_norm"))
    )
    seeds = tuple(sorted({cell.seed for cell in cells}))
    return ComparisonTransfer(target, cells[0].n_target, seeds, by_v, by_norm, tuple(methods), tuple(left_out))


def _trust(cosines: list[float], accuracies: list[float], cells: list[_Cell], side: int, seed: int) -> Trust:
    found = rank_correlation_test(cosines, accuracies, seed)
    by_seed: dict[int, list[tuple[float, float]]] = {}
    for cell in cells:
        if (cosine := cell.cosines[side]) is not None:
            by_seed.setdefault(cell.seed, []).append((cosine, cell.accuracy))
    within = (
        spearman([cosine for cosine, _ in pairs], [accuracy for _, accuracy in pairs])
        for pairs in by_seed.values()
        if len(pairs) >= FEWEST
    )
    known = [value for value in within if value is not None]
    return Trust(found.value, found.interval, found.p_value, found.n, float(np.mean(known)) if known else None)


def _target(recipe: Recipe, target: str | None) -> str:
    """The target's name; a file's path without regard to the working directory."""
    if target is None and recipe.selection.target is None:
        raise RecipeError(
            "there is no target: the recipe's selection.target is null; expected labelled problems of what is wanted. "
            "Give --target FILE, a hub id, held-out:N or testbed:N."
        )
    name = str(recipe.selection.target if target is None else target)
    return str(Path(name).resolve()) if target is not None and Path(name).exists() else name


def _aimed_recipe(recipe: Recipe, target: str) -> Recipe:
    """The recipe with the target's stages in it.

    Raises
    ------
    RecipeError
        When the target is not one, or rows would be set apart that were in the pool when the choice was made.
    """
    own = changed_recipe(recipe, {"selection.method": AIMED, "selection.target": target})
    apart, before = rows_set_apart(own), rows_set_apart(recipe)
    if apart != before:
        raise RecipeError(
            f"the target {target} takes {apart} rows out of the training data, and the choice was made with {before} "
            "taken out; expected problems that are not in the pool. Give --target a file or a hub id."
        )
    return own


def _folder_name(target: str) -> str:
    return f"{safe_name(Path(target).name)[:60]}-{text_hash(target)[:8]}"


def _link_stages(own: Recipe, run_dir: Path, place: Path) -> None:
    """Link the stages that a run has finished into the aimed run, but those that are of another target."""
    place.mkdir(parents=True, exist_ok=True)
    recipe = stored_recipe(run_dir)
    for stage in GRAPH.needed_stages(own):
        source, link = run_dir / stage.folder, place / stage.folder
        if not stage.shared or link.exists() or read_manifest(source) is None:
            continue
        if stage.needed(recipe) and shared_key(stage, recipe) != shared_key(stage, own):
            continue
        link.unlink(missing_ok=True)  # of a stage that was deleted and made again elsewhere
        link.symlink_to(os.path.relpath(source, place))
        if stage.needed(recipe):
            GRAPH.is_finished(stage, own, place)


def _report_again(run_dir: Path) -> None:
    """Write a finished report again: it shows what was found.  One that does not fit the run is refused, and stays."""
    if not GRAPH.is_finished(report.STAGE, stored_recipe(run_dir), run_dir):
        return
    with stage_lock(run_dir):
        shutil.rmtree(run_dir / report.STAGE.folder)
    run_stage(report.STAGE.command, run_dir)


def _results(folder: Path) -> Comparison:
    path = folder / FOLDER / RESULTS
    if not path.is_file():
        raise StageError(f"{folder} has no results yet ({path} is missing). Run lean-align compare to its end first.")
    return Comparison.from_json(read_json(path))
