"""Hidden states of a prompt alone: what one forward pass says of it before anything is sampled.

    f_i = [h(prompt)_last, (1/|prompt|) sum_t h(prompt)_t]

h is the last hidden state after the final norm, which the output layer reads; the last position is the one that the
first token of a completion is drawn from.  Prompts are run in batches that their lengths and names fix, so that a row
is the same however often the work was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lean_align.memory import Halving
from lean_align.policy import Policy
from lean_align.policy.forward import micro_batches, rope_reach
from lean_align.signals.features import feature_dim
from lean_align.signals.states import HiddenStates, finite_states
from lean_align.types import Prompt


def prompt_state_dim(policy: Policy) -> int:
    """Length of a row: twice the model's hidden size."""
    return 2 * feature_dim(policy)


def prompt_states(
    policy: Policy,
    prompts: Sequence[Prompt],
    wanted: Collection[int] | None = None,
    token_budget: int = 4096,
    on_halving: Callable[[Halving], None] = lambda halving: None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the last and the mean hidden state of prompts, longest first.

    Parameters
    ----------
    policy : Policy
    prompts : sequence of Prompt
        All of them, whichever are wanted.
    wanted : collection of int, optional
        Places of those that are yielded; all when not given.
    token_budget : int
        Tokens a forward pass, padding included.
    on_halving : callable
        Told when `token_budget` was halved for want of memory.

    Yields
    ------
    place : int
    states : (2 * hidden size,) float32

    Raises
    ------
    ModelError
        When a state is not finite.
    OutOfMemoryError
        When a single prompt does not fit.
    """
    backbone, encoded = HiddenStates(policy, token_budget, on_halving), [policy.encoder.encode(p) for p in prompts]
    wanted = set(range(len(prompts)) if wanted is None else wanted)
    order = sorted(range(len(prompts)), key=lambda i: (-len(encoded[i]), prompts[i].prompt_id))
    batches = micro_batches([len(encoded[i]) for i in order], token_budget, reach=rope_reach(policy.causal_lm))
    for batch in batches:
        places = [order[i] for i in batch]
        if wanted.isdisjoint(places):
            continue
        for place, states in zip(places, backbone.of([encoded[i] for i in places])):
            if place in wanted:
                found = torch.cat([states[-1].double(), states.double().mean(0)])
                yield place, finite_states(found, prompts[place].prompt_id)
