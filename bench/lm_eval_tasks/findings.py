"""How two evaluations of a problem differ, and why: records and pure functions, without torch and without lm-eval.

Verdicts are yes or no.  So where ours on our text is not theirs on their text, either our verdict on THEIR text is not
theirs (the verifiers differ), or else the texts alone are the reason.

`Finding.explained` is False where the code finds no reason: those are for reading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lean_align.verify import verify
from lean_align.verify.extraction import find_answer

PROMPTS, CUT, STOP, NEAR_TIE, NO_TIE, TEXT = (
    "prompts differ",
    "cut by a stop sequence",
    "one side stops first",
    "near tie",
    "no tie",
    "same tokens, other text",
)
NONE_THEIRS, NONE_OURS, OTHER_READ, TEXT_COMPARED, OTHER_VERDICT, OTHER_TEXT = (
    "no answer for them",
    "no answer for us",
    "other answer read",
    "they compare text",
    "same answer, other verdict",
    "other text, other verdict",
)
TIES = {"float32": 1e-3, "bfloat16": 0.25}
"""Logits within which two tokens count as tied, by the type that both sides compute in.  A bfloat16 logit between 16
and 32 is a multiple of 0.125: two steps."""
THEIR_READING = {
    "flexible-extract": "the last run of digits, dollar signs, periods and commas",
    "strict-match": "the number after '#### '",
    "exact_match": "what stands in 'Final Answer: The final answer is ...'",
    "math_verify": "what math-verify finds in the whole text",
    "boxed_is_equiv": "the last \\boxed",
}
COMPARE_TEXT = ("flexible-extract", "strict-match")


@dataclass(frozen=True)
class Generated:
    """A prompt's token ids, those of its completion (end token included), and the text that is scored."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Ours:
    """A problem on our side."""

    prompt_id: str
    benchmark: str
    gold: str
    generated: Generated
    verdict: float
    finished: bool


@dataclass(frozen=True)
class Theirs:
    """The same problem on theirs: the text before stop sequences cut it, and (verdict, answer read) by metric."""

    generated: Generated
    uncut: str
    stops: tuple[str, ...]
    metrics: Mapping[str, tuple[float, str | None]]


@dataclass(frozen=True)
class Finding:
    """A way in which the two sides differ on a problem; `metric` is None for prompts and generations."""

    prompt_id: str
    metric: str | None
    kind: str
    explained: bool
    note: str


def first_difference(a: Sequence[int], b: Sequence[int]) -> int | None:
    """Position of the first token that differs, the shorter one's length where it begins the other; None: the same."""
    for place, (one, other) in enumerate(zip(a, b)):
        if one != other:
            return place
    return None if len(a) == len(b) else min(len(a), len(b))


def parting(ours: Ours, theirs: Theirs) -> tuple[list[int], int, int] | None:
    """Token ids up to where the generations diverge, and the two tokens there; None where there are no two."""
    a, b = ours.generated, theirs.generated
    place = first_difference(a.token_ids, b.token_ids)
    if a.prompt_ids != b.prompt_ids or place is None or place >= min(len(a.token_ids), len(b.token_ids)):
        return None
    return [*a.prompt_ids, *a.token_ids[:place]], a.token_ids[place], b.token_ids[place]


def generation_findings(ours: Ours, theirs: Theirs, gap: float | None, tie: float) -> list[Finding]:
    """How prompts and generations differ: none where the same tokens give the same text."""
    a, b = ours.generated, theirs.generated
    prompt, place = first_difference(a.prompt_ids, b.prompt_ids), first_difference(a.token_ids, b.token_ids)
    found = [(PROMPTS, False, f"from token {prompt} on")] if prompt is not None else []
    if place is not None and gap is not None:
        kind = NEAR_TIE if gap <= tie else NO_TIE
        found.append((kind, gap <= tie, f"texts differ from token {place} on, the worse token {gap:.2g} logits behind"))
    elif place is not None and prompt is None:
        found.append((STOP, *_who_stops(ours, theirs, place)))
    if (stop := cut_by(theirs)) is not None:
        found.append(
            (CUT, True, f"their text ends before {stop!r}, after {len(b.text)} of {len(theirs.uncut)} characters")
        )
    elif place is None and a.text != b.text:
        found.append((TEXT, False, f"{len(a.text)} characters of ours, {len(b.text)} of theirs"))
    return [Finding(ours.prompt_id, None, *parts) for parts in found]


