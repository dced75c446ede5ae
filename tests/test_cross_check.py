"""How two evaluations of a problem are compared: made-up problems; lm-eval itself is not needed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.cross_check import differences, given_table, markdown, table_rows
from bench.lm_eval_tasks import findings as kinds
from bench.lm_eval_tasks.findings import (
    Generated,
    Ours,
    Theirs,
    cut_by,
    first_difference,
    generation_findings,
    parting,
    problem_findings,
    same_answer,
    verifier_finding,
)

TIE = 1e-3
TEXT = "Two and two make \\boxed{4}, which is less than 5."
GENERATED = Generated((1, 2, 3), (10, 11, 12, 2), TEXT)
OURS = Ours("gsm8k-000007", "gsm8k", "2 + 2 = 4\n#### 4", GENERATED, 1.0, finished=True)
STOPS = ("Question:", "</s>")


def their(generated: Generated = GENERATED, uncut: str | None = None, **metrics: tuple[float, str | None]) -> Theirs:
    named = {name.replace("_", "-"): metric for name, metric in metrics.items()}
    return Theirs(generated, generated.text if uncut is None else uncut, STOPS, named)


def with_tokens(*token_ids: int) -> Generated:
    return replace(GENERATED, token_ids=token_ids)


@pytest.mark.parametrize(
    ("a", "b", "place"),
    [((1, 2), (1, 2), None), ((1, 2), (1, 3), 1), ((1, 2), (1, 2, 3), 2), ((), (1,), 0), ((), (), None)],
)
def test_first_difference_by_hand(a, b, place):
    assert first_difference(a, b) == first_difference(b, a) == place


def test_the_same_tokens_and_text_leave_nothing_to_say():
    assert generation_findings(OURS, their(), None, TIE) == []
    assert parting(OURS, their()) is None


def test_generations_part_where_two_tokens_differ():
    """Prompt 1 2 3, then 10 on both sides; 11 is ours, 99 theirs."""
    theirs = their(with_tokens(10, 99, 12, 2))
    assert parting(OURS, theirs) == ([1, 2, 3, 10], 11, 99)


@pytest.mark.parametrize(("gap", "kind", "explained"), [(5e-4, kinds.NEAR_TIE, True), (0.2, kinds.NO_TIE, False)])
def test_a_wide_gap_between_the_tokens_is_no_explanation(gap, kind, explained):
    (found,) = generation_findings(OURS, their(with_tokens(10, 99, 12, 2)), gap, TIE)
    assert (found.kind, found.explained) == (kind, explained)
    assert "token 1 on" in found.note


def test_other_prompts_come_before_anything_else():
    """Their prompt lacks a token: nothing is said of generations, which could not be the same."""
    theirs = their(replace(with_tokens(10, 99), prompt_ids=(1, 3)))
    assert parting(OURS, theirs) is None
    (found,) = generation_findings(OURS, theirs, None, TIE)
    assert (found.kind, found.explained, found.note) == (kinds.PROMPTS, False, "from token 1 on")


def test_an_end_token_of_ours_alone_is_named():
    (found,) = generation_findings(OURS, their(with_tokens(10, 11, 12, 2, 13)), None, TIE)
    assert (found.kind, found.explained) == (kinds.STOP, True)
    assert "ours ends after 4 tokens with id 2" in found.note


def test_a_completion_of_ours_that_stops_without_an_end_token_is_not_explained():
    (found,) = generation_findings(replace(OURS, finished=False), their(with_tokens(10, 11, 12, 2, 13)), None, TIE)
    assert (found.kind, found.explained) == (kinds.STOP, False)


def test_theirs_that_stops_first_is_explained_by_a_stop_sequence_alone():
    short = with_tokens(10, 11)
    (alone,) = generation_findings(OURS, their(short), None, TIE)
    stop, cut = generation_findings(OURS, their(replace(short, text="Two "), "Two Question: and"), None, TIE)
    assert (alone.kind, alone.explained) == (kinds.STOP, False)
    assert (stop.kind, stop.explained, cut.kind) == (kinds.STOP, True, kinds.CUT)


def test_a_text_cut_at_a_stop_sequence_names_it():
    theirs = their(replace(GENERATED, text="Two "), uncut="Two </s> and")
    assert cut_by(theirs) == "</s>"
    (found,) = generation_findings(OURS, theirs, None, TIE)
    assert (found.kind, found.explained) == (kinds.CUT, True)
    assert "'</s>', after 4 of 12 characters" in found.note


def test_the_same_tokens_with_another_text_are_not_explained():
    (found,) = generation_findings(OURS, their(replace(GENERATED, text=TEXT + " ")), None, TIE)
    assert (found.kind, found.explained) == (kinds.TEXT, False)


@pytest.mark.parametrize(
    ("text", "metric", "theirs", "kind", "said"),
    [
        (TEXT, "flexible-extract", (0.0, "5."), kinds.OTHER_READ, "we read '4' (the last box), right"),
        (TEXT, "strict-match", (0.0, None), kinds.NONE_THEIRS, "they read none, wrong"),
        ("The answer is 4.00", "flexible-extract", (0.0, "4.00"), kinds.TEXT_COMPARED, "(after 'answer is')"),
        ("So 4 of 9 remain.", "flexible-extract", (1.0, "4"), kinds.OTHER_READ, "we read '9' (the last number), wrong"),
        ("Nothing.", "math_verify", (1.0, "4"), kinds.NONE_OURS, "we read none"),
    ],
)
def test_a_verdict_on_the_same_text_is_put_down_to_what_was_read(text, metric, theirs, kind, said):
    found = verifier_finding("id", "#### 4", text, metric, theirs)
    assert (found.kind, found.explained) == (kind, True)
    assert said in found.note


@pytest.mark.parametrize(
    ("text", "metric", "theirs"),
    [
        (TEXT, "flexible-extract", (0.0, "4")),  # equal to the gold by their own rule
        ("The answer is $1,004.", "flexible-extract", (1.0, "$1,004.")),
        (TEXT, "math_verify", (0.0, "4")),
        ("\\boxed{5}", "boxed_is_equiv", (1.0, "5")),
    ],
)
def test_a_planted_wrong_verdict_is_never_explained(text, metric, theirs):
    found = verifier_finding("id", "#### 4", text, metric, theirs)
    assert (found.kind, found.explained) == (kinds.OTHER_VERDICT, False)


def test_equal_verdicts_are_no_finding():
    assert verifier_finding("id", "4", TEXT, "boxed_is_equiv", (1.0, "4")) is None
    assert verifier_finding("id", "7", TEXT, "boxed_is_equiv", (0.0, "4")) is None


@pytest.mark.parametrize(("a", "b", "same"), [("18.0", "18", True), ("\\frac12", "0.5", True), ("18", "19", False)])
def test_answers_are_the_same_by_our_own_comparison(a, b, same):
    assert same_answer(a, b) is same


def test_a_verdict_that_only_the_texts_explain_says_how_they_part():
    """Ours is right; theirs parted at a near tie and is wrong, as we say of it too."""
    theirs = their(replace(with_tokens(10, 99, 12, 2), text="\\boxed{5}"), flexible_extract=(0.0, "5"))
    generation, verdict = problem_findings(OURS, theirs, 1e-5, TIE)
    assert (generation.kind, verdict.kind, verdict.explained) == (kinds.NEAR_TIE, kinds.OTHER_TEXT, True)
    assert "near tie" in verdict.note


def test_a_flipped_verdict_of_ours_on_the_same_text_is_not_explained():
    """The planted fault: our file says wrong, our verifier and theirs say right."""
    (found,) = problem_findings(replace(OURS, verdict=0.0), their(flexible_extract=(1.0, "4")), None, TIE)
    assert (found.kind, found.explained) == (kinds.OTHER_TEXT, False)


def test_table_counts_by_hand():
    """Problem a agrees in all; b has other tokens at no tie and a verdict of theirs that reads another number."""
    ours = {"a": replace(OURS, prompt_id="a"), "b": replace(OURS, prompt_id="b")}
    theirs = {
        "a": their(flexible_extract=(1.0, "4"), strict_match=(0.0, None)),
        "b": their(with_tokens(10, 99), flexible_extract=(0.0, "5."), strict_match=(0.0, None)),
    }
    found = [f for key in ours for f in problem_findings(ours[key], theirs[key], 0.2 if key == "b" else None, TIE)]
    flexible, strict = table_rows(ours, theirs, found)
    expected = {"benchmark": "gsm8k", "metric": "flexible-extract", "n": 2, "ours_right": 2, "theirs_right": 1}
    expected |= {"verdicts_agree": 1, "prompts_agree": 2, "generations_agree": 1, "verifiers_agree": 1}
    assert flexible == expected | {"unexplained": 1}  # the wide gap
    assert (strict["verdicts_agree"], strict["verifiers_agree"], strict["unexplained"]) == (0, 0, 1)


def test_given_solutions_are_counted_by_kind_of_text():
    """A right solution on which both agree; another problem's, which they are said to find right: unexplained."""
    metrics = {"boxed_is_equiv": {"verdict": 1.0, "read": "4"}}
    other = {"boxed_is_equiv": {"verdict": 1.0, "read": "5"}}
    given = [
        {"prompt_id": "a", "benchmark": "math500", "texts": "own", "text": "\\boxed{4}", "metrics": metrics},
        {"prompt_id": "a", "benchmark": "math500", "texts": "another's", "text": "\\boxed{5}", "metrics": other},
    ]
    rows, found = given_table(given, {"a": "4"})
    assert [list(row.values())[3:] for row in rows] == [[1, 1, 1, 1, 0], [1, 0, 1, 0, 1]]
    assert [f.kind for f in found] == [kinds.OTHER_VERDICT]
    assert "gold '4', boxed_is_equiv: same answer, other verdict (UNEXPLAINED)" in differences(found, {"a": "4"})


def test_a_table_has_a_line_a_row():
    assert markdown([{"a_b": 1, "c": "x"}]) == "| a b | c |\n| --- | --- |\n| 1 | x |"
    assert differences([], {}) == "No difference."
