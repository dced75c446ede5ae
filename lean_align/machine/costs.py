"""Peak and time of each stage as a recipe is, from its rehearsed work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch

from lean_align.gradients import GradientSettings
from lean_align.grpo import TrainerSettings
from lean_align.machine.place import Place
from lean_align.machine.pool_sizes import Pool
from lean_align.machine.rehearsals import (
    Work,
    adapter_bytes,
    decoding_work,
    gradient_work,
    group_work,
    loss_work,
    sampling_work,
)
from lean_align.policy.shapes import model_config, shape_policy, weight_bytes
from lean_align.recipe import ModelRecipe, Recipe
from lean_align.rollouts import Sampling
from lean_align.rollouts.vllm import WORKSPACE_BYTES, kv_cache_bytes


@dataclass(frozen=True)
class Cost:
    """Peak and time of a stage as the recipe is."""

    peak_bytes: int
    seconds: float


def _gradients_cost(recipe: Recipe, pool: Pool, place: Place, loaded: int) -> Cost:
    settings, count = GradientSettings.of(recipe), recipe.selection_generations
    group = gradient_work(recipe.model, recipe.lora, recipe.gradients, settings, count, pool.longest_prompt)
    passes = 3  # forward, backward, and the forward again of checkpointing
    seconds = place.speed.seconds(group.flops, group.moved_bytes + passes * loaded, group.operations)
    return Cost(group.peak_bytes, pool.n_train * seconds)


def _rollouts_cost(recipe: Recipe, pool: Pool, place: Place, loaded: int) -> Cost:
    settings = recipe.rollouts
    count, longest = recipe.selection_generations, settings.max_new_tokens
    sampling = Sampling.of_rollouts(recipe)
    fills = pool.n_train * count / max(settings.batch_size, count)
    # a sequential allocation draws few completions of many prompts first, and computes as many prompts at once
    drawn = (settings.first_generations, count) if settings.allocation == "sequential" else (count,)
    windows = (min(pool.n_train, max(1, settings.window // each)) for each in drawn)
    passes = [
        _decoding_cost(
            _decoding(recipe, n_prompts, pool, replace(sampling, num_generations=each)), fills, longest, place, loaded
        )
        for each, n_prompts in zip(drawn, windows)
    ]
    cost = max(passes, key=lambda one: one.peak_bytes)
    cost = _with_engine(cost, recipe, place, loaded, sampling.slots, pool.longest_prompt + longest)
    if not settings.predicts:
        return cost
    rows = _gradients_cost(recipe, pool, place, loaded).peak_bytes  # taken between the rounds, beside vLLM
    return replace(cost, peak_bytes=cost.peak_bytes + rows if place.vllm else max(cost.peak_bytes, rows))


def _evaluation_cost(recipe: Recipe, pool: Pool, place: Place, loaded: int) -> Cost:
    settings, costs, longest = recipe.evaluation, [], 0
    for problems, solved in zip(pool.evaluation_sets(recipe), pool.solved(recipe)):
        count, limit = problems.num_samples, problems.max_new_tokens
        sampling = Sampling.of_evaluation(recipe, "", count, limit)
        n_prompts = min(problems.n_problems, max(1, settings.window // count))
        fills = solved * count / sampling.slots
        work = decoding_work(recipe.model, recipe.lora, n_prompts, problems.longest_prompt, sampling)
        costs.append(_decoding_cost(work, fills, limit, place, loaded))
        longest = max(longest, problems.longest_prompt + limit)
    cost = Cost(max(c.peak_bytes for c in costs), sum(c.seconds for c in costs))
    return _with_engine(cost, recipe, place, loaded, settings.batch_size, longest)


def _with_engine(cost: Cost, recipe: Recipe, place: Place, loaded: int, batch_size: int, longest: int) -> Cost:
    """The same, with vLLM's peak where vLLM samples: whole weights in place of the loaded ones."""
    if not place.vllm:
        return cost
    return replace(cost, peak_bytes=_engine_bytes(recipe, place, batch_size, longest) - loaded)


def _engine_bytes(recipe: Recipe, place: Place, batch_size: int, longest: int) -> int:
    """vLLM's whole weights, its keys and values, and its workspace."""
    held = kv_cache_bytes(model_config(recipe.model), batch_size, longest, _vllm_dtype(recipe, place))
    return vllm_weights(recipe, place) + held + (WORKSPACE_BYTES if place.device == "cuda" else 0)


def _vllm_dtype(recipe: Recipe, place: Place) -> torch.dtype:
    """Of vLLM's weights, keys and values: float32 where the adapter is merged."""
    adapter = recipe.rollouts.vllm_adapter
    merged = place.device == "cpu" if adapter == "auto" else adapter == "merged"
    return torch.float32 if merged else getattr(torch, recipe.model.dtype)