def _who_stops(ours: Ours, theirs: Theirs, place: int) -> tuple[bool, str]:
    """Whether the shorter side had a reason to stop, and which."""
    if len(ours.generated.token_ids) == place:
        last = ours.generated.token_ids[-1]
        return ours.finished, f"ours ends after {place} tokens with id {last}; theirs goes on"
    stopped = cut_by(theirs) is not None
    reason = "every row of its batch had met a stop sequence" if stopped else "without a stop sequence"
    return stopped, f"theirs ends after {place} tokens, {reason}; ours goes on"


def cut_by(theirs: Theirs) -> str | None:
    """The stop sequence that their text was cut at; None where it is whole."""
    after = theirs.uncut.removeprefix(theirs.generated.text)
    return next((stop for stop in theirs.stops if after.startswith(stop)), None)


def verifier_finding(
    prompt_id: str, gold: str, text: str, metric: str, theirs: tuple[float, str | None]
) -> Finding | None:
    """Why our verdict on their text is not theirs; None where it is."""
    (verdict, read), own, (ours_read, marked) = theirs, verify(gold, text), find_answer(text)
    if own == verdict:
        return None
    rule = _our_rule(text, marked)
    sides = f"they read {shown(read)}, {_right(verdict)}; we read {shown(ours_read)} ({rule}), {_right(own)}"
    if read is None or ours_read is None or not same_answer(read, ours_read):
        kind = NONE_THEIRS if read is None else NONE_OURS if ours_read is None else OTHER_READ
        return Finding(prompt_id, metric, kind, True, f"{sides}; theirs takes {THEIR_READING[metric]}")
    if metric in COMPARE_TEXT and own == 1.0 and _as_they_compare(read) != _as_they_compare(gold):
        return Finding(prompt_id, metric, TEXT_COMPARED, True, f"{sides}: one number in other characters")
    return Finding(prompt_id, metric, OTHER_VERDICT, False, sides)


def same_answer(read: str, ours_read: str) -> bool:
    """Whether two answers are equal by our own comparison."""
    return read == ours_read or verify(read, f"\\boxed{{{ours_read}}}") == 1.0


def _as_they_compare(answer: str) -> str:
    """What lm-eval's exact_match of gsm8k leaves of an answer: no commas, dollar signs, last period, case."""
    return re.sub(r",|\$|(?s:.*)#### |\.$", "", answer).lower()


def _our_rule(text: str, marked: bool) -> str:
    """The rule of lean_align.verify that found an answer, recognised by the mark in the text."""
    marks = {"box": "the last box", "####": "after the last '####'"} if marked else {}
    return next(
        (rule for mark, rule in marks.items() if mark in text), "after 'answer is'" if marked else "the last number"
    )


def shown(answer: str | None) -> str:
    """An answer in quotes, its middle left out where it is long."""
    return "none" if answer is None else repr(answer if len(answer) <= 60 else f"{answer[:28]} ... {answer[-28:]}")


def _right(verdict: float) -> str:
    return "right" if verdict == 1.0 else "wrong"


def problem_findings(ours: Ours, theirs: Theirs, gap: float | None, tie: float) -> list[Finding]:
    """Everything that differs on a problem; an end-to-end difference is put down to the verifier or to the texts."""
    found = generation_findings(ours, theirs, gap, tie)
    texts = [finding for finding in found if finding.kind != PROMPTS]
    for metric, their_metric in theirs.metrics.items():
        finding = verifier_finding(ours.prompt_id, ours.gold, theirs.generated.text, metric, their_metric)
        if finding is not None:
            found.append(finding)
        elif ours.verdict != their_metric[0]:
            because = "; ".join(f"{f.kind}: {f.note}" for f in texts) or "the texts are the same"
            kind, explained = OTHER_TEXT, bool(texts) and all(f.explained for f in found)
            note = f"ours is {_right(ours.verdict)}, theirs {_right(their_metric[0])}: {because}"
            found.append(Finding(ours.prompt_id, metric, kind, explained, note))
    return found
