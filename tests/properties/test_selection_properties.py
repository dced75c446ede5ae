"""Top-n under any scores: nested, best first, ties by name, the same for any order; greedy choices; matched lengths."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lean_align.scoring import rank_scores
from lean_align.selection import select_full, select_random, select_top
from lean_align.selection.learnalign_diverse import greedy_order, unit
from lean_align.selection.length_matched import LARGEST_GAP, expected_gap, length_bins, length_gap
from lean_align.types import Scores

FEW = settings(max_examples=80, deadline=None)
VALUES = st.sampled_from([0.0, -0.0, 0.25, -0.25, 1e-17]) | st.floats(-1, 1)
NAMES = st.text("ab01é", min_size=1, max_size=3)


@st.composite
def pools(draw: st.DrawFn) -> Scores:
    """Scores with many ties, under names in no order."""
    ids = tuple(draw(st.lists(NAMES, unique=True, min_size=1, max_size=12)))
    score = np.array([draw(VALUES) for _ in ids])
    v = np.where(score == 0, 0.0, 0.25)
    return Scores(ids, np.where(v > 0, 0.5, 0.0), v, score, score, rank_scores(score, ids), score)


@FEW
@given(pools())
def test_each_choice_is_the_head_of_the_next_larger(scores: Scores) -> None:
    choices = [select_top(scores, n).prompt_ids for n in range(1, len(scores.prompt_ids) + 1)]
    assert all(larger[: len(smaller)] == smaller for smaller, larger in pairwise(choices))
    assert set(choices[-1]) == set(scores.prompt_ids)


@FEW
@given(pools(), st.data())
def test_the_choice_is_sorted_by_score_then_by_name(scores: Scores, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(scores.prompt_ids)))
    by_score = sorted(zip(-scores.score, scores.prompt_ids))  # -0.0 == 0.0, so that zeros go by name
    selection = select_top(scores, n)
    assert list(selection.prompt_ids) == [name for _, name in by_score[:n]]
    assert selection.ranks == tuple(range(1, n + 1))
    left_out = [s for name, s in zip(scores.prompt_ids, scores.score) if name not in selection.prompt_ids]
    assert selection.scores is not None
    assert all(min(selection.scores) >= s for s in left_out)


@FEW
@given(pools(), st.randoms(use_true_random=False))
def test_the_order_of_prompts_does_not_matter(scores: Scores, random: object) -> None:
    order = list(range(len(scores.prompt_ids)))
    random.shuffle(order)  # type: ignore[attr-defined]
    ids = tuple(scores.prompt_ids[i] for i in order)
    arrays = [getattr(scores, name)[order] for name in ("success_rate", "learnability", "alignment", "score")]
    shuffled = Scores(ids, *arrays, rank_scores(arrays[-1], ids), arrays[-1])
    n = (len(ids) + 1) // 2
    assert select_top(shuffled, n).prompt_ids == select_top(scores, n).prompt_ids


@FEW
@given(pools())
def test_prompts_without_signal_are_counted(scores: Scores) -> None:
    n = len(scores.prompt_ids)
    assert select_top(scores, n).n_without_signal == int((scores.learnability == 0).sum())


@FEW
@given(st.lists(NAMES, unique=True, min_size=1, max_size=30), st.integers(0, 2**31), st.data())
def test_random_subsets_are_nested_subsets_of_the_pool(ids: list[str], seed: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(ids)))
    small, whole = select_random(ids, n, seed).prompt_ids, select_random(ids, len(ids), seed).prompt_ids
    assert whole[:n] == small
    assert sorted(whole) == sorted(ids) == sorted(select_full(ids).prompt_ids)


Greedy = Callable[[NDArray[np.float64], NDArray[np.float64], tuple[str, ...], int], list[int]]


@st.composite
def scored_rows(draw: st.DrawFn, max_n: int = 14) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[str, ...]]:
    """Rows with duplicates, opposites and zeros; scores with ties, zeros and negative ones; names in no order."""
    ids = tuple(draw(st.lists(NAMES, unique=True, min_size=1, max_size=max_n)))
    n, k = len(ids), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = rng.normal(size=(n, k))
    for i in range(n):
        rows[i] = draw(st.sampled_from([1.0, 1.0, 1.0, -1.0, 2.0, 0.0])) * rows[draw(st.sampled_from([i, i, 0]))]
    score = np.array([draw(st.sampled_from([0.25, 0.5, 1.0, 0.3, 0.0, -0.0, -0.5])) for _ in ids])
    return rows, score, ids


def plain_greedy(
    rows: NDArray[np.float64], score: NDArray[np.float64], ids: tuple[str, ...], n: int, floor: float = 0.0
) -> list[int]:
    """The definition: all values anew after each choice."""
    units, chosen = [unit(row) for row in rows], list[int]()
    while len(chosen) < n:
        values = []
        for i in range(len(rows)):
            nearest = max([floor, *(float(np.vecdot(units[s], units[i])) for s in chosen)])
            values.append(score[i] * (1 - min(1.0, nearest)) if score[i] > 0 else score[i])
        chosen.append(min(set(range(len(rows))) - set(chosen), key=lambda i: (-values[i], ids[i])))
    return chosen


def lazy(rows: NDArray[np.float64], score: NDArray[np.float64], ids: tuple[str, ...], n: int) -> list[int]:
    return greedy_order(rows, score, ids, n)[0].tolist()


@settings(FEW, max_examples=200)
@given(scored_rows(), st.data())
def test_the_lazy_greedy_choice_is_the_plain_one(
    case: tuple[NDArray[np.float64], NDArray[np.float64], tuple[str, ...]], data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, len(case[2])))
    order, values = greedy_order(*case, n)
    assert order.tolist() == plain_greedy(*case, n)
    assert (np.diff(values) <= 0).all()
    assert order.tolist() == lazy(*case, len(case[2]))[:n]


def never_looked_at_again(
    rows: NDArray[np.float64], score: NDArray[np.float64], ids: tuple[str, ...], n: int
) -> list[int]:
    return np.lexsort((np.array(ids), -score))[:n].tolist()


def opposites_are_rewarded(
    rows: NDArray[np.float64], score: NDArray[np.float64], ids: tuple[str, ...], n: int
) -> list[int]:
    return plain_greedy(rows, score, ids, n, floor=-1.0)


@pytest.mark.parametrize("wrong", [never_looked_at_again, opposites_are_rewarded])
def test_the_check_against_the_plain_choice_catches_a_wrong_one(wrong: Greedy) -> None:
    """a; b is a again and counts nothing; c points the other way and is not discounted; d stands at right angles."""
    rows = np.array([[1.0, 0], [1, 0], [-1, 0], [0, 1]])
    case = rows, np.array([1.0, 0.9, 0.5, 0.6]), ("a", "b", "c", "d")
    assert lazy(*case, 4) == plain_greedy(*case, 4) == [0, 3, 2, 1]
    assert wrong(*case, 4) != [0, 3, 2, 1]


@FEW
@given(scored_rows(), st.randoms(use_true_random=False))
def test_the_greedy_choice_does_not_depend_on_the_order_of_prompts(
    case: tuple[NDArray[np.float64], NDArray[np.float64], tuple[str, ...]], random: object
) -> None:
    rows, score, ids = case
    order = list(range(len(ids)))
    random.shuffle(order)  # type: ignore[attr-defined]
    moved = lazy(rows[order], score[order], tuple(ids[i] for i in order), len(ids))
    assert [ids[order[i]] for i in moved] == [ids[i] for i in lazy(rows, score, ids, len(ids))]


@FEW
@given(st.lists(st.integers(0, 30), min_size=1, max_size=120), st.data())
def test_bins_of_length_part_the_pool_and_match(values: list[int], data: st.DataObject) -> None:
    lengths = np.array(values, dtype=np.float64)
    n = data.draw(st.integers(1, len(lengths)))
    best = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(len(lengths))[:n]
    bins = length_bins(lengths, best)
    assert sorted(np.concatenate(bins).tolist()) == list(range(len(lengths)))
    spans = sorted((lengths[members].min(), lengths[members].max()) for members in bins)
    assert all(a[1] < b[0] for a, b in pairwise(spans))
    if len(lengths) < 20:
        assert len(bins) == 1
    if len(bins) > 1:
        assert expected_gap(lengths, best, bins) < expected_gap(lengths, best, [np.arange(len(lengths))])
        assert expected_gap(lengths, best, [np.arange(len(lengths))]) > LARGEST_GAP


@FEW
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_the_gap_is_that_of_the_definition(one: list[int], other: list[int]) -> None:
    a, b = np.array(one, dtype=np.float64), np.array(other, dtype=np.float64)
    expected = max(abs((a <= x).mean() - (b <= x).mean()) for x in range(10))
    np.testing.assert_allclose(length_gap(a, b), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(length_gap(b, a), expected, rtol=0, atol=1e-12)
