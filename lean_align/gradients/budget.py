"""A group's passes within memory: the token budget is halved when they do not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lean_align.errors import OutOfMemoryError
from lean_align.gradients.group import backward_group, micro_batches
from lean_align.gradients.rows import GradientRow
from lean_align.gradients.weights import completion_weights
from lean_align.memory import Halving, Shortage, release_memory, within_memory
from lean_align.policy import Policy
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
    token_budget : int
        To begin with.  A group that does not fit halves it, for itself and for those that follow.
    on_halving : callable
        Told of each halving.
    **options
        Of `backward_group`.
    """

    def __init__(
        self,
        policy: Policy,
        row: GradientRow,
        token_budget: int,
        on_halving: Callable[[Halving], None],
        **options: Any,
    ) -> None:
        self.policy, self.row, self.token_budget = policy, row, token_budget
        self.on_halving, self.options = on_halving, options

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
            backward_group(self.policy, group, token_budget=self.token_budget, **self.options)

    def _halve(self, group: Group, shortage: Shortage) -> None:
        options = self.options
        chosen = completion_weights(group, options["loss"], options["rollouts"], options["max_new_tokens"])
        prompt = 0 if options["share_prompt"] else len(self.policy.encoder.encode(group.prompt))
        lengths = [prompt + group.completions[i].n_tokens for i in chosen]
        budget = smaller_budget(lengths, self.token_budget, padded=not options["share_prompt"])
        if budget is None:
            raise OutOfMemoryError(
                f"no memory for the gradient of {group.prompt.prompt_id}, with one completion of up to {max(lengths)} "
                f"tokens at a time ({shortage}). Rows written before are kept. Lower gradients.logprob_chunk (now "
                f"{options['logprob_chunk']}) or rollouts.max_new_tokens, or set gradients.gradient_checkpointing=true."
            )
        self.token_budget = budget
        self.on_halving(Halving(f"gradient of {group.prompt.prompt_id}", "token_budget", budget, shortage))
