"""Prompts to choose from, the held-out set, and what occurs in both, or in a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from lean_align.artifacts import StageFolder, write_json, write_jsonl
from lean_align.benchmarks import find_benchmarks, source_of
from lean_align.contamination import CONTAMINATION, Contamination
from lean_align.data import (
    PreparedPrompts,
    PromptRules,
    data_sources,
    load_rows,
    prepare_prompts,
    prompt_rows,
    testbed_pool,
)
from lean_align.evaluation.problem_sets import check_room, held_out_name, load_benchmarks, run_sets
from lean_align.pipeline.environment import describe
from lean_align.pipeline.prompt_notes import say_prompt_notes
from lean_align.pipeline.stage import Stage, StageRun
from lean_align.progress import say
from lean_align.recipe import Recipe
from lean_align.selection import check_n, check_training, find_method, rows_set_apart
from lean_align.stages.dependencies import file_hashes, numbers_sampled, predicts
from lean_align.stages.inputs import KINDS
from lean_align.stages.planning import PLAN, write_plan
from lean_align.types import Prompt
from lean_align.verify import parse_gold

if TYPE_CHECKING:
    from lean_align.policy import PromptEncoder

RUN = "run.json"
SET_APART = "set_apart.jsonl"
"""Rows of the training data that the target takes out of the pool."""


def run(stage: StageRun) -> None:
    """Write `train.jsonl`, `test.jsonl`, `dropped.jsonl`, `contamination.json` and RUN/plan.json."""
    from lean_align.machine.plan import check_model_serves
    from lean_align.policy import context_length, load_encoder, resolve_device

    recipe, run_dir, folder = stage.recipe, stage.run_dir, stage.folder
    check_model_serves(recipe)  # now, not after a warm-up
    method = find_method(recipe.selection.method)
    check_training(method, recipe)
    write_json(run_dir / RUN, describe(recipe.seed, str(resolve_device(recipe.model.device))))
    encoder, context = load_encoder(recipe.model, recipe.data), context_length(recipe.model)
    benchmarks, splits = load_benchmarks(recipe), []
    name = held_out_name(recipe)
    if name is not None:
        splits.append(_split(recipe, "test", encoder, context, {}, folder))
    held_out = {} if name is None else {name: splits[0].prompts}
    sets = run_sets(recipe, folder.path / "test.jsonl", benchmarks)
    check_room(sets, encoder, context)
    train = _split(recipe, "train", encoder, context, {**held_out, **benchmarks}, folder)
    write_jsonl(folder.path / "dropped.jsonl", [row for split in (train, *splits) for row in split.dropped])
    if recipe.data.train_path == "testbed":
        write_json(folder.path / KINDS, _kinds(recipe, train.prompts))
    folder.counts["n_dropped"] = sum(len(split.dropped) for split in (train, *splits))
    folder.counts |= {"dropped_by_reason": train.dropped_by_reason, "census": asdict(train.census)}
    if train.contamination is not None:
        write_json(folder.path / CONTAMINATION, train.contamination.as_json())
        _say_overlaps(train.contamination, recipe.data.contamination)
    asked = {f"problems of {s.name}": (s.encoder(encoder), s.prompts) for s in sets}
    say_prompt_notes("data", {"training prompts": (encoder, train.prompts), **asked})
    if not method.keeps_all:
        # now, not after hours of rollouts; dropped.jsonl is not to be seen before the stage is done
        check_n(recipe.selection.n, folder.counts["n_train"], train.dropped_by_reason)
        if predicts(recipe):
            numbers_sampled(recipe, folder.counts["n_train"])
    write_plan(stage, encoder, train.prompts, sets)


def _kinds(recipe: Recipe, prompts: Sequence[Prompt]) -> dict[str, dict[str, Any]]:
    by_question = {found.question: found for found in testbed_pool(recipe.pool)}
    found = {prompt.prompt_id: by_question[prompt.prompt] for prompt in prompts}
    return {prompt_id: {"kind": one.kind, "wrong": one.wrong} for prompt_id, one in found.items()}


def _say_overlaps(found: Contamination, mode: str) -> None:
    for overlap in found.overlaps:
        if overlap.n_prompts:
            say(
                f"data: {overlap.n_exact} of {overlap.n_problems} problems of {overlap.benchmark} are in the training "
                f"prompts, and {overlap.n_near} more are near matches; the {overlap.n_prompts} prompts are "
                + {"keep": "kept", "drop": "dropped", "drop_exact": "dropped where the match is exact"}[mode]
            )


def _split(
    recipe: Recipe,
    split: str,
    encoder: PromptEncoder,
    context: int,
    held_out: Mapping[str, Sequence[Prompt]],
    folder: StageFolder,
) -> PreparedPrompts:
    """Prepare and write a split of the data; of the training split also what it shares with held-out problems."""
    data, training = recipe.data, split == "train"
    source = data.train_path if training else data.test_path
    assert source is not None  # the caller asks for no held-out set that is not there
    rows = load_rows(data, split, recipe.pool)
    rules = PromptRules.of(recipe, split, rows)
    if training:
        rules = replace(rules, set_apart=rows_set_apart(recipe))
    fits = prompt_fits(recipe, encoder, context, training)
    prepared = prepare_prompts(rows, split, source, parse_gold, fits, rules, held_out)
    write_jsonl(folder.path / f"{split}.jsonl", prompt_rows(prepared.prompts))
    if rules.set_apart:
        write_jsonl(folder.path / SET_APART, prompt_rows(prepared.set_apart))
        say(f"data: {len(prepared.set_apart)} rows of {source} are set apart as the target, and not chosen from")
    folder.counts[f"n_{split}"] = len(prepared.prompts)
    reasons = ", ".join(f"{count} {reason}" for reason, count in prepared.dropped_by_reason.items())
    say(
        f"data: {len(prepared.prompts)} {split} prompts from {source}, {len(prepared.dropped)} rows left out"
        + (f" ({reasons})" if reasons else "")
    )
    own = sum(prompt.system is not None for prompt in prepared.prompts)
    if own and (data.system_prompt is not None or data.prompt_format == "plain"):
        instead = "data.system_prompt replaces them" if data.prompt_format == "chat" else "data.prompt_format is plain"
        say(f"data: the system messages of {own} {split} prompts are not used: {instead}")
    return prepared


def prompt_fits(recipe: Recipe, encoder: PromptEncoder, context: int, training: bool) -> Callable[[Prompt], bool]:
    """Whether a prompt leaves room for a completion in a context of so many tokens, and is as short as is asked for."""
    longest = context - recipe.rollouts.max_new_tokens
    if training and recipe.data.max_prompt_tokens is not None:
        longest = min(longest, recipe.data.max_prompt_tokens)
    return lambda prompt: len(encoder.encode(prompt)) <= longest


def _drops_matches(recipe: Recipe) -> bool:
    """Whether training prompts that a benchmark holds too are left out."""
    return recipe.data.contamination in ("drop", "drop_exact")


def _more_keys(recipe: Recipe) -> tuple[str, ...]:
    """What matches are dropped from, and the target that rows are set apart for; each only where that is done."""
    compared = ("evaluation.benchmarks", "evaluation.data_dir") if _drops_matches(recipe) else ()
    return (*compared, *(("selection.target",) if rows_set_apart(recipe) else ()))


def _more_inputs(recipe: Recipe) -> dict[str, Any]:
    found = set(data_sources(recipe.data))
    if _drops_matches(recipe):
        found |= {source_of(b, recipe.evaluation.data_dir) for b in find_benchmarks(recipe.evaluation.benchmarks)}
    return {"data_files": file_hashes(found)}


STAGE = Stage(
    "data",
    "prepare",
    "Read the data sets and write the prompts of a run.",
    run,
    ("seed", "model.name", "model.revision", "pool", "data", "rollouts.max_new_tokens"),
    more_keys=_more_keys,
    more_inputs=_more_inputs,
    resumable=False,
    beside=(RUN, PLAN),
    for_selection=False,
)
