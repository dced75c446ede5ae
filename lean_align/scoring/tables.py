"""Files that scores are made from and kept in: completions' rewards, and `scores.parquet`.  No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import ArrayLike

from lean_align.types import Scores


def write_scores(
    path: Path, scores: Scores, n_tokens: ArrayLike, gradient_norm: ArrayLike, inclusion: ArrayLike
) -> None:
    """Write one row per prompt, in the order of the store.

    Columns: prompt_id, success_rate, learnability, alignment, score, rank (1 = best), n_tokens (mean
    completion length), gradient_norm, leave_one_out (the score without the prompt itself), inclusion (share
    of the bootstrap replicates that select the prompt).
    """
    columns = {
        "prompt_id": list(scores.prompt_ids),
        "success_rate": scores.success_rate,
        "learnability": scores.learnability,
        "alignment": scores.alignment,
        "score": scores.score,
        "rank": scores.rank,
        "n_tokens": np.asarray(n_tokens, dtype=np.float64),
        "gradient_norm": np.asarray(gradient_norm, dtype=np.float32),
        "leave_one_out": scores.leave_one_out,
        "inclusion": np.asarray(inclusion, dtype=np.float64),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def read_table(path: Path) -> dict[str, Any]:
    """Columns of a parquet file by name, numbers as NumPy arrays, texts as lists."""
    with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
        table = file.read(use_threads=False)  # its threads are waited for without end where none can be started
    return {
        name: column.to_pylist() if pyarrow.types.is_string(column.type) else column.to_numpy()
        for name, column in zip(table.column_names, table.columns)
    }


def read_scores(path: Path) -> Scores:
    """Scores from a file that `write_scores` wrote."""
    table = read_table(path)
    return Scores(
        tuple(table["prompt_id"]),
        table["success_rate"],
        table["learnability"],
        table["alignment"],
        table["score"],
        table["rank"],
        table["leave_one_out"],
    )


def rollout_table(path: Path) -> tuple[dict[str, list[float]], dict[str, list[int]]]:
    """Rewards, and lengths in tokens, of each prompt's completions; read without torch."""
    rewards: dict[str, list[float]] = {}
    lengths: dict[str, list[int]] = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            rewards.setdefault(row["prompt_id"], []).append(row["reward"])
            lengths.setdefault(row["prompt_id"], []).append(row["n_tokens"])
    return rewards, lengths
