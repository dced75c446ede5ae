"""Mean hidden state of a prompt's completions: what `feature-similarity` puts in place of gradients.

    f_i = (1/G) sum_g (1/|o_g|) sum_t h(prompt, o_g,<=t)

h is the last hidden state after the final norm, which the output layer reads, at the completion's own positions: each
token has been read.  LearnAlign (arXiv 2506.11480, ablation) names hidden-state features and says no more, so layer,
positions and means are our choice.  As with gradients, a prompt with learnability 0 gets zeros and is not run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from lean_align.memory import Halving
from lean_align.policy import Policy
from lean_align.signals.states import HiddenStates, finite_states
from lean_align.types import Group


def feature_dim(policy: Policy) -> int:
    """Length of a feature vector: the model's hidden size."""
    return int(policy.causal_lm.get_output_embeddings().weight.shape[1])


def completion_features(
    policy: Policy,
    groups: Iterable[Group],
    token_budget: int = 4096,
    on_halving: Callable[[Halving], None] = lambda halving: None,
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield each prompt's mean hidden state.

    Parameters
    ----------
    policy : Policy
        The policy that sampled the completions.
    groups : iterable of Group
    token_budget : int
        Tokens a forward pass, padding included.
    on_halving : callable
        Told when `token_budget` was halved for want of memory.

    Yields
    ------
    prompt_id : str
    features : (hidden size,) float32
        Not normalised; zeros where learnability is 0.

    Raises
    ------
    ModelError
        When a state is not finite.
    OutOfMemoryError
        When a single row does not fit.
    """
    backbone = HiddenStates(policy, token_budget, on_halving)
    for group in groups:
        total = torch.zeros(feature_dim(policy), dtype=torch.float64)
        if group.learnability > 0:
            prompt = policy.encoder.encode(group.prompt)
            for states in backbone.of([[*prompt, *completion.token_ids] for completion in group.completions]):
                total += states[len(prompt) :].double().mean(0).cpu()
        yield group.prompt.prompt_id, finite_states(total / len(group.completions), group.prompt.prompt_id)
