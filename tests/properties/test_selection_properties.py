"""Top-n under any scores: nested, best first, ties by name, and the same for any order of prompts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lean_align.scoring import rank_scores
from lean_align.selection import select_full, select_random, select_top
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
