"""Randomness as an argument: (seed, stage, key) -> an integer seed or a generator.

Nothing in lean_align draws from a generator that another call has advanced, so that a result depends
neither on the order of the work nor on how often it was interrupted.
"""

from __future__ import annotations

import hashlib

import numpy as np


def seed_for(seed: int, stage: str, key: str | int = "") -> int:
    """Derive a seed from the run's seed, a stage and a key (a prompt_id, a step).

    Parameters
    ----------
    seed : int
        The recipe's seed.
    stage : str
        Name of the stage that draws.
    key : str or int
        What the draw is for.

    Returns
    -------
    int
        In [0, 2**63), the first 8 bytes of a SHA-256.
    """
    digest = hashlib.sha256(f"lean_align/{seed}/{stage}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def rng_for(seed: int, stage: str, key: str | int = "") -> np.random.Generator:
    """A NumPy generator (PCG64) seeded with `seed_for(seed, stage, key)`."""
    return np.random.default_rng(seed_for(seed, stage, key))
