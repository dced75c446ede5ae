"""Every selection method by hand on four prompts, what a method may not do, and methods of one's own."""

from __future__ import annotations

import dataclasses
import re
import tracemalloc
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lean_align.errors import DataError, LeanAlignError, RecipeError
from lean_align.recipe import load_recipe
from lean_align.scoring import rank_scores, score_prompts
from lean_align.selection import (
    Choice,
    SelectionMethod,
    SelectionPool,
    TargetProblems,
    check_n,
    check_training,
    close_needs,
    find_method,
    method_of,
    no_peeking,
    registry,
    select_full,
    select_prompts,
    select_random,
    select_top,
    selection_methods,
)
from lean_align.selection.learnalign_diverse import greedy_order
from lean_align.selection.length_matched import expected_gap, length_bins, length_gap
from lean_align.selection.pool import FIELDS
from lean_align.store import GradientStore, StoreWriter, open_store
from lean_align.types import Scores

PAGE = Path(__file__).parent.parent / "docs" / "selection.md"
IDS = ("a", "b", "c", "d")
GRADIENTS = np.array([[2, 0, 0], [3, 4, 0], [0, 0, 0], [0, 8, 0]], dtype=np.float64)
UNIT_ROWS = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 0, 0], [0, 1, 0]])
FEATURES = np.array([[1, 0, 0], [0, 2, 0], [1, 0, 0], [0, 3, 0]], dtype=np.float64)
TARGET_IDS = ("t0", "t1", "t2")
TARGET_GRADIENTS = np.array([[0, 5, 0], [6, 8, 0], [0, 0, 0]], dtype=np.float64)
TARGET_FEATURES = np.array([[0, 1, 0], [2, 0, 0], [0, 1, 0]], dtype=np.float64)
REWARDS = ((1.0, 0.0, 0.0, 0.0), (1.0, 1.0, 0.0, 0.0), (1.0,) * 4, (0.0, 1.0, 0.0, 1.0))
METHODS = selection_methods()
HUNDRED = tuple(f"p-{i:02d}" for i in range(100))


def store_of(folder: Path, rows: NDArray[np.float64], ids: tuple[str, ...] = IDS) -> GradientStore:
    folder.mkdir()
    with StoreWriter.open(folder, list(ids), rows.shape[1]) as writer:
        for row, gradient in enumerate(rows):
            writer.write(row, gradient)
    return open_store(folder)


def scores_of(score: NDArray[np.float64], ids: tuple[str, ...]) -> Scores:
    v = np.full(len(score), 0.25)
    return Scores(ids, np.full(len(score), 0.5), v, 4 * score, score, rank_scores(score, ids), score)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> SelectionPool:
    """Success rates 1/4, 1/2, 1, 1/2, so that V = 3/16, 1/4, 0, 1/4; gradients as above, in float16."""
    folder = tmp_path_factory.mktemp("run")
    return SelectionPool(
        prompt_ids=IDS,
        prompts=("one?", "two?", "three?", "four?"),
        seed=0,
        scores=score_prompts(UNIT_ROWS, [0.25, 0.5, 1.0, 0.5], IDS),
        n_tokens=np.array([10.0, 30.0, 20.0, 30.0]),
        rewards=REWARDS,
        gradients=store_of(folder / "gradients", GRADIENTS),
        perplexity=np.array([3.0, 9.0, 1.5, 4.0]),
        ifd=np.array([0.5, 1.1, 1.3, 0.9]),
        rating=np.array([2.0, np.nan, 3.5, 2.0]),
        features=store_of(folder / "features", FEATURES),
        reward_curves=np.array([[0, 0.5], [0.5, 1], [1, 1], [0.5, 0.5]]),
        target=TargetProblems(
            TARGET_IDS,
            success_rate=np.array([0.5, 0.25, 1.0]),
            learnability=np.array([0.25, 0.1875, 0.0]),
            gradients=store_of(folder / "target_gradients", TARGET_GRADIENTS, TARGET_IDS),
            features=store_of(folder / "target_features", TARGET_FEATURES, TARGET_IDS),
            in_both={1: (1,)},
        ),
    )


