"""Whether a model's completions can share their prompt, told before anything is computed with it.

The shared way needs keys and values in every layer, which all completions can read.  A layer that keeps a running state
(linear attention, convolutions) has none: such models take the plain way, which repeats the prompt for each completion.
Both ways give the same gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lean_align.errors import ModelError
from lean_align.gradients.log_probs import run_prompt
from lean_align.gradients.shared_prompt import shared_prompt_attention
from lean_align.policy import Policy
from lean_align.policy.families import FULL, SLIDING, Family, family_of

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
