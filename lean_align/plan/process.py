"""What a process holds before it loads a recipe's model: libraries, their buffers, the interpreter."""

from __future__ import annotations

from dataclasses import dataclass

from lean_align.gradients.rehearsal import rehearse_gradient
from lean_align.memory import peak_rss_bytes
from lean_align.policy import load_policy
from lean_align.policy.shapes import with_prompt_length
from lean_align.recipe import load_recipe

_TOKENS = 64
_TRAININGS = ("warmup", "training")


@dataclass(frozen=True)
class ProcessBytes:
    """Resident bytes of a stage's process without the recipe's model: of most stages, and of those that train."""

    most: int
    training: int

    def of(self, stage: str) -> int:
        """Those of a stage."""
        return self.training if stage in _TRAININGS else self.most


def process_bytes() -> ProcessBytes:
    """Measured in this process: after a backward pass through the embedded 4-bit model, and with trl beside it."""
    recipe = load_recipe("demo", {"model.device": "cpu"})
    policy = load_policy(recipe.model, recipe.data, recipe.lora)
    rehearse_gradient(with_prompt_length(policy, _TOKENS), 8, _TOKENS)
    most = peak_rss_bytes()
    from trl import GRPOTrainer  # noqa: F401

    return ProcessBytes(most, max(most, peak_rss_bytes()))
