"""How a gradient is taken: the record that the stage, the bench and the plan share."""

from __future__ import annotations

from dataclasses import dataclass

from lean_align.recipe import Recipe


@dataclass(frozen=True)
class GradientSettings:
    """How a prompt's gradient is taken.

    Attributes
    ----------
    temperature : float
        Sampling temperature; log-probabilities are taken at it.
    token_budget : int
        Tokens per forward and backward pass: of completions, or with prompts and padding when the prompt
        is not shared.
    logprob_chunk : int
        Positions whose logits exist at the same time: about 16 * logprob_chunk * vocabulary bytes.
    loss : str
        `grpo` or `dr_grpo`; see `completion_weights`.
    rollouts : str
        `all`, or `one_correct` for the first correct completion alone.
    max_new_tokens : int or None
        The length that `dr_grpo` divides by.
    share_prompt : bool
        Compute the prompt once for all its completions, where the model can (see `path_of`); False pads and repeats it.
    """

    temperature: float = 1.0
    token_budget: int = 4096
    logprob_chunk: int = 1024
    loss: str = "grpo"
    rollouts: str = "all"
    max_new_tokens: int | None = None
    share_prompt: bool = True

    @classmethod
    def of(cls, recipe: Recipe) -> GradientSettings:
        """Those of a recipe."""
        own, sampled = recipe.gradients, recipe.rollouts
        return cls(
            temperature=sampled.temperature,
            token_budget=own.token_budget,
            logprob_chunk=own.logprob_chunk,
            loss=own.loss,
            rollouts=own.rollouts,
            max_new_tokens=sampled.max_new_tokens,
            share_prompt=own.share_prompt,
        )
