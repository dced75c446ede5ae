"""What would make a comparison unfair, looked for in every cell before its figures count.

1. A file that is not as the stage wrote it (by its hash), such as a score file in another order.
2. Scores that do not follow from the gradients and the rewards, whoever wrote the file and its manifest.
3. A chosen prompt that is not in the pool in that form, or that the evaluation holds too, word for word or nearly.
4. Evaluation problems other than the reference's.
5. Numbers of steps, of prompts per step or of completions that differ from the reference's, or another start, other
   limits or another decoding.
6. A training on prompts other than those the method chose.
7. A target that holds evaluation problems, word for word.

A method that looks at gold answers is refused while it chooses (`lean_align.selection`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lean_align.artifacts import canonical_json, check_outputs, read_json, read_jsonl, read_manifest, text_hash
from lean_align.contamination import find_contamination
from lean_align.data import prompts_from_rows
from lean_align.errors import StaleStageError
from lean_align.pipeline.graph import stored_recipe
from lean_align.recipe import Recipe
from lean_align.scoring import score_prompts, success_estimates
from lean_align.scoring.tables import read_scores, rollout_table
from lean_align.stages import GRAPH
from lean_align.stages.inputs import POOL, SELECTED, TARGET, VALUES, Sampled, chosen_ids, read_prompts
from lean_align.store import open_store

_TOLERANCE = 1e-6
"""Of the largest value of a column; a score is a mean over the pool, so it shrinks as the pool grows."""


def cell_faults(cell: Path) -> list[str]:
    """What is wrong with a finished cell in itself; empty where nothing is."""
    recipe = stored_recipe(cell)
    try:
        for stage in GRAPH.needed_stages(recipe):
            manifest = read_manifest(cell / stage.folder)
            if manifest is not None:
                check_outputs(cell / stage.folder, manifest)
    except StaleStageError as error:
        return [str(error)]
    return [*_score_faults(recipe, cell), *_selection_faults(recipe, cell), *_step_faults(recipe, cell)]


def pair_faults(cell: Path, reference: Path) -> list[str]:
    """Why a cell cannot be compared with the reference's of the same seed; empty where it can."""
    found = []
    if problems_hash(cell) != problems_hash(reference):
        found.append("it was evaluated on different problems from the reference")
    own, other = training_facts(cell), training_facts(reference)
    found += [f"unequal {key}: {own[key]}, the reference {other[key]}" for key in own if own[key] != other[key]]
    return found


def training_facts(cell: Path) -> dict[str, Any]:
    """What cells must agree in: steps made, prompts per step, completions per prompt, start, limits and decoding."""
    log = read_jsonl(cell / "training" / "log.jsonl")
    return recipe_facts(stored_recipe(cell)) | {"steps": len(log)}


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """What recipes must agree in."""
    return {
        "steps": recipe.training.steps,
        "model": asdict(recipe.model),
        "temperature": recipe.rollouts.temperature,
        "max_new_tokens": recipe.rollouts.max_new_tokens,
        "evaluation": asdict(recipe.evaluation),
        "prompts_per_step": recipe.training.prompts_per_step,
        "num_generations": recipe.rollouts.num_generations,
        "start": recipe.training.init,
        "adapter": [recipe.lora.r, recipe.lora.alpha, recipe.lora.target_modules],
        "seed": recipe.seed,
    }


def problems_hash(cell: Path) -> str:
    """One hash for the problems that a cell was evaluated on, with their answers and their order."""
    folder = cell / "evaluation" / "problems"
    rows = [read_jsonl(path) for path in sorted(folder.glob("*.jsonl"))] if folder.exists() else []
    held_out = cell / "data" / "test.jsonl"
    return text_hash(canonical_json([read_jsonl(held_out) if held_out.exists() else [], rows]))


def _score_faults(recipe: Recipe, cell: Path) -> Iterator[str]:
    """Scores that do not follow from the store and the rewards, recomputed from them."""
    path = cell / "scores" / "scores.parquet"
    if not path.exists():
        return
    store, found = open_store(cell / "gradients"), read_scores(path)
    rewards, _ = rollout_table(cell / "rollouts" / "rollouts.jsonl")
    p, v = success_estimates(recipe, [rewards[i] for i in store.prompt_ids])
    wanted = score_prompts(store, p, threads=recipe.threads, learnability=v)
    if found.prompt_ids != wanted.prompt_ids:
        yield f"{path} has its prompts in a different order from the gradients"
    for name in ("success_rate", "learnability", "alignment", "score", "leave_one_out"):
        own, again = getattr(found, name), getattr(wanted, name)
        n_wrong = int(np.sum(~np.isclose(own, again, rtol=1e-4, atol=_TOLERANCE * float(np.abs(again).max()))))
        if n_wrong:
            yield f"{path}: {name} of {n_wrong} prompts does not follow from their gradients and rewards"


