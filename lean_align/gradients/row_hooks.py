"""From `.grad` to a row: each parameter's gradient is taken the moment autograd has finished it, and freed.

A hook on each LoRA parameter runs when its gradient is complete for a backward pass.  It divides by the
preconditioner, projects and drops the gradient, so that at most one LoRA matrix's gradient exists next to the row.  A
group that needs several backward passes adds up, since the projection is linear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch

from lean_align.errors import GradientError
from lean_align.projection import StreamingProjector

ADAM_EPSILON = 1e-8


class GradientRow:
    """Collects one prompt's gradient, whole or projected, through hooks on the parameters.

    Parameters
    ----------
    parameters : mapping of str to Parameter
    project : StreamingProjector, optional
        Projects part by part; the whole gradient is collected without it.
    second_moments : mapping of str to (parameter's shape) float32, optional
        Each gradient is divided by their square root plus 1e-8.
    """

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        project: StreamingProjector | None,
        second_moments: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.parameters, self.project = parameters, project
        self.device = next(iter(parameters.values())).device
        double = any(p.dtype == torch.float64 for p in parameters.values())
        self.dtype = torch.float64 if double else torch.float32
        self.starts, self.grad_dim = {}, 0
        for name, parameter in parameters.items():
            self.starts[name] = self.grad_dim
            self.grad_dim += parameter.numel()
        self.divisors = None if second_moments is None else self._divisors(second_moments)
        self._largest: dict[str, torch.Tensor] = {}
        self.row = self.zeros()

    def _divisors(self, second_moments: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = {}
        for name, parameter in self.parameters.items():
            moment = second_moments.get(name)
            if moment is None or moment.shape != parameter.shape or not torch.isfinite(moment).all():
                got = "none" if moment is None else f"{tuple(moment.shape)}, {(~moment.isfinite()).sum()} not finite"
                raise GradientError(
                    f"second moments of {name}: got {got}; expected {tuple(parameter.shape)} finite numbers. The "
                    "warm-up diverged or had another adapter: run it again, or set gradients.precondition=none."
                )
            found[name] = moment.to(self.device, self.dtype).sqrt() + ADAM_EPSILON
        return found

    def zeros(self) -> torch.Tensor:
        """A row without gradient, (P,) or (proj_dim,)."""
        length = self.grad_dim if self.project is None else self.project.proj_dim
        return torch.zeros(length, dtype=self.dtype, device=self.device)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Take every gradient that autograd finishes inside the block.

        A `.grad` that was there before is not part of them: it is set aside, and put back after the block.
        """
        self.row, self._largest = self.zeros(), {}
        before = [parameter.grad for parameter in self.parameters.values()]
        for parameter in self.parameters.values():
            parameter.grad = None  # autograd would add to it
        hooks = [
            parameter.register_post_accumulate_grad_hook(partial(self._take, name))  # type: ignore[no-untyped-call]
            for name, parameter in self.parameters.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for parameter, gradient in zip(self.parameters.values(), before):
                parameter.grad = gradient

    def check(self, prompt_id: str) -> None:
        """Refuse a gradient that is missing, NaN or infinite in some parameter.

        Raises
        ------
        GradientError
            Names the parameter and the prompt.
        """
        for name in self.parameters:
            if name not in self._largest:
                raise GradientError(
                    f"{name} got no gradient for {prompt_id}. A fused kernel may bypass the LoRA modules, or 4-bit "
                    "weights were repacked for inference; load the policy with lean_align.policy.load_policy."
                )
        largest = torch.stack([self._largest[name] for name in self.parameters])
        finite = torch.isfinite(largest).tolist()  # one wait for the device
        bad = [name for name, good in zip(self.parameters, finite) if not good]
        if bad:
            raise GradientError(
                f"the gradient of {bad[0]} holds NaN or Inf for {prompt_id} ({len(bad)} of {len(finite)} parameters). "
                "Rows written before are kept. Try model.dtype=float32, or a lower warmup.learning_rate: the warm-up "
                "may have diverged."
            )

    def _take(self, name: str, parameter: torch.nn.Parameter) -> None:
        gradient, parameter.grad = parameter.grad, None
        if gradient is None:
            return
        gradient = gradient.to(self.dtype)
        if self.divisors is not None:
            gradient = gradient / self.divisors[name]
        largest = gradient.abs().amax()
        self._largest[name] = torch.maximum(self._largest[name], largest) if name in self._largest else largest
        if self.project is not None:
            self.project.add_to(self.row, name, gradient)
        else:
            start = self.starts[name]
            self.row[start : start + gradient.numel()] += gradient.reshape(-1)
