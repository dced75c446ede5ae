"""Exact and near matches of training prompts with benchmarks, on made-up problems and on the real files."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lean_align.contamination import BenchmarkOverlap, Contamination, ContaminationPair, find_contamination
from lean_align.contamination.judging import LEAST_SIMILARITY, RUN, near_similarity
from lean_align.contamination.normalising import exact_key, tokens
from lean_align.data import load_rows, read_row
from lean_align.recipe import DataRecipe
from lean_align.types import Prompt

WORDS = [
    f"{a}{b}{c}" for a in ("bra", "cle", "dro", "fli", "gru") for b in "klmnprst" for c in ("a", "el", "im", "o", "us")
]
MARBLES = (
    r"A box holds red and blue marbles in the ratio $3:5$. After Tom takes out $14$ red marbles, the ratio is $1:4$. "
    "How many blue marbles are in the box?"
)
REWRITTEN = MARBLES.replace("How many", "Find how many") + r" The answer is in the form $\frac{m}{n}$; give $m + n$."
LEGS = "Kim rides 6 km an hour for 3 hours. {}How many km does Kim travel in all these hours of the day?"
FILES = {
    "amc2023": "amc23/aimo-validation-amc.jsonl",
    "math500": "math500/test.jsonl",
    "aime2024": "aime24/test.jsonl",
    "gsm8k": "gsm8k/test.jsonl",
}


def prompts(texts: Sequence[str], prefix: str = "train") -> list[Prompt]:
    return [Prompt(f"{prefix}-{i:06d}", text, "1") for i, text in enumerate(texts)]


def check(train: Sequence[str], problems: Sequence[str]) -> list[tuple[str, str, str]]:
    found = find_contamination(prompts(train), {"b": prompts(problems, "test")})
    return [(pair.prompt_id, pair.problem_id, pair.kind) for pair in found.pairs]


def random_text(rng: random.Random, n_words: int) -> str:
    words = [str(rng.randint(2, 999)) if rng.random() < 0.1 else rng.choice(WORDS) for _ in range(n_words)]
    return " ".join(words).capitalize() + "?"


def rest(rng: random.Random, n_words: int) -> str:
    """Words without numbers."""
    return " ".join(rng.choices(WORDS, k=n_words))


# Exact: each rule of the normalisation has a pair that it makes equal


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\uff26ind x\uff0e", "find x."),
        ("Find $x - 1$", "Find $x \u2212 1$"),
        ("12. Let $x = 1$", "Let $x = 1$"),
        ("Example 3: Let x be", "let x be"),
        (r"Let $\left( x,\, y \right)$ be", "Let (x, y) be"),
        (r"the $n^{\text{th}}$ of $A^{}_{}$", "the $n^{th}$ of $A$"),
        (r"\[\dfrac12 + \tfrac{1}{3}\]", r"$$\frac{1}{2}+\frac{1}{3}$$"),
        ("1,000 and 1{,}000", "1000 and 1000"),
        ("a 6-sided die", "a $6$ sided die"),
        (r"$z^{5}=\overline{z}$  where\n", r"$z^5 = \overline{z}$, where n"),
    ],
)
def test_typesetting_does_not_count(one: str, other: str) -> None:
    assert exact_key(one) == exact_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("z^4 + z^2 + 1", "z^4 - z^2 + 1"),
        ("x = 1.5", "x = 15"),
        ("the digits 1 2 and 3", "the digits 12 and 3"),
        ("n! / 2", "n / 2"),
        ("x ≤ 3", "x ≥ 3"),
        ("2.5 litres", "5 litres"),
        ("x < y", "x > y"),
        ("a area [asy] draw((0,0)--(3,4)); [/asy]", "a area [asy] draw((0,0)--(3,5)); [/asy]"),
        ("∫", "∑"),
        ("???", "!?"),
    ],
)
def test_meaning_counts(one: str, other: str) -> None:
    assert exact_key(one) != exact_key(other)


def test_a_picture_counts_for_exact_matches_alone() -> None:
    drawn = MARBLES + " [asy] draw((0,0)--(3,4)); [/asy]"
    assert check([drawn], [MARBLES]) == [("train-000000", "test-000000", "near")]


def test_chinese_characters_are_words_of_their_own() -> None:
    assert tokens("设 $x=1$\uff0c求 $x$。") == ["设", "x", "=", "1", "求", "x"]


# Near


def test_a_sentence_added_is_a_near_match() -> None:
    assert check([REWRITTEN], [MARBLES]) == [("train-000000", "test-000000", "near")]


def test_the_similarity_is_the_share_of_the_problem_that_is_found_again() -> None:
    """20 tokens; the prompt changes the 16th, so 15 + 4 of 20 are in passages of three or more."""
    problem = [f"w{chr(97 + i)}" for i in range(20)]
    assert near_similarity(problem, [*problem[:15], "other", *problem[16:]]) == 19 / 20
    assert near_similarity(problem, [*problem[:15], "other", *problem[16:18], "x", "y"]) == 15 / 20, "two are chance"
    assert near_similarity(problem, [*problem[:9], *["x"] * 9]) is None, "9 / 20 is less than the half"


@pytest.mark.parametrize(
    "changed",
    [
        MARBLES.replace("14", "15"),
        MARBLES.replace("$1:4$", "$1:3$"),
        MARBLES.replace("14", "fourteen or 15"),
        MARBLES.replace("After Tom", "There are 7 green ones. After Tom"),
        REWRITTEN.replace("14", "16"),
    ],
)
def test_other_numbers_make_another_problem(changed: str) -> None:
    assert check([changed], [MARBLES]) == []


def test_a_number_that_hangs_on_at_the_end_does_not() -> None:
    assert len(check([MARBLES + " Give the answer modulo 1000."], [MARBLES])) == 1
    assert len(check([MARBLES], [MARBLES + " Give the answer modulo 1000."])) == 1
    assert check([MARBLES + " Give it modulo 1001."], [MARBLES + " Give it modulo 1000."]) == [], (
        "but exchanged it does"
    )


def test_a_step_more_or_less_makes_another_problem() -> None:
    one, two = LEGS.format(""), LEGS.format("Then Kim rides 5 km an hour for 2 hours. ")
    assert check([one], [two]) == check([two], [one]) == []
    assert check(["Then Kim walks 4 km. " + one], [one]) == []


def test_other_number_words_and_signs_make_another_problem() -> None:
    text = (
        "The three sides of a triangle are such that {} of them add up to the {} of all, and {} holds. Find its area."
    )
    assert check([text.format("two", "half", "a + b = c")], [text.format("three", "half", "a + b = c")]) == []
    assert check([text.format("two", "half", "a + b = c")], [text.format("two", "half", "a - b = c")]) == []
    assert len(check([text.format("two", "half", "a + b = c")], [text.format("two", "half", "a + b = d")])) == 1


def test_a_run_of_thirteen_is_needed() -> None:
    """Of 2 x RUN - 1 words the middle one changed leaves two runs of 12; another one leaves a run of 13 or more."""
    words = random.Random(1).sample(WORDS, 2 * RUN - 1)
    middle, other = list(words), list(words)
    middle[RUN - 1] = other[RUN] = "changed"
    assert check([" ".join(middle)], [" ".join(words)]) == []
    assert len(check([" ".join(other)], [" ".join(words)])) == 1


def test_a_short_problem_has_to_be_there_whole() -> None:
    text = "How many letters of the word {} are vowels?"
    assert check([text.format("cattle")], [text.format("oxen")]) == []
    assert len(check(["Consider. " + text.format("oxen") + " Give an integer."], [text.format("oxen")])) == 1


def test_what_all_problems_share_is_no_match() -> None:
    """An instruction of 30 words before each: 6 problems and 6 prompts, and no pair of them."""
    rng = random.Random(2)
    instruction = random_text(rng, 30)
    texts = [f"{instruction} {random_text(rng, 20)}" for _ in range(12)]
    assert check(texts[:6], texts[6:]) == []
    assert len(check([texts[6] + " Give an integer."], texts[6:])) == 1


def test_a_problem_that_a_benchmark_holds_twice_is_found_twice() -> None:
    assert [problem for _, problem, _ in check([REWRITTEN], [MARBLES, MARBLES.upper()])] == [
        "test-000000",
        "test-000001",
    ]


# What comes back


def test_pairs_and_counts_by_hand() -> None:
    """Prompt 0 copies problem 0 of both, prompt 1 rewrites it, prompt 2 is new; problem 1 is rewritten by prompt 3."""
    rng = random.Random(3)
    other, new = random_text(rng, 40), random_text(rng, 40)
    train = prompts([MARBLES, REWRITTEN, new, other + " Give an integer."])
    found = find_contamination(train, {"two": prompts([MARBLES, other], "t"), "one": prompts([MARBLES], "o")})
    assert [(p.prompt_id, p.benchmark, p.problem_id, p.kind) for p in found.pairs] == [
        ("train-000000", "one", "o-000000", "exact"),
        ("train-000000", "two", "t-000000", "exact"),
        ("train-000001", "one", "o-000000", "near"),
        ("train-000001", "two", "t-000000", "near"),
        ("train-000003", "two", "t-000001", "near"),
    ]
    assert [p.similarity for p in found.pairs if p.kind == "exact"] == [1.0, 1.0]
    assert found.overlaps == (BenchmarkOverlap("one", 1, 1, 0, 2), BenchmarkOverlap("two", 2, 1, 1, 3))
    assert found.n_prompts == 4


def test_as_json_is_plain() -> None:
    pair = ContaminationPair("train-000000", "b", "test-000000", "exact", 1.0)
    found = find_contamination(prompts([MARBLES]), {"b": prompts([MARBLES], "test"), "empty": []})
    assert found.pairs == (pair,)
    counts = {"n_exact": 1, "n_near": 0, "n_prompts": 1, "n_problems": 1}
    assert json.loads(json.dumps(found.as_json())) == {
        "n_prompts": 1,
        "benchmarks": {"b": counts, "empty": dict.fromkeys(counts, 0)},
        "pairs": [pair.__dict__],
    }
    assert found.as_rows() == [pair.__dict__]


@pytest.mark.parametrize("benchmarks", [{}, {"b": []}])
def test_without_problems_there_is_nothing_to_find(benchmarks: dict[str, list[Prompt]]) -> None:
    found = find_contamination(prompts([MARBLES]), benchmarks)
    assert (found.pairs, found.n_prompts, len(found.overlaps)) == ((), 1, len(benchmarks))


def test_training_prompts_are_read_once_and_none_is_held() -> None:
    """Each is dead by the time the next but one is asked for."""
    import weakref

    class Watched(str):
        __slots__ = ("__weakref__",)

    alive: weakref.WeakSet[Watched] = weakref.WeakSet()

    def stream() -> Iterator[Prompt]:
        for i in range(50):
            text = Watched(f"{MARBLES} {i}")
            alive.add(text)
            assert len(alive) <= 2
            yield Prompt(str(i), text, "1")

    assert find_contamination(stream(), {"b": prompts([MARBLES])}).n_prompts == 50


def test_datasketch_is_loaded_when_it_is_used_and_not_before() -> None:
    script = """
