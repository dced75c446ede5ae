"""What a process holds before it loads a recipe's model: libraries, their buffers, the interpreter."""

from __future__ import annotations

from dataclasses import dataclass

from lean_align.gradients.rehearsal import rehearse_gradient
from lean_align.memory import peak_rss_bytes
from lean_align.policy import load_policy
from lean_align.policy.shapes import with_prompt_length
from lean_align.recipe import load_recipe
from lean_align.rollouts import Sampling
from lean_align.rollouts.rehearsal import rehearse_decoding

_TOKENS, _COMPLETIONS = 64, 8


@dataclass(frozen=True)
class ProcessBytes:
    """Resident bytes of a stage's process without the recipe's model, by what it does there."""

    decoding: int
    gradients: int
    training: int

    def of(self, stage: str) -> int:
        """Those of a stage."""
        if stage in ("rollouts", "evaluation"):
            return self.decoding
        return self.gradients if stage == "gradients" else self.training


def process_bytes() -> ProcessBytes:
    """Measured in this process on the embedded 4-bit model: after decoding, a backward pass, and with trl beside it."""
    recipe = load_recipe("demo", {"model.device": "cpu"})
    policy = with_prompt_length(load_policy(recipe.model, recipe.data, recipe.lora), _TOKENS)
    sampling = Sampling(_COMPLETIONS, 1.0, _TOKENS, _COMPLETIONS, 0, "", 0)
    rehearse_decoding(policy, 1, _TOKENS, sampling, lambda: None)
    decoding = peak_rss_bytes()
    rehearse_gradient(policy, _COMPLETIONS, _TOKENS)
    gradients = peak_rss_bytes()
    from trl import GRPOTrainer  # noqa: F401

    return ProcessBytes(decoding, gradients, peak_rss_bytes())
