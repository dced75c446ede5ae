"""math-verify in a child process: the same verdict from any thread, bounded in time and memory.

1. The child is started at the first question and asked through a pipe, one question at a time.
2. In the child, on its main thread, math-verify uses its own time-outs (SIGALRM): `STEP_SECONDS` for each step.
3. The parent waits `CALL_SECONDS` and then kills the child, for what no signal interrupts (a power computed in C).
   A question on which the child dies twice, of a deep recursion or of `CHILD_BYTES`, is a wrong answer too.

Asking math-verify in this process would cost callers their own SIGALRM, and fail off the main thread.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import wait
from typing import Any

from lean_align.errors import StageError

MAX_ANSWER_CHARS = 1_000
"""Characters of gold or answer beyond which math-verify is not asked, and the answer counts as wrong."""
ROUNDING = 12
"""Digits behind the point to which math-verify compares numbers; its own 6 would make 2.718282 of e."""
SMALL, RELATIVE = 1e-3, 1e-9
"""Numbers below `SMALL` are equal only where they differ by less than the share `RELATIVE` of the larger."""
STEP_SECONDS = 2
"""math-verify's time-out for each of: parsing the gold, parsing the answer, comparing them.  Whole seconds."""
CALL_SECONDS = 10.0
"""Wall-clock limit of a question, for each of the two children that may die on it."""
START_SECONDS = 120.0
"""Wall-clock limit for the child to import math-verify: 0.3 s on an idle core, far more on a busy machine."""
CHILD_BYTES = 2 * 2**30
"""Address space of the child."""

_READY, _YES, _NO = b"r", b"1", b"0"
# Not multiprocessing's spawn, which runs the caller's script again and so needs a __main__ guard there.
_CHILD_CODE = "import sys; sys.path[:] = sys.argv[1:]; from lean_align.verify.math_worker import serve; serve()"


def math_equal(gold: str, prediction: str, formula: bool = True) -> bool:
    """Whether math-verify finds the two equal; `formula=False` leaves it to find the formula in the prediction."""
    return _ask(_as_formula(gold), _as_formula(prediction) if formula else prediction)


def math_parses(gold: str) -> bool:
    """Whether math-verify makes an expression of the gold."""
    return _ask(_as_formula(gold), None)


def _as_formula(text: str) -> str:
    """math-verify reads LaTeX only between marks, and its inline mark allows no line break."""
    bare = text.replace("\\$", "")
    return text if any(mark in bare for mark in ("$", "\\(", "\\[", "\\boxed")) else f"${' '.join(text.split())}$"


@dataclass(frozen=True)
class Question:
    """What math-verify is asked about one answer; `formula=False` leaves it to find the formula in the text."""

    gold: str
    prediction: str
    formula: bool = True

    def ask(self) -> bool:
        """Whether math-verify finds the two equal."""
        return math_equal(self.gold, self.prediction, self.formula)


@lru_cache(maxsize=4096)  # the completions of a group often share an answer
def _ask(gold: str, prediction: str | None) -> bool:
    if max(len(gold), len(prediction or "")) > MAX_ANSWER_CHARS + len("$$"):
        return False
    return _worker.ask(gold, prediction)


class MathWorker:
    """One child process, killed when it overruns and started again when it is needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, gold: str, prediction: str | None) -> bool:
        """Whether they are equal; of a gold alone, whether it parses."""
        with self._lock:
            try:
                return self._answer(json.dumps([gold, prediction]).encode() + b"\n")
            except BaseException:  # Ctrl-C between question and reply would leave a stale reply in the pipe
                self.stop()
                raise

    def _answer(self, question: bytes) -> bool:
        for _ in range(2):  # the first death may have come from outside; the second is the question's own
            reply = self._reply(self._running(), question, CALL_SECONDS)
            if reply:
                return reply == _YES
            self.stop()
            if reply is None:
                break
        return False

    def stop(self) -> None:
        """Kill the child; the next question starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with process:  # closes the pipes and waits
                pass

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.stop()
        self._process = _start_child()
        if self._reply(self._process, b"", START_SECONDS) != _READY:
            raise StageError(
                "math-verify did not start in a child process; expected `python -c 'import math_verify'` to succeed: "
                "install it with `pip install 'math-verify>=0.9,<0.10'`"
            )
        return self._process

    @staticmethod
    def _reply(process: subprocess.Popen[bytes], question: bytes, seconds: float) -> bytes | None:
        """One byte; b"" where the child died, None where it took longer than `seconds`."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(question)
        except BrokenPipeError:
            return b""
        return process.stdout.read(1) if wait([process.stdout.fileno()], seconds) else None


def _start_child() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD_CODE, *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,  # Ctrl-C in the terminal is the parent's business
        env={**os.environ, "PYTHONHASHSEED": "0"},  # sympy orders symbols by their hash
    )


def serve() -> None:
    """The child: a JSON line [gold, prediction or null] in, one byte out, until standard input ends."""
    import resource

    replies = os.dup(1)
    os.dup2(2, 1)  # the LaTeX parser may print to standard output
    resource.setrlimit(resource.RLIMIT_AS, (CHILD_BYTES, CHILD_BYTES))
    import math_verify

    os.write(replies, _READY)
    for line in sys.stdin:
        gold, prediction = json.loads(line)
        golds = math_verify.parse(gold, parsing_timeout=STEP_SECONDS)
        if prediction is None:
            good = any(not isinstance(value, str) for value in golds)
        else:
            predictions = math_verify.parse(prediction, parsing_timeout=STEP_SECONDS)
            good = math_verify.verify(golds, predictions, ROUNDING, timeout_seconds=STEP_SECONDS)
            good = good and not differ_in_size(golds, predictions)
        os.write(replies, _YES if good else _NO)


def differ_in_size(golds: list[Any], predictions: list[Any]) -> bool:
    r"""Whether numbers that are equal to `ROUNDING` digits behind the point differ in the digits that they have.

    1/2^{80} and 1/2^{79} are both 0 to twelve digits.  Of tuples, intervals and sets every part has to be near.
    """
    ours, theirs = ([value for value in values if hasattr(value, "free_symbols")] for values in (golds, predictions))
    pairs = [(a, b) for a in ours for b in theirs]
    return bool(pairs) and all(_far(a, b) for a, b in pairs)


def _far(a: Any, b: Any) -> bool:
    import sympy  # type: ignore[import-untyped]

    if isinstance(a, sympy.FiniteSet) and isinstance(b, sympy.FiniteSet) and len(a) == len(b):
        return any(all(_far(x, y) for y in b) for x in a)
    if isinstance(a, (sympy.Tuple, sympy.Interval, sympy.Eq)) and type(a) is type(b) and len(a.args) == len(b.args):
        return any(_far(x, y) for x, y in zip(a.args, b.args))
    if not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr)) or a.free_symbols or b.free_symbols:
        return False
    x, y = (_digits(value) for value in (a, b))
    if not (x.is_Number and y.is_Number and x.is_finite and y.is_finite) or max(abs(x), abs(y)) > SMALL:
        return False
    return bool(abs(x - y) > RELATIVE * max(abs(x), abs(y)))


def _digits(value: Any) -> Any:
    """The value in 20 digits; zero where everything in it cancels."""
    import sympy

    found = value.evalf(20)
    return sympy.Integer(0) if found.is_Float and found._prec == 1 else found


_worker = MathWorker()


def _after_fork() -> None:
    global _worker
    _worker = MathWorker()  # the parent's child is not ours to ask or to kill


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _worker.stop())
