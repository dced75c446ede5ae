"""What samples completions: the decode loop on transformers' model, or vLLM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from lean_align.policy import Policy, PromptEncoder
from lean_align.rollouts.decoding import decode
from lean_align.rollouts.sampling import Sampling
from lean_align.types import Prompt

Groups = Sequence[Sequence[tuple[int, ...]]]


class Engine(Protocol):
    """Samples the completions of some prompts.

    Attributes
    ----------
    encoder : PromptEncoder
    eos_token_ids : tuple of int
        Any of them ends a completion.
    """

    @property
    def encoder(self) -> PromptEncoder: ...  # noqa: D102

    @property
    def eos_token_ids(self) -> tuple[int, ...]: ...  # noqa: D102

    def with_encoder(self, encoder: PromptEncoder) -> Engine:
        """The same engine, to which prompts are put in another way."""
        ...

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, advance: Callable[[int], None]) -> Groups:
        """Token ids by prompt and index, an end token the last; `advance` is told how many have just ended."""
        ...


@dataclass(frozen=True)
class TransformersEngine:
    """The decode loop, on the very policy whose gradients are taken."""

    policy: Policy

    @property
    def encoder(self) -> PromptEncoder:
        """The policy's."""
        return self.policy.encoder

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The policy's."""
        return self.policy.eos_token_ids

    def with_encoder(self, encoder: PromptEncoder) -> TransformersEngine:
        """The same engine, to which prompts are put in another way."""
        return TransformersEngine(replace(self.policy, encoder=encoder))

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, advance: Callable[[int], None] = lambda n: None
    ) -> Groups:
        """Token ids by prompt and index, each row with noise of its own."""
        encoded = [self.encoder.encode(prompt) for prompt in prompts]
        noise = [prompt.prompt_id for prompt in prompts]
        return decode(self.policy, encoded, lambda p, g: sampling.noise(noise[p], g), sampling, advance).token_ids
