"""The decode loop: prompts join a batch when slots are free, rows leave it when they end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache, DynamicCache

from lean_align.errors import ModelError
from lean_align.policy import Policy
from lean_align.rollouts.attention import grouped_heads
from lean_align.rollouts.cache import SlotCache
from lean_align.rollouts.choosing import choose_tokens
from lean_align.rollouts.support import check_model, check_prefilled
from lean_align.rollouts.windows import Sampling

Noise = Callable[[int, int], NDArray[np.float64]]
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
    check_model(policy.causal_lm, longest)
    policy.model.eval()
    loop = DecodeLoop(policy, encoded, noise, sampling, longest, advance)
    # not inference_mode: what a forward makes and keeps there could never be trained
    with torch.no_grad(), grouped_heads(policy.causal_lm):
        loop.run()
    ids = tuple(tuple(loop.ended[p, g] for g in sampling.indices) for p in range(len(encoded)))
    cache = loop.cache
    return Decoded(
        ids, loop.steps, loop.row_steps, loop.prefills, cache.shifts if cache else 0, cache.moves if cache else 0
    )


@dataclass
class DecodeRow:
    """A completion in the making."""

    prompt: int
    index: int
    noise: NDArray[np.float64]
    token_ids: list[int] = field(default_factory=list)


class DecodeLoop:
    """State of one window: prompts that wait, rows in their slots, completions that ended."""

    def __init__(
        self,
        policy: Policy,
        encoded: Sequence[Sequence[int]],
        noise: Noise,
        sampling: Sampling,
        longest: int,
        advance: Callable[[int], None],
    ) -> None:
        self.policy, self.encoded, self.noise, self.sampling = policy, encoded, noise, sampling
        self.longest, self.advance = longest, advance
        # longest first: the prompt of a row that joins is then no longer than any row's that is there
        self.waiting = deque(sorted(range(len(encoded)), key=lambda i: -len(encoded[i])))
        self.rows: list[DecodeRow] = []
        self.ended: dict[tuple[int, int], tuple[int, ...]] = {}
        self.cache: SlotCache | None = None
        self.steps = self.row_steps = self.prefills = 0

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
        group = self.sampling.indices
        joined = [DecodeRow(prompt, index, self.noise(prompt, index)) for prompt in prompts for index in group]
        sources = [source for source in range(len(prompts)) for _ in group]
        going_on = self._extend(joined, logits[sources])
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
        starts = self._tensor([width - len(row) for row in ids])[:, None]
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
        going_on = self._extend(self.rows, logits)
        if len(going_on) < len(self.rows):
            self.rows = [self.rows[slot] for slot in self.cache.keep(going_on)]

    def _forward(self, ids: list[list[int]], mask: torch.Tensor, positions: torch.Tensor, cache: Cache) -> torch.Tensor:
        output: Any = self.policy.model(
            input_ids=self._tensor(ids),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _extend(self, rows: list[DecodeRow], logits: torch.Tensor) -> list[int]:
        """Draw a token for each row; return which rows have not ended."""
        uniforms = self._tensor([row.noise[len(row.token_ids)] for row in rows], torch.float64)
        chosen = choose_tokens(logits, uniforms, self.sampling.temperature, self.sampling.top_p)
        going_on = []
        for i, token in enumerate(chosen.tolist()):
            if token >= logits.shape[-1]:
                raise ModelError(
                    f"the model's logits are NaN or infinite at token {len(rows[i].token_ids) + 1} of a completion. "
                    "Try model.dtype=float32, and check the adapter's weights."
                )
            rows[i].token_ids.append(token)
            if token in self.policy.eos_token_ids or len(rows[i].token_ids) == self.sampling.max_new_tokens:
                self.ended[rows[i].prompt, rows[i].index] = tuple(rows[i].token_ids)
            else:
                going_on.append(i)
        if len(going_on) < len(rows):
            self.advance(len(rows) - len(going_on))
        return going_on

    def _tensor(self, values: Any, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=self.policy.device)
