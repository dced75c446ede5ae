"""Whether a model's completions can share their prompt, decided before anything is computed with it.

The shared way needs keys and values in every layer, which all completions can read.  A layer that keeps a running state
(linear attention, convolutions) has none: such models take the plain way, which repeats the prompt for each completion.
Both ways give the same gradient.

`check_log_probs` compares the parts, as gradients use them, with the model's own forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lean_align.errors import ModelError
from lean_align.gradients.group import completion_log_probs
from lean_align.gradients.log_probs import run_prompt
from lean_align.gradients.shared_prompt import shared_prompt_attention
from lean_align.policy import Policy
from lean_align.policy.families import FULL, SLIDING, Family, family_of
from lean_align.policy.forward import CHECKED_TOKENS, own_log_probs, refuse_gap, tolerated_gap
from lean_align.types import Completion, Group, Prompt

SHARED, PLAIN = "shared", "plain"
_KINDS = {FULL, SLIDING, "chunked_attention"}


@dataclass(frozen=True)
class GradientPath:
    """The way a model's gradients are taken.

    Attributes
    ----------
    name : str
        `shared`, or `plain`.
    reason : str
        Why it is the plain way; empty for the shared one.
    """

    name: str
    reason: str = ""

    @property
    def shares_prompt(self) -> bool:
        """Whether the prompt of a group is computed once."""
        return self.name == SHARED

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}" if self.reason else self.name


def gradient_path(family: Family) -> str:
    """The way that a family's gradients take where `gradients.share_prompt` is true: `shared` or `plain`.

    Raises
    ------
    ModelError
        When neither serves it.
    """
    if family.encoder_decoder:
        raise ModelError(
            f"{family.class_name} reads a prompt with an encoder; gradients are taken of decoders, which read prompt "
            "and completion as one row. Choose a causal language model such as Qwen, Llama or Gemma."
        )
    return PLAIN if why_plain(family) else SHARED


def why_plain(family: Family) -> str:
    """Why a family's completions cannot share their prompt; empty where they can."""
    odd = sorted(family.kinds - _KINDS)
    if odd or family.stateful:
        return f"{family.class_name} has layers that keep a running state ({', '.join(odd) or 'no keys and values'})"
    if not family.attention_interface:
        return f"{family.class_name} computes its attention in a way of its own"
    return ""


def path_of(policy: Policy, share_prompt: bool = True) -> GradientPath:
    """The way for a loaded model: by its family, then by a prompt of two tokens.

    Parameters
    ----------
    policy : Policy
    share_prompt : bool
        Whether the shared way is wanted where the model can take it.

    Raises
    ------
    ModelError
        When neither serves it.
    """
    family = family_of(policy.causal_lm.config)
    if gradient_path(family) == PLAIN:
        return GradientPath(PLAIN, why_plain(family))
    if not share_prompt:
        return GradientPath(PLAIN, "gradients.share_prompt is false")
    try:
        with torch.no_grad(), shared_prompt_attention(policy):
            run_prompt(policy, [0, 0])
    except ModelError as error:
        return GradientPath(PLAIN, str(error).split(". ")[0])
    return GradientPath(SHARED)


_QUESTION = Prompt("check", "Ann has 12 apples and finds 7 more. How many apples does she have?", "19")
_WITHOUT = "a selection.method without gradients"
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
        When the mean difference over the tokens of a completion is more than rounding by the plain way too.
    """
    completions = [_first_tokens(completion, CHECKED_TOKENS) for completion in group.completions[:2]]
    return _checked(policy, policy.encoder.encode(group.prompt), completions, share_prompt)


def check_model(policy: Policy, share_prompt: bool = True, instead: str = _WITHOUT) -> GradientPath:
    """The same with a made-up prompt and two completions of it, for when nothing has been sampled yet.

    `instead` is what to do where the model is refused, besides taking another.
    """
    encode = policy.encoder.tokenizer.encode
    rows = [tuple(encode(text, add_special_tokens=False)) for text in _ANSWERS]
    completions = [Completion("check", i, "", row, len(row), 0.0, True) for i, row in enumerate(rows) if row]
    return _checked(policy, policy.encoder.encode(_QUESTION), completions, share_prompt, instead)


def _checked(
    policy: Policy,
    prompt_ids: Sequence[int],
    completions: Sequence[Completion],
    share_prompt: bool,
    instead: str = _WITHOUT,
) -> GradientPath:
    path = path_of(policy, share_prompt)
    theirs = [own_log_probs(policy, [*prompt_ids, *c.token_ids], len(prompt_ids)) for c in completions]
    if path.shares_prompt:
        gap = _gap(policy, prompt_ids, completions, theirs, True)
        if gap <= tolerated_gap(policy):
            return path
        path = GradientPath(PLAIN, f"behind a shared prompt, log-probabilities are {gap:.3g} off the model's own")
    gap = _gap(policy, prompt_ids, completions, theirs, False)
    refuse_gap(policy, gap, "as gradients are taken of them", "", f"Choose another model, or {instead}.")
    return path


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
