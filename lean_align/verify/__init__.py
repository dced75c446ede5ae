r"""Whether the final answer of a completion equals the gold: the reward, in {0.0, 1.0}.

The final answer is looked for in the last `TAIL_CHARS` characters, and the first rule that finds one decides:

1. the last `\boxed{...}` with balanced braces that is not empty;
2. the line after the last `####`, unless it reads as a heading ("#### Step 4: ...");
3. what follows the last "answer is", "answer:" or "answer =";
4. the last number in the text, or the formula between `$...$`, `\(...\)`, `\[...\]` that holds it.

It is then compared with the gold:

1. same text: equal;
2. both plain numbers: equal as exact fractions, and that decides.  A plain number may carry thousands commas, a
   currency sign, a percent sign (dropped: 50% equals 50, not 0.5), a unit, a closing period;
3. anything else: math-verify, gold first.  Where rule 4 found the answer and the gold is no plain number,
   math-verify looks for a formula in the last `MAX_ANSWER_CHARS` characters itself.

Rules 1 and 2 need neither math-verify nor sympy; rule 3 asks a child process (see math_worker.py).
Nothing is ever evaluated as Python.
"""

from __future__ import annotations

from lean_align.errors import DataError
from lean_align.verify.extraction import TAIL_CHARS, find_answer
from lean_align.verify.math_worker import CALL_SECONDS, MAX_ANSWER_CHARS, math_equal, math_parses
from lean_align.verify.numbers import plain_number

__all__ = ["CALL_SECONDS", "MAX_ANSWER_CHARS", "TAIL_CHARS", "extract_answer", "parse_gold", "verify"]


def verify(answer: str, completion: str) -> float:
    """Whether the final answer of `completion` equals the gold `answer`.

    Total and bounded: no text makes it raise; only the last `TAIL_CHARS` (20,000) characters of the completion are
    read; a comparison ends within `CALL_SECONDS` (10 s) of a running child process, and within twice that where the
    child dies on it and another is asked.

    Parameters
    ----------
    answer : the gold; where it contains "####", what follows the last one counts.
    completion : the text that the model sampled.

    Returns
    -------
    float : 1.0 where they are equal, else 0.0; also 0.0 where no answer is found or the comparison ran out of time.

    Raises
    ------
    StageError : math-verify is needed and does not start (a broken installation, whatever the text).
    """
    gold = _after_last_hashes(answer)
    found, marked = find_answer(completion)
    if not gold:
        return 0.0
    if found == gold:
        return 1.0
    gold_number, found_number = plain_number(gold), plain_number(found or "")
    if gold_number is not None and (found is None or found_number is not None):
        return float(gold_number == found_number)
    if found is not None and (marked or gold_number is not None):
        return float(math_equal(gold, found))
    return float(math_equal(gold, completion[-MAX_ANSWER_CHARS:], formula=False))


def extract_answer(completion: str) -> str | None:
    """The final answer of a completion as written, by the module's rules 1 to 4.

    Returns
    -------
    str or None : None where no rule finds an answer; the share of such completions is worth reporting.
    """
    return find_answer(completion)[0]


def parse_gold(answer: str) -> str:
    """The gold as `verify` compares it: what follows the last "####", without surrounding white space.

    Raises
    ------
    DataError : the gold is empty, too long, or neither a plain number nor anything that math-verify can parse.
    """
    gold = _after_last_hashes(answer)
    if not gold:
        raise DataError(
            f"got the empty gold answer {answer[-80:]!r}; expected a number, a formula in LaTeX or a word: "
            "correct the row or drop it"
        )
    if plain_number(gold) is None and not math_parses(gold):
        raise DataError(
            f"got the gold answer {gold[:80]!r}, of which math-verify makes nothing; expected a number, a formula in "
            f"LaTeX or a word, of at most {MAX_ANSWER_CHARS:,} characters: correct the row or drop it"
        )
    return gold


def _after_last_hashes(answer: str) -> str:
    return answer.rpartition("####")[2].strip()