def vllm_weights(recipe: Recipe, place: Place) -> int:
    """Bytes of the whole weights that vLLM reads."""
    return whole_weights(recipe.model, _vllm_dtype(recipe, place))


@cache
def whole_weights(model: ModelRecipe, dtype: torch.dtype) -> int:
    """Bytes of a model without quantisation or adapter."""
    name = str(dtype).removeprefix("torch.")
    return weight_bytes(shape_policy(replace(model, quantization="none", dtype=name), None, 1))


def _decoding(recipe: Recipe, n_prompts: int, pool: Pool, sampling: Sampling) -> tuple[Work, Work]:
    return decoding_work(recipe.model, recipe.lora, n_prompts, pool.longest_prompt, sampling)


def _decoding_cost(work: tuple[Work, Work], fills: float, longest: int, place: Place, loaded: int) -> Cost:
    prompts, step = work
    seconds = place.speed.seconds(prompts.flops, prompts.moved_bytes + loaded, prompts.operations)
    # a step reads the weights, and the keys and values that lie there
    each = place.speed.seconds(step.flops, step.moved_bytes + step.peak_bytes + loaded, step.operations)
    return Cost(max(prompts.peak_bytes, step.peak_bytes), fills * (seconds + longest * each))


def _trainer_cost(name: str) -> Callable[[Recipe, Pool, Place, int], Cost]:
    def cost(recipe: Recipe, pool: Pool, place: Place, loaded: int) -> Cost:
        settings = TrainerSettings.of(recipe, name)
        by = _lean_cost if place.backend(settings.trainer) == "lean" else _trl_cost
        return by(settings, recipe, pool, place, loaded)

    return cost


def _lean_cost(settings: TrainerSettings, recipe: Recipe, pool: Pool, place: Place, loaded: int) -> Cost:
    """Completions of a step are decoded, then its groups pass one by one; Adam's moments lie there throughout."""
    trainer, sampling = settings.trainer, settings.sampling(0)
    shape = settings.num_generations, pool.longest_prompt
    kept = recipe.gradients if trainer.keep_rows else None
    how = trainer.beta, trainer.gradient_checkpointing, kept
    reference, group = group_work(recipe.model, recipe.lora, settings.passes, *shape, *how)
    decoding = _decoding(recipe, trainer.prompts_per_step, pool, sampling)
    fills = settings.most_completions / sampling.slots
    sampled = _decoding_cost(decoding, fills, settings.max_new_tokens, place, loaded)
    adapter = adapter_bytes(recipe.model, recipe.lora)
    held, total = (3 if trainer.beta > 0 else 2) * adapter, adapter  # moments and initial weights; the step's gradient
    passes = max(reference.peak_bytes, total + group.peak_bytes)
    longest = pool.longest_prompt + settings.max_new_tokens
    if place.vllm:  # beside the policy, as long as the training lasts
        peak = _engine_bytes(recipe, place, sampling.slots, longest) + passes
    else:
        peak = max(sampled.peak_bytes, passes)
    forward, both = (
        place.speed.seconds(work.flops, work.moved_bytes + times * loaded, work.operations)
        for work, times in ((reference, 1 if trainer.beta > 0 else 0), (group, 3))
    )
    n = trainer.prompts_per_step
    return Cost(held + peak, settings.draws * (sampled.seconds + n * forward) + trainer.steps * n * both)


def _trl_cost(settings: TrainerSettings, recipe: Recipe, pool: Pool, place: Place, loaded: int) -> Cost:
    trainer, longest = settings.trainer, settings.max_new_tokens
    rows, at_once = settings.completions_per_step, settings.sampled_at_once
    lengths = pool.longest_prompt, longest
    how = trainer.gradient_checkpointing, trainer.epsilon, place.device == "cuda"
    sampling = sampling_work(recipe.model, recipe.lora, at_once, *lengths)
    loss = loss_work(recipe.model, recipe.lora, trainer.micro_batch, *lengths, *how)
    sampled = _decoding_cost(sampling, rows / at_once, longest, place, loaded)
    each = place.speed.seconds(loss.flops, loss.moved_bytes + 3 * loaded, loss.operations)
    reference = each / 3 if trainer.beta else 0.0  # one more forward pass, of the base
    seconds = settings.draws * sampled.seconds + trainer.steps * rows / trainer.micro_batch * (each + reference)
    return Cost(max(sampled.peak_bytes, loss.peak_bytes), seconds)


COSTS: dict[str, Callable[[Recipe, Pool, Place, int], Cost]] = {
    "rollouts": _rollouts_cost,
    "gradients": _gradients_cost,
    "evaluation": _evaluation_cost,
}


def cost_of(work: str, section: str) -> Callable[[Recipe, Pool, Place, int], Cost]:
    """The function for the cost of a kind of work; trainings come in two, each with its own section."""
    return _trainer_cost(section) if work == "training" else COSTS[work]
