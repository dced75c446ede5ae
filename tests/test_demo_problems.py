"""Generated problems: the equations are right, and the text says what the equations do."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest

from lean_align.data import TEST_SEED, TRAIN_SEED
from lean_align.demo.problems import FAMILIES, GRADES, Problem, make_problem, problem_stream
from lean_align.verify import verify

EVEN = dict.fromkeys(GRADES, 1.0)
PROBLEMS = [make_problem(7, item, family, grade) for family in FAMILIES for grade in GRADES for item in range(40)]
EQUATION = re.compile(r"([0-9]+)([-+*/])([0-9]+)=([0-9]+)")


def calculate(step: str) -> tuple[int, int, int]:
    """Operands and result of one equation, which must be exact."""
    match = EQUATION.fullmatch(step)
    assert match is not None, step
    left, right, result = int(match[1]), int(match[3]), int(match[4])
    if match[2] == "/":
        assert right * result == left, step
    elif match[2] == "-":
        assert right + result == left, step
    elif match[2] == "*":
        assert sum(itertools.repeat(left, right)) == result, step
    else:
        assert result - left == right, step
    return left, right, result


def solve(problem: Problem) -> int:
    """The answer, from the sentences alone."""
    value = 0
    for sentence in problem.question.split(". ")[:-1]:
        first, *more = [int(digits) for digits in re.findall(r"[0-9]+", sentence)]
        if "km an hour for" in sentence:
            value += first * more[0]
        elif "boxes of" in sentence:
            value = first * more[0]
        elif "people in all, share" in sentence:
            value = more[0] // first
        elif "times as many" in sentence:
            value *= first
        elif re.search(r"\b(walks|finds|buys|gets|more than)\b", sentence):
            value += first
        elif re.search(r"\b(loses|sells|eats|fewer than)\b", sentence):
            value -= first
        else:
            assert re.fullmatch(r"\w+ has [0-9]+ \w+", sentence), sentence
            value = first
    return value


def test_a_problem_is_pinned() -> None:
    """36 / 4 = 9; 9 - 3 = 6; 6 - 2 = 4.  The embedded model was trained on this text."""
    problem = make_problem(0, 0, "share", 3)
    assert problem.question == (
        "Jon and others, 4 people in all, share 36 shells equally. Jon sells 3. Jon eats 2. "
        "How many shells does Jon have?"
    )
    assert problem.worked == "36/4=9\n9-3=6\n6-2=4\n#### 4"
    assert problem.direct == "#### 4"


def test_a_problem_is_a_function_of_seed_and_item() -> None:
    later = [make_problem(3, item) for item in (5, 1)]
    assert later == [make_problem(3, 5), make_problem(3, 1)]
    assert make_problem(3, 5) != make_problem(4, 5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_equation_is_right(family: str) -> None:
    for problem in PROBLEMS:
        if problem.family == family:
            assert [calculate(step)[2] for step in problem.steps][-1] == problem.answer


def test_each_step_goes_on_with_what_was_found() -> None:
    """A left operand is the result before it; a trip's products stand by themselves."""
    for problem in PROBLEMS:
        steps = [calculate(step) for step in problem.steps]
        for before, after in itertools.pairwise(steps):
            assert problem.family == "trip" or after[0] == before[2], problem


def test_the_number_of_steps_is_the_grade() -> None:
    assert all(len(problem.steps) == problem.grade for problem in PROBLEMS)


def test_every_value_is_a_positive_whole_number() -> None:
    """`calculate` reads digits only; what is left to ask is that none of them spell 0."""
    assert min(value for problem in PROBLEMS for step in problem.steps for value in calculate(step)) >= 1


def test_easy_grades_stay_below_a_thousand() -> None:
    values = [v for problem in PROBLEMS if problem.grade <= 5 for step in problem.steps for v in calculate(step)]
    assert max(values) <= 999


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_says_what_the_equations_do(family: str) -> None:
    for problem in PROBLEMS:
        if problem.family == family:
            assert solve(problem) == problem.answer, problem.question


def test_the_check_of_equations_finds_a_wrong_one() -> None:
    for wrong in ("12+7=18", "19-5=15", "3*4=11", "7/2=3", "1+1=2 ", "2**3=8"):
        with pytest.raises(AssertionError):
            calculate(wrong)


def test_both_solutions_pass_the_verifier_and_another_number_does_not() -> None:
    for problem in PROBLEMS[::17]:
        gold = str(problem.answer)
        assert verify(gold, problem.worked) == verify(gold, problem.direct) == 1.0
        assert verify(str(problem.answer + 1), problem.worked) == 0.0


def test_splits_have_no_question_in_common() -> None:
    test = list(problem_stream(TEST_SEED, 300, EVEN))
    questions = [problem.question for problem in test]
    train = list(problem_stream(TRAIN_SEED, 300, EVEN, frozenset(questions)))
    assert len({*questions, *(problem.question for problem in train)}) == 600


def test_a_stream_leaves_out_what_it_is_told_to() -> None:
    first = [problem.question for problem in problem_stream(1, 5, EVEN)]
    rest = [problem.question for problem in problem_stream(1, 4, EVEN, frozenset(first[:1]))]
    assert rest == first[1:]


def test_a_longer_stream_begins_with_the_shorter() -> None:
    assert list(problem_stream(1, 30, EVEN))[:10] == list(problem_stream(1, 10, EVEN))


def test_all_families_and_grades_occur() -> None:
    """600 problems: each kind within five standard deviations of its even share."""
    problems = list(problem_stream(TRAIN_SEED, 600, EVEN))
    for kinds, found in ((FAMILIES, [p.family for p in problems]), (GRADES, [p.grade for p in problems])):
        share, counts = 1 / len(kinds), Counter(found)
        assert set(counts) == set(kinds)
        assert all(abs(count - 600 * share) <= 5 * (600 * share * (1 - share)) ** 0.5 for count in counts.values())


def test_grades_follow_their_weights() -> None:
    grades = Counter(p.grade for p in problem_stream(1, 400, {1: 0, 2: 3, 3: 1, 4: 0}))
    assert set(grades) == {2, 3}
    assert 240 <= grades[2] <= 360


def test_a_family_and_a_grade_can_be_asked_for() -> None:
    problem = make_problem(1, 0, family="trip", grade=2)
    assert (problem.family, problem.grade) == ("trip", 2)
