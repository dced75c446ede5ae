"""Seeds and generators: pinned, independent of order, and apart for every (seed, stage, key)."""

from __future__ import annotations

import hashlib
import random

import numpy as np

from lean_align.rng import rng_for, seed_for


def test_seed_is_the_top_63_bits_of_a_sha256() -> None:
    """SHA-256 of "lean_align/7/data.limit/train", first 8 bytes, big endian, shifted right by one."""
    digest = hashlib.sha256(b"lean_align/7/data.limit/train").digest()
    expected = 0
    for byte in digest[:8]:
        expected = expected * 256 + byte
    assert seed_for(7, "data.limit", "train") == expected // 2 == 671676966179569592
    assert seed_for(0, "selection") == 6416829930629995964


def test_permutation_at_seed_0_is_pinned() -> None:
    """What `selection.method: random` draws from ten prompts; another NumPy must not change it."""
    assert rng_for(0, "selection").permutation(10).tolist() == [9, 4, 6, 2, 5, 1, 0, 7, 3, 8]


def test_seeds_fit_every_generator() -> None:
    seeds = [seed_for(seed, stage, key) for seed in range(5) for stage in ("a", "b") for key in range(20)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == len(seeds)


def test_number_and_text_of_a_key_are_the_same_draw() -> None:
    assert seed_for(0, "rollouts", 12) == seed_for(0, "rollouts", "12")


def test_draws_do_not_depend_on_draws_before() -> None:
    alone = rng_for(3, "rollouts", "p-2").random(4)
    for key in ("p-0", "p-1"):
        rng_for(3, "rollouts", key).random(100)
    np.testing.assert_array_equal(rng_for(3, "rollouts", "p-2").random(4), alone)


def test_global_generators_are_left_alone() -> None:
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    rng_for(0, "stage").random(10)
    assert (random.random(), np.random.random()) == expected
