"""The labelled problems that `selection.target` names, held against what the run is evaluated on and against the pool.

A target that holds a problem of the evaluation, word for word, is refused: a choice that aims at it would be a choice
by the test.  Near matches are kept, listed and reported.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lean_align.artifacts import MANIFEST, read_json, read_jsonl, write_json, write_jsonl
from lean_align.benchmarks import find_benchmarks, source_of
from lean_align.contamination import Contamination, exact_key, find_contamination
from lean_align.data import (
    PromptRules,
    data_sources,
    local_sources,
    named_or_usual,
    prepare_prompts,
    prompt_rows,
    prompts_from_rows,
    target_rows,
)
from lean_align.errors import DataError
from lean_align.evaluation.problem_sets import held_out_name, load_benchmarks
from lean_align.pipeline.stage import Stage, StageRun
from lean_align.progress import say
from lean_align.recipe import FEWEST_PROBLEMS, Recipe, read_target
from lean_align.scoring import aimed_alignment, success_estimates, target_mean
from lean_align.scoring.tables import rollout_table
from lean_align.selection import SelectionPool, TargetProblems, rows_set_apart
from lean_align.selection.pool import given
from lean_align.stages.data import SET_APART, prompt_fits
from lean_align.stages.dependencies import asked_for, file_hashes
from lean_align.stages.inputs import POOL, ROLLOUTS, TARGET, read_prompts
from lean_align.store import open_store
from lean_align.types import Prompt
from lean_align.verify import parse_gold

NEAR, IN_BOTH = "near_matches.jsonl", "in_both.json"
FEW = 16
SHOWN = 3


def run(stage: StageRun) -> None:
    """Write `target.jsonl`, `dropped.jsonl`, `near_matches.jsonl` and `in_both.json`."""
    recipe, run_dir, folder = stage.recipe, stage.run_dir, stage.folder
    prompts, dropped = _problems(recipe, run_dir)
    if len(prompts) < FEWEST_PROBLEMS:
        raise DataError(
            f"selection.target is {recipe.selection.target}, which has {len(prompts)} usable problems; expected "
            f"at least {FEWEST_PROBLEMS}, better {FEW} to a few hundred. Give it more."
        )
    found = find_contamination(prompts, _evaluated(recipe, run_dir))
    refuse_exact(found, str(recipe.selection.target))
    shared = in_both(POOL.prompts(run_dir), prompts)
    write_jsonl(folder.path / Path(TARGET.file).name, prompt_rows(prompts))
    write_jsonl(folder.path / "dropped.jsonl", dropped)
    write_jsonl(folder.path / NEAR, found.as_rows())
    write_json(folder.path / IN_BOTH, shared)
    near = {pair.prompt_id for pair in found.pairs}
    folder.counts |= {
        "n_problems": len(prompts),
        "n_dropped": len(dropped),
        "n_in_pool": len(shared),
        "n_near": len(near),
        "compared_with": {overlap.benchmark: overlap.n_problems for overlap in found.overlaps},
    }
    for line in _lines(recipe, len(prompts), len(dropped), len(shared), len(near)):
        say(f"target: {line}")


def refuse_exact(found: Contamination, target: str) -> None:
    """Refuse a target that holds problems of the evaluation.

    Raises
    ------
    DataError
        Names the first of them.
    """
    exact = [pair for pair in found.pairs if pair.kind == "exact"]
    if exact:
        first = ", ".join(f"{pair.prompt_id} is {pair.problem_id} of {pair.benchmark}" for pair in exact[:SHOWN])
        more = f", and {len(exact) - SHOWN} more" if len(exact) > SHOWN else ""
        raise DataError(
            f"selection.target is {target}, and {len({pair.prompt_id for pair in exact})} of its {found.n_prompts} "
            f"problems are evaluation problems, word for word ({first}{more}); expected problems that are not "
            "evaluated. Take them out of the target, or set data.contamination=drop_exact where it is held-out:N."
        )


def in_both(pool: Iterable[Prompt], target: Sequence[Prompt]) -> dict[str, list[str]]:
    """Prompts of the pool that are problems of the target too, but for typesetting: ids, each with the target's."""
    by_key: defaultdict[str, list[str]] = defaultdict(list)
    for problem in target:
        by_key[exact_key(problem.prompt)].append(problem.prompt_id)
    keys = ((prompt.prompt_id, exact_key(prompt.prompt)) for prompt in pool)
    return {prompt_id: by_key[key] for prompt_id, key in keys if key in by_key}


