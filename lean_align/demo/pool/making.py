"""Put a pool together: kinds, copies, wrong golds, order."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lean_align.demo.pool.signatures import is_held_out, renamed, signature
from lean_align.demo.pool.tellers import Told, tell_easy, tell_hard, tell_long, tell_unlike, tell_unlike_numbered
from lean_align.demo.problems import make_problem
from lean_align.errors import DataError

KINDS = ("target", "too_easy", "too_hard", "long_winded", "unlike", "near_duplicates")
DRAWS_IN_VAIN = 2000
"""After this many draws in a row that bring nothing new, a kind counts as used up."""
LARGEST_ERROR = 3
"""A wrong gold is off by 1 up to this."""


@dataclass(frozen=True)
class PoolPrompt:
    """A prompt of the pool, with what the report may know and a method may not.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    question : str
    answer : int
        The gold as the run gets it.
    right_answer : int
        Differs from `answer` where the gold is wrong.
    """

    kind: str
    question: str
    answer: int
    right_answer: int

    @property
    def wrong(self) -> bool:
        """Whether the gold is wrong."""
        return self.answer != self.right_answer


def make_pool(
    counts: Mapping[str, int],
    duplicates_of_each: int,
    wrong_share: float,
    families: Sequence[str],
    grades: Sequence[int],
) -> tuple[PoolPrompt, ...]:
    """Make the pool of a make-up; the same make-up gives the same pool.

    Parameters
    ----------
    counts : mapping of str to int
        Prompts of each of `KINDS`; `near_duplicates` is a multiple of `duplicates_of_each`.
    duplicates_of_each : int
        Copies that one problem gives.
    wrong_share : float
        Share of the whole pool whose gold is wrong, in [0, 1]; rounded to whole prompts.
    families, grades : sequence
        Of the target, as in `lean_align.demo.problems`.

    Returns
    -------
    tuple of PoolPrompt
        No question twice, in an order that tells nothing.

    Raises
    ------
    DataError
        When a kind has no more different prompts.
    """
    target = _drawn("target", lambda rng: _tell_target(rng, families, grades))
    copies = _near_duplicates(counts["near_duplicates"], duplicates_of_each, target)
    copied = {signature(question) for question, _ in copies}

    def in_pool(question: str) -> bool:
        return not is_held_out(question) and signature(question) not in copied

    told = {
        "target": _different(counts["target"], target, "target", in_pool, signature),
        "too_easy": _different(counts["too_easy"], _drawn("too_easy", tell_easy), "too_easy", in_pool),
        "too_hard": _different(counts["too_hard"], _drawn("too_hard", tell_hard), "too_hard", in_pool),
        "long_winded": _different(counts["long_winded"], _drawn("long_winded", tell_long), "long_winded", in_pool),
        # its few signatures are no problem's of the target
        "unlike": _different(counts["unlike"], _drawn("unlike", tell_unlike), "unlike"),
        "near_duplicates": copies,
    }
    prompts = [PoolPrompt(kind, *found, found[1]) for kind, all_found in told.items() for found in all_found]
    return tuple(sorted(_with_wrong_golds(prompts, wrong_share), key=lambda prompt: _lot("order", prompt.question)))


def make_held_out(n: int, families: Sequence[str], grades: Sequence[int]) -> list[Told]:
    """The evaluation: question and answer of `n` problems of the target, none of them in any pool under any name.

    Raises
    ------
    DataError
        When the target has no `n` problems of different signature that are kept for the evaluation.
    """
    target = _drawn("held-out", lambda rng: _tell_target(rng, families, grades))
    return _different(n, target, "held-out", is_held_out, signature)


def make_labelled(n: int, pool: Sequence[PoolPrompt], families: Sequence[str], grades: Sequence[int]) -> list[Told]:
    """Labelled problems to aim at: `n` of the target, neither in a pool nor in any evaluation under any name.

    A smaller `n` gives the first of a larger one's.

    Raises
    ------
    DataError
        When the target has no `n` further problems of different signature.
    """
    taken = {signature(prompt.question) for prompt in pool}
    target = _drawn("labelled", lambda rng: _tell_target(rng, families, grades))

    def is_free(question: str) -> bool:
        return not is_held_out(question) and signature(question) not in taken

    return _different(n, target, "labelled", is_free, signature)


def _drawn(kind: str, tell: Callable[[random.Random], Told]) -> Iterator[Told]:
    """The kind's own endless stream, whatever the other kinds take from theirs."""
    for item in itertools.count():
        yield tell(random.Random(f"lean_align/pool/{kind}/{item}"))


def _tell_target(rng: random.Random, families: Sequence[str], grades: Sequence[int]) -> Told:
    """A problem of the target, families and grades evenly."""
    problem = make_problem(rng.getrandbits(48), 0, rng.choice(families), rng.choice(grades))
    return problem.question, problem.answer


def _different(
    n: int,
    draws: Iterator[Told],
    kind: str,
    fits: Callable[[str], bool] = lambda question: True,
    name_of: Callable[[str], str] = lambda question: question,
) -> list[Told]:
    """The first `n` draws whose question fits and has a name of its own."""
    found: dict[str, Told] = {}
    in_vain = 0
    while len(found) < n:
        question, answer = next(draws)
        if fits(question) and name_of(question) not in found:
            found[name_of(question)] = question, answer
            in_vain = 0
        elif (in_vain := in_vain + 1) == DRAWS_IN_VAIN:
            raise DataError(
                f"the test bed has about {len(found)} different {kind} prompts and {n} were asked for; lower that "
                "number in the section pool (data.demo_test for the held-out ones, selection.target for the "
                "labelled), or give pool.target_families and pool.target_grades more values."
            )
    return list(found.values())


def _near_duplicates(n: int, of_each: int, target: Iterator[Told]) -> list[Told]:
    """`of_each` copies of each of n / of_each problems: of the target and of questions unlike it by turns."""
    sources = n // of_each
    targets = _different((sources + 1) // 2, target, "target", lambda question: not is_held_out(question), signature)
    unlike = _drawn("near_duplicates", tell_unlike_numbered)
    others = _different(sources // 2, unlike, "near_duplicates", name_of=signature)
    return [copy for told in (*targets, *others) for copy in _copies(told, of_each)]


def _copies(told: Told, n: int) -> list[Told]:
    question, answer = told
    copies = _drawn(f"copies of {question}", lambda rng: (renamed(question, rng), answer))
    return _different(n, copies, "near_duplicates")


def _with_wrong_golds(prompts: Sequence[PoolPrompt], share: float) -> list[PoolPrompt]:
    """The same prompts, the golds of exactly round(share x n) of them moved, drawn without regard to kind."""
    n_wrong = round(share * len(prompts))
    wrong = set(sorted((prompt.question for prompt in prompts), key=lambda question: _lot("wrong", question))[:n_wrong])
    return [replace(p, answer=_moved(p)) if p.question in wrong else p for p in prompts]


def _moved(prompt: PoolPrompt) -> int:
    """A positive whole number that is not the right one, near it."""
    near = range(max(1, prompt.right_answer - LARGEST_ERROR), prompt.right_answer + LARGEST_ERROR + 1)
    rng = random.Random(f"lean_align/pool/error/{prompt.question}")
    return rng.choice([answer for answer in near if answer != prompt.right_answer])


def _lot(purpose: str, question: str) -> bytes:
    """A sort key for an order that reveals nothing and does not depend on the other prompts."""
    return hashlib.sha256(f"lean_align/pool/{purpose}/{question}".encode()).digest()
