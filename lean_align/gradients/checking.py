"""Whether the parts, as gradients use them, are the model: compared with its own forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from lean_align.errors import ModelError
from lean_align.gradients.group import completion_log_probs
from lean_align.gradients.paths import PLAIN, GradientPath, path_of
from lean_align.policy import Policy
from lean_align.types import Completion, Group, Prompt

CHECKED_TOKENS = 64
_QUESTION = Prompt("check", "Ann has 12 apples and finds 7 more. How many apples does she have?", "19")
_ANSWERS = ("12 + 7 = 19, so Ann has 19 apples.", "She has 12 of them.")


def check_log_probs(policy: Policy, group: Group, share_prompt: bool = True) -> GradientPath:
    """The way that gradients take, checked against the model's own log-probabilities.

    An output layer or an attention that does what is not reproduced here is found.

    Parameters
    ----------
    policy : Policy
    group : Group
        The first 64 tokens of its first two completions are computed.
    share_prompt : bool
        Whether the shared way is wanted; where the model cannot take it, it is the plain way.

    Raises
    ------
    ModelError
        When the mean difference over the tokens of a completion is above 0.01 nats by the plain way too, or above 0.2
        for a model that computes in 16 bits: there, rounding alone gave SmolLM2-135M 0.04 to 0.06 (and less than
        0.0001 in float32).
    """
    completions = [_first_tokens(completion, CHECKED_TOKENS) for completion in group.completions[:2]]
    return _checked(policy, policy.encoder.encode(group.prompt), completions, share_prompt)


def check_model(policy: Policy, share_prompt: bool = True) -> GradientPath:
    """The same with a made-up prompt and two completions of it, for when nothing has been sampled yet."""
    encode = policy.encoder.tokenizer.encode
    rows = [tuple(encode(text, add_special_tokens=False)) for text in _ANSWERS]
    completions = [Completion("check", i, "", row, len(row), 0.0, True) for i, row in enumerate(rows) if row]
    return _checked(policy, policy.encoder.encode(_QUESTION), completions, share_prompt)


def _checked(
    policy: Policy, prompt_ids: Sequence[int], completions: Sequence[Completion], share_prompt: bool
) -> GradientPath:
    path, tolerance = path_of(policy, share_prompt), 0.2 if policy.causal_lm.dtype.itemsize == 2 else 0.01
    theirs = [_own_log_probs(policy, prompt_ids, completion) for completion in completions]
    if path.shares_prompt:
        gap = _gap(policy, prompt_ids, completions, theirs, True)
        if gap <= tolerance:
            return path
        path = GradientPath(PLAIN, f"behind a shared prompt, log-probabilities are {gap:.3g} off the model's own")
    gap = _gap(policy, prompt_ids, completions, theirs, False)
    if not gap <= tolerance:
        raise ModelError(
            f"log-probabilities as the gradient stage computes them differ from the model's own by {gap:.3g} on "
            f"average (expected at most {tolerance}): {type(policy.causal_lm).__name__} does something between its "
            "layers and its logits that is not reproduced. Choose another model, or a selection.method without "
            "gradients."
        )
    return path


def _own_log_probs(policy: Policy, prompt_ids: Sequence[int], completion: Completion) -> torch.Tensor:
    ids = torch.tensor([[*prompt_ids, *completion.token_ids]], device=policy.device)
    with torch.no_grad():
        output = policy.model(input_ids=ids, use_cache=False, logits_to_keep=completion.n_tokens + 1)
    logits: torch.Tensor = output.logits[0, -completion.n_tokens - 1 : -1].float()
    return logits.log_softmax(-1).gather(1, ids[0, len(prompt_ids) :, None])[:, 0]


def _gap(
    policy: Policy,
    prompt_ids: Sequence[int],
    completions: Sequence[Completion],
    theirs: Sequence[torch.Tensor],
    share_prompt: bool,
) -> float:
    ours, row = completion_log_probs(policy, prompt_ids, completions, share_prompt=share_prompt)
    gaps = [(ours[row == i] - expected).abs().mean() for i, expected in enumerate(theirs)]
    return torch.stack(gaps).max().item()  # NaN where one is


def _first_tokens(completion: Completion, n: int) -> Completion:
    return replace(completion, token_ids=completion.token_ids[:n], n_tokens=min(n, completion.n_tokens))
