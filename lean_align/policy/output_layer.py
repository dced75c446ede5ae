"""What a model does between its last hidden states and its logits, for some of them at a time.

Most models multiply by a matrix.  Others scale what goes in (MiniCPM3) or comes out (Granite, Cohere), or cap it
(Gemma 2).  No list of them is kept here: the model's own forward runs with hidden states in place of its backbone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast

from lean_align.errors import ModelError


def backbone_of(causal_lm: Any) -> Any:
    """The part of a causal language model that gives last hidden states.

    Raises
    ------
    ModelError
        When there is none apart from the model.
    """
    base = causal_lm.base_model
    if base is not causal_lm:
        return base
    if not isinstance(getattr(causal_lm, "model", None), torch.nn.Module):  # Llama 4 names another part than it has
        raise ModelError(
            f"{type(causal_lm).__name__} has no part that gives hidden states alone. Choose a model such as "
            "Qwen or Llama."
        )
    return causal_lm.model


class OutputLayer:
    """Turns last hidden states into a model's own logits.

    Parameters
    ----------
    causal_lm : PreTrainedModel
        With a backbone and output embeddings.

    Attributes
    ----------
    is_linear : bool
        Whether the model does nothing but multiply by its output embeddings; these are then called themselves.

    Raises
    ------
    ModelError
        When the model has no output embeddings.
    """

    def __init__(self, causal_lm: Any) -> None:
        self.causal_lm, self.head = causal_lm, causal_lm.get_output_embeddings()
        if self.head is None:
            raise ModelError(
                f"{type(causal_lm).__name__} names no output layer. Choose a causal language model such as Qwen "
                "or Llama."
            )
        self.is_linear = self._finds_nothing_else()

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Logits, (tokens, vocabulary), of (tokens, hidden size) states; part of the autograd graph."""
        if self.is_linear:
            logits: torch.Tensor = self.head(states)
            return logits
        return self._own_logits(states[None])[0][0]

    def _own_logits(self, states: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """The model's logits for (1, tokens, hidden size) states, and whether it asked its backbone for them."""
        ids = torch.zeros(states.shape[:2], dtype=torch.int64, device=states.device)
        with ExitStack() as stack:
            asked = [stack.enter_context(_in_place_of(part, states)) for part in self._backbones()]
            logits: torch.Tensor = self.causal_lm(input_ids=ids, use_cache=False).logits
        return logits, any(asked)

    def _backbones(self) -> list[Any]:
        """What the model may ask for hidden states: OPT passes over its backbone and asks the decoder inside."""
        parts = {id(part): part for part in (backbone_of(self.causal_lm), self.causal_lm.get_decoder())}
        return [part for part in parts.values() if part is not self.causal_lm]

    def _finds_nothing_else(self) -> bool:
        """Whether no tensor is made before the head or after it: seen on a row of no tokens, which costs nothing."""
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        hook = self.head.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
        states = self.head.weight.new_empty(1, 0, self.head.weight.shape[1])
        try:
            with torch.no_grad():
                logits, asked = self._own_logits(states)
        finally:
            hook.remove()
        if not asked:
            return True  # its backbone is reached in another way; `check_log_probs` tells whether the head is all
        return len(seen) == 1 and _same_memory(seen[0][0], states) and _same_memory(seen[0][1], logits)


@contextmanager
def _in_place_of(backbone: Any, states: torch.Tensor) -> Iterator[list[bool]]:
    """Have a backbone answer with `states` inside the block; the list fills as it is asked."""
    asked: list[bool] = []

    def forward(*arguments: Any, **options: Any) -> _Answer:
        asked.append(True)
        return _Answer(last_hidden_state=states)

    own = vars(backbone).get("forward")
    backbone.forward = forward
    try:
        yield asked
    finally:
        del backbone.forward
        if own is not None:
            backbone.forward = own


@dataclass
class _Answer(BaseModelOutputWithPast):  # type: ignore[misc]
    """A backbone's output that holds hidden states, and None for whatever else a model reads (router logits, ...)."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def _same_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.untyped_storage()._cdata == other.untyped_storage()._cdata
