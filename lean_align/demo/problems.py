"""Generated arithmetic word problems with worked solutions.

A problem is a function of (seed, item) alone.  It has a *family* (the story, and with it the
operations it needs) and a *grade* from 1 to 5: the number of arithmetic steps, with larger amounts in
grades 4 and 5.  The worked solution writes one equation per line and ends as GSM8K solutions do::

    12+7=19
    19-5=14
    #### 14

Every intermediate value is a positive integer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

FAMILIES = ("purse", "boxes", "chain", "share", "trip")
GRADES = (1, 2, 3, 4, 5)
LARGEST_AMOUNT = {1: 9, 2: 9, 3: 9, 4: 30, 5: 90}

NAMES = ("Ann", "Ben", "Cal", "Dora", "Eli", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Leo")
THINGS = ("apples", "coins", "cards", "pens", "shells", "beads", "nuts", "stamps")


@dataclass(frozen=True)
class Problem:
    """One generated problem: its text, its steps, and the answer they lead to."""

    item: int
    family: str
    grade: int
    question: str
    steps: tuple[str, ...]
    answer: int

    @property
    def worked(self) -> str:
        """The solution that shows each step."""
        return "\n".join((*self.steps, f"#### {self.answer}"))

    @property
    def direct(self) -> str:
        """The solution that answers at once."""
        return f"#### {self.answer}"


class _Story:
    """Sentences and equations of one problem while it grows step by step."""

    def __init__(self, rng: random.Random, largest_amount: int) -> None:
        self.rng = rng
        self.largest_amount = largest_amount
        self.sentences: list[str] = []
        self.steps: list[str] = []
        self.value = 0

    def tell(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def step(self, left: int, operator: str, right: int) -> int:
        result = {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[operator]
        self.steps.append(f"{left}{operator}{right}={result}")
        return result

    def amount(self, below: int | None = None) -> int:
        """A number from 2 up to the grade's largest, and less than `below`."""
        return self.rng.randint(2, self.largest_amount if below is None else min(self.largest_amount, below - 1))

    def up_or_down(self, up: str, down: str) -> None:
        """One step up or down that keeps the value above 0; the sentences hold {} for the amount."""
        if self.rng.random() < 0.5 and self.value > 3:
            amount = self.amount(below=self.value)
            self.tell(down.format(amount))
            self.value = self.step(self.value, "-", amount)
        else:
            amount = self.amount()
            self.tell(up.format(amount))
            self.value = self.step(self.value, "+", amount)

    def gain_or_lose(self, who: str) -> None:
        """One step in a running count of things."""
        gain, loss = self.rng.choice(("finds", "buys", "gets")), self.rng.choice(("loses", "sells", "eats"))
        self.up_or_down(f"{who} {gain} {{}} more.", f"{who} {loss} {{}}.")


def _purse(story: _Story, grade: int) -> str:
    """A running count: gains and losses."""
    who, thing = story.rng.choice(NAMES), story.rng.choice(THINGS)
    story.value = story.rng.randint(5, 20 + story.largest_amount)
    story.tell(f"{who} has {story.value} {thing}.")
    for _ in range(grade):
        story.gain_or_lose(who)
    return f"How many {thing} does {who} have?"


def _boxes(story: _Story, grade: int) -> str:
    """Groups of equal size, then gains and losses."""
    who, thing = story.rng.choice(NAMES), story.rng.choice(THINGS)
    boxes, each = story.rng.randint(2, 9), story.rng.randint(2, 9)
    story.tell(f"{who} has {boxes} boxes of {each} {thing}.")
    story.value = story.step(boxes, "*", each)
    for _ in range(grade - 1):
        story.gain_or_lose(who)
    return f"How many {thing} does {who} have?"


