"""What each token weighs in a step's loss, and the loss of a token, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from lean_training import settings_of

from lean_align.grpo.losses import GroupLoss, group_loss, token_shares
from lean_align.types import Completion, Group, Prompt

CPU = torch.device("cpu")


def group_of(*completions: tuple[int, float, bool]) -> Group:
    """Of (tokens, reward, finished)."""
    made = [Completion("p", i, "", (5,) * n, n, reward, done) for i, (n, reward, done) in enumerate(completions)]
    return Group(Prompt("p", "?", "1"), tuple(made))


GROUPS = [group_of((2, 1.0, True), (4, 0.0, True)), group_of((1, 1.0, False), (3, 0.0, True))]


@pytest.mark.parametrize(
    ("loss", "micro_batch", "whole", "masked"),
    [
        # N = 4 completions of 2, 4, 1 and 3 tokens, of which the third is cut off; L = 12
        ("grpo", 2, (8, 16, 4, 12), (8, 16, None, 12)),
        ("dr_grpo", 2, (48, 48, 48, 48), (48, 48, None, 48)),
        ("dapo", 2, (10, 10, 10, 10), (9, 9, None, 9)),
        # M = 2 micro-batches of 6 and 4 tokens, or 6 and 3
        ("bnpo", 2, (12, 12, 8, 8), (12, 12, None, 6)),
        # 7 and 3 tokens, or 6 and 3: the second is not full
        ("bnpo", 3, (14, 14, 14, 6), (12, 12, None, 6)),
    ],
)
def test_what_a_token_weighs(loss, micro_batch, whole, masked):
    for mask, expected in ((False, whole), (True, masked)):
        found = token_shares(GROUPS, settings_of(loss=loss, micro_batch=micro_batch, mask_truncated=mask))
        assert [len(shares) for shares in found] == [2, 2]
        assert [*found[0], *found[1]] == [0.0 if total is None else pytest.approx(1 / total) for total in expected]


def test_a_step_of_which_everything_is_masked_weighs_nothing():
    groups = [group_of((2, 1.0, False), (4, 0.0, False))]
    for loss in ("grpo", "dr_grpo", "dapo", "bnpo"):
        shares = token_shares(groups, settings_of(loss=loss, mask_truncated=True))
        assert shares == [[0.0, 0.0]]
        assert group_loss(groups[0], shares[0], settings_of(loss=loss, beta=0.1), CPU) is None


@pytest.mark.parametrize(
    ("trainer", "even", "uneven"),
    [
        ({}, None, [0, 2]),  # without a KL term, completions of advantage 0 are not run
        ({"beta": 0.1}, [0, 1, 2], [0, 1, 2]),
        ({"beta": 0.1, "kl_groups": "spread"}, None, [0, 1, 2]),
    ],
)
def test_which_completions_have_a_part_in_the_loss(trainer, even, uneven):
    """Rewards 1, 0.5 and 0: the second has advantage 0."""
    settings = settings_of(**trainer)
    for rewards, expected in (((1.0, 1.0, 1.0), even), ((1.0, 0.5, 0.0), uneven)):
        found = group_loss(group_of(*((2, reward, True) for reward in rewards)), [0.1] * 3, settings, CPU)
        assert (None if found is None else [c.index for c in found.completions]) == expected


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope", "clipped"),
    [
        (1.5, 1.0, -1.2, 0.0, 1),  # clipped to 1.2
        (1.5, -1.0, 1.5, 1.5, 0),
        (0.5, 1.0, -0.5, -0.5, 0),
        (0.5, -1.0, 0.8, 0.0, 1),  # clipped to 0.8
        (1.1, 2.0, -2.2, -2.2, 0),
    ],
)
def test_a_tokens_loss_by_hand(ratio, advantage, loss, slope, clipped):
    """-min(r A, clip(r) A) with epsilon 0.2, and its slope over the log-probability; it weighs 1/4."""
    token = torch.tensor([math.log(ratio)], requires_grad=True)
    one = torch.ones(1, dtype=torch.float64)
    of_group = GroupLoss((), advantage * one, one / 4, epsilon=0.2, beta=0.0, old=torch.zeros(1))
    of_group(token, slice(0, 1)).backward()
    assert float(of_group.loss) == pytest.approx(loss / 4)
    assert token.grad.item() == pytest.approx(slope / 4)
    assert float(of_group.clipped) == clipped


def test_the_kl_term_by_hand():
    """ref - lp = log 2 and r = 1.5, A = 0: 1.5 (2 - log 2 - 1) = 0.460279.

    Its slope is that of r e^(ref - lp) - r (ref - lp) - r, whose first part is constant: -r log 2 + r - r = -1.039721.
    """
    token = torch.tensor([math.log(1.5)], requires_grad=True)
    one, reference = torch.ones(1, dtype=torch.float64), torch.tensor([math.log(3.0)])
    of_group = GroupLoss((), 0 * one, one, 0.2, beta=0.1, reference=reference, old=torch.zeros(1))
    of_group(token, slice(0, 1)).backward()
    assert float(of_group.kl) == pytest.approx(0.460279, abs=1e-6)
    assert float(of_group.loss) == pytest.approx(0.0460279, abs=1e-7)
    assert token.grad.item() == pytest.approx(-0.1039721, abs=1e-6)


def test_the_policy_that_sampled_is_that_of_the_first_pass():
    """Ratios of further passes are to it, not to the pass before."""
    one = torch.ones(2, dtype=torch.float64)
    of_group = GroupLoss((), one, one, epsilon=10.0, beta=0.0)
    for log_probs, loss in (([0.0, -1.0], -2.0), ([1.0, -1.0], -math.e - 1), ([0.0, 0.0], -1 - math.e)):
        of_group.begin()
        for place, value in enumerate(log_probs):  # a token at a time
            of_group(torch.tensor([value], requires_grad=True), slice(place, place + 1))
        of_group.keep_as_old()
        assert float(of_group.loss) == pytest.approx(loss)
    assert of_group.old.tolist() == [0.0, -1.0]
