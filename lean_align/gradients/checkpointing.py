"""Layers that keep no activations and run again in the backward pass."""

from __future__ import annotations

from transformers.modeling_layers import GradientCheckpointingLayer

from lean_align.errors import ModelError
from lean_align.policy import Policy


def checkpoint_layers(policy: Policy) -> None:
    """Have a policy's layers run again in the backward pass, and nothing else change.

    Layers do so in training mode alone.  They are put into it themselves; what is inside them and above is not, so
    that no dropout and no noise of a router comes with it.

    Raises
    ------
    ModelError
        When the model's layers cannot.
    """
    layers = [module for module in policy.model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers or not policy.causal_lm.supports_gradient_checkpointing:
        raise ModelError(
            f"{type(policy.causal_lm).__name__} has no layers that run again in the backward pass. Set "
            "gradients.gradient_checkpointing=false."
        )
    policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in layers:
        layer.training = True
