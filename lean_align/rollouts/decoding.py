"""The decode loop: prompts join a batch when slots are free, rows leave it when they end.

`TransformersEngine` samples with it; `vllm.VllmEngine` does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache

from lean_align.policy import Policy, PromptEncoder
from lean_align.policy.families import family_of
from lean_align.policy.lora_layers import lean_lora_layers
from lean_align.rollouts.attention import grouped_heads
from lean_align.rollouts.cache import SlotCache
from lean_align.rollouts.drawing import DecodeRow, Drawing, Noise
from lean_align.rollouts.equal_lengths import EqualLengths
from lean_align.rollouts.paths import EQUAL_LENGTHS, check_prefilled, rollout_path
from lean_align.rollouts.sampling import Groups, Sampling
from lean_align.types import Prompt

REFILL = 0.25
"""Share of the slots that must be free before prompts join: fewer, larger prefills."""


@dataclass(frozen=True)
class Decoded:
    """Completions and how the batch went.

    Attributes
    ----------
    token_ids : tuple of tuple of tuple of int
        By prompt, then by `sampling.indices`; an end token is the last one.
    steps : int
        Forward passes of one token a row.
    row_steps : int
        Sum of the rows over those passes.
    prefills : int
        Forward passes over prompts.
    shifts, moves : int
        How often the buffers were moved left, and rows to another slot.
    """

    token_ids: tuple[tuple[tuple[int, ...], ...], ...]
    steps: int
    row_steps: int
    prefills: int
    shifts: int
    moves: int


def decode(
    policy: Policy,
    encoded: Sequence[Sequence[int]],
    noise: Noise,
    sampling: Sampling,
    advance: Callable[[int], None] = lambda n: None,
) -> Decoded:
    """Sample `num_generations` completions of every prompt with continuous batching.

    Parameters
    ----------
    policy : Policy
        Left in evaluation mode.
    encoded : sequence of sequence of int
        Token ids of each prompt.
    noise : callable
        (prompt, index) -> (max_new_tokens,) uniforms in [0, 1).
    sampling : Sampling
    advance : callable
        Told the number of completions that have just ended.

    Returns
    -------
    Decoded

    Raises
    ------
    ModelError
        When the model attends in a way that the cache cannot hold, or its logits are not finite.
    """
    longest = max(len(ids) for ids in encoded) + sampling.max_new_tokens
    path = rollout_path(family_of(policy.causal_lm.config), longest).or_refuse()
    policy.model.eval()
    loop: EqualLengths | DecodeLoop
    if path.name == EQUAL_LENGTHS:
        loop = EqualLengths(policy, encoded, noise, sampling, advance)
    else:
        loop = DecodeLoop(policy, encoded, noise, sampling, advance)
    # not inference_mode: what a forward makes and keeps there could never be trained
    with torch.no_grad(), grouped_heads(policy.causal_lm), lean_lora_layers(policy):
        loop.run()
    ids = tuple(tuple(loop.ended[p, g] for g in sampling.indices) for p in range(len(encoded)))
    cache = loop.cache if isinstance(loop, DecodeLoop) else None
    return Decoded(
        ids, loop.steps, loop.row_steps, loop.prefills, cache.shifts if cache else 0, cache.moves if cache else 0
    )


class DecodeLoop(Drawing):
    """State of one window: prompts that wait, rows in their slots, completions that ended."""

    def __init__(
        self,
        policy: Policy,
        encoded: Sequence[Sequence[int]],
        noise: Noise,
        sampling: Sampling,
        advance: Callable[[int], None],
    ) -> None:
        super().__init__(policy, encoded, noise, sampling, advance)
        self.longest = max(len(ids) for ids in encoded) + sampling.max_new_tokens
        # longest first: the prompt of a row that joins is then no longer than any row's that is there
        self.waiting = deque(sorted(range(len(encoded)), key=lambda i: -len(encoded[i])))
        self.rows: list[DecodeRow] = []
        self.cache: SlotCache | None = None

    def run(self) -> None:
        """Decode until no prompt waits and no row is left."""
        while self.waiting or self.rows:
            joining = self._prompts_to_join()
            if joining:
                self._join([self.waiting.popleft() for _ in range(joining)])
            else:
                self._step()

    def _prompts_to_join(self) -> int:
        free, group = self.sampling.slots - len(self.rows), self.sampling.num_generations
        worth = min(len(self.waiting) * group, int(REFILL * self.sampling.slots))
        return min(len(self.waiting), free // group) if not self.rows or free >= worth else 0

    def _join(self, prompts: list[int]) -> None:
        logits, prefilled = self._prefill(prompts)
        joined, sources = self.begin(prompts)
        going_on = self.extend(joined, logits[sources])
        if not going_on:
            return
        if self.cache is None:
            most = min(self.sampling.slots, len(self.encoded) * self.sampling.num_generations)
            self.cache = SlotCache(prefilled, most, self.longest)
        lengths = [len(self.encoded[joined[i].prompt]) for i in going_on]
        self.cache.insert(prefilled, [sources[i] for i in going_on], lengths)
        self.rows += [joined[i] for i in going_on]

    def _prefill(self, prompts: list[int]) -> tuple[torch.Tensor, Cache]:
        """Last logits (prompts, V) and cache of prompts, padded on the left to the longest."""
        ids = [list(self.encoded[prompt]) for prompt in prompts]
        width = max(len(row) for row in ids)
        padded = [[self.policy.pad_token_id] * (width - len(row)) + row for row in ids]
        starts = self.tensor([width - len(row) for row in ids])[:, None]
        columns = torch.arange(width, device=self.policy.device)
        prefilled = DynamicCache()
        logits = self._forward(padded, columns >= starts, (columns - starts).clamp(min=0), prefilled)
        check_prefilled(self.policy.causal_lm, prefilled, width)
        self.prefills += 1
        return logits, prefilled

    def _step(self) -> None:
        assert self.cache is not None  # rows exist only after one has joined
        mask, positions = self.cache.begin_step(self.policy.device)
        logits = self._forward([[row.token_ids[-1]] for row in self.rows], mask, positions, self.cache)
        self.cache.end_step()
        self.steps += 1
        self.row_steps += len(self.rows)
        going_on = self.extend(self.rows, logits)
        if len(going_on) < len(self.rows):
            self.rows = [self.rows[slot] for slot in self.cache.keep(going_on)]

    def _forward(self, ids: list[list[int]], mask: torch.Tensor, positions: torch.Tensor, cache: Cache) -> torch.Tensor:
        output: Any = self.policy.model(
            input_ids=self.tensor(ids),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits


@dataclass(frozen=True)
class TransformersEngine:
    """The decode loop, on the very policy whose gradients are taken."""

    policy: Policy

    @property
    def encoder(self) -> PromptEncoder:
        """The policy's."""
        return self.policy.encoder

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The policy's."""
        return self.policy.eos_token_ids

    def with_encoder(self, encoder: PromptEncoder) -> TransformersEngine:
        """The same engine, with prompts put to it in another way."""
        return TransformersEngine(replace(self.policy, encoder=encoder))

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, advance: Callable[[int], None] = lambda n: None
    ) -> Groups:
        """Token ids by prompt and index, each row with noise of its own."""
        encoded = [self.encoder.encode(prompt) for prompt in prompts]
        noise = [prompt.prompt_id for prompt in prompts]
        return decode(self.policy, encoded, lambda p, g: sampling.noise(noise[p], g), sampling, advance).token_ids