import sys, lean_align.data, lean_align.recipe, lean_align.contamination as c
from lean_align.types import Prompt
c.find_contamination([Prompt("a", "x", "1")], {})
assert not {"datasketch", "scipy", "torch"} & set(sys.modules), "early"
c.find_contamination([], {"b": [Prompt("a", "x", "1")]})
assert "datasketch" in sys.modules and "torch" not in sys.modules, "late"
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parent.parent)


def test_the_result_is_that_of_any_process() -> None:
    """String hashes differ from process to process.  At J near 0.005 half of the pairs become candidates: which?"""
    script = """
import random
from tests.test_contamination import check, random_text, rest
rng = random.Random(5)
problems = [random_text(rng, 20) for _ in range(40)]
print(check([f"{rest(rng, 4000)} {problem}" for problem in problems], problems))
"""
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", script]
    runs = [
        subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=root, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert 5 < runs[0].count("near") < 35


# Properties

SEEDS = st.integers(0, 2**32)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_an_exact_copy_is_always_found(seed: int) -> None:
    rng = random.Random(seed)
    problems = [random_text(rng, rng.randint(1, 60)) for _ in range(8)]
    chosen = rng.randrange(8)
    copy = f"  {problems[chosen].upper()}\n".replace(" ", "  ")
    found = check([random_text(rng, 40), copy], problems)
    assert ("train-000001", f"test-{chosen:06d}", "exact") in found


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=4))
def test_no_text_makes_it_raise_and_each_finds_itself(texts: list[str]) -> None:
    found = check(texts, texts)
    assert {(f"train-{i:06d}", f"test-{i:06d}", "exact") for i in range(len(texts))} <= set(found)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_independent_texts_are_never_found(seed: int) -> None:
    rng = random.Random(seed)
    assert check(*([random_text(rng, rng.randint(8, 80)) for _ in range(12)] for _ in range(2))) == []


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_the_order_does_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    problems = [random_text(rng, 30) for _ in range(6)]
    train = prompts([problems[0], problems[1] + " Give an integer.", problems[2], random_text(rng, 30)])
    sets = {"x": prompts(problems, "x"), "y": prompts(problems[1:3], "y")}
    shuffled = {name: rng.sample(held, len(held)) for name, held in reversed(sets.items())}
    found = find_contamination(train, sets)
    assert len(found.pairs) == 5
    assert find_contamination(rng.sample(train, len(train)), shuffled) == found