def chosen(name: str, pool: SelectionPool, n: int = 4) -> tuple[str, NDArray[np.float64] | None]:
    selection, choice = select_prompts(find_method(name), pool, n)
    return "".join(selection.prompt_ids), choice.values


BY_HAND = {
    "learnalign": ("bdac", [0.0158203125, 0.03515625, 0.0, 0.028125]),
    "learnalign-loo": ("bdac", [0.009375, 0.078125 / 3, 0.0, 0.05 / 3]),
    "token-length": ("bdca", [10, 30, 20, 30]),
    "learnability": ("bdac", [0.1875, 0.25, 0, 0.25]),
    "alignment": ("bdac", [0.4, 0.6, 0, 0.45]),
    "gradient-dot": ("dbac", [2.5, 15.75, 0, 24]),
    "top-ppl": ("bdac", [3, 9, 1.5, 4]),
    "ifd": ("dabc", [0.5, -1.1, -1.3, 0.9]),
    "selectit": ("cadb", [2, np.nan, 3.5, 2]),
    "feature-similarity": ("bdac", [0.0087890625, 0.03125, 0, 0.03125]),
    "limr": ("bdac", [0, 0.8, 0, 0.8]),
    "learnalign-diverse": ("badc", [0.006328125, 0.03515625, 0, 0.005625]),
    "learnalign-target": ("dbac", [0.00703125, 0.025, 0, 0.1 / 3]),
    "learnalign-diverse-target": ("dabc", [0.00703125, 0.005, 0, 0.1 / 3]),
    "alignment-target": ("dbac", [0.2, 0.4, 0, 0.6]),
    "feature-similarity-target": ("bdac", [0.01171875, 0.03125, 0, 0.0625 / 3]),
    "learnalign-whitened": ("bdac", [0.0623096, 0.3478140, 0, 0.1247817]),
    "learnalign-whitened-target": ("dbca", [-0.0185463, 0.3978120, 0, 1.0679623]),
}
UNRANKED = {"random", "full", "online", "random-length-matched", "pass-rate-band", "dynamic-sampling"}


@pytest.mark.parametrize("name", BY_HAND)
def test_four_prompts_by_hand(pool: SelectionPool, name: str) -> None:
    """V = 3/16, 1/4, 0, 1/4; u = (1, 0, 0), (.6, .8, 0), 0, (0, 1, 0).

    learnalign: sum V u = (.3375, .45, 0), m a quarter of it (.084375, .1125, 0); <u, m> = .084375, .140625, 0, .1125.
    loo: a with b .6 * 3/64, b with d .8/16, over 3: .028125/3; (.028125 + .05)/3; 0; .05/3.
    alignment: mean u (.4, .45, 0): .4; .24 + .36; 0; .45.
    gradient-dot: mean g (5, 12, 0)/4 = (1.25, 3, 0): 2 * 1.25; 3 * 1.25 + 4 * 3; 0; 8 * 3.
    ifd: 1.1 and 1.3 are above 1, and come last, the nearer one first.
    selectit: the two ratings of 2 go by name, the missing one is last.
    features: e1, e2, e1, e2; m = (3/16, 1/2, 0)/4; V <h, m> = 3/16 * 3/64; 1/4 * 1/8; 0; 1/32.
    limr: mean curve (.5, .75), below it .25 + .0625 = .3125; a off by .25 + .0625, b by .0625, c as a, d as b.
    diverse: b first; then a .0158203125 * (1 - .6) = .006328125 before d .028125 * (1 - .8) = .005625; then c.
    target: (0, 1, 0), b itself, 0, with V = 1/4, 3/16, 0: m = (.0375, .4 / 3, 0); of b, without itself, (0, .125, 0); V
    of each times .0375; .8 * .125 = .1; 0; .4 / 3.  The plain mean is (.2, .6, 0), of b (0, .5, 0): .2; .4; 0; .6.
    target, diverse: d first; then a, whose cosine with d is 0, before b .025 * (1 - .8) = .005; then c.
    whitened: lambda = .002 (3/16 + 1/4 + 1/4) / 4.  a from b and d: C = ((.0225, .03), (.03, .1025)),
    m = (.0375, .1125); V e1 (C + lambda I)^-1 m = 3/16 * .332318; b and d likewise.  To the target: the target's m.
    target, features: e2, e1, e2; m = (.1875, .25, 0) / 3; b: (0, .125, 0); 3/16 * .0625; .125 / 4; 0; .0625 / 3.
    """
    order, values = chosen(name, pool)
    assert order == BY_HAND[name][0]
    expected = np.array(BY_HAND[name][1])
    np.testing.assert_allclose(values, expected, rtol=3e-3, atol=1e-4 * np.nanmax(np.abs(expected)))


