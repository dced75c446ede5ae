"""Decoding for models whose layers keep a running state, or keep keys and values in a way of their own.

Such a past can neither be padded nor joined later.  So prompts of one length make a batch, without padding, and the
model's own cache goes with it from the first token to the last, as in transformers' `generate`.

Differs from `generate` in: 1. a prompt is computed once and its state copied to its G completions; 2. a row that ends
leaves the batch; 3. noise belongs to the row, as in `decoding`.  Slower than the decode loop, since no prompt takes the
slots that are free, and prompts of different lengths wait for one another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from lean_align.policy import Policy
from lean_align.policy.families import Family, family_of
from lean_align.rollouts.drawing import DecodeRow, Drawing


def new_cache(causal_lm: Any) -> DynamicCache:
    """The empty cache that `generate` would make for a model: each layer's kind has its own."""
    return DynamicCache(config=causal_lm.config.get_text_config(decoder=True))


class EqualLengths(Drawing):
    """Decodes prompts of one length at a time; arguments as of `Drawing`."""

    def __init__(self, policy: Policy, *rest: Any) -> None:
        super().__init__(policy, *rest)
        self.family = family_of(policy.causal_lm.config)

    def run(self) -> None:
        """Decode every prompt."""
        for prompts in self.batches():
            rows, cache = self.join(prompts)
            while rows:
                rows, cache = self.step(rows, cache)

    def batches(self) -> Iterator[list[int]]:
        """Prompts of equal length, as many as `slots` hold with all their completions; the longest come first."""
        by_length: dict[int, list[int]] = defaultdict(list)
        for prompt, ids in enumerate(self.encoded):
            by_length[len(ids)].append(prompt)
        at_once = max(1, self.sampling.slots // self.sampling.num_generations)
        for length in sorted(by_length, reverse=True):
            prompts = by_length[length]
            yield from (prompts[start : start + at_once] for start in range(0, len(prompts), at_once))

    def join(self, prompts: list[int]) -> tuple[list[DecodeRow], Cache]:
        """Run the prompts and draw first tokens; the rows that go on, and their cache."""
        cache = new_cache(self.policy.causal_lm)
        logits = self.forward([list(self.encoded[prompt]) for prompt in prompts], cache)
        self.prefills += 1
        rows, sources = self.begin(prompts)
        going_on = self.extend(rows, logits[sources])
        if going_on:
            cache.reorder_cache(self.tensor([sources[i] for i in going_on]))
        return [rows[i] for i in going_on], cache

    def step(self, rows: list[DecodeRow], cache: Cache) -> tuple[list[DecodeRow], Cache]:
        """Draw one token for every row; the rows that go on, and their cache."""
        fed = [[row.token_ids[-1]] for row in rows]
        whole = [[*self.encoded[row.prompt], *row.token_ids] for row in rows]
        if self.family.rope_reach is not None and len(whole[0]) == self.family.rope_reach + 1:
            cache, fed = new_cache(self.policy.causal_lm), whole  # all positions change pace, those in the cache too
        logits = self.forward(fed, cache)
        self.steps += 1
        self.row_steps += len(rows)
        going_on = self.extend(rows, logits)
        if 0 < len(going_on) < len(rows):
            cache.reorder_cache(self.tensor(going_on))
        return [rows[i] for i in going_on], cache

    def forward(self, ids: list[list[int]], cache: Cache) -> torch.Tensor:
        """Logits of the last token of each row, (rows, V)."""
        output = self.policy.model(input_ids=self.tensor(ids), **cache_arguments(self.family, cache))
        logits: torch.Tensor = output.logits[:, -1]
        return logits


def cache_arguments(family: Family, cache: Cache) -> dict[str, Any]:
    """A cache under the name that the model's forward has for it, and what else it takes of a step's arguments."""
    name = "past_key_values" if "past_key_values" in family.arguments else "cache_params"
    last = {"logits_to_keep": 1} if "logits_to_keep" in family.arguments else {}
    return {name: cache, "use_cache": True, **last}


def skip_to(cache: Cache, length: int) -> None:
    """Widen a cache to what the steps up to `length` tokens would have left there; states keep their size."""
    for layer in cache.layers:
        if isinstance(layer, DynamicLayer) and layer.is_initialized:
            kept = getattr(layer, "sliding_window", None)
            columns = length if kept is None else min(length, kept - 1)
            shape = (*layer.keys.shape[:2], columns, layer.keys.shape[3])
            value_shape = (*layer.values.shape[:2], columns, layer.values.shape[3])
            layer.keys, layer.values = layer.keys.new_empty(shape), layer.values.new_empty(value_shape)
            if kept is not None:
                layer.cumulative_length = length