def planted(seed: int) -> tuple[str, str]:
    """A problem of 30 to 90 words, and the same with a word changed and a sentence added before or after."""
    rng = random.Random(seed)
    text = random_text(rng, rng.randint(30, 90))
    words = text.split()
    place = rng.choice([i for i, word in enumerate(words) if word.isalpha()])
    words[place] = "changed"
    parts = [" ".join(words), rest(rng, 12)]
    return text, " ".join(parts if rng.random() < 0.5 else parts[::-1])


def test_planted_near_copies_are_found_at_the_stated_rate() -> None:
    """95 of 100 at least, and no other pair."""
    problems, copies = zip(*(planted(seed) for seed in range(200)))
    found = check(copies, problems)
    assert all(prompt[-6:] == problem[-6:] and kind == "near" for prompt, problem, kind in found)
    assert len(found) >= 190


def test_the_index_loses_nothing_that_comparing_all_pairs_finds() -> None:
    """LSH against the plain way, where long texts hide short problems (J from 0.05 to 0.2)."""
    rng = random.Random(4)
    problems = [random_text(rng, rng.randint(RUN, 40)) for _ in range(60)]
    train = [f"{rest(rng, 100)} {problem} {rest(rng, 60)}" for problem in problems]
    plain = {
        (f"train-{i:06d}", f"test-{j:06d}")
        for i, text in enumerate(train)
        for j, problem in enumerate(problems)
        if near_similarity(tokens(problem), tokens(text)) is not None
    }
    assert len(plain) == len(problems)
    found = {(prompt, problem) for prompt, problem, _ in check(train, problems)}
    assert found <= plain
    assert len(found) >= 0.98 * len(plain)


