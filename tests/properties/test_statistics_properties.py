"""Statistics of comparisons under any p-values, rewards and quantities."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lean_align.statistics import holm, mean_over_seeds, partial_spearman, pearson, seed_differences, spearman
from lean_align.statistics.correlations import _ranks

FEW = settings(max_examples=60, deadline=None)
P_VALUES = st.dictionaries(st.text("abc", min_size=1, max_size=4), st.floats(0, 1), max_size=12)
REWARDS = st.sampled_from([0.0, 1.0]) | st.sampled_from([1 / 3, 2 / 3, 0.25])
COLUMNS = st.integers(2, 20).flatmap(
    lambda n: st.lists(
        st.lists(st.floats(-1e6, 1e6) | st.integers(0, 2), min_size=n, max_size=n), min_size=3, max_size=3
    )
)


@st.composite
def two_methods(draw: st.DrawFn) -> tuple[dict[int, dict[str, float]], dict[int, dict[str, float]]]:
    seeds, problems = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    rows = st.lists(st.lists(REWARDS, min_size=problems, max_size=problems), min_size=seeds, max_size=seeds)
    return tuple({s: {f"p{i}": x for i, x in enumerate(row)} for s, row in enumerate(draw(rows))} for _ in "ab")  # type: ignore[return-value]


@FEW
@given(P_VALUES)
def test_holm_lies_between_the_raw_value_and_bonferroni_and_keeps_the_order(p_values: dict[str, float]) -> None:
    adjusted = holm(p_values)
    assert list(adjusted) == list(p_values)
    for name, p in p_values.items():
        assert p <= adjusted[name] <= min(1.0, len(p_values) * p)
        assert all(adjusted[name] <= adjusted[other] for other in p_values if p <= p_values[other])


@FEW
@given(P_VALUES, st.randoms(use_true_random=False))
def test_holm_does_not_depend_on_the_order(p_values: dict[str, float], random: object) -> None:
    names = list(p_values)
    random.shuffle(names)  # type: ignore[attr-defined]
    assert holm({name: p_values[name] for name in names}) == holm(p_values)


@FEW
@given(two_methods(), st.integers(0, 2**31))
def test_comparisons_are_sound_and_antisymmetric(
    methods: tuple[dict[int, dict[str, float]], dict[int, dict[str, float]]], seed: int
) -> None:
    found, back = seed_differences(*methods, seed), seed_differences(*reversed(methods), seed)
    assert found.difference == -back.difference
    assert (found.wins, found.seed_wins, found.p_value) == (back.losses, back.seed_losses, back.p_value)
    assert found.seed_wins + found.seed_losses + found.seed_ties == found.n_seeds
    assert (found.smallest_p or 0) <= found.p_value <= 1
    for low, high in filter(None, (found.interval, found.interval_seeds, found.interval_problems)):
        assert -1 <= low <= found.difference + 1e-9
        assert found.difference - 1e-9 <= high <= 1
    mean = mean_over_seeds([list(row.values()) for row in methods[0].values()], seed)
    assert 0 <= mean.interval[0] <= mean.value + 1e-9
    assert mean.value - 1e-9 <= mean.interval[1] <= 1


@FEW
@given(COLUMNS)
def test_correlations_stay_in_range_are_symmetric_and_follow_ranks(columns: list[list[float]]) -> None:
    a, b, c = (np.asarray(column, dtype=np.float64) for column in columns)
    for found in (pearson(a, b), spearman(a, b), partial_spearman(a, b, c)):
        assert found is None or -1 <= found <= 1
    assert spearman(a, b) == spearman(b, a)
    ranks = _ranks(a)[0]
    assert spearman(a, b) == spearman(ranks, b)
    assert math.isclose(ranks.sum(), len(a) * (len(a) + 1) / 2)
