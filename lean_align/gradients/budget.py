"""A group's passes within memory: the token budget is halved when they do not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from lean_align.errors import OutOfMemoryError
from lean_align.gradients.group import backward_group
from lean_align.gradients.rows import GradientRow
from lean_align.gradients.settings import GradientSettings
from lean_align.gradients.weights import completion_weights
from lean_align.memory import Halving, Shortage, release_memory, within_memory
from lean_align.policy import Policy
from lean_align.policy.forward import micro_batches
from lean_align.types import Group


def smaller_budget(lengths: Sequence[int], token_budget: int, padded: bool) -> int | None:
    """The next half of a budget that cuts rows of these lengths into more micro-batches; None when each is alone."""
    runs = len(micro_batches(lengths, token_budget, padded))
    while runs < len(lengths) and token_budget > 1:
        token_budget //= 2
        if len(micro_batches(lengths, token_budget, padded)) > runs:
            return token_budget
    return None


class BudgetedBackward:
    """Runs `backward_group` for one prompt after another.

    Parameters
    ----------
    policy : Policy
    row : GradientRow
        Collects each gradient; what a pass left there that ran out of memory is dropped.
    settings : GradientSettings
        To begin with.  A group that does not fit halves `token_budget`, for itself and for those that follow.
    on_halving : callable
        Told of each halving.
    """

    def __init__(
        self, policy: Policy, row: GradientRow, settings: GradientSettings, on_halving: Callable[[Halving], None]
    ) -> None:
        self.policy, self.row, self.settings, self.on_halving = policy, row, settings, on_halving

    def run(self, group: Group) -> None:
        """Leave the group's gradient in the row.

        Raises
        ------
        OutOfMemoryError
            When a single completion does not fit.
        """
        while (shortage := within_memory(lambda: self._collect(group))) is not None:
            release_memory()
            self._halve(group, shortage)

    def _collect(self, group: Group) -> None:
        with self.row.collecting():
            backward_group(self.policy, group, self.settings)

    def _halve(self, group: Group, shortage: Shortage) -> None:
        settings, chosen = self.settings, completion_weights(group, self.settings)
        prompt = 0 if settings.share_prompt else len(self.policy.encoder.encode(group.prompt))
        lengths = [prompt + group.completions[i].n_tokens for i in chosen]
        budget = smaller_budget(lengths, settings.token_budget, padded=not settings.share_prompt)
        if budget is None:
            raise OutOfMemoryError(
                f"no memory for the gradient of {group.prompt.prompt_id}, with one completion of up to {max(lengths)} "
                f"tokens at a time ({shortage}). Rows written before are kept. Lower gradients.logprob_chunk (now "
                f"{settings.logprob_chunk}) or rollouts.max_new_tokens, or set gradients.gradient_checkpointing=true."
            )
        self.settings = replace(settings, token_budget=budget)
        self.on_halving(Halving(f"gradient of {group.prompt.prompt_id}", "token_budget", budget, shortage))
