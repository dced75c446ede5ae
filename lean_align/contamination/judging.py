"""Whether a candidate is the same problem in other words, token by token.

Let q be the problem's tokens and t the prompt's.  They match nearly where

1. t holds `RUN` tokens of q in a row (all of q where it is shorter), which no other problem of the benchmark holds;
2. similarity = (tokens of q in common passages of at least `PASSAGE` tokens) / len(q) is at least `LEAST_SIMILARITY`;
3. the numbers agree (`numbers_agree`).

The figures are chosen on DAPO-MATH-17K against its benchmarks: docs/contamination.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

RUN = 13
"""Tokens in a row, as in Qwen2.5-Math's rule."""
PASSAGE = 3
"""Shorter common passages are chance."""
ANCHOR = 5
"""Tokens of a common passage that distinguishes what is inside the problem from what is added at its end."""
LEAST_SIMILARITY = 0.5
"""Rewriting question and form of the answer changes up to half of a short problem."""

NUMBER_WORDS = frozenset(
    "two three four five six seven eight nine ten eleven twelve fifteen twenty thirty forty fifty sixty hundred "
    "thousand million twice thrice double triple half quarter dozen".split()
)
_SIGNS = frozenset("+-<>")

Span = tuple[str, int, int, int, int]


def grams(words: Sequence[str], n: int) -> frozenset[tuple[str, ...]]:
    """All runs of n tokens; the whole where it is shorter."""
    if len(words) <= n:
        return frozenset([tuple(words)])
    return frozenset(zip(*(words[i:] for i in range(n))))


def near_similarity(problem: Sequence[str], prompt: Sequence[str]) -> float | None:
    """Similarity of a problem and a prompt by rules 2 and 3, None where they do not match.

    Parameters
    ----------
    problem, prompt : sequence of str
        Tokens.

    Returns
    -------
    float or None
        In [LEAST_SIMILARITY, 1].
    """
    # autojunk would leave out frequent tokens of long texts
    spans = SequenceMatcher(None, problem, prompt, autojunk=False).get_opcodes()
    passages = [b - a for kind, a, b, *_ in spans if kind == "equal" and _long(a, b, PASSAGE, problem)]
    similarity = sum(passages) / len(problem)
    return similarity if similarity >= LEAST_SIMILARITY and numbers_agree(problem, prompt, spans) else None


def numbers_agree(problem: Sequence[str], prompt: Sequence[str], spans: Sequence[Span]) -> bool:
    """Whether no edit makes another problem of it.

    Up to the last passage of `ANCHOR` tokens every edit has the same numbers on both sides, none included.  After it a
    sentence may bring numbers ("give m + n modulo 1000") or take them along, but not exchange them.  Nowhere is one of
    + - < > exchanged for another.

    Parameters
    ----------
    problem, prompt : sequence of str
        Tokens.
    spans : sequence of tuple
        The opcodes of `difflib.SequenceMatcher`.
    """
    edits = [(i, problem[a:b], prompt[c:d]) for i, (kind, a, b, c, d) in enumerate(spans) if kind != "equal"]
    anchors = [i for i, (kind, a, b, *_) in enumerate(spans) if kind == "equal" and _long(a, b, ANCHOR, problem)]
    end = anchors[-1] if anchors else len(spans)
    if any(_numbers(before) != _numbers(after) for i, before, after in edits if i < end):
        return False
    lost = _numbers(word for i, before, _ in edits if i > end for word in before)
    brought = _numbers(word for i, _, after in edits if i > end for word in after)
    if _exchanged(lost, brought):
        return False
    return not any(_exchanged(_only(before, _SIGNS), _only(after, _SIGNS)) for _, before, after in edits)


def _long(start: int, end: int, least: int, problem: Sequence[str]) -> bool:
    return end - start >= min(least, len(problem))


def _exchanged(before: list[str], after: list[str]) -> bool:
    return before != after and bool(before and after)


def _numbers(words: Iterable[str]) -> list[str]:
    return sorted(word for word in words if word[0].isdigit() or word in NUMBER_WORDS)


def _only(words: Iterable[str], wanted: frozenset[str]) -> list[str]:
    return sorted(word for word in words if word in wanted)