def test_every_method_is_by_hand_or_draws() -> None:
    assert set(BY_HAND) | UNRANKED == set(METHODS)
    assert len(METHODS) == 24


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("n", [1, 3, 4])
def test_every_method_gives_n_prompts_the_same_each_time(pool: SelectionPool, name: str, n: int) -> None:
    method = find_method(name)
    selection, choice = select_prompts(method, pool, n)
    assert len(set(selection.prompt_ids)) == (4 if method.keeps_all else n)
    assert selection.method == name
    assert selection.explanation
    assert selection.n_without_signal == selection.prompt_ids.count("c")
    assert (selection.scores is None) == (name in UNRANKED)
    assert (choice.values is None) == (name in UNRANKED)
    assert selection.ranks == (None if name in UNRANKED else tuple(range(1, n + 1)))
    assert select_prompts(method, pool, n)[0].prompt_ids == selection.prompt_ids


WHOLE = {"full", "online", "dynamic-sampling"}


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"random-length-matched"} - WHOLE))
def test_a_larger_choice_begins_with_the_smaller(pool: SelectionPool, name: str) -> None:
    orders = [chosen(name, pool, n)[0] for n in (1, 2, 3, 4)]
    assert all(orders[3].startswith(order) for order in orders)


@pytest.mark.parametrize("name", BY_HAND)
def test_the_order_of_the_pool_does_not_matter(pool: SelectionPool, tmp_path: Path, name: str) -> None:
    assert pool.target is not None
    order = [2, 3, 0, 1]
    ids = tuple(IDS[i] for i in order)
    arrays = {key: getattr(pool, key)[order] for key in ("n_tokens", "perplexity", "ifd", "rating", "reward_curves")}
    moved = SelectionPool(
        prompt_ids=ids,
        prompts=tuple(pool.prompts[i] for i in order),
        seed=0,
        scores=score_prompts(UNIT_ROWS[order], np.array([0.25, 0.5, 1.0, 0.5])[order], ids),
        rewards=tuple(REWARDS[i] for i in order),
        gradients=store_of(tmp_path / "g", GRADIENTS[order], ids),
        features=store_of(tmp_path / "f", FEATURES[order], ids),
        target=dataclasses.replace(pool.target, in_both={order.index(1): (1,)}),
        **arrays,
    )
    assert chosen(name, moved)[0] == chosen(name, pool)[0]


def test_what_was_there_before_chooses_as_before(pool: SelectionPool) -> None:
    assert pool.scores is not None
    assert select_prompts(find_method("learnalign"), pool, 3)[0] == select_top(pool.scores, 3)
    bare = SelectionPool(IDS, IDS, seed=5)
    assert select_prompts(find_method("random"), bare, 3)[0] == select_random(IDS, 3, 5)
    assert select_prompts(find_method("full"), bare, 99)[0] == select_full(IDS)


def test_dynamic_sampling_is_the_whole_pool_in_an_order_of_the_seed() -> None:
    ids = tuple(f"p-{i:02d}" for i in range(30))
    method = find_method("dynamic-sampling")
    orders = [select_prompts(method, SelectionPool(ids, ids, seed), 3)[0].prompt_ids for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(order) == list(ids) for order in orders)
    assert orders[0] not in (ids, select_random(ids, 30, 0).prompt_ids)


def test_a_method_says_what_its_training_is_and_other_recipes_are_refused() -> None:
    method, plain = find_method("dynamic-sampling"), load_recipe("demo")
    assert method.training_keys == {"training.refill": True}
    with pytest.raises(RecipeError, match=r"trains with training\.refill True, and the recipe says False.*refill=true"):
        check_training(method, plain)
    check_training(method, load_recipe("demo", {"training.refill": True}))
    check_training(find_method("random"), plain)
    assert all(not find_method(name).trains_with for name in set(METHODS) - {"dynamic-sampling"})
    with pytest.raises(RecipeError, match=r"'mine' trains with 'refil'; expected keys of the section training"):
        SelectionMethod("mine", frozenset(), method.choose, "ours", trains_with={"refil": True})