def _chain(story: _Story, grade: int) -> str:
    """Each person is compared with the one before."""
    thing, people = story.rng.choice(THINGS), story.rng.sample(NAMES, grade + 1)
    story.value = story.rng.randint(3, 12)
    story.tell(f"{people[0]} has {story.value} {thing}.")
    for before, who in pairwise(people):
        if story.value <= 9 and story.rng.random() < 0.4:
            factor = story.rng.randint(2, 5)
            story.tell(f"{who} has {factor} times as many as {before}.")
            story.value = story.step(story.value, "*", factor)
        else:
            story.up_or_down(f"{who} has {{}} more than {before}.", f"{who} has {{}} fewer than {before}.")
    return f"How many {thing} does {people[grade]} have?"


def _share(story: _Story, grade: int) -> str:
    """A total shared equally, then gains and losses of one sharer."""
    who, thing = story.rng.choice(NAMES), story.rng.choice(THINGS)
    people, each = story.rng.randint(2, 9), story.rng.randint(2, 9)
    story.tell(f"{who} and others, {people} people in all, share {people * each} {thing} equally.")
    story.value = story.step(people * each, "/", people)
    for _ in range(grade - 1):
        story.gain_or_lose(who)
    return f"How many {thing} does {who} have?"


def _trip(story: _Story, grade: int) -> str:
    """Legs of a journey, each speed times hours: products that are added up."""
    who = story.rng.choice(NAMES)
    legs = (grade + 2) // 2  # 1 leg: 1 step; 2 legs: 3 steps; 3 legs: 5; even grades end with a stretch in km
    for leg in range(legs):
        opening = who if leg == 0 else "Then " + who
        if grade % 2 == 0 and leg == legs - 1:
            kilometres = story.amount()
            story.tell(f"{opening} walks {kilometres} km.")
        else:
            speed, hours = story.rng.randint(2, 9), story.rng.randint(2, 9)
            story.tell(f"{opening} rides {speed} km an hour for {hours} hours.")
            kilometres = story.step(speed, "*", hours)
        story.value = kilometres if leg == 0 else story.step(story.value, "+", kilometres)
    return f"How many km does {who} travel?"


_TELLERS: Mapping[str, Callable[[_Story, int], str]] = {
    "purse": _purse,
    "boxes": _boxes,
    "chain": _chain,
    "share": _share,
    "trip": _trip,
}


def make_problem(seed: int, item: int, family: str | None = None, grade: int | None = None) -> Problem:
    """Make problem `item` of the stream `seed`.

    Parameters
    ----------
    seed, item : int
        Together they fix the problem.
    family : str, optional
        One of `FAMILIES`; drawn uniformly when not given.
    grade : int, optional
        Number of arithmetic steps, one of `GRADES`; drawn uniformly when not given.

    Returns
    -------
    Problem
    """
    rng = random.Random(f"lean_align/problems/{seed}/{item}")
    family = rng.choice(FAMILIES) if family is None else family
    grade = rng.choice(GRADES) if grade is None else grade
    story = _Story(rng, LARGEST_AMOUNT[grade])
    question = _TELLERS[family](story, grade)
    text = " ".join((*story.sentences, question))
    return Problem(item, family, grade, text, tuple(story.steps), story.value)


def problem_stream(
    seed: int, n: int, grade_weights: Mapping[int, float], skip: frozenset[str] = frozenset()
) -> Iterator[Problem]:
    """Yield `n` problems with different texts, none of them in `skip`.

    Parameters
    ----------
    seed : int
        Stream of problems.
    n : int
        How many to yield.
    grade_weights : mapping of int to float
        Relative frequency of each grade.
    skip : frozenset of str
        Question texts that must not occur (another split).
    """
    grades, weights = zip(*sorted(grade_weights.items()))
    seen = set(skip)
    item = 0
    while n > 0:
        grade = random.Random(f"lean_align/grade/{seed}/{item}").choices(grades, weights)[0]
        problem = make_problem(seed, item, grade=grade)
        item += 1
        if problem.question not in seen:
            seen.add(problem.question)
            n -= 1
            yield problem
