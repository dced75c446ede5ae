"""The choice of prompts, what explains it, and the files that hold scores and choice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lean_align.errors import RecipeError
from lean_align.scoring import rank_scores
from lean_align.scoring.tables import read_scores, read_table, write_scores
from lean_align.selection import find_method, select_full, select_random, select_top
from lean_align.stages.selection import selected_rows
from lean_align.types import Prompt, Scores

IDS = tuple(f"p-{i:02d}" for i in range(20))


def scores_of(values: list[float], ids: tuple[str, ...] | None = None, learnability: float = 0.25) -> Scores:
    score, ids = np.array(values), ids or tuple(f"p-{i}" for i in range(len(values)))
    v = np.full(len(values), learnability)
    return Scores(ids, np.full(len(values), 0.5), v, score / 0.25, score, rank_scores(score, ids), 0.5 * score)


def test_the_highest_scores_are_kept_best_first() -> None:
    """Scores .1 .4 -.2 .3: the best two are p-1 and p-3."""
    selection = select_top(scores_of([0.1, 0.4, -0.2, 0.3]), 2)
    assert selection.prompt_ids == ("p-1", "p-3")
    assert selection.scores == (0.4, 0.3)
    assert selection.ranks == (1, 2)
    assert (selection.method, selection.pool_size, selection.n_without_signal) == ("learnalign", 4, 0)
    assert selection.explanation == "the 2 highest scores V_i <u_i, m> of 4 prompts"


def test_ties_go_to_the_smaller_id_whatever_the_order() -> None:
    assert select_top(scores_of([0.2, 0.2, 0.2], ("c", "a", "b")), 2).prompt_ids == ("a", "b")
    assert select_top(scores_of([0.2, 0.2, 0.2], ("b", "c", "a")), 2).prompt_ids == ("a", "b")


def test_plus_and_minus_zero_are_a_tie() -> None:
    assert select_top(scores_of([0.0, -0.0, 0.0], ("c", "a", "b")), 3).prompt_ids == ("a", "b", "c")


def test_prompts_without_signal_are_counted_and_explained() -> None:
    scores = scores_of([0.0, 0.1, 0.0], learnability=0.25)
    scores.learnability[[0, 2]] = 0.0
    selection = select_top(scores, 2)
    assert selection.prompt_ids == ("p-1", "p-0")
    assert selection.n_without_signal == 1
    assert "1 of them has learnability 0" in selection.explanation


@pytest.mark.parametrize("n", [0, -1, 5])
def test_more_than_there_are_and_none_are_refused(n: int) -> None:
    with pytest.raises(RecipeError, match=rf"selection.n is {n} and the pool has 4 prompts; expected 1 to 4"):
        select_top(scores_of([1, 2, 3, 4]), n)
    with pytest.raises(RecipeError, match="expected 1 to 4"):
        select_random(IDS[:4], n, seed=0)


def test_the_whole_pool_can_be_asked_for() -> None:
    assert set(select_top(scores_of([1, 2, 3, 4]), 4).prompt_ids) == {"p-0", "p-1", "p-2", "p-3"}


def test_random_is_pinned_seeded_and_without_replacement() -> None:
    """`rng_for(0, "selection").permutation(10)` begins 9 4 6 2 (see test_rng.py)."""
    assert select_random(IDS[:10], 4, seed=0).prompt_ids == ("p-09", "p-04", "p-06", "p-02")
    assert len(set(select_random(IDS, 20, seed=0).prompt_ids)) == 20
    assert select_random(IDS, 20, seed=0).prompt_ids != select_random(IDS, 20, seed=1).prompt_ids


def test_a_larger_random_subset_begins_with_the_smaller() -> None:
    assert select_random(IDS, 12, seed=5).prompt_ids[:7] == select_random(IDS, 7, seed=5).prompt_ids


def test_random_and_full_come_without_scores() -> None:
    for selection in (select_random(IDS, 3, seed=0), select_full(IDS)):
        assert selection.scores is selection.ranks is selection.n_without_signal is None
        assert selection.pool_size == 20
        assert selection.explanation


def test_full_keeps_the_order() -> None:
    assert select_full(IDS).prompt_ids == IDS


@pytest.mark.parametrize(("method", "scored"), [("learnalign", True), ("random", False), ("full", False)])
def test_methods_say_whether_they_need_scores(method: str, scored: bool) -> None:
    assert ("scores" in find_method(method).needs) == scored


def test_scores_round_trip_through_parquet(tmp_path: Path) -> None:
    scores = scores_of([0.1, 1e-17, -0.2], ("ü", "a\n", "b"))
    norms = np.array([3.0, 0.0, 1e-7], dtype=np.float32)
    write_scores(tmp_path / "scores.parquet", scores, [10.5, 1, 2], norms, [1, 0, 0.5])
    back = read_scores(tmp_path / "scores.parquet")
    assert back.prompt_ids == scores.prompt_ids
    for name in ("success_rate", "learnability", "alignment", "score", "rank", "leave_one_out"):
        np.testing.assert_array_equal(getattr(back, name), getattr(scores, name))
        assert getattr(back, name).dtype == getattr(scores, name).dtype
    table = read_table(tmp_path / "scores.parquet")
    assert table["n_tokens"].tolist() == [10.5, 1.0, 2.0]
    np.testing.assert_array_equal(table["gradient_norm"], np.array([3.0, 0.0, 1e-7], dtype=np.float32))
    assert table["inclusion"].tolist() == [1.0, 0.0, 0.5]
    assert table["gradient_norm"].dtype == np.float32
    assert select_top(back, 2) == select_top(scores, 2)


def test_selected_rows_are_what_trainers_read() -> None:
    prompts = [Prompt(f"p-{i}", f"question {i}", str(i)) for i in range(4)]
    rows = selected_rows(select_top(scores_of([0.1, 0.4, -0.2, 0.3]), 2), prompts)
    assert rows == [
        {"prompt": "question 1", "answer": "1", "prompt_id": "p-1", "score": 0.4, "rank": 1},
        {"prompt": "question 3", "answer": "3", "prompt_id": "p-3", "score": 0.3, "rank": 2},
    ]
    assert json.loads(json.dumps(rows)) == rows


def test_rows_of_an_unscored_selection_have_empty_scores() -> None:
    prompts = [Prompt(name, "q", "1") for name in IDS]
    rows = selected_rows(select_random(IDS, 3, seed=0), prompts)
    assert [row["score"] for row in rows] == [row["rank"] for row in rows] == [None] * 3