def test_learnability_is_of_the_scores_then_the_estimate_then_the_rewards(pool: SelectionPool) -> None:
    rewards = {"prompt_ids": IDS, "prompts": IDS, "seed": 0, "n_tokens": pool.n_tokens, "rewards": REWARDS}
    estimate = np.array([0.1, 0.2, 0.0, 0.5])
    assert chosen("learnability", SelectionPool(**rewards))[0] == "bdac"
    assert chosen("learnability", SelectionPool(**rewards, estimated_learnability=estimate))[0] == "dbac"
    assert chosen("learnability", dataclasses.replace(pool, estimated_learnability=estimate))[0] == "bdac"
    assert SelectionPool(IDS, IDS, 0).learnability() is None


def test_the_band_is_drawn_first_and_filled_up(pool: SelectionPool) -> None:
    """p = 1/4, 1/2, 1, 1/2: c is outside."""
    method = find_method("pass-rate-band")
    three, four = (select_prompts(method, pool, n)[0] for n in (3, 4))
    assert set(three.prompt_ids) == {"a", "b", "d"}
    assert three.explanation == "3 at random of 3 prompts with 0.1 < p < 0.9"
    assert four.prompt_ids[3] == "c"
    assert four.explanation.startswith("3 at random of 3 prompts with 0.1 < p < 0.9, 1 from outside")
    orders = {"".join(select_prompts(method, dataclasses.replace(pool, seed=s), 3)[0].prompt_ids) for s in range(40)}
    assert len(orders) == 6


def test_the_bounds_of_the_band_are_outside() -> None:
    rewards = ((1.0,) + (0.0,) * 9, (1.0,) * 9 + (0.0,), (1.0,) * 2 + (0.0,) * 8)
    pool = SelectionPool(("a", "b", "c"), ("", "", ""), 0, n_tokens=np.ones(3), rewards=rewards)
    assert select_prompts(find_method("pass-rate-band"), pool, 1)[0].prompt_ids == ("c",)


def test_choices_above_an_ifd_of_1_are_counted(pool: SelectionPool) -> None:
    explained = [select_prompts(find_method("ifd"), pool, n)[0].explanation for n in (2, 3)]
    assert "chosen" not in explained[0]
    assert "(1 of them chosen)" in explained[1]


def test_curves_that_all_stay_at_1_are_all_at_the_mean(pool: SelectionPool) -> None:
    assert chosen("limr", dataclasses.replace(pool, reward_curves=np.ones((4, 2))))[0] == "abcd"
    for curves in (np.full((4, 2), np.nan), np.ones(4), np.ones((4, 0))):
        with pytest.raises(DataError, match="expected \\(n, epochs\\) of finite mean rewards"):
            chosen("limr", dataclasses.replace(pool, reward_curves=curves))


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> GradientStore:
    """Gradients of 100 prompts, of which nothing depends here."""
    return store_of(tmp_path_factory.mktemp("hundred") / "g", np.ones((100, 2)), HUNDRED)


def lengths_pool(store: GradientStore, score: NDArray[np.float64], seed: int = 0) -> SelectionPool:
    """100 prompts of mean lengths 0 to 99."""
    return SelectionPool(
        HUNDRED,
        HUNDRED,
        seed,
        scores=scores_of(score, HUNDRED),
        n_tokens=np.arange(100.0),
        rewards=((1.0, 0.0),) * 100,
        gradients=store,
    )


