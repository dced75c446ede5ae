"""What each sampled token weighs in a group's loss.

Every loss here has the form  loss = - sum over completions g and tokens t of w_g log pi(o_g,t),  so that
its gradient needs one number a completion:

    grpo      w_g = A_g / (G |o_g|),      A_g = (r_g - mean r) / (std r + 1e-4), std with Bessel's correction
    dr_grpo   w_g = A_g / (G L),          A_g = r_g - mean r, L = max_new_tokens

`grpo` is trl's loss_type="grpo" with scale_rewards="group", `dr_grpo` its loss_type="dr_grpo" with
scale_rewards="none" (Dr. GRPO, arXiv 2503.20783).  With rollouts="one_correct", LearnAlign's choice for
DAPO-MATH-17K, the first correct completion stands alone, with A = 1 and G = 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lean_align.errors import RecipeError
from lean_align.gradients.settings import GradientSettings
from lean_align.types import Group

ADVANTAGE_EPSILON = 1e-4


def advantages(rewards: Sequence[float], scale: bool = True) -> torch.Tensor:
    """Group-relative advantages, (G,) float64: r - mean, divided by (std + 1e-4) when `scale`; std over G - 1."""
    r = torch.tensor(rewards, dtype=torch.float64)
    centred = r - r.mean()
    return centred / (r.std() + ADVANTAGE_EPSILON) if scale else centred


def completion_weights(group: Group, settings: GradientSettings = GradientSettings()) -> dict[int, float]:
    """Weight of every token of each completion that the loss uses.

    Parameters
    ----------
    group : Group
        With rewards that differ.
    settings : GradientSettings
        Of which loss, rollouts and, for `dr_grpo`, max_new_tokens (L) are read.

    Returns
    -------
    dict of int to float
        Place in `group.completions` -> w_g; completions of weight 0 are left out.

    Raises
    ------
    RecipeError
        For an unknown loss or rollouts, or `dr_grpo` without its length.
    """
    loss, rollouts, length = settings.loss, settings.rollouts, settings.max_new_tokens
    if loss not in ("grpo", "dr_grpo") or rollouts not in ("all", "one_correct"):
        raise RecipeError(
            f"gradients.loss is {loss!r} and gradients.rollouts {rollouts!r}; expected grpo or dr_grpo, "
            "and all or one_correct."
        )
    if loss == "dr_grpo" and not length:
        raise RecipeError("gradients.loss is dr_grpo, which divides by max_new_tokens; got none. Give max_new_tokens.")
    if rollouts == "one_correct":
        chosen = {next(i for i, reward in enumerate(group.rewards) if reward > 0): 1.0}
    else:
        values = advantages(group.rewards, scale=loss == "grpo") / len(group.completions)
        chosen = {i: float(value) for i, value in enumerate(values) if value != 0}
    lengths = {i: group.completions[i].n_tokens if loss == "grpo" else length for i in chosen}
    return {i: value / lengths[i] for i, value in chosen.items()}  # type: ignore[operator]
