"""Many questions to math-verify at once: a child process for each core, asked through a thread each.

The process's own child takes part and stays; the others are started for one call and ended with it, also where an
error or Ctrl-C ends it.  A child costs about 0.3 s and 100 MB to start, so there is one for every
`QUESTIONS_A_CHILD` questions at most.  Answers are shared with `verify` through the same cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lean_align.errors import DataError
from lean_align.processors import processors
from lean_align.verify import math_worker

QUESTIONS_A_CHILD = 64
"""Questions that are worth the start of another child: 5 to 10 ms each."""


@dataclass(frozen=True)
class Question:
    """What math-verify is asked about one answer; `formula=False` leaves it to find the formula in the text."""

    gold: str
    prediction: str
    formula: bool = True

    def ask(self) -> bool:
        """Whether math-verify finds the two equal."""
        return math_worker.math_equal(self.gold, self.prediction, self.formula)


def ask_all(questions: Sequence[Question], processes: int | None = None) -> dict[Question, bool]:
    """The verdict on every question, each asked once.

    Raises
    ------
    DataError : `processes` is below 1.
    StageError : math-verify does not start.
    """
    if processes is not None and processes < 1:
        raise DataError(f"got processes={processes}; expected at least 1, or None for one a core: pass 1 or more")
    different = list(dict.fromkeys(questions))
    count = min(processes or processors(), -(-len(different) // QUESTIONS_A_CHILD))
    if count <= 1:
        return {question: question.ask() for question in different}
    return dict(zip(different, _in_threads(different, count)))


def _in_threads(questions: list[Question], count: int) -> list[bool]:
    """Each thread takes the next question when it is free; one of them uses the process's own child."""
    extra = [math_worker.MathWorker() for _ in range(count - 1)]
    waiting = list(extra)
    pool = ThreadPoolExecutor(count, "math-verify", initializer=lambda: _take_worker(waiting))
    try:
        return list(pool.map(Question.ask, questions))
    finally:
        for worker in extra:
            worker.end()
        pool.shutdown(wait=True, cancel_futures=True)
        for worker in extra:  # a child may have been on its way when its worker was ended
            worker.stop()


def _take_worker(waiting: list[math_worker.MathWorker]) -> None:
    try:
        math_worker.use_worker(waiting.pop())
    except IndexError:
        return  # the thread that finds none keeps the process's own child
