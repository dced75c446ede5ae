r"""Whether the final answer of a completion equals the gold: the reward, in {0.0, 1.0}.

Only what follows a completion's thinking counts (extraction.py).  The first rule that finds an answer decides
(extraction.py):

1. the last `<answer>`;
2. the last `\boxed{...}`, `\fbox` or `\framebox` that holds one, with those joined to it; `\boxed 34`;
3. the line after the last `####`, unless it reads as a heading ("#### Step 4: ...");
4. what follows "A:" at the start of the last line, unless there is a line "B: ..." too: then they are options;
5. what follows the last "answer is", "answer:" or "answer =", on its line or the next (sentences.py);
6. an option's letter alone on the last line; a completion that is a formula, or a word or two, and nothing else;
7. the last number in the text, or the formula between `$...$`, `\(...\)`, `\[...\]` that holds it.

It is then compared with the gold, which is repaired first (golds.py):

1. same text: equal;
2. both give a number: equal as exact fractions, and that decides.  A plain number (numbers.py) may carry thousands
   commas, a currency sign, a percent sign, a unit, a closing period, leading zeros; an answer may name it in words
   besides, or write it as another country does (readings.py);
3. words, multiple-choice letters and numbers with a base: as written (wording.py);
4. formulas, lists, tuples, intervals and matrices with an exact normal form on both sides: part by part (structure.py);
5. anything else: math-verify, gold first.  Where rule 7 found a number and the gold is none, math-verify looks for a
   formula in the last `MAX_ANSWER_CHARS` characters itself.

Rules 1 to 4 need neither math-verify nor sympy and take 0.3 ms; rule 5 asks a child process (see math_worker.py).
Nothing is ever evaluated as Python.  Where 2 to 4 differ from math-verify, docs/verifier.md says why.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from lean_align.errors import DataError
from lean_align.verify.extraction import TAIL_CHARS, after_thinking, concluded, find, find_answer, words_alone
from lean_align.verify.golds import completion_text, gold_text, mend_gold, unanswerable
from lean_align.verify.math_worker import CALL_SECONDS, MAX_ANSWER_CHARS, Question, math_parses
from lean_align.verify.numbers import plain_number
from lean_align.verify.readings import has_option, same_number, without_label
from lean_align.verify.spelling import plain_signs, spelled
from lean_align.verify.structure import same_value

__all__ = [
    "CALL_SECONDS",
    "MAX_ANSWER_CHARS",
    "TAIL_CHARS",
    "GoldAnswer",
    "after_thinking",
    "extract_answer",
    "mend_gold",
    "parse_gold",
    "unanswerable",
    "verify",
]

GoldAnswer = str | int | float | Decimal | Fraction
"""A gold as a data set holds it."""


def verify(answer: GoldAnswer, completion: str) -> float:
    """Whether the final answer of `completion` equals the gold `answer`.

    Total and bounded: no text makes it raise; only the last `TAIL_CHARS` (20,000) characters of the completion are
    read, and a box before them; a comparison ends within `CALL_SECONDS` (10 s) of a running child process, and within
    twice that where the child dies on it and another is asked.

    Parameters
    ----------
    answer : the gold, a number as it is written out; where it contains "####", what follows the last one counts.
    completion : the text that the model sampled.

    Returns
    -------
    float : 1.0 where they are equal, else 0.0; also 0.0 where no answer is found or the comparison ran out of time.

    Raises
    ------
    DataError : `answer` is neither text nor a number, or `completion` no text.
    StageError : math-verify is needed and does not start (a broken installation, whatever the text).
    """
    decided = _decide(answer, completion)
    return float(decided.ask() if isinstance(decided, Question) else decided)


def _decide(answer: GoldAnswer, completion: str) -> bool | Question:
    """The verdict, or the question that math-verify has to answer."""
    written, completion = _after_last_hashes(gold_text(answer)), completion_text(completion)
    gold = mend_gold(written)
    if not gold:
        return False
    after = after_thinking(completion)
    if after is None:
        return False
    found = find(after)
    if not found.is_marked and plain_number(gold) is None:
        words = concluded(after)
        if words is not None and same_value(gold, words):
            return True
    if found.text is None:
        words = words_alone(after)
        if words is not None:
            return bool(same_value(gold, words))
        return plain_number(gold) is None and Question(gold, after[-MAX_ANSWER_CHARS:], formula=False)
    text = found.text
    if gold != written.strip():  # an answer copied from the mangled gold is mended alike
        text = mend_gold(text)
    if text == gold:
        return True
    gold, text = plain_signs(gold), plain_signs(text)
    same = same_number(gold, text)
    if same is not None:
        return same
    gold, text = spelled(gold), spelled(text)
    if has_option(gold):
        value = without_label(gold)
        if same_number(value, text) or same_value(value, text):
            return True
    verdict, text = _same(gold, text)
    if verdict or found.is_marked or plain_number(gold) is not None:
        return Question(gold, text) if verdict is None else verdict
    # Without a mark what was found may be a part of the answer: only a match is believed, and of a whole formula no.
    if verdict is not None and found.is_formula:
        return verdict
    return Question(gold, after[-MAX_ANSWER_CHARS:], formula=False)


def _same(gold: str, found: str) -> tuple[bool | None, str]:
    """The verdict without math-verify, and the answer as it would be asked: without its label where it has one."""
    verdict = same_value(gold, found)
    shorter = without_label(found)
    if verdict or shorter == found:
        return verdict, found
    again = same_value(gold, shorter)
    return (verdict, found) if again is None and verdict is not None else (again, shorter)


def extract_answer(completion: str) -> str | None:
    """The final answer of a completion, by the module's rules 1 to 7, in plain signs (spelling.py).

    Returns
    -------
    str or None : None where no rule finds an answer; the share of such completions is worth reporting.
    """
    return find_answer(completion)[0]


def parse_gold(answer: GoldAnswer) -> str:
    """The gold as `verify` compares it: what follows the last "####", repaired (golds.py), without white space around.

    Raises
    ------
    DataError : the gold is neither text nor a number, empty or of another kind that nothing can meet (golds.py), too
        long, or neither a plain number nor anything that math-verify can parse.
    """
    answer = gold_text(answer)
    gold = mend_gold(_after_last_hashes(answer))
    if not gold:
        raise DataError(
            f"got the empty gold answer {answer[-80:]!r}; expected a number, a formula in LaTeX or a word: "
            "correct the row or drop it"
        )
    reason = unanswerable(gold)
    if reason is not None:
        raise DataError(
            f"got the gold answer {answer[-80:]!r}, which no completion could meet: {reason}; expected a number, a "
            "formula in LaTeX or a word: correct the row or drop it"
        )
    signs = plain_signs(gold)
    if plain_number(signs) is None and not math_parses(signs):
        raise DataError(
            f"got the gold answer {gold[:80]!r}, of which math-verify makes nothing; expected a number, a formula in "
            f"LaTeX or a word, of at most {MAX_ANSWER_CHARS:,} characters: correct the row or drop it"
        )
    return gold


def _after_last_hashes(answer: str) -> str:
    return answer.rpartition("####")[2]  # not stripped: a form feed in front may be what is left of \\frac
