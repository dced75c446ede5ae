"""Stages for selection methods that ask the policy itself: perplexity and IFD, ratings, features, reward curves.

A killed stage goes on where it stopped: values are kept a line a prompt in a JSONL file until all are there, features a
row a prompt in a store, and the training behind the curves from its last checkpoint.  Every value is a function of its
own prompt, so that a stage that was killed writes what another would.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
import pyarrow.parquet

from lean_align.advice import made_anew
from lean_align.artifacts import StageFolder, write_json, write_jsonl
from lean_align.errors import StageError
from lean_align.files import cut_file, whole_rows
from lean_align.pipeline.gradient_stage import groups_to_learn
from lean_align.pipeline.halving import recorder
from lean_align.pipeline.inputs import read_groups, read_prompts, sampling_policy
from lean_align.pipeline.signal_files import CURVES, IDS, PERPLEXITY, RATINGS
from lean_align.pipeline.training_stages import train_policy
from lean_align.progress import Progress
from lean_align.recipe import Recipe
from lean_align.store import StoreWriter
from lean_align.types import Group

if TYPE_CHECKING:
    from lean_align.policy import Policy

Row = dict[str, Any]


def take_perplexities(recipe: Recipe, run_dir: Path, folder: StageFolder) -> None:
    """Write `perplexity.parquet`: prompt_id, perplexity of the question, ifd."""
    from lean_align.signals import likelihoods

    def rows_of(policy: Policy, groups: Sequence[Group]) -> Iterator[Row]:
        settings, record = recipe.gradients, recorder(folder, "gradients")
        found = likelihoods(policy, groups, settings.token_budget, settings.logprob_chunk, record)
        return (asdict(values) for values in found)

    _fill_table(recipe, run_dir, folder, PERPLEXITY, rows_of)


def take_ratings(recipe: Recipe, run_dir: Path, folder: StageFolder) -> None:
    """Write `ratings.parquet`: prompt_id, rating, n_cut (tokens of the completion that did not fit the context)."""
    from lean_align.signals import ratings

    def rows_of(policy: Policy, groups: Sequence[Group]) -> Iterator[Row]:
        found = ratings(policy, groups, recipe.gradients.token_budget, on_halving=recorder(folder, "gradients"))
        return (asdict(values) for values in found)

    rows = _fill_table(recipe, run_dir, folder, RATINGS, rows_of)
    folder.counts["n_cut"] = sum(row["n_cut"] > 0 for row in rows)


def take_features(recipe: Recipe, run_dir: Path, folder: StageFolder) -> None:
    """Fill a store, in the format of the gradients', with the mean hidden state of each prompt's completions."""
    from lean_align.signals import completion_features, feature_dim

    groups = groups_to_learn(run_dir)
    n_learnable = sum(group.learnability > 0 for group in groups)
    folder.counts |= {"n_rows": len(groups), "n_learnable": n_learnable, "generated_tokens": 0}
    policy, ids = sampling_policy(recipe, run_dir), [group.prompt.prompt_id for group in groups]
    with StoreWriter.open(folder.path, ids, feature_dim(policy)) as store:
        todo = store.open_rows()
        features = completion_features(
            policy, (groups[row] for row in todo), recipe.gradients.token_budget, recorder(folder, "gradients")
        )
        with Progress("features", len(groups), len(groups) - len(todo)) as progress:
            for row, (_, vector) in zip(todo, features, strict=True):
                store.write(row, vector)
                progress.advance()


def take_reward_curves(recipe: Recipe, run_dir: Path, folder: StageFolder) -> None:
    """Train on the whole pool, from where the final training starts, and write each prompt's mean reward in each pass.

    `reward_curves.npy` is (n, epochs) float32 in the order of `prompt_ids.json`, the pool's.  The adapter is not kept.
    """
    prompts, epochs = read_prompts(run_dir, "train"), recipe.selection.curve_epochs
    steps = math.ceil(epochs * len(prompts) / recipe.training.prompts_per_step)
    start = "warmup" if recipe.training.init == "warmup" else None
    trainer = replace(recipe.training, steps=steps)
    log = train_policy(recipe, trainer, run_dir, start, prompts, "reward_curves", folder)
    from lean_align.grpo import SECOND_MOMENTS, generated_tokens, read_rewards, reward_curves

    rows, ids = read_rewards(folder.path), [prompt.prompt_id for prompt in prompts]
    curves = reward_curves(rows, ids, epochs)
    write_jsonl(folder.path / "log.jsonl", [dict(row) for row in log])
    np.save(folder.path / CURVES, curves.astype(np.float32))
    write_json(folder.path / IDS, ids)
    folder.counts |= {"n_prompts": len(ids), "steps": steps, "epochs": epochs}
    folder.counts |= {"generated_tokens": generated_tokens(rows)}
    shutil.rmtree(folder.path / "adapter")
    (folder.path / SECOND_MOMENTS).unlink(missing_ok=True)


def _fill_table(
    recipe: Recipe,
    run_dir: Path,
    folder: StageFolder,
    name: str,
    rows_of: Callable[[Policy, Sequence[Group]], Iterator[Row]],
) -> list[Row]:
    """Make the rows that are not there yet, a line each, then write them all as a table."""
    groups, lines = read_groups(run_dir), (folder.path / name).with_suffix(".jsonl")
    rows = _whole_rows(lines, [group.prompt.prompt_id for group in groups])
    todo = groups[len(rows) :]
    folder.counts |= {"n_prompts": len(groups), "generated_tokens": 0}
    if todo:
        from lean_align.signals import check_output_layer

        policy = sampling_policy(recipe, run_dir)
        check_output_layer(policy, groups[0])
        with (
            lines.open("a", encoding="utf-8") as file,
            Progress(folder.final.name, len(groups), len(rows)) as progress,
        ):
            for row in rows_of(policy, todo):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                rows.append(row)
                progress.advance()
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder.path / name)
    lines.unlink()
    return rows


def _whole_rows(path: Path, prompt_ids: Sequence[str]) -> list[Row]:
    """Rows of an earlier attempt; the file is cut after the last whole one."""
    rows: list[Row] = []
    end = 0
    path.touch()
    for row, stop in whole_rows(path):
        found = row.get("prompt_id") if isinstance(row, dict) else None
        if len(rows) == len(prompt_ids) or found != prompt_ids[len(rows)]:
            raise StageError(f"{path} line {len(rows) + 1} is of no prompt that stands there. {made_anew(path)}")
        rows.append(row)
        end = stop
    cut_file(path, end)
    return rows
