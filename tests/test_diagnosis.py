"""What the rollouts can teach: shares by hand, and the advice that fits each way to fail."""

from __future__ import annotations

import pytest

from lean_align.pipeline.diagnosis import cut_lines
from lean_align.stages.rollout_facts import SAMPLE_CHARACTERS, SAMPLE_COMPLETIONS, rollout_facts, rollout_lines
from lean_align.types import Completion, Group, Prompt


def group(name: str, rewards: str, text: str = "#### 5", finished: str | None = None) -> Group:
    """One completion a digit: "1" is right; in `finished`, "0" is cut short."""
    completions = tuple(
        Completion(name, i, text, (1, 2, 3), 3, float(reward), (finished or "1" * len(rewards))[i] == "1")
        for i, reward in enumerate(rewards)
    )
    return Group(Prompt(name, "How many?", "5"), completions)


def lines(groups: list[Group]) -> list[str]:
    return rollout_lines(rollout_facts(groups), groups)


def test_shares_by_hand() -> None:
    """Four prompts of four completions: one mixed (3 of 4 right), two always wrong, one always right.

    Rewards: 3 + 0 + 0 + 4 = 7 of 16.  Cut short: 2 of 16.  No answer: the 4 of prompt c.  Tokens: 16 x 3.
    """
    facts = rollout_facts(
        [group("a", "1011"), group("b", "0000", finished="1001"), group("c", "0000", "no idea"), group("d", "1111")]
    )
    assert facts == {
        "n_prompts": 4,
        "num_generations": 4,
        "n_completions": 16,
        "tokens": 48,
        "share_learnable": 0.25,
        "share_all_wrong": 0.5,
        "share_all_right": 0.25,
        "share_truncated": 2 / 16,
        "share_unparsable": 4 / 16,
        "mean_reward": 7 / 16,
    }


def test_shares_of_prompts_add_up_to_one() -> None:
    facts = rollout_facts([group("a", "10"), group("b", "00"), group("c", "11"), group("d", "01"), group("e", "00")])
    assert facts["share_learnable"] + facts["share_all_wrong"] + facts["share_all_right"] == pytest.approx(1)


def test_good_rollouts_take_one_line() -> None:
    [line] = lines([group("a", "10"), group("b", "00"), group("c", "11", finished="10"), group("d", "01")])
    assert "50.0% of 4 prompts can teach" in line
    assert "25.0% are always wrong, 25.0% always right; 12.5% of completions truncated, 0.0% without" in line


@pytest.mark.parametrize(
    ("groups", "advice"),
    [
        ([group("a", "0000", finished="0001")], "raise rollouts.max_new_tokens"),
        ([group("a", "0000", "I do not know")], "data.prompt_template"),
        ([group("a", "1111")], "too easy"),
        ([group("a", "0000")], "too hard"),
    ],
    ids=["cut short", "no answer", "easy", "hard"],
)
def test_nothing_to_learn_comes_with_the_likely_reason(groups: list[Group], advice: str) -> None:
    assert lines(groups)[1].startswith("Nothing can be learned")
    assert advice in lines(groups)[1]


def test_the_token_limit_is_named_before_the_missing_answers_that_it_causes() -> None:
    [_, line, *_] = lines([group("a", "00", "and then and then", finished="00")])
    assert "max_new_tokens" in line


def test_few_learnable_prompts_are_little_to_learn() -> None:
    """1 of 10 is still few, 2 of 10 are not."""
    wrong = [group(f"w{i}", "00") for i in range(9)]
    assert lines([group("a", "10"), *wrong])[1].startswith("Little can be learned")
    assert len(lines([group("a", "10"), group("b", "10"), *wrong[:8]])) == 1


def test_samples_show_gold_reward_and_the_beginning_of_a_completion() -> None:
    samples = lines([group(f"p-{i}", "00", "x" * 1000) for i in range(5)])[2:]
    assert len(samples) == SAMPLE_COMPLETIONS
    assert samples[0] == f"  p-0, gold 5, reward 0: {'x' * SAMPLE_CHARACTERS!r}"


def test_many_completions_cut_at_the_limit_are_explained() -> None:
    key, ends = "evaluation.max_new_tokens", ["<eos>", "<|im_end|>"]
    assert cut_lines("evaluation", {"base's on a": 1 / 3, "trained's on a": 0.0}, key, ends) == []
    [line] = cut_lines("evaluation", {"base's on a": 0.45, "base's on b": 0.1, "trained's on a": 0.5}, key, ends)
    assert line.startswith("evaluation: 45.0% of base's on a, 50.0% of trained's on a were cut at the token limit.")
    for word in ("'<eos>' or '<|im_end|>'", f"raise {key}", "eos_token_id", "data.prompt_template"):
        assert word in line
