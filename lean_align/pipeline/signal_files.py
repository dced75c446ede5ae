"""Files of the stages that ask the policy itself, read in the order of the pool.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lean_align.advice import made_anew
from lean_align.artifacts import read_json
from lean_align.errors import DataError
from lean_align.pipeline.inputs import read_prompts
from lean_align.pipeline.tables import read_table

PERPLEXITY, RATINGS, CURVES, IDS = "perplexity.parquet", "ratings.parquet", "reward_curves.npy", "prompt_ids.json"


def read_perplexity(run_dir: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Perplexity and IFD of each prompt, (n,) float64 each, in the order of the pool.

    Raises
    ------
    DataError
        When the file is of other prompts.
    """
    table = read_table(run_dir / "perplexity" / PERPLEXITY)
    check_pool(run_dir, "perplexity", table["prompt_id"])
    return np.asarray(table["perplexity"], np.float64), np.asarray(table["ifd"], np.float64)


def read_ratings(run_dir: Path) -> NDArray[np.float64]:
    """SelectIT's rating of each prompt, (n,) float64, in the order of the pool; DataError for other prompts."""
    table = read_table(run_dir / "ratings" / RATINGS)
    check_pool(run_dir, "ratings", table["prompt_id"])
    return np.asarray(table["rating"], np.float64)


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
            f"{run_dir / 'reward_curves' / CURVES} has shape {curves.shape}; expected {len(ids)} rows, one a prompt. "
            + made_anew(run_dir / "reward_curves")
        )
    return np.asarray(curves, np.float64)


def check_pool(run_dir: Path, stage: str, prompt_ids: Sequence[str]) -> None:
    """Refuse values of other prompts than the run's, or in another order.

    Raises
    ------
    DataError
        Names the first place where they differ.
    """
    pool, found = [prompt.prompt_id for prompt in read_prompts(run_dir, "train")], list(prompt_ids)
    if found == pool:
        return
    place = next((i for i, (a, b) in enumerate(zip(found, pool)) if a != b), min(len(found), len(pool)))
    got, expected = (repr(ids[place]) if place < len(ids) else "nothing" for ids in (found, pool))
    raise DataError(
        f"{run_dir / stage} holds values of {len(found)} prompts, the pool has {len(pool)}; at place {place} it has "
        f"{got}, expected {expected}. {made_anew(run_dir / stage)}"
    )
