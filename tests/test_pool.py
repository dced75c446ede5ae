"""The test bed's pool: its make-up to the prompt, golds, copies, and nothing of the evaluation in it."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from lean_align.contamination import find_contamination
from lean_align.data import PromptRules, load_rows, prepare_prompts, read_row
from lean_align.data.raw_rows import testbed_pool as pool_of
from lean_align.demo.pool import KINDS, PoolPrompt, is_held_out, make_held_out, make_pool, signature
from lean_align.demo.pool.signatures import renamed
from lean_align.demo.problems import FAMILIES, GRADES, NAMES, THINGS, make_problem, problem_stream
from lean_align.errors import DataError, RecipeError
from lean_align.recipe import DataRecipe, PoolRecipe, load_recipe
from lean_align.types import Prompt
from lean_align.verify import parse_gold

MAKE_UP = PoolRecipe()
POOL = pool_of(MAKE_UP)
TESTBED = DataRecipe(train_path="testbed", test_path="testbed")
HELD_OUT = make_held_out(500, MAKE_UP.target_families, MAKE_UP.target_grades)
SMALL = PoolRecipe(target=12, too_easy=6, too_hard=6, long_winded=4, unlike=6, near_duplicates=16)


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def solve(question: str) -> int:
    """The answer, read from the question: people are counted where they are asked for, else the story is retold."""
    if "How many people" in question:
        return people_in(question)
    value = 0
    for sentence in question.split(". ")[:-1]:
        numbers = [int(digits) for digits in re.findall(r"[0-9]+", sentence)]
        if not numbers:
            continue  # an aside
        first, *more = numbers
        if "km an hour for" in sentence:
            value += first * more[0]
        elif "boxes of" in sentence:
            value = first * more[0]
        elif "people in all, share" in sentence:
            value = more[0] // first
        elif re.search(r"\b(walks|finds|buys|gets)\b", sentence):
            value += first
        elif re.search(r"\b(loses|sells|eats)\b", sentence):
            value -= first
        else:
            assert re.fullmatch(r"\w+ has [0-9]+ \w+", sentence), sentence
            value = first
    return value


def people_in(question: str) -> int:
    """Names in the sentences that say what the question asks: who shares, or who has the things."""
    *told, asked = question.split(". ")
    wanted = asked.removeprefix("How many people ").removesuffix("?").removeprefix("have ")
    return sum(len(re.findall("|".join(NAMES), sentence)) for sentence in told if wanted in sentence)


def shape(question: str) -> list[str]:
    """The text without names and things: what is left of a problem whose copies differ in these only."""
    return [word for word in re.findall(r"\w+", question) if word not in {*NAMES, *THINGS}]


def prompts(questions: list[str], name: str) -> list[Prompt]:
    return [Prompt(f"{name}-{i:06d}", question, "1") for i, question in enumerate(questions)]


def near(train: list[str], test: list[str]) -> int:
    """Pairs of the two sets that match, exactly or nearly."""
    return len(find_contamination(prompts(train, "train"), {"held-out": prompts(test, "test")}).pairs)


# The make-up


def test_the_default_pool_has_a_thousand_prompts() -> None:
    """120 + 250 + 330 + 100 + 120 + 80."""
    assert Counter(prompt.kind for prompt in POOL) == {kind: getattr(MAKE_UP, kind) for kind in KINDS}
    assert len(POOL) == 1000


def test_the_recipe_writes_the_default_make_up_out() -> None:
    assert load_recipe("testbed").pool == MAKE_UP


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_exactly_as_many_as_asked_for(kind: str) -> None:
    change: dict[str, Any] = {kind: 24}
    asked = replace(SMALL, **change)
    assert Counter(prompt.kind for prompt in pool_of(asked)) == {name: getattr(asked, name) for name in KINDS}


def test_a_kind_can_be_left_out() -> None:
    """Of these kinds alone, so none of the others."""
    asked = PoolRecipe(target=5, too_easy=0, too_hard=0, long_winded=0, unlike=0, near_duplicates=0)
    assert [prompt.kind for prompt in pool_of(asked)] == ["target"] * 5


def test_no_question_occurs_twice() -> None:
    assert len({" ".join(prompt.question.split()).lower() for prompt in POOL}) == 1000


def test_more_prompts_of_a_kind_keep_the_others() -> None:
    """Each kind has a stream of its own; only which golds are wrong may change with the size of the pool."""
    more = {prompt.question for prompt in pool_of(replace(SMALL, too_hard=40))}
    assert {prompt.question for prompt in pool_of(SMALL)} < more


def test_the_order_tells_nothing() -> None:
    """Of 1,000 places the mean is 499.5; that of 80 and more drawn ones is off by 33 = 289 / sqrt(80) a deviation."""
    for kind in KINDS:
        places = [place for place, prompt in enumerate(POOL) if prompt.kind == kind]
        assert abs(sum(places) / len(places) - 499.5) < 4 * 289 / len(places) ** 0.5
        assert places != list(range(places[0], places[0] + len(places)))


def test_the_target_follows_its_families_and_grades() -> None:
    """Grade 4 of a trip: two rides and a walk."""
    asked = replace(SMALL, target_families=("trip",), target_grades=(4,))
    found = [p.question for p in pool_of(asked) if p.kind == "target"]
    found += [question for question, _ in make_held_out(20, ("trip",), (4,))]
    assert all(text.count("rides") == 2 and text.count("walks") == 1 for text in found)
    other = {p.question for p in pool_of(replace(SMALL, target_families=("purse",))) if p.kind == "target"}
    assert not other & {p.question for p in pool_of(SMALL)}


def test_pool_and_evaluation_ask_the_same_mixture() -> None:
    """Three families, a third each: of 120 within 26 of 40 (five deviations of 5.2), of 500 within 53 of 167."""
    pool = [prompt.question for prompt in POOL if prompt.kind == "target"]
    for questions, within in ((pool, 26), ([question for question, _ in HELD_OUT], 53)):
        for word in ("boxes", "share", "rides"):
            assert abs(sum(word in question for question in questions) - len(questions) / 3) < within


# Golds


def test_every_right_answer_is_right() -> None:
    for prompt in POOL:
        assert solve(prompt.question) == prompt.right_answer, prompt
    for question, answer in HELD_OUT:
        assert solve(question) == answer, question


def test_the_check_of_answers_finds_a_wrong_one() -> None:
    """By hand: 5 x 4 = 20; 16 + 7 - 9 = 14; three share; two of three have pens."""
    by_hand = {
        "Kim has 5 boxes of 4 apples. How many apples does Kim have?": 20,
        "Jon has 16 coins. Jon gets 7 more. A bird sings. Jon loses 9. It is cold. How many coins does Jon have?": 14,
        "Ann, Ben and Cal share nuts and pens. How many people share?": 3,
        "Ann and Ben have pens. Cal has nuts. How many people have pens?": 2,
    }
    assert {question: solve(question) for question in by_hand} == by_hand


def test_exactly_the_share_of_golds_is_wrong() -> None:
    """3 % of 1,000 are 30, and none of them is right by chance."""
    wrong = [prompt for prompt in POOL if solve(prompt.question) != prompt.answer]
    assert len(wrong) == sum(prompt.wrong for prompt in POOL) == 30
    assert all(1 <= abs(prompt.answer - prompt.right_answer) <= 3 and prompt.answer >= 1 for prompt in wrong)


@pytest.mark.parametrize(("share", "n_wrong"), [(0.0, 0), (0.1, 5), (0.11, 6), (1.0, 50)])
def test_other_shares_of_wrong_golds(share: float, n_wrong: int) -> None:
    """Of 50 prompts; 5.5 is rounded to the even 6."""
    assert sum(prompt.wrong for prompt in pool_of(replace(SMALL, wrong_share=share))) == n_wrong


def test_wrong_golds_do_not_look_at_the_kind() -> None:
    """Of 500 the expected number a kind is half its size; five deviations, sqrt(n) / 2 each at most, are allowed."""
    wrong = Counter(prompt.kind for prompt in pool_of(replace(MAKE_UP, wrong_share=0.5)) if prompt.wrong)
    for kind in KINDS:
        size = getattr(MAKE_UP, kind)
        assert abs(wrong[kind] - size / 2) < 2.5 * size**0.5


def test_the_evaluation_has_no_wrong_gold_whatever_the_share() -> None:
    rows = load_rows(TESTBED, "test", PoolRecipe(wrong_share=1.0))
    assert all(solve(row["prompt"]) == int(row["answer"]) for row in rows)


# Copies


def test_near_duplicates_come_in_groups_of_the_size_asked_for() -> None:
    """80 of 8 each: 10 problems, 5 of them of the target."""
    groups = Counter(signature(prompt.question) for prompt in POOL if prompt.kind == "near_duplicates")
    assert sorted(groups.values()) == [8] * 10
    assert sum("people share" in text for text in groups) == 5
    three = [p for p in pool_of(replace(SMALL, near_duplicates=9, duplicates_of_each=3)) if p.kind == "near_duplicates"]
    assert sorted(Counter(signature(prompt.question) for prompt in three).values()) == [3] * 3


def test_near_duplicates_differ_in_names_and_things_only() -> None:
    groups: dict[str, list[PoolPrompt]] = {}
    for prompt in POOL:
        if prompt.kind == "near_duplicates":
            groups.setdefault(signature(prompt.question), []).append(prompt)
    for group in groups.values():
        assert len({tuple(shape(prompt.question)) for prompt in group}) == 1
        assert len({prompt.right_answer for prompt in group}) == 1
        assert len({prompt.question for prompt in group}) == 8


def test_target_prompts_are_no_copies_of_one_another_or_of_the_near_duplicates() -> None:
    target = [signature(prompt.question) for prompt in POOL if prompt.kind == "target"]
    copies = {signature(prompt.question) for prompt in POOL if prompt.kind == "near_duplicates"}
    assert len(set(target)) == 120
    assert not copies & set(target)


def test_renaming_keeps_numbers_and_tells_people_apart() -> None:
    question = "Ann has 5 pens. Ben has 3 more than Ann. Cal has 2 coins. How many pens does Ben have?"
    copy = renamed(question, random.Random(0))
    assert copy != question
    assert signature(copy) == signature(question)
    words, new = re.findall(r"\w+", question), re.findall(r"\w+", copy)
    assert len(set(zip(words, new))) == len(set(words)) == len(set(new))


def test_a_signature_by_hand() -> None:
    question = "Ann has 7 boxes of 2 cards. Ann buys 4 more. Ann eats 1. How many cards does Ann have?"
    assert signature(question) == (
        "WHO has 7 boxes of 2 THINGS. WHO gains 4 more. WHO drops 1. How many THINGS does WHO have?"
    )
    assert signature(question) == signature(
        question.replace("Ann", "Leo").replace("cards", "nuts").replace("buys", "gets")
    )
    assert signature(question) != signature(question.replace("4", "5"))


# No leak into the evaluation


def test_no_evaluation_problem_is_in_the_pool_under_any_name() -> None:
    held = {signature(question) for question, _ in HELD_OUT}
    assert len(held) == 500
    assert not held & {signature(prompt.question) for prompt in POOL}


def test_the_search_for_contamination_finds_nothing() -> None:
    """Planted: an evaluation problem as it is, and the last of four steps with another name in each sentence."""
    pool, test = [prompt.question for prompt in POOL], [question for question, _ in HELD_OUT]
    assert near(pool, test) == 0
    assert near([*pool, test[3]], test) == 1
    longest = max(test, key=len)
    assert near([*pool, "Listen. " + longest], test) == 1


def test_the_sides_do_not_depend_on_the_size_of_the_evaluation() -> None:
    """A longer evaluation begins with the shorter, and the pool stays what it is."""
    families, grades = MAKE_UP.target_families, MAKE_UP.target_grades
    assert make_held_out(500, families, grades)[:60] == make_held_out(60, families, grades)
    few = replace(TESTBED, demo_test=10)
    assert load_rows(few, "train", SMALL) == load_rows(TESTBED, "train", SMALL)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_target_keeps_to_its_side(family: str) -> None:
    """Grade 1 as well, where the easy prompts of the pool are of the same stories."""
    pool = pool_of(replace(SMALL, target_families=(family,), target_grades=GRADES))
    assert all(is_held_out(question) for question, _ in make_held_out(12, (family,), GRADES))
    assert not any(is_held_out(prompt.question) for prompt in pool if "How many people" not in prompt.question)


# The same for everybody


def test_the_default_pool_is_pinned() -> None:
    """Fixed before any method of selection was measured on it: a change of this figure is another test bed."""
    assert digest([[p.kind, p.question, p.answer, p.right_answer] for p in POOL]) == "792bd4ab9ba0f041"
    assert digest(HELD_OUT) == "668c4be251e7dcdd"


def test_the_demo_streams_are_those_that_the_model_was_trained_with() -> None:
    found = [
        make_problem(20250611, item, family, grade).question
        for family in FAMILIES
        for grade in GRADES
        for item in (0, 1)
    ]
    assert digest(found) == "c7c0e39100a0112f"
    stream = problem_stream(1, 50, dict.fromkeys(GRADES, 1.0))
    assert digest([[p.question, p.answer] for p in stream]) == "e7eb0ca6f12524ed"


def test_a_changed_make_up_changes_the_pool() -> None:
    questions = {prompt.question for prompt in POOL}
    changes: tuple[dict[str, Any], ...] = ({"unlike": 121}, {"target_grades": (2, 3)}, {"duplicates_of_each": 10})
    for change in changes:
        assert {prompt.question for prompt in pool_of(replace(MAKE_UP, **change))} != questions
    assert pool_of(replace(MAKE_UP, wrong_share=0.04)) != POOL


# As the source of a run


def test_rows_are_the_pool_in_its_order() -> None:
    rows = load_rows(TESTBED, "train", MAKE_UP)
    assert [(row["prompt"], row["answer"]) for row in rows] == [(p.question, str(p.answer)) for p in POOL]
    assert [read_row(row, "pool") for row in load_rows(TESTBED, "test", MAKE_UP)] == [(q, str(a)) for q, a in HELD_OUT]


def test_every_prompt_survives_the_rules_of_the_data_and_keeps_its_number() -> None:
    rows = load_rows(TESTBED, "train", MAKE_UP)
    found = prepare_prompts(rows, "train", "testbed", parse_gold, lambda prompt: True, PromptRules(contamination="off"))
    assert [(p.prompt_id, p.prompt) for p in found.prompts] == [
        (f"train-{i:06d}", prompt.question) for i, prompt in enumerate(POOL)
    ]


def test_without_a_make_up_there_is_no_pool() -> None:
    for split in ("train", "test"):
        with pytest.raises(DataError, match=rf"data.{split}_path is `testbed`.*section `pool`"):
            load_rows(TESTBED, split)


def test_the_longest_prompt_leaves_room_for_a_completion() -> None:
    """The embedded model reads 512 tokens; one takes at least one character, and words take fewer tokens than that."""
    from lean_align.policy import context_length, load_encoder

    recipe = load_recipe("testbed")
    encoder = load_encoder(recipe.model, recipe.data)
    longest = max(len(encoder.encode(Prompt("x", prompt.question, "1"))) for prompt in POOL)
    assert longest + recipe.rollouts.max_new_tokens <= context_length(recipe.model)


# Errors


def test_a_used_up_kind_says_which_and_what_to_do() -> None:
    """A grade-1 share has 64 pairs of numbers, and a quarter of them or so is the evaluation's."""
    with pytest.raises(
        DataError, match=r"about 1[0-9] different held-out prompts and 60 were asked for.*target_grades"
    ):
        make_held_out(60, ("share",), (1,))
    counts = dict.fromkeys(KINDS, 0) | {"target": 100}
    with pytest.raises(DataError, match=r"different target prompts and 100 were asked for; lower"):
        make_pool(counts, 8, 0.0, ("share",), (1,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict.fromkeys(KINDS, 0), r"every kind.*pool is 0; expected at least one"),
        ({"near_duplicates": 4}, r"near_duplicates is 4 and pool.duplicates_of_each 8; .*such as 0 or 8"),
        ({"near_duplicates": 81}, r"near_duplicates is 81 .*such as 80 or 88"),
        ({"duplicates_of_each": 13}, r"duplicates_of_each is 13; expected at least 2 and at most 12"),
        ({"duplicates_of_each": 1}, r"duplicates_of_each is 1; expected at least 2"),
        ({"wrong_share": 1.5}, r"pool.wrong_share is 1.5; expected at least 0"),
        ({"target": -1}, r"pool.target is -1; expected at least 0"),
        ({"target_families": []}, r"target_families is \[\]; expected one or more of purse, boxes"),
        ({"target_families": ["boxs"]}, r"target_families is \['boxs'\]; expected one or more"),
        ({"target_grades": [2, 2]}, r"target_grades is \[2, 2\]; .* each once"),
        ({"target_grades": [6]}, r"target_grades is \[6\]; expected one or more of 1, 2, 3, 4, 5"),
    ],
)
def test_a_make_up_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("testbed", {f"pool.{key}": value for key, value in changes.items()})


def test_twelve_copies_of_a_trip_are_the_most() -> None:
    """A ride has one name and no thing, so there are 12 different copies."""
    asked = replace(SMALL, near_duplicates=24, duplicates_of_each=12, target_families=("trip",))
    assert sum(prompt.kind == "near_duplicates" for prompt in pool_of(asked)) == 24