def _selection_faults(recipe: Recipe, cell: Path) -> Iterator[str]:
    chosen = prompts_from_rows(read_jsonl(cell / "selection" / SELECTED))
    pool = {prompt.prompt_id: prompt for prompt in read_prompts(cell, "train")}
    strange = [p.prompt_id for p in chosen if pool.get(p.prompt_id) != p]
    if strange:
        yield f"{len(strange)} chosen prompts are not in the pool in that form (first: {strange[0]})"
    if [p.prompt_id for p in chosen] != chosen_ids(cell):
        yield f"{SELECTED} and {VALUES} do not name the same prompts in the same order"
    trained = {i for row in read_jsonl(cell / "training" / "rewards.jsonl") for i in row["prompt_ids"]}
    others = sorted(trained - {p.prompt_id for p in chosen})
    if others and recipe.selection.rounds == 1:
        yield f"the training used {len(others)} prompts that were not chosen (first: {others[0]})"
    leaked = sorted({p.prompt_id for p in chosen} & _leaks(cell, POOL)["exact"])
    if leaked:
        yield f"{len(leaked)} chosen prompts are evaluation problems, word for word (first: {leaked[0]})"
    if aimed := sorted(_leaks(cell, TARGET)["exact"]):
        yield f"{len(aimed)} problems of the target are evaluation problems, word for word (first: {aimed[0]})"


def cell_flags(cell: Path) -> list[str]:
    """What a reader should know about a cell whose figures count."""
    chosen = {row["prompt_id"] for row in read_jsonl(cell / "selection" / SELECTED)}
    near = sorted(chosen & _leaks(cell, POOL)["near"])
    aimed = sorted(_leaks(cell, TARGET)["near"])
    found = [f"{len(near)} chosen prompts are nearly evaluation problems (first: {near[0]})"] if near else []
    return found + (
        [f"{len(aimed)} problems of the target are nearly evaluation problems (first: {aimed[0]})"] if aimed else []
    )


def _leaks(cell: Path, which: Sampled) -> dict[str, set[str]]:
    """Prompts of the pool or target that the evaluation holds too, by kind of match; once for cells that share both."""
    if not (cell / which.file).exists():
        return {"exact": set(), "near": set()}
    sets = [cell / "data" / "test.jsonl", *sorted((cell / "evaluation" / "problems").glob("*.jsonl"))]
    texts = tuple(path.read_text(encoding="utf-8") for path in sets if path.exists())
    return _leaks_once((cell / which.file).read_text(encoding="utf-8"), texts)


@cache
def _leaks_once(prompts: str, sets: tuple[str, ...]) -> dict[str, set[str]]:
    train, *problems = (
        prompts_from_rows([json.loads(row) for row in text.split("\n") if row]) for text in (prompts, *sets)
    )
    found = find_contamination(train, {str(i): held for i, held in enumerate(problems)})
    return {kind: {p.prompt_id for p in found.pairs if p.kind == kind} for kind in ("exact", "near")}


def _step_faults(recipe: Recipe, cell: Path) -> Iterator[str]:
    made = [row["step"] for row in read_jsonl(cell / "training" / "log.jsonl")]
    if made != list(range(1, recipe.training.steps + 1)):
        yield f"the training's log has {len(made)} steps; expected 1 to {recipe.training.steps}"
    n = read_json(cell / "training" / "manifest.json")["counts"]["steps"]
    if n != len(made):
        yield f"unequal steps: the training counted {n} and logged {len(made)}"


def faults_by_seed(faults: Sequence[tuple[int, str]]) -> list[str]:
    """Faults with the seeds that they were found in, one line each."""
    texts = dict.fromkeys(text for _, text in faults)
    return [f"{text} (seed {', '.join(str(s) for s, t in faults if t == text)})" for text in texts]
