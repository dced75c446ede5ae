"""Answers in the wordings that models and data sets use, right ones rewarded and near misses refused.

`golden/verify_wordings.jsonl` always runs.  Beside it the larger set of pairs, where it is at hand: how many agree is
counted exactly, and every other has its reason here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lean_align.verify import after_thinking, extract_answer, verify

ROOT = Path(__file__).parent.parent
WORDINGS = Path(__file__).parent / "golden" / "verify_wordings.jsonl"
PAIRS = ROOT.parent / "shared" / "cases" / "verify_pairs.jsonl"

# id of a pair -> why this verifier says otherwise on purpose
DISAGREEMENTS: dict[str, str] = {}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def differing(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    verdicts = [verify(case["gold"], case["completion"]) for case in cases]
    return [case for case, verdict in zip(cases, verdicts) if verdict != float(case["expected"])]


def test_wordings() -> None:
    cases = rows(WORDINGS)
    assert len(cases) >= 200
    assert differing(cases) == []


def test_pairs_agree_but_for_the_table() -> None:
    if not PAIRS.exists():
        pytest.skip(f"no pairs: {PAIRS}")
    cases = rows(PAIRS)
    assert [case["id"] for case in differing(cases)] == list(DISAGREEMENTS)
    assert len(cases) - len(DISAGREEMENTS) == 173


# --- thinking


@pytest.mark.parametrize(
    ("completion", "after"),
    [
        ("no thinking, I think", "no thinking, I think"),
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think>a", None),
        ("<think>a</think>b<think>c", None),
        ("<thinking>a</thinking>b", "b"),
        ("<|begin_of_thought|>a<|end_of_thought|>b", "b"),
        ("[THINK]a[/THINK]b", "b"),
        ("[THINK]a", None),
        ("<THINK>a</THINK>", ""),
        ("", ""),
    ],
)
def test_what_follows_thinking(completion: str, after: str | None) -> None:
    assert after_thinking(completion) == after


def test_a_prompt_may_have_opened_the_thinking() -> None:
    assert after_thinking("a</think>b", inside=True) == "b"
    assert after_thinking("a, cut off at \\boxed{3}", inside=True) is None
    assert verify("3", "\\boxed{4}, no.</think>\n\\boxed{3}") == 1.0
    assert extract_answer("<think>\\boxed{3}") is None


def test_thinking_longer_than_the_tail_is_seen() -> None:
    assert verify("3", "<think>" + "x " * 20_000 + "\\boxed{3}") == 0.0
    assert verify("3", "<think>" + "x " * 20_000 + "</think>3") == 1.0


@pytest.mark.parametrize(
    "piece",
    ["<think>", "</think>", "<answer>", "<answer></answer>", "\\boxed{1} or ", "answer is 1 or ", "(1, ", "\\text{",
     "1 and ", "a.", "$1$ or ", "sqrt(", "0.(6)", "\\dot{1}", "\\mu", "\\text{m}", "x = 1, ", "\u00bd", "\u221a",
     "the 1 ",
     "\\begin{pmatrix}", "1\\,", "<1,", "Rs ", "\u7b54\u6848\u662f", "1 hour ", "\\left(", "\\underline{"],
)  # fmt: skip
@pytest.mark.parametrize("before", ["", "The answer is ", "\\boxed{", "#### "])
def test_a_loop_of_any_piece_ends(before: str, piece: str) -> None:
    """A pattern that is not linear would take minutes on 20,000 characters; the suite's own limit is the judge."""
    assert verify("7", before + piece * (20_000 // len(piece))) == 0.0
