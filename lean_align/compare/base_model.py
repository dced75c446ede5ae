"""The base model's answers, which do not depend on the training: solved by the first cell, lent to the others.

An evaluation goes on with the completions that an earlier attempt left.  A cell whose evaluation has not begun gets
those of the base from a finished cell that solved the same problems with the same model in the same way; where an
evaluation is greedy throughout, that may be a cell of another seed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lean_align.artifacts import canonical_json, check_outputs, file_hash, open_stage_folder, read_manifest, text_hash
from lean_align.benchmarks import find_benchmarks
from lean_align.evaluation.solving import BASE
from lean_align.pipeline.engines import ENGINE
from lean_align.progress import say
from lean_align.recipe import Recipe
from lean_align.stages import GRAPH, evaluation

_EVALUATION = evaluation.STAGE


def lend_base(recipe: Recipe, cell: Path, finished: Iterable[Path]) -> None:
    """Begin a cell's evaluation with the base's completions of a finished cell that agrees with it, if there is one.

    Parameters
    ----------
    recipe : Recipe
        The cell's.
    cell : Path
        Its run folder, with a finished training.
    finished : iterable of Path
        Run folders of cells whose files have been audited.

    Raises
    ------
    StaleStageError
        When completions to lend were changed after they were written.
    """
    begun = cell / f"{_EVALUATION.folder}.partial" / BASE
    if (cell / _EVALUATION.folder).exists() or begun.exists():
        return
    inputs = GRAPH.stage_inputs(_EVALUATION, recipe, cell)
    key = base_key(recipe, cell, inputs)
    for other in finished:
        manifest = read_manifest(other / _EVALUATION.folder)
        if manifest is None or base_key(recipe, other, manifest["inputs"]) != key:
            continue
        check_outputs(other / _EVALUATION.folder, manifest)
        folder = open_stage_folder(cell, _EVALUATION.folder, inputs)
        if (other / _EVALUATION.folder / ENGINE).exists():  # the rest is sampled with the same
            shutil.copyfile(other / _EVALUATION.folder / ENGINE, folder.path / ENGINE)
        copied = cell / f"{_EVALUATION.folder}.{BASE}"
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(other / _EVALUATION.folder / BASE, copied)
        copied.replace(folder.path / BASE)  # a kill leaves all of it or none
        say(f"evaluation of {BASE}: that of {other.parent.name}/{other.name}")
        return


def base_key(recipe: Recipe, cell: Path, inputs: dict[str, Any]) -> str:
    """One hash for all that the base's completions depend on.

    Parameters
    ----------
    recipe : Recipe
        Says whether the seed is among it: it is where completions are sampled.
    cell : Path
        Run folder with the held-out problems.
    inputs : dict
        Of its evaluation.
    """
    keys = dict(inputs["recipe"])
    if not any(benchmark.sampled for benchmark in find_benchmarks(recipe.evaluation.benchmarks)):
        del keys["seed"]
    held_out = cell / "data" / "test.jsonl"
    own = {name: value for name, value in inputs.items() if name != "stages"}
    return text_hash(
        canonical_json(own | {"recipe": keys, "held_out": file_hash(held_out) if held_out.exists() else None})
    )
