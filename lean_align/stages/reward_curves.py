"""Each prompt's mean reward in each pass of a training on the whole pool (LIMR); the adapter is not kept."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lean_align.advice import made_anew
from lean_align.artifacts import read_json, write_json, write_jsonl
from lean_align.errors import DataError
from lean_align.pipeline.stage import Stage, StageRun
from lean_align.stages.dependencies import POLICY, SAMPLED, asked_for, no_warmup
from lean_align.stages.inputs import read_prompts
from lean_align.stages.signals import check_pool
from lean_align.stages.trainings import train_policy

CURVES, IDS = "reward_curves.npy", "prompt_ids.json"


def run(stage: StageRun) -> None:
    """Train on the whole pool, from where the final training starts.

    `reward_curves.npy` is (n, epochs) float32 in the order of `prompt_ids.json`, the pool's.
    """
    recipe, run_dir, folder = stage.recipe, stage.run_dir, stage.folder
    prompts, epochs = read_prompts(run_dir, "train"), recipe.selection.curve_epochs
    trainer = recipe.training
    steps = math.ceil(epochs * len(prompts) / trainer.prompts_per_step) * trainer.num_iterations
    start = "warmup" if trainer.init == "warmup" else None
    trainer = replace(trainer, steps=steps, keep_rows=False)
    log = train_policy(recipe, trainer, start, prompts, "reward_curves", folder)
    from lean_align.grpo import SECOND_MOMENTS, generated_tokens, read_rewards, reward_curves, trained_tokens

    rows, ids = read_rewards(folder.path), [prompt.prompt_id for prompt in prompts]
    curves = reward_curves(rows, ids, epochs)
    write_jsonl(folder.path / "log.jsonl", [dict(row) for row in log])
    np.save(folder.path / CURVES, curves.astype(np.float32))
    write_json(folder.path / IDS, ids)
    folder.counts |= {"n_prompts": len(ids), "steps": steps, "epochs": epochs}
    folder.counts |= {"generated_tokens": generated_tokens(rows), "trained_tokens": trained_tokens(log)}
    shutil.rmtree(folder.path / "adapter")
    (folder.path / SECOND_MOMENTS).unlink(missing_ok=True)


def read_reward_curves(run_dir: Path) -> NDArray[np.float64]:
    """Mean reward of each prompt in each pass, (n, epochs) float64, in the order of the pool.

    Raises
    ------
    DataError
        When the files are of other prompts, or have another number of rows.
    """
    curves = np.load(run_dir / "reward_curves" / CURVES)
    ids = read_json(run_dir / "reward_curves" / IDS)
    check_pool(run_dir, "reward_curves", ids)
    if curves.ndim != 2 or len(curves) != len(ids):
        raise DataError(
            f"{run_dir / 'reward_curves' / CURVES} has shape {curves.shape}; expected {len(ids)} rows, one per prompt. "
            + made_anew(run_dir / "reward_curves")
        )
    return np.asarray(curves, np.float64)


STAGE = Stage(
    "reward_curves",
    "reward-curves",
    "Train on the whole pool for a few passes and keep each prompt's rewards.",
    run,
    (*POLICY, "training", "selection.curve_epochs", *SAMPLED),
    ("data", "warmup"),
    unread=no_warmup,
    needed=asked_for("reward_curves"),
    trains="training",
)
