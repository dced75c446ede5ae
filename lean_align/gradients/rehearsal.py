"""One group's gradient on a policy without numbers, by the stage's own code: what a plan counts the bytes of."""

from __future__ import annotations

from lean_align.gradients.group import backward_group
from lean_align.gradients.row_hooks import GradientRow
from lean_align.gradients.settings import GradientSettings
from lean_align.policy import Policy
from lean_align.projection import Projector, StreamingProjector
from lean_align.types import Completion, Group, Prompt


def rehearse_gradient(
    policy: Policy,
    n_completions: int,
    completion_tokens: int,
    project: Projector | None = None,
    settings: GradientSettings = GradientSettings(),
) -> None:
    """Take the gradient of a group whose completions all have the same length.

    Parameters
    ----------
    policy : Policy
        On torch's `meta` device; its encoder gives the prompt's length.
    n_completions, completion_tokens : int
    project : Projector, optional
        On the same device.
    settings : GradientSettings
    """
    first = Completion("planned", 0, "", (0,) * completion_tokens, completion_tokens, 1.0, True)
    others = (Completion(**{**vars(first), "index": i, "reward": 0.0}) for i in range(1, n_completions))
    group = Group(Prompt("planned", "", ""), (first, *others))
    streams = isinstance(project, StreamingProjector) and project.batch_rows == 1
    row = GradientRow(policy.lora_parameters, project if streams else None)  # type: ignore[arg-type]
    waiting = None if project is None or streams else row.row.new_zeros(project.batch_rows, row.grad_dim)
    with row.collecting():
        backward_group(policy, group, settings)
    if project is not None and waiting is not None:
        project.project(waiting)
