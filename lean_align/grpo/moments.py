"""Second moments of the warm-up's Adam: what `gradients.precondition: adam` divides by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from lean_align.errors import StageError
from lean_align.policy import Policy
from lean_align.policy.saving import like_other_files, writing_tensors

SECOND_MOMENTS = "second_moments.safetensors"


def second_moments(policy: Policy, optimizer: Any) -> dict[str, Any]:
    """Bias-corrected second moments of an Adam by parameter name, in float32; empty for an optimiser without them.

    v / (1 - beta2^step), as Adam divides by (Kingma and Ba, arXiv 1412.6980).  8-bit optimisers keep
    theirs in another form, and give none.
    """
    found = {}
    beta2 = optimizer.param_groups[0].get("betas", (0.9, 0.999))[1]
    for name, parameter in policy.lora_parameters.items():
        state = optimizer.state.get(parameter, {})
        if "exp_avg_sq" not in state:
            return {}
        correction = 1 - beta2 ** float(state["step"])
        found[name] = (state["exp_avg_sq"].float() / correction).contiguous().cpu()
    return found


def write_second_moments(policy: Policy, optimizer: Any, folder: Path) -> None:
    """Leave an optimiser's second moments in a training's folder, where it has them.

    Raises
    ------
    DiskFullError
    """
    moments = second_moments(policy, optimizer)
    if moments:
        with writing_tensors(folder):
            save_file(moments, folder / SECOND_MOMENTS)
        like_other_files(folder / SECOND_MOMENTS)


def read_second_moments(folder: Path) -> dict[str, Any]:
    """Second moments that a training left in its folder, by parameter name.

    Raises
    ------
    StageError
        When it left none.
    """
    path = folder / SECOND_MOMENTS
    if not path.exists():
        raise StageError(
            f"gradients.precondition is adam, but {path} does not exist: it takes a warm-up of at least one step with "
            "warmup.optimizer=adamw_torch. Set these, or gradients.precondition=none."
        )
    return dict(load_file(path))
