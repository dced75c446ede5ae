"""What a model's configuration asks of the code that samples from it and differentiates it.

Everything follows from the configuration and the model's class, before any weight is read, so that what cannot run is
refused when a run is planned.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from transformers import AutoModelForCausalLM
from transformers.cache_utils import get_layer_types_and_kwargs

from lean_align.errors import ModelError

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class Family:
    """A decoder's traits.

    Attributes
    ----------
    model_type : str
        As config.json names the architecture.
    class_name : str
        transformers' class of the causal language model.
    arguments : frozenset of str
        Those that its forward takes.
    layer_kinds : tuple of str
        One a layer, in transformers' words: `full_attention`, `sliding_attention`, `chunked_attention`,
        `linear_attention`, `conv`, ...
    window : int or None
        Tokens that a `sliding_attention` layer sees, its own among them; None without such a layer.
    shared_layers : int
        Last layers that attend to the keys and values of earlier ones.
    logit_scale : float
        What the output layer's product is multiplied by: Cohere, and Granite's divisor; 1 for most.
    logit_softcap : float or None
        c of logits = c tanh(logits / c), after the scale.
    attention_softcap : float or None
        The same of attention's products.
    attention_sinks : bool
        Whether each head's softmax has a learned term of its own in the denominator (gpt-oss).
    stateful : bool
        Whether a layer keeps a running state in the place of keys and values.
    attention_interface : bool
        Whether attention goes through transformers' interface, where another function can be put.
    encoder_decoder : bool
    rope_reach : int or None
        Tokens up to which positions turn at the pace of short rows; a longer row is computed anew at another pace
        (`longrope`: Phi-3 with 128k).  None for most.
    """

    model_type: str
    class_name: str
    arguments: frozenset[str]
    layer_kinds: tuple[str, ...]
    window: int | None = None
    shared_layers: int = 0
    logit_scale: float = 1.0
    logit_softcap: float | None = None
    attention_softcap: float | None = None
    attention_sinks: bool = False
    stateful: bool = False
    attention_interface: bool = True
    encoder_decoder: bool = False
    rope_reach: int | None = None

    @property
    def kinds(self) -> frozenset[str]:
        """The different kinds of layers."""
        return frozenset(self.layer_kinds)

    def window_within(self, longest: int) -> int | None:
        """The window, where it is shorter than a row of `longest` tokens; None where every layer sees all of it."""
        return self.window if self.window is not None and self.window < longest else None

    @property
    def attention(self) -> str | None:
        """The implementation of attention that computes what the model was trained with; None where any does.

        transformers' sdpa leaves a soft-cap out without a word.
        """
        return "eager" if self.attention_softcap is not None else None


def family_of(config: Any) -> Family:
    """The traits of a model.

    Parameters
    ----------
    config : PreTrainedConfig
        With or without the parts of a model that also sees and hears; those of the text count.

    Raises
    ------
    ModelError
        When transformers has no causal language model for the configuration.
    """
    text = config.get_text_config(decoder=True)
    model_class = _class_of(config) or _class_of(text)
    if model_class is None:
        raise ModelError(
            f"a model of type {config.model_type} is not a causal language model for transformers. Choose one that "
            "completes text, such as a Qwen, Llama or Gemma."
        )
    kinds, shared = _layers(text)
    return Family(
        str(text.model_type),
        model_class.__name__,
        frozenset(inspect.signature(model_class.forward).parameters),
        kinds,
        int(text.sliding_window) if SLIDING in kinds and text.sliding_window is not None else None,
        shared,
        _logit_scale(text),
        getattr(text, "final_logit_softcapping", None),
        getattr(text, "attn_logit_softcapping", None),
        text.model_type in _SINKS,
        not _STATES.isdisjoint(kinds) or bool(getattr(model_class, "_is_stateful", False)),
        bool(getattr(model_class, "_supports_attention_backend", False)),
        bool(config.is_encoder_decoder),
        _rope_reach(text),
    )


_STATES = frozenset({"linear_attention", "conv", "hybrid", "hybrid_sliding"})
_SINKS = ("gpt_oss", "granite_swa", "granitemoe_swa", "mimo_v2_flash")
# what each architecture calls the factor of its logits, and whether it divides by it
_SCALES = {
    "cohere": ("logit_scale", False),
    "cohere2": ("logit_scale", False),
    "cohere2_moe": ("logit_scale", False),
    "granite": ("logits_scaling", True),
    "granite_swa": ("logits_scaling", True),
    "granitemoe": ("logits_scaling", True),
    "granitemoe_swa": ("logits_scaling", True),
    "granitemoehybrid": ("logits_scaling", True),
    "granitemoeshared": ("logits_scaling", True),
    "minicpm3": ("logits_scaling", True),
    "hyperclovax": ("logits_scaling", False),
    "falcon_h1": ("lm_head_multiplier", False),
}


def _logit_scale(text: Any) -> float:
    name, divides = _SCALES.get(text.model_type, ("", False))
    value = getattr(text, name, None) if name else None
    if value is None:
        return 1.0
    return 1.0 / float(value) if divides else float(value)


def _rope_reach(text: Any) -> int | None:
    parameters = getattr(text, "rope_parameters", None) or {}
    if parameters.get("rope_type") != "longrope":
        return None
    own = getattr(text, "original_max_position_embeddings", None)
    reach = parameters.get("original_max_position_embeddings") or own
    return None if reach is None else int(reach)


def _class_of(config: Any) -> Any:
    found = AutoModelForCausalLM._model_mapping.get(type(config), None)
    return found[0] if isinstance(found, tuple) else found


def _layers(text: Any) -> tuple[tuple[str, ...], int]:
    """Kind of each layer, and how many of the last share keys and values with others."""
    n_layers = getattr(text, "num_hidden_layers", None)
    if n_layers is None:
        return (), 0
    shared = int(getattr(text, "num_kv_shared_layers", None) or 0)
    declared = getattr(text, "layer_types", None) or get_layer_types_and_kwargs(text)[0]
    return tuple(str(kind) for kind in declared), shared
