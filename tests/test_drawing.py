"""Inverting a cumulative distribution: edges by hand, the drawn shares, and a rare tail of 150,000 tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lean_align.rollouts.drawing import choose_tokens

SHARES = torch.tensor([0.0, 0.5, 0.25, 0.0, 0.125, 0.125, 0.0])
BELOW_ONE = 1 - 2**-53


def draw(logits: torch.Tensor, uniforms, temperature: float = 1.0) -> list[int]:
    uniforms = torch.as_tensor(uniforms, dtype=torch.float64)
    return choose_tokens(logits.expand(len(uniforms), -1), uniforms, temperature).tolist()


def chi_square(tokens: list[int], shares: torch.Tensor) -> float:
    """Pearson's statistic over tokens of positive share; infinite when another token was drawn."""
    counts = torch.bincount(torch.tensor(tokens), minlength=len(shares)).double()
    if counts[shares == 0].any():
        return float("inf")
    expected = len(tokens) * shares[shares > 0].double()
    return float(((counts[shares > 0] - expected) ** 2 / expected).sum())


def test_each_edge_by_hand():
    """Sums are 0, 1/2, 3/4, 3/4, 7/8, 1, 1: the token is the first whose sum exceeds u."""
    uniforms = [0.0, 0.49, 0.5, 0.74, 0.75, 0.87, 0.875, BELOW_ONE]
    assert draw(SHARES.log(), uniforms) == [1, 1, 2, 2, 4, 4, 5, 5]


def test_shares_of_the_draws_and_a_temperature_left_out_is_caught():
    uniforms = np.random.default_rng(7).random(20_000)
    logits = SHARES.log()
    at_two = torch.softmax(logits / 2, dim=-1)
    limit = 16.27  # 99.9 % quantile of chi-square with 3 degrees of freedom
    assert chi_square(draw(logits, uniforms), SHARES) < limit
    assert chi_square(draw(logits, uniforms, 2.0), at_two) < limit
    assert chi_square(draw(logits, uniforms, 1.0), at_two) > 10 * limit


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, BELOW_ONE]), st.sampled_from([1.0, 30.0, 3000.0]))
def test_a_token_of_probability_zero_is_never_drawn(seed, uniform, scale):
    logits = scale * torch.randn(3, 700, generator=torch.Generator().manual_seed(seed))
    tokens = choose_tokens(logits, torch.full((3,), uniform, dtype=torch.float64), 1.0)
    assert torch.softmax(logits, dim=-1).gather(1, tokens[:, None]).min() > 0


def test_the_tail_of_a_large_vocabulary_is_drawn_as_often_as_it_should_and_float32_sums_are_caught():
    """One token of 1/2 and 150,000 of 1/300,000: u = (1 + k / 150,000) / 2 falls on tail token k."""
    size = 150_000
    logits = torch.full((size + 1,), 0.0)
    logits[0] = np.log(size)
    wanted = np.arange(0, size, 3_001)
    uniforms = (1 + (wanted + 0.5) / size) / 2
    assert np.abs(np.array(draw(logits, uniforms)) - 1 - wanted).max() <= 1
    narrow = torch.softmax(logits, dim=-1).numpy().cumsum(dtype=np.float32)
    off = np.abs(np.searchsorted(narrow, uniforms.astype(np.float32), side="right") - 1 - wanted).max()
    assert off > 10


def test_temperature_zero_takes_the_first_of_the_largest():
    assert draw(torch.tensor([0.0, 3.0, 3.0, -1.0]), [0.9, 0.1], 0.0) == [1, 1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_give_a_token_past_the_end(temperature, bad):
    assert draw(torch.tensor([0.0, bad, 1.0]), [0.5], temperature) == [3]


def test_top_p_by_hand():
    """Shares 1/2, 1/4, 1/8, 1/8 in that order of size: 0.5 is made up by the first, 0.6 by two, 0.8 by three.

    With two left, tokens 1 and 2 have 2/3 and 1/3; of the equals 4 and 5 the first stays.
    """

    def drawn(top_p: float) -> set[int]:
        uniforms = torch.linspace(0, BELOW_ONE, 1000, dtype=torch.float64)
        return set(choose_tokens(SHARES.log().expand(1000, -1), uniforms, 1.0, top_p).tolist())

    assert [drawn(p) for p in (0.01, 0.5, 0.6, 0.8, 1.0)] == [{1}, {1}, {1, 2}, {1, 2, 4}, {1, 2, 4, 5}]
    edges = torch.tensor([2 / 3 - 1e-6, 2 / 3 + 1e-6], dtype=torch.float64)
    assert choose_tokens(SHARES.log().expand(2, -1), edges, 1.0, 0.6).tolist() == [1, 2]


def test_top_p_is_taken_after_the_temperature():
    """At temperature 2 the shares are as their roots: 0.357, 0.252, 0.178, 0.178: 0.5 takes two tokens, not one."""
    uniforms = torch.linspace(0, BELOW_ONE, 1000, dtype=torch.float64)
    drawn = choose_tokens(SHARES.log().expand(1000, -1), uniforms, 2.0, 0.5).tolist()
    assert set(drawn) == {1, 2}


def test_nan_is_told_from_a_token_below_top_p_too():
    logits = torch.tensor([[0.0, float("nan"), 1.0]])
    assert choose_tokens(logits, torch.tensor([0.5], dtype=torch.float64), 1.0, 0.9).tolist() == [3]
