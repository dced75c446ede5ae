"""The initial policy, which the KL term holds a training to: the base where the adapter began at zero, else a copy of
its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from lean_align.policy import Policy


class InitialPolicy:
    """A policy as it is when this is made.

    Parameters
    ----------
    policy : Policy
    weights : mapping of str to tensor, optional
        Of the adapter at the start of a training that is resumed.

    Attributes
    ----------
    weights : dict of str to tensor
        Copies of the trainable parameters.
    is_base : bool
        Whether the adapter changes nothing: it is then switched off, which is faster than its product with zeros.
    """

    def __init__(self, policy: Policy, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        self.policy = policy
        parameters = policy.lora_parameters
        source = {name: p.detach() for name, p in parameters.items()} if weights is None else weights
        self.weights = {name: source[name].to(p.device, p.dtype, copy=True) for name, p in parameters.items()}
        second = [weight for name, weight in self.weights.items() if "lora_B" in name]
        only_lora = all("lora_A" in name or "lora_B" in name for name in self.weights)
        self.is_base = only_lora and bool(second) and not any(weight.any() for weight in second)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the policy be its initial self inside the block."""
        if self.is_base:
            with self.policy.model.disable_adapter():
                yield
            return
        parameters = self.policy.lora_parameters
        before = {name: parameter.data for name, parameter in parameters.items()}
        try:
            for name, parameter in parameters.items():
                parameter.data = self.weights[name]
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.data = before[name]
