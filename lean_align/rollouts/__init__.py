"""Completions of every prompt: a decode loop with continuous batching, in which every row has its own noise.

A completion o_g of prompt x is drawn token by token from softmax(logits / T).  Token t of completion g
is the smallest v whose cumulative probability exceeds u_t, with u the uniforms of
`rng_for(seed, stage, "prompt_id/g")`.

Differs from transformers' `generate` in:

1. Noise belongs to the row, not to the batch: which rows share a batch changes a completion through the
   rounding of the model's matrix products alone.
2. A row that ends leaves the batch at once and a prompt that waits takes its slots; `generate` decodes
   until the longest row of a batch has ended.
3. A prompt is computed once and its keys and values are copied to its G completions.
4. Keys and values lie in buffers of a fixed size (`cache.SlotCache`), where `generate` makes them again at every token.
5. Heads that share keys and values read them in place (`attention`); `generate` with padding copies them.
6. Only plain sampling: a temperature and top-p (evaluation alone), no top-k, no penalties, whatever the model's own
   generation_config says.

transformers' own continuous batching (`generate_batch`) is not used: it draws every row from one global
generator, so that a completion depends on its neighbours and a resumed run would write others.

Layers with a window are decoded with it, by the same loop.  Models whose layers keep a running state (linear attention,
convolutions) are decoded in batches of prompts of one length (`equal_lengths`); `paths.rollout_path` says which way
serves a model, from its configuration alone.

Prompts are sorted by length and cut into windows (`sampling.make_windows`), a function of the recipe and the
prompts alone.  A window is decoded from an empty batch and written whole, so that the file of a resumed
run is that of an uninterrupted one, byte for byte, rounding included.

Every prompt gets the same number of completions (`completions.complete`), or the last of them only where the rewards
of the first differ (`completions.complete_sequentially`).
"""

from __future__ import annotations

from lean_align.rollouts.completions import (
    Reward,
    complete,
    complete_sequentially,
    generate_batch,
    generate_within_memory,
    group_completions,
    read_completions,
)
from lean_align.rollouts.decoding import Decoded, TransformersEngine, decode
from lean_align.rollouts.sampling import Engine, Sampling, make_windows

__all__ = [
    "Decoded",
    "Engine",
    "Reward",
    "Sampling",
    "TransformersEngine",
    "complete",
    "complete_sequentially",
    "decode",
    "generate_batch",
    "generate_within_memory",
    "group_completions",
    "make_windows",
    "read_completions",
]
