"""Estimates under sequential allocation: their range and symmetry, and what becomes of them without a first look."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.allocation import allocation_effect
from lean_align.scoring import exact_estimates, unbiased_estimates

FEW = settings(max_examples=60, deadline=None)


@st.composite
def rules(draw: st.DrawFn, most: int = 24) -> tuple[int, int]:
    first = draw(st.integers(2, most))
    return first, draw(st.integers(first, most))


@FEW
@given(rules())
def test_estimates_stay_in_range_and_vanish_with_the_signal(rule):
    for (s, f), (p, v) in exact_estimates(*rule).items():
        assert 0 <= p <= 1
        assert 0 <= v <= Fraction(1, 2)
        assert (v == 0) == (s == 0 or f == 0)


@FEW
@given(rules())
def test_success_and_failure_can_change_places(rule):
    table = exact_estimates(*rule)
    for (s, f), (p, v) in table.items():
        assert table[f, s] == (1 - p, v)


@FEW
@given(st.integers(2, 40))
def test_a_fixed_number_gives_shares(total):
    for (s, f), found in exact_estimates(total, total).items():
        assert s + f == total
        assert found == (Fraction(s, total), Fraction(s * f, total * (total - 1)))


@FEW
@given(rules())
def test_paths_are_those_that_a_closed_form_counts(rule):
    """C(total, s) paths, less those whose first completions are equal; of those that begin SF none is."""
    first, total = rule
    if first == total:
        return
    for (s, f), (_, v) in exact_estimates(first, total).items():
        if s + f == total:
            equal = sum(comb(total - first, s - k) for k in (0, first) if s >= k)
            assert v == Fraction(comb(total - 2, s - 1), comb(total, s) - equal)


@FEW
@given(st.sampled_from([2, 3]), st.integers(3, 24))
def test_with_two_or_three_first_the_later_say_nothing_about_learnability(first, total):
    expected = {2: Fraction(1, 2), 3: Fraction(1, 3)}[first]
    assert {v for _, v in exact_estimates(first, total).values() if v} == {expected}


@FEW
@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.integers(1, 30))
def test_the_effect_is_that_of_drawing_prompt_by_prompt(seed, first, n):
    rng = np.random.default_rng(seed)
    rewards, lengths = (rng.random((n, 8)) < rng.random((n, 1))).astype(float), rng.integers(1, 50, (n, 8))
    stops = [len(set(row[:first])) == 1 and first < 8 for row in rewards.tolist()]
    effect = allocation_effect(rewards, lengths, first)
    assert effect.n_stopped == sum(stops)
    assert effect.tokens_saved == sum(int(row[first:].sum()) for row, stop in zip(lengths, stops) if stop)
    assert effect.n_lost == sum(stop and len(set(row)) == 2 for row, stop in zip(rewards.tolist(), stops))
    drawn = [row[:first] if stop else row for row, stop in zip(rewards.tolist(), stops)]
    _, v = unbiased_estimates([int(sum(row)) for row in drawn], [len(row) for row in drawn], first, 8)
    assert ((v > 0) == [len(set(row)) == 2 for row in drawn]).all()
