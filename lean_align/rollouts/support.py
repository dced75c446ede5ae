"""Which models the decode loop serves; any other is refused, never decoded wrongly."""

from __future__ import annotations

import inspect
from typing import Any

from transformers.cache_utils import Cache, DynamicLayer

from lean_align.errors import ModelError

_ARGUMENTS = ("attention_mask", "position_ids", "past_key_values", "logits_to_keep")


def check_model(causal_lm: Any, longest: int) -> None:
    """Check that every layer attends to its whole past.

    Parameters
    ----------
    causal_lm : PreTrainedModel
    longest : int
        Tokens of the longest prompt and a completion.

    Raises
    ------
    ModelError
        When a layer keeps a state, or a window shorter than `longest`, or the model's forward lacks
        an argument that the loop needs.
    """
    config = causal_lm.config.get_text_config()
    name = type(causal_lm).__name__
    missing = [a for a in _ARGUMENTS if a not in inspect.signature(causal_lm.forward).parameters]
    if missing:
        raise ModelError(f"{name} takes no {', '.join(missing)}; rollouts need a decoder on transformers' Cache API.")
    kinds = _layer_kinds(config)
    odd = sorted(kinds - {"full_attention", "sliding_attention"})
    if odd or getattr(causal_lm, "_is_stateful", False) or config.is_encoder_decoder:
        raise ModelError(
            f"{name} has layers of kind {', '.join(odd) or 'with a state'}; rollouts decode models with attention "
            "over the whole past in every layer (Llama, Qwen2, Qwen3 and their like). Choose such a model."
        )
    window = getattr(config, "sliding_window", None)
    if "sliding_attention" in kinds and (window is None or window < longest):
        raise ModelError(
            f"{name} attends to the last {window} tokens and a prompt with its completion takes up to {longest}. "
            "Lower max_new_tokens, leave out long prompts, or choose a model with full attention."
        )


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


def _layer_kinds(config: Any) -> set[str]:
    declared = getattr(config, "layer_types", None)
    if declared:
        return set(declared)
    sliding = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    return {"sliding_attention" if sliding else "full_attention"}
