"""The questions of each kind but the target's, which are those of `lean_align.demo.problems`.

Which wording and which numbers belong to a kind follows from the success rates of the embedded model, 4-bit, sampled at
temperature 1, before any training (docs/testbed.md).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from lean_align.demo.problems import NAMES, THINGS

Told = tuple[str, int]
"""Question and right answer."""

ASIDES = ("The sun is out.", "It is cold.", "The day is long.", "The dog is asleep.", "All is well.", "A bird sings.")


def tell_easy(rng: random.Random) -> Told:
    """One product with a factor of 5: the products that the model knows best."""
    pair = [5, rng.randint(2, 9)]
    rng.shuffle(pair)
    first, second = pair
    who, things = rng.choice(NAMES), rng.choice(THINGS)
    if rng.random() < 0.5:
        text = f"{who} has {first} boxes of {second} {things}. How many {things} does {who} have?"
    else:
        text = f"{who} rides {first} km an hour for {second} hours. How many km does {who} travel?"
    return text, first * second


def tell_hard(rng: random.Random) -> Told:
    """One or two steps with numbers that the model has not learned to calculate with."""
    return rng.choice((_hard_trip, _hard_boxes, _hard_share, _hard_purse))(rng, rng.choice(NAMES), rng.choice(THINGS))


def _hard_trip(rng: random.Random, who: str, things: str) -> Told:
    speed, hours = rng.randint(23, 97), rng.randint(13, 48)
    return f"{who} rides {speed} km an hour for {hours} hours. How many km does {who} travel?", speed * hours


def _hard_boxes(rng: random.Random, who: str, things: str) -> Told:
    boxes, each, more = rng.randint(23, 97), rng.randint(13, 48), rng.randint(41, 99)
    text = f"{who} has {boxes} boxes of {each} {things}. {who} buys {more} more. How many {things} does {who} have?"
    return text, boxes * each + more


def _hard_share(rng: random.Random, who: str, things: str) -> Told:
    people, each = rng.randint(12, 29), rng.randint(12, 39)
    text = f"{who} and others, {people} people in all, share {people * each} {things} equally."
    return f"{text} How many {things} does {who} have?", each


def _hard_purse(rng: random.Random, who: str, things: str) -> Told:
    start, lost, found = rng.randint(500, 999), rng.randint(101, 399), rng.randint(101, 999)
    text = f"{who} has {start} {things}. {who} loses {lost}. {who} finds {found} more."
    return f"{text} How many {things} does {who} have?", start - lost + found


def tell_long(rng: random.Random) -> Told:
    """A running count of 4 to 6 steps with an aside after each, or of 7 or 8 steps of ten."""
    who, things = rng.choice(NAMES), rng.choice(THINGS)
    wordy = rng.random() < 0.5
    count = rng.randint(5, 20) if wordy else 10 * rng.randint(1, 2)
    sentences = [f"{who} has {count} {things}."]
    for _ in range(rng.randint(4, 6) if wordy else rng.randint(7, 8)):
        amount = rng.randint(2, 9) if wordy else 10
        if wordy and count > amount and rng.random() < 0.5:
            count -= amount
            sentences.append(f"{who} {rng.choice(('loses', 'sells', 'eats'))} {amount}.")
        else:
            count += amount
            sentences.append(f"{who} {rng.choice(('finds', 'buys', 'gets'))} {amount} more.")
        if wordy:
            sentences.append(rng.choice(ASIDES))
    return f"{' '.join(sentences)} How many {things} does {who} have?", count


def tell_unlike(rng: random.Random) -> Told:
    """How many people: two or three names to count, nothing to calculate."""
    count = rng.randint(2, 3)
    names, (things, others) = rng.sample(NAMES, count + 1), rng.sample(THINGS, 2)
    return rng.choice(_COUNTING)(names[:count], names[count], things, others), count


def tell_unlike_numbered(rng: random.Random) -> Told:
    """The same with a number that is not asked for: what makes copies of one question recognisable."""
    count = rng.randint(2, 3)
    names, things = rng.sample(NAMES, count), rng.choice(THINGS)
    return f"{_listed(names)} share {rng.randint(2, 9)} {things}. How many people share?", count


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


_COUNTING: tuple[Callable[[list[str], str, str, str], str], ...] = (
    lambda names, other, things, others: f"{_listed(names)} share {things}. How many people share?",
    lambda names, other, things, others: f"{_listed(names)} share {things} and {others}. How many people share?",
    lambda names, other, things, others: f"{_listed(names)} have {things}. How many people have {things}?",
    lambda names, other, things, others: (
        f"{_listed(names)} have {things}. {other} has {others}. How many people have {things}?"
    ),
    lambda names, other, things, others: (
        f"{' '.join(f'{name} has {things}.' for name in names)} How many people have {things}?"
    ),
)
