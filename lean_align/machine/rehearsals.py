"""Each stage's own code at its largest, on shapes alone: bytes, arithmetic and operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from lean_align.gradients import GradientPath, GradientSettings, checkpoint_layers, path_of
from lean_align.gradients.rehearsal import rehearse_gradient
from lean_align.grpo.rehearsal import rehearse_group, rehearse_loss, rehearse_reference, rehearse_sampling
from lean_align.live_bytes import LiveBytes, kernels_on_meta
from lean_align.policy import Policy
from lean_align.policy.shapes import shape_policy
from lean_align.projection import Projector, make_projector
from lean_align.recipe import GradientRecipe, LoraRecipe, ModelRecipe
from lean_align.rollouts import Sampling
from lean_align.rollouts.rehearsal import rehearse_decoding


@dataclass(frozen=True)
class Work:
    """What a piece of a stage takes.

    Attributes
    ----------
    peak_bytes : int
        Tensors alive at one time, besides the weights.
    flops, moved_bytes, operations : int
        Arithmetic; bytes written, and read once; calls of torch.
    """

    peak_bytes: int
    flops: int
    moved_bytes: int
    operations: int


def count(policy: Policy, work: Callable[[Policy], None]) -> Work:
    """Run some work on a policy of shapes, and count."""
    with LiveBytes() as live, kernels_on_meta():
        work(policy)
    return _work(live)


def count_parts(policy: Policy, work: Callable[[Policy, Callable[[], None]], None]) -> tuple[Work, Work]:
    """The same for work that calls what it is given once, between two parts; each part's own amounts and peak."""
    found: list[Work] = []

    def between() -> None:
        found.append(_work(live))
        live.peak = live.live

    with LiveBytes() as live, kernels_on_meta():
        work(policy, between)
    whole, first = _work(live), found[0]
    second = Work(
        whole.peak_bytes,
        whole.flops - first.flops,
        whole.moved_bytes - first.moved_bytes,
        whole.operations - first.operations,
    )
    return first, second


def _work(live: LiveBytes) -> Work:
    return Work(live.peak, live.flops, 2 * live.written, live.operations)


@cache
def gradient_work(
    model: ModelRecipe,
    lora: LoraRecipe,
    recipe: GradientRecipe,
    settings: GradientSettings,
    num_generations: int,
    prompt_tokens: int,
) -> Work:
    """One group of the gradient stage, with every completion at its longest; `settings` are those of the recipe."""
    policy = shape_policy(model, lora, prompt_tokens)
    if recipe.gradient_checkpointing:
        checkpoint_layers(policy)
    taken = _with_path(policy, settings)

    def work(policy: Policy) -> None:
        held = _projectors(policy, recipe, 2 if recipe.second_seed else 1)
        longest = settings.max_new_tokens or 0
        rehearse_gradient(policy, num_generations, longest, held[0] if held else None, taken)

    return count(policy, work)


def _projectors(policy: Policy, recipe: GradientRecipe, seeds: int) -> list[Projector]:
    """On shapes; none of trak's, which has no such."""
    kind, proj_dim, nonzeros = recipe.projection, recipe.proj_dim, recipe.sjlt_nonzeros
    if kind == "trak":
        return []
    return [make_projector(kind, policy.lora_sizes, proj_dim, seed, policy.device, nonzeros) for seed in range(seeds)]


def _with_path(policy: Policy, settings: GradientSettings) -> GradientSettings:
    """The settings with `share_prompt` as the model takes it."""
    paths: list[GradientPath] = []
    count(policy, lambda policy: paths.append(path_of(policy, settings.share_prompt)))
    return replace(settings, share_prompt=paths[0].shares_prompt)


@cache
def group_work(
    model: ModelRecipe,
    lora: LoraRecipe,
    passes: GradientSettings,
    num_generations: int,
    prompt_tokens: int,
    beta: float,
    checkpointing: bool,
    kept: GradientRecipe | None,
) -> tuple[Work, Work]:
    """One group of a training by lean: the initial policy's log-probabilities, nothing with `beta` 0, and the gradient.

    `passes` has the longest completion, `kept` the projection of the rows that the training keeps.
    """
    policy = shape_policy(model, lora, prompt_tokens)
    taken, shape = _with_path(policy, passes), (num_generations, passes.max_new_tokens or 0)
    reference = Work(0, 0, 0, 0)
    if beta > 0:
        reference = count(policy, lambda policy: rehearse_reference(policy, *shape, taken))

    def work(policy: Policy) -> None:
        held = _projectors(policy, kept, 1) if kept is not None else []
        rehearse_group(policy, *shape, taken, beta, checkpointing, held[0] if held else None)

    return reference, count(policy, work)


@cache
def adapter_bytes(model: ModelRecipe, lora: LoraRecipe) -> int:
    """Bytes of the trainable weights: 4 P."""
    return sum(p.nbytes for p in shape_policy(model, lora, 1).lora_parameters.values())


@cache
def decoding_work(
    model: ModelRecipe, lora: LoraRecipe, n_prompts: int, prompt_tokens: int, sampling: Sampling
) -> tuple[Work, Work]:
    """A full batch of rollouts or evaluation: its prompts, and a step with every row at its longest."""
    policy = shape_policy(model, lora, prompt_tokens)
    return count_parts(
        policy, lambda policy, between: rehearse_decoding(policy, n_prompts, prompt_tokens, sampling, between)
    )


@cache
def sampling_work(
    model: ModelRecipe, lora: LoraRecipe, rows: int, prompt_tokens: int, max_new_tokens: int
) -> tuple[Work, Work]:
    """The same of a training step, as trl samples: all rows at once, on top of Adam's moments and the gradients."""
    policy = shape_policy(model, lora, prompt_tokens)
    prompts, step = count_parts(
        policy, lambda policy, between: rehearse_sampling(policy, rows, prompt_tokens, max_new_tokens, between)
    )
    held = 12 * sum(p.numel() for p in policy.lora_parameters.values())
    return tuple(replace(part, peak_bytes=part.peak_bytes + held) for part in (prompts, step))  # type: ignore[return-value]


@cache
def loss_work(
    model: ModelRecipe,
    lora: LoraRecipe,
    rows: int,
    prompt_tokens: int,
    max_new_tokens: int,
    checkpointing: bool,
    epsilon: float,
    autocast: bool,
) -> Work:
    """One micro-batch of a training's loss."""
    options = (rows, prompt_tokens, max_new_tokens, checkpointing, epsilon, autocast)
    return count(shape_policy(model, lora, prompt_tokens), lambda policy: rehearse_loss(policy, *options))
