"""Estimates under sequential allocation against every outcome there is, and its effect on a choice, by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest

from bench.allocation import allocation_effect
from lean_align.recipe import RolloutRecipe
from lean_align.scoring import (
    exact_estimates,
    learnability,
    plug_in_scale,
    unbiased_estimates,
)
from lean_align.stages.rollouts import allocation_facts
from lean_align.types import Completion, Group, Prompt

RULES = [(2, 3), (2, 4), (3, 4), (4, 4), (2, 8), (4, 8), (5, 8), (7, 8), (8, 8)]
RATES = [Fraction(0), Fraction(1, 9), Fraction(1, 3), Fraction(1, 2), Fraction(5, 7), Fraction(1)]
Estimate = Callable[[int, int], tuple[Fraction, Fraction]]


def drawn_of(outcome: Sequence[int], first: int) -> Sequence[int]:
    """What the rule draws of completions whose rewards would be these: word for word, no lattice."""
    return outcome[:first] if len(set(outcome[:first])) == 1 else outcome


def mean_estimates(estimate: Estimate, first: int, total: int, p: Fraction) -> tuple[Fraction, Fraction]:
    """Exact means over all 2^total outcomes."""
    rate, v = Fraction(0), Fraction(0)
    for outcome in itertools.product((0, 1), repeat=total):
        chance = p ** sum(outcome) * (1 - p) ** (total - sum(outcome))
        drawn = drawn_of(outcome, first)
        found = estimate(sum(drawn), len(drawn) - sum(drawn))
        rate, v = rate + chance * found[0], v + chance * found[1]
    return rate, v


def shares(s: int, f: int) -> tuple[Fraction, Fraction]:
    """The planted fault: what would be unbiased if the number of draws were fixed."""
    return Fraction(s, s + f), Fraction(s * f, (s + f) * (s + f - 1))


@pytest.mark.parametrize(("first", "total"), RULES)
def test_the_estimates_are_unbiased_exactly(first, total):
    table = exact_estimates(first, total)
    for p in RATES:
        assert mean_estimates(lambda s, f: table[s, f], first, total, p) == (p, p * (1 - p))


@pytest.mark.parametrize(("first", "total"), [rule for rule in RULES if rule[0] < rule[1]])
def test_shares_of_what_was_drawn_are_biased(first, total):
    p = Fraction(1, 3)
    rate, v = mean_estimates(shares, first, total, p)
    assert rate < p  # a prompt stops at 0 more often than at 1
    assert v < p * (1 - p)


def test_without_a_look_shares_are_unbiased():
    assert mean_estimates(shares, 8, 8, Fraction(1, 3)) == (Fraction(1, 3), Fraction(2, 9))


def test_estimates_by_hand():
    """first = 4, total = 8, s right of 8.  C(8, s) paths, less those whose first four are equal.

    s = 1: 8 - C(4, 1) (no success among the first four) = 4; success first: 1; then a failure: 1.
    s = 2: 28 - 6 = 22; success first: the other in one of 7 places, 7; failure second: one of 6, 6.
    s = 3: 56 - 4 = 52; C(7, 2) = 21; C(6, 2) = 15.
    s = 4: 70 - 2 = 68; C(7, 3) = 35 but SSSSFFFF, 34; C(6, 3) = 20.
    """
    table = exact_estimates(4, 8)
    assert table[1, 7] == (Fraction(1, 4), Fraction(1, 4))
    assert table[2, 6] == (Fraction(7, 22), Fraction(6, 22))
    assert table[3, 5] == (Fraction(21, 52), Fraction(15, 52))
    assert table[4, 4] == (Fraction(34, 68), Fraction(20, 68))
    assert table[4, 0] == (1, 0)
    assert table[0, 4] == (0, 0)
    assert len(table) == 9


def test_arrays_hold_the_exact_values():
    rate, v = unbiased_estimates([0, 1, 4, 6, 4], [4, 8, 8, 8, 4], first=4, total=8)
    assert rate.tolist() == [0, 1 / 4, 1 / 2, 15 / 22, 1]
    assert v.tolist() == [0, 1 / 4, 5 / 17, 3 / 11, 0]


def test_a_fixed_number_gives_the_plug_in_learnability_but_for_its_scale():
    s = np.arange(9)
    rate, v = unbiased_estimates(s, np.full(9, 8), first=8, total=8)
    np.testing.assert_array_equal(rate, s / 8)
    np.testing.assert_allclose(v * plug_in_scale(8), learnability(s / 8), rtol=1e-15)


@pytest.mark.parametrize(
    ("right", "drawn", "message"),
    [
        ([0, 2], [4, 4], r"prompt 1 has 2 successes in 4 completions; expected 4 with equal rewards, or 8"),
        ([8], [8], "8 successes in 8"),
        ([-1], [4], "-1 successes in 4"),
        ([1, 2], [8], r"shape \(2,\) and n_completions \(1,\)"),
    ],
)
def test_counts_that_the_rule_cannot_lead_to_are_refused(right, drawn, message):
    with pytest.raises(ValueError, match=message):
        unbiased_estimates(right, drawn, first=4, total=8)


@pytest.mark.parametrize(("first", "total"), [(1, 8), (9, 8), (0, 0)])
def test_a_rule_without_two_draws_is_refused(first, total):
    with pytest.raises(ValueError, match="expected 2 <= first <= total"):
        exact_estimates(first, total)


REWARDS = [[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 0]]
LENGTHS = [[3, 3, 5, 7], [1, 1, 10, 20], [9, 9, 9, 9], [2, 2, 4, 4], [5, 5, 5, 5]]


def test_the_effect_by_hand():
    """first = 2 of 4: prompts 0, 1 and 3 stop and save 12 + 30 + 8 of 118 tokens; prompt 1 was learnable."""
    effect = allocation_effect(REWARDS, LENGTHS, 2)
    assert (effect.n_prompts, effect.n_stopped, effect.n_lost) == (5, 3, 1)
    assert (effect.completions_saved, effect.tokens_saved, effect.n_tokens) == (6, 50, 118)
    assert effect.share_saved == 50 / 118
    assert effect.overlap is None


def test_the_overlap_by_hand():
    """Unit rows in one direction: the score is V times a constant.

    Plug-in V of 4: 0, 3/16, 3/16, 0, 4/16, so the two best are 4 and 1 (before 2 by name).  Sequentially 1 is lost, and
    2 and 4 have V = 1/2 each.
    """
    rows = np.ones((5, 1))
    effect = allocation_effect(REWARDS, LENGTHS, 2, rows, 2)
    assert (effect.overlap, effect.overlap_plug_in) == (0.5, 0.5)
    assert allocation_effect(REWARDS, LENGTHS, 4, rows, 2).overlap == 1


def test_estimates_that_differ_move_the_choice():
    """Four prompts of 4 / 8 along (1, 0), a of 1 / 8 there too, b of 4 / 8 along (0.3, 0.95): who is the fifth?

    Plug-in, V of a 7/64 = 0.109: m ~ (4 x 0.25 + 0.109 + 0.3 x 0.25, 0.95 x 0.25) = (1.184, 0.238), so a has
    0.109 x 1.184 = 0.130 and b 0.25 x (0.3 x 1.184 + 0.95 x 0.238) = 0.145.  Unbiased with first = 4, V of a 1/4 and of
    the others 5/17 = 0.294: m ~ (1.515, 0.280), a has 0.379 and b 0.212.
    """
    even, uneven = [1, 0, 1, 0, 1, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0, 0]
    rewards, rows = [even] * 4 + [uneven, even], np.array([[1.0, 0.0]] * 5 + [[0.3, 0.91**0.5]])
    effect = allocation_effect(rewards, np.ones((6, 8), int), 4, rows, 5)
    assert (effect.n_stopped, effect.overlap, effect.overlap_plug_in) == (0, 0.8, 1)


def test_saving_all_or_nothing():
    equal, mixed = np.ones((3, 8)), np.tile([0, 1], (3, 4))
    lengths = np.full((3, 8), 2)
    assert allocation_effect(equal, lengths, 2).share_saved == 6 / 8
    assert allocation_effect(mixed, lengths, 2).share_saved == 0
    assert allocation_effect(equal, lengths, 8).share_saved == 0
    assert allocation_effect(equal, lengths, 8).n_stopped == 0


@pytest.mark.parametrize(
    ("rewards", "first", "rows", "top_n", "message"),
    [
        ([[0.5, 1.0]], 2, None, None, "rewards 0 or 1"),
        ([[0, 1]], 3, None, None, "first is 3; expected 2 to 2"),
        ([[0, 1]], 2, [[1.0]], None, "top_n is None"),
        ([[0, 1]], 2, [[1.0]], 2, "top_n is 2; expected 1 to 1"),
        ([[0, 1]], 2, None, 1, "None without"),
    ],
)
def test_what_is_no_fixed_run_is_refused(rewards, first, rows, top_n, message):
    with pytest.raises(ValueError, match=message):
        allocation_effect(rewards, np.ones_like(rewards), first, rows, top_n)


def group(name: str, rewards: Sequence[float]) -> Group:
    made = (Completion(name, g, "", (5,) * (g + 1), g + 1, float(r), True) for g, r in enumerate(rewards))
    return Group(Prompt(name, "", ""), tuple(made))


def test_counts_of_the_stage_by_hand():
    """4 completions of 1 + 2 + 3 + 4 tokens, and 2 of 1 + 2; unbiased success rates 1/2 and 1."""
    groups = [group("a", [1, 0, 0, 0]), group("b", [1, 1])]
    assert allocation_facts(groups, RolloutRecipe(4, "sequential", 2), 4) == {
        "allocation": "sequential",
        "num_generations": 4,
        "generated_tokens": 13,
        "completions_saved": 2,
        "n_stopped": 1,
        "mean_reward": 0.75,
    }
    fixed = allocation_facts([groups[0], group("b", [1, 1, 1, 1])], RolloutRecipe(4), 4)
    assert (fixed["generated_tokens"], fixed["completions_saved"], fixed["mean_reward"]) == (20, 0, 0.625)
