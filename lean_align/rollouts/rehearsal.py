"""Decoding at its fullest on a policy without numbers: what a plan counts the bytes of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from lean_align.policy import Policy
from lean_align.policy.families import family_of
from lean_align.policy.lora_layers import lean_lora_layers
from lean_align.rollouts.attention import grouped_heads
from lean_align.rollouts.decoding import DecodeLoop
from lean_align.rollouts.drawing import DecodeRow, Drawing, choose_tokens
from lean_align.rollouts.equal_lengths import EqualLengths, skip_to
from lean_align.rollouts.paths import EQUAL_LENGTHS, rollout_path
from lean_align.rollouts.sampling import Sampling


def rehearse_decoding(
    policy: Policy, n_prompts: int, prompt_tokens: int, sampling: Sampling, after_prompts: Callable[[], None]
) -> None:
    """Let prompts join until the batch is full, then take one step with every row at its longest.

    Parameters
    ----------
    policy : Policy
        On torch's `meta` device.
    n_prompts, prompt_tokens : int
        Prompts of a window, and the length of each.
    sampling : Sampling
    after_prompts : callable
        Called between the two.

    Raises
    ------
    ModelError
        When no way of decoding serves the model.
    """
    zeros = np.zeros(sampling.max_new_tokens)
    longest, encoded = prompt_tokens + sampling.max_new_tokens, [[0] * prompt_tokens] * n_prompts
    path = rollout_path(family_of(policy.causal_lm.config), longest).or_refuse()
    kind = _EqualLengths if path.name == EQUAL_LENGTHS else _DecodeLoop
    loop = kind(policy, encoded, lambda prompt, index: zeros, sampling, lambda n: None)
    with torch.no_grad(), grouped_heads(policy.causal_lm), lean_lora_layers(policy):
        loop.fill()
        after_prompts()
        loop.last_step()


class _Endless(Drawing):
    """No token ends a row, and none is read."""

    def extend(self, rows: list[DecodeRow], logits: torch.Tensor) -> list[int]:
        uniforms = self.tensor([0.0 for _ in rows], torch.float64)
        choose_tokens(logits, uniforms, self.sampling.temperature)
        for row in rows:
            row.token_ids.append(0)
        return list(range(len(rows)))


class _DecodeLoop(_Endless, DecodeLoop):
    def fill(self) -> None:
        while joining := self._prompts_to_join():
            self._join([self.waiting.popleft() for _ in range(joining)])

    def last_step(self) -> None:
        assert self.cache is not None  # made when the first prompts joined
        self.cache.skip_to_end()
        self._step()


class _EqualLengths(_Endless, EqualLengths):
    def fill(self) -> None:
        self.joined = self.join(next(self.batches()))

    def last_step(self) -> None:
        rows, cache = self.joined
        skip_to(cache, len(self.encoded[0]) + self.sampling.max_new_tokens - 1)
        self.step(rows, cache)
