"""Which way of decoding serves a model, from its configuration alone; a model that none serves is refused early."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache as once
from typing import Any

from transformers.cache_utils import Cache, DynamicLayer

from lean_align.errors import ModelError
from lean_align.policy.families import FULL, SLIDING, Family
from lean_align.progress import say

PLAIN, WINDOWED, EQUAL_LENGTHS, REFUSED = "plain", "windowed", "equal lengths", "refused"
_CHUNKED = "chunked_attention"
_ARGUMENTS = ("attention_mask", "position_ids", "past_key_values", "logits_to_keep")
# kept in modules of the model, or in a form that rows cannot be taken out of
_OWN_STATE = ("recurrent_gemma", "rwkv", "xlstm")


@dataclass(frozen=True)
class RolloutPath:
    """How a model's completions are decoded.

    Attributes
    ----------
    name : str
        `plain`: the decode loop, every layer sees its whole past; `windowed`: the same, where some layers see only the
        last tokens of a row; `equal lengths`: fixed batches of prompts of one length, with the model's own cache;
        `refused`.
    reason : str
        Why it is not `plain`.
    """

    name: str
    reason: str = ""

    def or_refuse(self) -> RolloutPath:
        """The same path, reported once per process where it is slower.

        Raises
        ------
        ModelError
            When the model is refused.
        """
        if self.name == REFUSED:
            raise ModelError(self.reason)
        if self.name == EQUAL_LENGTHS:
            _say_once(f"rollouts: {self.reason}")
        return self


def rollout_path(family: Family, longest: int | None = None) -> RolloutPath:
    """The way of decoding that serves a family of models.

    Parameters
    ----------
    family : Family
    longest : int, optional
        Tokens of the longest prompt with a completion; a window that is not shorter does not count.

    Returns
    -------
    RolloutPath
    """
    name = family.class_name
    if family.encoder_decoder:
        return RolloutPath(
            REFUSED, f"{name} is an encoder-decoder. Rollouts need a decoder-only model, such as a Qwen or a Llama."
        )
    if family.model_type in _OWN_STATE or not family.arguments & {"past_key_values", "cache_params"}:
        return RolloutPath(
            REFUSED,
            f"{name} keeps its past in a way of its own, not in a transformers cache, so its completions cannot be "
            "decoded here. Choose a model with attention, such as a Qwen or a Llama.",
        )
    odd = sorted(family.kinds - {FULL, SLIDING, _CHUNKED})
    missing = [argument for argument in _ARGUMENTS if argument not in family.arguments]
    if odd or family.stateful or family.shared_layers or missing:
        if odd or family.stateful:
            what = f"layers of kind {', '.join(odd)}" if odd else "layers with a running state"
        elif family.shared_layers:
            what = f"{family.shared_layers} layers that share the keys and values of others"
        else:
            what = f"no argument {', '.join(missing)}"
        return RolloutPath(
            EQUAL_LENGTHS,
            f"{name} has {what}: prompts of equal length are decoded in fixed batches, with the cache of transformers' "
            "generate, which is slower than the decode loop",
        )
    if family.rope_reach is not None and longest is not None and longest > family.rope_reach:
        return RolloutPath(
            EQUAL_LENGTHS,
            f"{name} turns positions at another pace in rows of more than {family.rope_reach} tokens: prompts of equal "
            "length are decoded in fixed batches, and computed again at that length, which is slower than the decode "
            "loop",
        )
    window = family.window if longest is None else family.window_within(longest)
    if window is not None:
        return RolloutPath(WINDOWED, f"{name} has layers that see the last {window} tokens only")
    if _CHUNKED in family.kinds:
        return RolloutPath(WINDOWED, f"{name} has layers that see a part of the past only")
    return RolloutPath(PLAIN)


def check_prefilled(causal_lm: Any, cache: Cache, length: int) -> None:
    """Check that a forward pass over `length` tokens left keys and values of all of them in every layer.

    Raises
    ------
    ModelError
        When the model keeps its past elsewhere, or layers share it.
    """
    expected = causal_lm.config.get_text_config().num_hidden_layers
    whole = [type(layer) is DynamicLayer and layer.get_seq_length() == length for layer in cache.layers]
    if len(whole) != expected or not all(whole):
        raise ModelError(
            f"{type(causal_lm).__name__} put keys and values of {sum(whole)} of {expected} layers into the cache; "
            "rollouts need those of every layer. Choose a model like Llama, Qwen2 or Qwen3."
        )


@once
def _say_once(line: str) -> None:
    say(line)