def read_target_problems(recipe: Recipe, run_dir: Path, pool: Sequence[str], needs: frozenset[str]) -> TargetProblems:
    """The finished target as a method sees it, with the stores that the method needs of the pool too.

    Parameters
    ----------
    recipe : Recipe
    run_dir : Path
    pool : sequence of str
        Ids of the pool, or of some of its prompts.
    needs : frozenset of str
        Of the method.
    """
    ids = tuple(prompt.prompt_id for prompt in TARGET.prompts(run_dir))
    rewards, _ = rollout_table(run_dir / TARGET.rollouts / ROLLOUTS)
    success_rate, v = success_estimates(recipe, [rewards[i] for i in ids])
    stores = {name: open_store(run_dir / getattr(TARGET, name)) for name in ("gradients", "features") if name in needs}
    places, own = ({i: place for place, i in enumerate(found)} for found in (pool, ids))
    both = read_json(run_dir / "target" / IN_BOTH)
    shared = {places[i]: tuple(own[j] for j in found) for i, found in both.items() if i in places}
    return TargetProblems(ids, success_rate, v, in_both=shared, **stores)


def target_facts(recipe: Recipe, run_dir: Path, pool: SelectionPool, order: NDArray[np.int64]) -> dict[str, Any]:
    """What a report says of the target, and how near the chosen prompts and the whole pool are to it.

    Returns
    -------
    dict
        source; n_problems, n_learnable, n_in_pool, n_near; success_rate and learnability, their means;
        alignment_chosen and alignment_pool, the mean cosine with m_T of the rows that the method compares.
    """
    target = given(pool.target, "target")
    counts = read_json(run_dir / "target" / MANIFEST)["counts"]
    rows = "features" if target.gradients is None else "gradients"
    places, own = given(getattr(pool, rows), rows), target.rows(rows)
    length = float(np.linalg.norm(target_mean(own, target.learnability))) or 1.0
    cosines = aimed_alignment(places, own, target.learnability, target.in_both, recipe.threads) / length
    return {
        "source": recipe.selection.target,
        **{key: counts[key] for key in ("n_problems", "n_in_pool", "n_near")},
        "n_learnable": int(np.sum(target.learnability != 0)),
        "success_rate": float(target.success_rate.mean()),
        "learnability": float(target.learnability.mean()),
        "alignment_chosen": float(cosines[order].mean()),
        "alignment_pool": float(cosines.mean()),
    }


def _problems(recipe: Recipe, run_dir: Path) -> tuple[Sequence[Prompt], list[dict[str, str]]]:
    """Usable problems, and what was left out; problems of the training data were prepared with it."""
    from lean_align.policy import context_length, load_encoder

    if rows_set_apart(recipe):
        return prompts_from_rows(read_jsonl(run_dir / "data" / SET_APART)), []
    rows = target_rows(recipe, read_target(str(recipe.selection.target)))
    rules = PromptRules(*named_or_usual(recipe.data, rows), contamination="off")
    fits = prompt_fits(recipe, load_encoder(recipe.model, recipe.data), context_length(recipe.model), training=True)
    found = prepare_prompts(rows, "target", str(recipe.selection.target), parse_gold, fits, rules)
    return found.prompts, list(found.dropped)


def _evaluated(recipe: Recipe, run_dir: Path) -> dict[str, Sequence[Prompt]]:
    """Every problem that the run is evaluated on, by the name of its set."""
    name = held_out_name(recipe)
    return {**load_benchmarks(recipe), **({} if name is None else {name: read_prompts(run_dir, "test")})}


def _lines(recipe: Recipe, n: int, n_dropped: int, n_in_pool: int, n_near: int) -> list[str]:
    gone = f", {n_dropped} rows left out" if n_dropped else ""
    lines = [f"{n} problems of {recipe.selection.target}{gone}; none of them is evaluated"]
    if n < FEW:
        lines.append(f"{n} are few: the mean of their gradients is mostly noise; {FEW} to a few hundred are better")
    if n_near:
        lines.append(f"{n_near} are near matches of evaluation problems, listed in {NEAR}: look at them")
    if n_in_pool:
        lines.append(f"{n_in_pool} prompts of the pool are among them; none counts for itself")
    return lines


def _more_inputs(recipe: Recipe) -> dict[str, Any]:
    target = read_target(str(recipe.selection.target))
    own = local_sources(target.source, recipe.data.config, recipe.data.train_split) if target.is_rows else set()
    benchmarks = find_benchmarks(recipe.evaluation.benchmarks)
    sources = {source_of(benchmark, recipe.evaluation.data_dir) for benchmark in benchmarks}
    return {"data_files": file_hashes(own | data_sources(recipe.data) | sources)}


STAGE = Stage(
    "target",
    "target",
    "Read the problems that a selection aims at, and refuse those that are evaluated.",
    run,
    (
        "selection.target",
        "pool",
        "data",
        "model.name",
        "model.revision",
        "rollouts.max_new_tokens",
        "evaluation.benchmarks",
        "evaluation.data_dir",
    ),
    ("data",),
    more_inputs=_more_inputs,
    needed=asked_for("target"),
    resumable=False,
    for_selection=False,
)
