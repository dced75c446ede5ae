"""The two-pass score against the full n x n matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.measure import compare
from lean_align.scoring import learnability, score_prompts

N, PROJ_DIM = 4000, 1024


def measure() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((N, PROJ_DIM))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    p = rng.integers(0, 9, N) / 8
    v = learnability(p)

    def matrix() -> np.ndarray:
        wide = rows.astype(np.float64)
        return (np.outer(v, v) * (wide @ wide.T)).mean(axis=1)

    row = compare(lambda: score_prompts(rows, p), matrix, repeats=5)
    row["what"] = f"score {N:,} prompts, k = {PROJ_DIM}"
    row["other"] = "n x n matrix in NumPy"
    row["note"] = f"largest difference {np.abs(score_prompts(rows, p).score - matrix()).max():.1e}"
    return [row]