def test_the_control_has_the_lengths_and_is_no_copy(hundred: GradientStore) -> None:
    """LearnAlign takes the 25 even lengths from 50 on.

    Two bins match: within 50..99 the even numbers lie evenly, so that F and theirs differ by 1/25 - 1/50 = .02.
    25 of the 50 are LearnAlign's: a draw of 25 has 12.5 of them in the mean, standard deviation
    sqrt(25 * 1/2 * 1/2 * 25/49) = 1.79, so that the mean of 200 draws is within .5 (4 of its deviations).
    """
    best, lengths = np.arange(50, 100, 2), np.arange(100.0)
    even_and_long = np.isin(lengths, best).astype(np.float64)
    assert [len(members) for members in length_bins(lengths, best)] == [50, 50]
    assert expected_gap(lengths, best, length_bins(lengths, best)) == pytest.approx(0.02)
    assert expected_gap(lengths, best, [np.arange(100)]) == pytest.approx(0.5)
    overlaps = []
    for seed in range(200):
        _, choice = select_prompts(find_method("random-length-matched"), lengths_pool(hundred, even_and_long, seed), 25)
        assert choice.order.min() >= 50
        overlaps.append(len(np.intersect1d(choice.order, best)))
        gap = length_gap(choice.order.astype(float), best.astype(float))
        assert f"in 2 bins; {overlaps[-1]} of LearnAlign's" in choice.explanation
        assert f"differ by {gap:.3f} at most" in choice.explanation
    assert abs(np.mean(overlaps) - 12.5) < 0.5
    assert len(set(overlaps)) > 3


def test_where_all_of_a_length_are_taken_the_control_takes_them_too(hundred: GradientStore) -> None:
    """LearnAlign takes the 20 longest of 100: only 5 bins (or 10) match, and the control is the same prompts."""
    _, choice = select_prompts(find_method("random-length-matched"), lengths_pool(hundred, np.arange(100.0) / 1024), 20)
    assert "in 5 bins; 20 of LearnAlign's are among them (4 would be by chance)" in choice.explanation


def test_a_score_without_length_bias_needs_one_bin() -> None:
    assert len(length_bins(np.arange(100.0), np.arange(0, 100, 5))) == 1
    assert len(length_bins(np.full(100, 7.0), np.arange(9))) == 1


def test_the_gap_between_two_distributions_by_hand() -> None:
    """{1, 2} against {2, 3}: at 1 it is 1/2 against 0."""
    assert length_gap(np.array([2.0, 1.0]), np.array([3.0, 2.0])) == 0.5
    assert length_gap(np.array([1.0, 2.0]), np.array([1.0, 2.0, 1.0, 2.0])) == 0.0