# The demo and the real files


def texts_of(path: Path) -> list[str]:
    return [read_row(row, path.name)[0] for row in load_rows(DataRecipe(train_path=str(path)), "train")]


def overlap(found: Contamination, name: str) -> tuple[int, int, int]:
    [one] = [overlap for overlap in found.overlaps if overlap.benchmark == name]
    return one.n_exact, one.n_near, one.n_prompts


def test_the_demo_has_no_prompt_in_common_with_its_held_out_set() -> None:
    """320 and 500 problems of the same templates: only their numbers and names differ."""
    data = DataRecipe()
    train, test = ([row["prompt"] for row in load_rows(data, split)] for split in ("train", "test"))
    assert (len(train), len(test)) == (320, 500)
    assert check(train, test) == []
    planted = check([*train, test[7]], test)
    assert planted == [("train-000320", "test-000007", "exact")]


def test_gsm8k_has_no_training_problem_in_its_test_set(shared_data: Path) -> None:
    train, test = (texts_of(shared_data / "gsm8k" / f"{split}.jsonl") for split in ("train", "test"))
    assert check(train, test) == []


@pytest.fixture(scope="module")
def dapo(shared_data: Path) -> Contamination:
    benchmarks = {name: prompts(texts_of(shared_data / file), "test") for name, file in FILES.items()}
    return find_contamination(prompts(texts_of(shared_data / "dapo_math_17k" / "dapo_math_17k.jsonl.gz")), benchmarks)


def test_exact_matches_of_dapo_with_its_benchmarks(dapo: Contamination) -> None:
    """14 problems of AMC 2023 and 7 of MATH-500 (26 rows)."""
    assert {name: overlap(dapo, name)[0] for name in FILES} == {"amc2023": 14, "math500": 7, "aime2024": 0, "gsm8k": 0}
    assert Counter(pair.benchmark for pair in dapo.pairs if pair.kind == "exact") == {"amc2023": 18, "math500": 8}


def test_near_matches_of_dapo_with_its_benchmarks(dapo: Contamination) -> None:
    """89 pairs, of which 82 were judged true by eye (docs/contamination.md)."""
    assert {name: overlap(dapo, name)[1:] for name in FILES} == {
        "amc2023": (39, 79),
        "math500": (19, 36),
        "aime2024": (0, 0),
        "gsm8k": (0, 0),
    }
    near = [pair for pair in dapo.pairs if pair.kind == "near"]
    assert len(near) == 89
    assert all(LEAST_SIMILARITY <= pair.similarity <= 1 for pair in near)


def test_a_problem_with_another_sign_is_no_match(dapo: Contamination) -> None:
    """Row 9454 asks about z^4 - z^2 + 1, problem 46 about z^4 + z^2 + 1: letters and digits alone would be equal."""
    assert ("train-009454", "test-000046") not in {(pair.prompt_id, pair.problem_id) for pair in dapo.pairs}