def test_the_greedy_choice_holds_the_chosen_rows_and_no_others() -> None:
    """4 N k = 102,400 bytes, and 250 n = 1,000,000; the whole pool in float32 would be 8,192,000."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4000, 512)).astype(np.float16)
    score, ids = rng.random(4000), tuple(f"{i:04d}" for i in range(4000))
    tracemalloc.start()
    greedy_order(rows, score, ids, 50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 50 * 512 + 250 * 4000


def test_needs_are_closed_over_what_they_are_made_from() -> None:
    assert close_needs({"scores"}) == {"scores", "gradients", "rollouts"}
    assert close_needs({"features"}) == {"features", "rollouts"}
    assert close_needs({"reward_curves"}) == {"reward_curves"}
    assert close_needs(set()) == frozenset()
    with pytest.raises(RecipeError, match="'mine' needs 'golds'; expected some of rollouts"):
        SelectionMethod("mine", frozenset({"golds"}), lambda pool, n: Choice(np.arange(n), None, "x"), "")


@pytest.mark.parametrize("name", METHODS)
def test_a_pool_without_what_a_method_needs_is_refused(pool: SelectionPool, name: str) -> None:
    for need in find_method(name).needs:
        for field in FIELDS[need]:
            lacking = dataclasses.replace(pool, **{field: None})
            with pytest.raises(DataError, match=f"{name} needs {field}.*Run the stage {need}"):
                select_prompts(find_method(name), lacking, 2)


@pytest.mark.parametrize("n", [0, 5])
def test_n_is_checked(pool: SelectionPool, n: int) -> None:
    with pytest.raises(RecipeError, match="expected 1 to 4"):
        select_prompts(find_method("learnalign"), pool, n)
    with pytest.raises(RecipeError, match="expected 1 to 4"):
        check_n(n, 4)


def own(order: Any, values: Any = None, explanation: Any = "mine") -> SelectionMethod:
    return SelectionMethod("mine", frozenset(), lambda pool, n: Choice(order, values, explanation), "test")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (own(np.array([0])), "chose 1 prompts; expected 2"),
        (own(np.array([0, 4])), "chose index 4; expected 0 to 3"),
        (own(np.array([-1, 0])), "chose index -1"),
        (own(np.array([1, 1])), "named 2 indices, of which 1 are distinct"),
        (own([0, 1]), "gave an order that is list"),
        (own(np.array([0.0, 1.0])), "float64; expected \\(2,\\) int64"),
        (own(np.array([[0, 1]])), "\\(1, 2\\) int64; expected"),
        (own(np.array([True, False])), "bool; expected"),
        (own(np.array([0, 1]), np.ones(3)), "gave values that are \\(3,\\) float64; expected \\(4,\\)"),
        (own(np.array([0, 1]), np.ones(4, np.float32)), "float32; expected"),
        (own(np.array([0, 1]), [1, 2, 3, 4]), "values that are list"),
        (own(np.array([0, 1]), np.array([1, 2, np.inf, 4])), "gave the value inf"),
        (own(np.array([0, 1]), None, ""), "explained its choice with ''"),
        (SelectionMethod("mine", frozenset(), lambda pool, n: [0, 1], "test"), "gave list; expected"),  # type: ignore
        (SelectionMethod("mine", frozenset(), lambda pool, n: 1 / 0, "test"), "failed \\(ZeroDivisionError"),  # type: ignore
    ],
)
def test_a_wrong_answer_is_refused_with_the_methods_name(
    pool: SelectionPool, method: SelectionMethod, message: str
) -> None:
    with pytest.raises(RecipeError, match=f"the selection method mine .*{message}"):
        select_prompts(method, pool, 2)


def test_a_right_answer_passes_with_a_missing_value(pool: SelectionPool) -> None:
    selection, _ = select_prompts(own(np.array([3, 0]), np.array([1, np.nan, np.nan, 2])), pool, 2)
    assert (selection.prompt_ids, selection.scores, selection.ranks) == (("d", "a"), (2.0, 1.0), (1, 2))


def test_fields_of_other_prompts_or_another_order_are_refused(pool: SelectionPool, tmp_path: Path) -> None:
    other = store_of(tmp_path / "other", GRADIENTS, ("b", "a", "c", "d"))
    for name in ("gradients", "features"):
        with pytest.raises(DataError, match=f"{name} are of other prompts"):
            dataclasses.replace(pool, **{name: other})
    with pytest.raises(DataError, match="scores are of other prompts"):
        dataclasses.replace(pool, scores=score_prompts(UNIT_ROWS, [0.5] * 4, ("a", "b", "d", "c")))
    for name in ("n_tokens", "perplexity", "ifd", "rating", "reward_curves", "rewards", "prompts"):
        with pytest.raises(DataError, match=f"the pool has 4 prompts and 3 of {name}"):
            dataclasses.replace(pool, **{name: getattr(pool, name)[:3]})
    with pytest.raises(DataError, match="names 1 prompts twice"):
        SelectionPool(("a", "a"), ("", ""), 0)


@pytest.mark.parametrize("columns", [("score",), ("score", "rank"), ("rank",)])
def test_a_shuffled_score_file_is_refused(pool: SelectionPool, columns: tuple[str, ...]) -> None:
    scores, order = pool.scores, [1, 0, 2, 3]
    assert scores is not None
    shuffled = dataclasses.replace(scores, **{name: getattr(scores, name)[order] for name in columns})
    with pytest.raises(DataError, match=r"the scores give prompt a .*run the score stage again"):
        select_prompts(find_method("learnalign"), dataclasses.replace(pool, scores=shuffled), 2)


def test_scores_of_other_completions_are_refused(pool: SelectionPool) -> None:
    """All columns moved by one: the rows belong together, but not to these rewards."""
    moved = score_prompts(UNIT_ROWS[[3, 0, 1, 2]], [0.5, 0.25, 0.5, 1.0], IDS)
    with pytest.raises(DataError, match="prompt c a learnability that is not that of its rewards, and so for 2 of 4"):
        select_prompts(find_method("learnalign"), dataclasses.replace(pool, scores=moved), 2)


def test_an_unknown_method_is_offered_the_nearest() -> None:
    with pytest.raises(RecipeError, match="no selection method 'learnaling'; did you mean 'learnalign'"):
        find_method("learnaling")
    with pytest.raises(RecipeError, match="There are: learnalign, random, random-length-matched, full"):
        find_method("???")


def test_shipped_methods_say_where_they_are_from() -> None:
    for name in METHODS:
        method = find_method(name)
        assert method.name == name
        assert re.search(r"arXiv \d{4}\.\d{5}|Open-R1", method.source)
    assert [name for name in METHODS if find_method(name).costly] == ["limr"]


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch):
    """Installs one entry point that loads what it is given."""

    def install(value: object, name: str = "mine") -> None:
        class Entry(EntryPoint):
            def load(self) -> object:
                if isinstance(value, Exception):
                    raise value
                return value

        monkeypatch.setattr(registry, "entry_points", lambda group: [Entry(name, "package:thing", group)])

    return install


def test_a_method_of_ones_own_comes_with_an_entry_point(entry: Any, pool: SelectionPool) -> None:
    method = own(np.array([2, 1]))
    entry(method)
    assert find_method("mine") is method
    assert selection_methods() == [*METHODS, "mine"]


def test_a_bare_function_is_a_method(entry: Any, pool: SelectionPool) -> None:
    def first(pool: SelectionPool, n: int) -> list[int]:
        """The first n.

        Not a good idea.
        """
        return list(range(n))

    entry(first)
    method = find_method("mine")
    assert method.needs == {"rollouts", "gradients", "scores"}
    assert method.source == "The first n."
    selection, _ = select_prompts(method, pool, 3)
    assert selection.prompt_ids == ("a", "b", "c")
    assert selection.explanation == "3 chosen by mine; 1 of them has learnability 0 and teaches nothing"
    assert selection.scores is None


@pytest.mark.parametrize("wrong", [None, [0.5, 1.0], [True, False], "ab", [[0, 1]], []])
def test_what_a_bare_function_may_not_return(pool: SelectionPool, wrong: object) -> None:
    with pytest.raises(RecipeError, match="the selection method mine gave an order"):
        select_prompts(method_of(lambda pool, n: wrong, "mine"), pool, 2)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("value", "message"),
    [("text", "gives str"), (own(np.arange(2)), "gives the method 'mine'"), (TypeError("sizes"), "TypeError: sizes")],
)
def test_a_wrong_entry_point_is_named_where_it_is_asked_for(entry: Any, value: object, message: str) -> None:
    entry(value, "theirs")
    assert find_method("learnalign")
    with pytest.raises(RecipeError, match=f"the entry point 'theirs' of lean_align.selection_methods .*{message}"):
        find_method("theirs")


def test_a_shipped_name_is_not_taken_by_a_package(entry: Any) -> None:
    entry(own(np.arange(2)), "random")
    assert find_method("random").source.startswith("baseline")
    assert selection_methods().count("random") == 1


def test_the_page_lists_every_method_with_its_needs_and_source() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| ([^|]*) \|.*\| ([^|]*) \|$", PAGE.read_text(), re.MULTILINE)
    assert [name for name, _, _ in rows] == METHODS
    for name, needs, source in rows:
        assert set(re.findall(r"`([a-z_]+)`", needs)) == find_method(name).needs, name
        assert set(re.findall(r"\d{4}\.\d{5}", find_method(name).source)) <= set(re.findall(r"\d{4}\.\d{5}", source))


def test_the_python_of_the_page_runs(pool: SelectionPool) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "selection.md", "exec"), {"pool": pool, "n": 2})


@pytest.mark.parametrize("name", METHODS)
def test_shipped_methods_do_not_peek(pool: SelectionPool, name: str) -> None:
    """Their stores lie in the closed folder, and were opened before."""
    assert pool.gradients is not None
    with no_peeking(pool.gradients.folder.parent):
        selection, _ = select_prompts(find_method(name), pool, 2)
    assert selection == select_prompts(find_method(name), pool, 2)[0]


def test_errors_have_one_base() -> None:
    with pytest.raises(LeanAlignError):
        find_method("nothing")
