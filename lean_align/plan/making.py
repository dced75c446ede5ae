"""A recipe's plan: every stage rehearsed, compared with the memory there is, and what to change where it is short."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from lean_align.choices import choose_engine
from lean_align.memory import human_bytes
from lean_align.plan.pool import Pool, pool_of
from lean_align.plan.process import ProcessBytes, process_bytes
from lean_align.plan.records import Plan, StagePlan
from lean_align.plan.rehearsals import Work, decoding_work, gradient_work, loss_work, sampling_work
from lean_align.plan.speed import CARD, Speed, measured_speed
from lean_align.policy.shapes import is_local, loading_bytes, model_config, shape_policy, weight_bytes
from lean_align.progress import say
from lean_align.recipe import ModelRecipe, Recipe, TrainerRecipe
from lean_align.rollouts import Sampling
from lean_align.rollouts.vllm import WORKSPACE_BYTES, kv_cache_bytes
from lean_align.selection import find_method

CONTEXT_BYTES = 600 * 2**20
"""What CUDA itself holds on a card: its context and the kernels' code."""
ALLOCATOR_SHARE = 0.05
"""Gaps between the blocks of torch's allocator on a card."""
_TOKEN_CHARACTERS = 12
"""Of a completion's line in rollouts.jsonl, a token: its text and its number."""


@dataclass(frozen=True)
class Cost:
    """Peak and time of a stage as the recipe is."""

    peak_bytes: int
    seconds: float


@dataclass(frozen=True)
class _Place:
    """Where the run will take place."""

    device: str
    limit_bytes: int
    process: ProcessBytes
    speed: Speed
    vllm: bool = False

    def fits(self, stage: str, tensor_bytes: int) -> bool:
        if self.device == "cuda":
            return tensor_bytes * (1 + ALLOCATOR_SHARE) + CONTEXT_BYTES <= self.limit_bytes
        return tensor_bytes + self.process.of(stage) <= self.limit_bytes


def plan_run(
    recipe: Recipe, vram_bytes: int | None = None, pool: Pool | None = None, speed: Speed | None = None
) -> Plan:
    """Plan every stage of a recipe.

    Parameters
    ----------
    recipe : Recipe
    vram_bytes : int, optional
        Memory of the card to plan for; the card of this machine when not given, its CPU without one.
    pool : Pool, optional
        Sizes of the data; found out from the recipe when not given.
    speed : Speed, optional
        What hours rest on; of this machine's device, or of a common card, when not given.

    Returns
    -------
    Plan

    Raises
    ------
    ModelError
        When the model's configuration cannot be found.
    RecipeError
        When the data cannot be counted.
    """
    pool, place = pool or pool_of(recipe), _place(recipe, vram_bytes, speed)
    policy = shape_policy(recipe.model, recipe.lora, pool.longest_prompt)
    loaded = weight_bytes(policy)
    download = _whole_weights(recipe.model, torch.bfloat16)
    loading = loading_bytes(policy)
    stages = tuple(_plan_stage(name, recipe, pool, place, loaded, loading, download) for name in _stages(recipe))
    return Plan(
        recipe.name,
        recipe.model.name,
        place.device,
        place.limit_bytes,
        loaded,
        sum(p.numel() for p in policy.lora_parameters.values()),
        0 if is_local(recipe.model) else download,
        stages,
        _assumptions(recipe, pool, place),
    )


def _place(recipe: Recipe, vram_bytes: int | None, speed: Speed | None) -> _Place:
    here, process = recipe.model.device != "cpu" and torch.cuda.is_available(), process_bytes()
    engine = recipe.rollouts.engine  # of another machine, what auto would mean is not known
    vllm = engine == "vllm" or (here and vram_bytes is None and choose_engine(engine) == "vllm")
    if vram_bytes is not None:
        return _Place("cuda", vram_bytes, process, speed or CARD, vllm)
    found = speed or measured_speed(getattr(torch, recipe.model.dtype), torch.device("cuda" if here else "cpu"))
    if here:
        return _Place("cuda", torch.cuda.get_device_properties(0).total_memory, process, found, vllm)
    return _Place("cpu", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), process, found, vllm)


def _assumptions(recipe: Recipe, pool: Pool, place: _Place) -> tuple[str, ...]:
    found = [
        f"every completion takes rollouts.max_new_tokens ({recipe.rollouts.max_new_tokens}) and every prompt "
        f"{pool.longest_prompt} tokens ({pool.source}), so tokens and hours are upper ends",
        place.speed.source,
    ]
    if place.vllm:
        found.append(
            "rollouts and evaluation are vLLM's: whole weights, keys and values, and on a card 2 GiB of workspace; "
            "while one of them runs, the whole weights also lie on the disk, and are counted there"
        )
        found.append("their hours are those of our own decode loop: vLLM's are not planned")
    elif place.device == "cuda" and recipe.rollouts.engine == "auto":
        found.append(
            "rollouts and evaluation are those of our own decode loop; where vLLM is installed beside the card, auto "
            "takes it: --set rollouts.engine=vllm plans that"
        )
    if place.device == "cuda":
        found.append("trainings are trl's; Unsloth's take less, how much less has not been measured")
        found.append(
            f"a stage fits when its peak, {ALLOCATOR_SHARE:.0%} more for gaps and {CONTEXT_BYTES / 2**30:.1f} GiB for "
            "CUDA itself are within the card"
        )
        found.append("RAM is that of the libraries, without CUDA's own, and of the checkpoint's pages that were read")
    elif recipe.model.device != "cpu":
        found.append("there is no card here, so this is for the CPU; for a card give its memory, as in --vram 24GiB")
    return tuple(found)


def _stages(recipe: Recipe) -> Iterator[str]:
    needs = find_method(recipe.selection.method).needs
    if recipe.warmup.steps and ("rollouts" in needs or recipe.training.init == "warmup"):
        yield "warmup"
    yield from (name for name in ("rollouts", "gradients") if name in needs)
    yield from ("training", "evaluation")


def _plan_stage(
    name: str, recipe: Recipe, pool: Pool, place: _Place, loaded: int, loading: int, download: int
) -> StagePlan:
    def cost(changed: Recipe) -> Cost:
        return _COSTS[name](changed, pool, place, loaded)

    found = cost(recipe)
    fits = place.fits(name, loaded + found.peak_bytes)
    if not fits:
        say(f"plan: {name} takes {human_bytes(loaded + found.peak_bytes)}; looking for keys with which it fits")
    changes = () if fits else _changes(name, recipe, lambda r: place.fits(name, loaded + cost(r).peak_bytes))
    tokens, disk = _size(name, recipe, pool)
    if place.vllm and name in ("rollouts", "evaluation"):
        disk += _vllm_weights(recipe, place)
    peak, process = loaded + found.peak_bytes, place.process.of(name)
    on_card = place.device == "cuda"  # then the checkpoint is read through the machine's memory
    ram = process + (download if on_card else max(peak, loading))
    return StagePlan(
        name, peak if on_card else ram, ram, found.peak_bytes, tokens, found.seconds / 3600, disk, changes, fits
    )


def _gradients_cost(recipe: Recipe, pool: Pool, place: _Place, loaded: int) -> Cost:
    group = gradient_work(recipe.model, recipe.lora, recipe.rollouts, recipe.gradients, pool.longest_prompt)
    passes = 3  # forward, backward, and the forward again of checkpointing
    seconds = place.speed.seconds(group.flops, group.moved_bytes + passes * loaded, group.operations)
    return Cost(group.peak_bytes, pool.n_train * seconds)


def _rollouts_cost(recipe: Recipe, pool: Pool, place: _Place, loaded: int) -> Cost:
    settings = recipe.rollouts
    count, longest = settings.num_generations, settings.max_new_tokens
    sampling = Sampling(count, settings.temperature, longest, settings.batch_size, 0, "", 0)
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
    return _with_engine(cost, recipe, place, loaded, sampling.slots, pool.longest_prompt + longest)


def _evaluation_cost(recipe: Recipe, pool: Pool, place: _Place, loaded: int) -> Cost:
    settings, costs, longest = recipe.evaluation, [], 0
    for problems in pool.evaluation_sets(recipe):
        count, limit = problems.num_samples, problems.max_new_tokens
        sampling = Sampling(count, 0.0, limit, settings.batch_size, 0, "", 0)
        n_prompts = min(problems.n_problems, max(1, settings.window // count))
        fills = 2 * problems.n_problems * count / sampling.slots  # the base and the trained model
        work = decoding_work(recipe.model, recipe.lora, n_prompts, problems.longest_prompt, sampling)
        costs.append(_decoding_cost(work, fills, limit, place, loaded))
        longest = max(longest, problems.longest_prompt + limit)
    cost = Cost(max(c.peak_bytes for c in costs), sum(c.seconds for c in costs))
    return _with_engine(cost, recipe, place, loaded, settings.batch_size, longest)


def _with_engine(cost: Cost, recipe: Recipe, place: _Place, loaded: int, batch_size: int, longest: int) -> Cost:
    """The same, with vLLM's peak where vLLM samples: whole weights in the place of the loaded ones."""
    if not place.vllm:
        return cost
    held = kv_cache_bytes(model_config(recipe.model), batch_size, longest, _vllm_dtype(recipe, place))
    workspace = WORKSPACE_BYTES if place.device == "cuda" else 0
    return replace(cost, peak_bytes=_vllm_weights(recipe, place) + held + workspace - loaded)


def _vllm_dtype(recipe: Recipe, place: _Place) -> torch.dtype:
    """Of vLLM's weights, keys and values: float32 where the adapter is merged."""
    adapter = recipe.rollouts.vllm_adapter
    merged = place.device == "cpu" if adapter == "auto" else adapter == "merged"
    return torch.float32 if merged else getattr(torch, recipe.model.dtype)


def _vllm_weights(recipe: Recipe, place: _Place) -> int:
    """Bytes of the whole weights that vLLM reads."""
    return _whole_weights(recipe.model, _vllm_dtype(recipe, place))


@cache
def _whole_weights(model: ModelRecipe, dtype: torch.dtype) -> int:
    """Bytes of a model without quantisation or adapter."""
    name = str(dtype).removeprefix("torch.")
    return weight_bytes(shape_policy(replace(model, quantization="none", dtype=name), None, 1))


def _decoding(recipe: Recipe, n_prompts: int, pool: Pool, sampling: Sampling) -> tuple[Work, Work]:
    return decoding_work(recipe.model, recipe.lora, n_prompts, pool.longest_prompt, sampling)


def _decoding_cost(work: tuple[Work, Work], fills: float, longest: int, place: _Place, loaded: int) -> Cost:
    prompts, step = work
    seconds = place.speed.seconds(prompts.flops, prompts.moved_bytes + loaded, prompts.operations)
    # a step reads the weights, and the keys and values that lie there
    each = place.speed.seconds(step.flops, step.moved_bytes + step.peak_bytes + loaded, step.operations)
    return Cost(max(prompts.peak_bytes, step.peak_bytes), fills * (seconds + longest * each))


def _trainer_cost(name: str) -> Callable[[Recipe, Pool, _Place, int], Cost]:
    def cost(recipe: Recipe, pool: Pool, place: _Place, loaded: int) -> Cost:
        trainer: TrainerRecipe = getattr(recipe, name)
        rows, longest = trainer.prompts_per_step * recipe.rollouts.num_generations, recipe.rollouts.max_new_tokens
        lengths = pool.longest_prompt, longest
        settings = trainer.gradient_checkpointing, trainer.epsilon, place.device == "cuda"
        at_once = trainer.sampled_at_once(recipe.rollouts.num_generations)
        sampling = sampling_work(recipe.model, recipe.lora, at_once, *lengths)
        loss = loss_work(recipe.model, recipe.lora, trainer.micro_batch, *lengths, *settings)
        sampled = _decoding_cost(sampling, rows / at_once, longest, place, loaded)
        each = place.speed.seconds(loss.flops, loss.moved_bytes + 3 * loaded, loss.operations)
        reference = each / 3 if trainer.beta else 0.0  # one more forward pass, of the base
        seconds = trainer.steps * (sampled.seconds + rows / trainer.micro_batch * (each + reference))
        return Cost(max(sampled.peak_bytes, loss.peak_bytes), seconds)

    return cost


_COSTS: dict[str, Callable[[Recipe, Pool, _Place, int], Cost]] = {
    "warmup": _trainer_cost("warmup"),
    "rollouts": _rollouts_cost,
    "gradients": _gradients_cost,
    "training": _trainer_cost("training"),
    "evaluation": _evaluation_cost,
}


def _size(name: str, recipe: Recipe, pool: Pool) -> tuple[int, int]:
    """Tokens and bytes on disk of a stage."""
    rollouts = recipe.rollouts
    sampled = pool.n_train * rollouts.num_generations * rollouts.max_new_tokens
    if name in ("warmup", "training"):
        trainer: TrainerRecipe = getattr(recipe, name)
        lora = sum(p.numel() for p in shape_policy(recipe.model, recipe.lora, 1).lora_parameters.values())
        tokens = trainer.steps * trainer.prompts_per_step * rollouts.num_generations * rollouts.max_new_tokens
        return tokens, (4 + 4 + 2 * 12) * lora  # adapter, second moments, two checkpoints with Adam's moments
    if name == "rollouts":
        return sampled, _TOKEN_CHARACTERS * sampled
    if name == "gradients":
        row = 2 * recipe.gradients.proj_dim * (2 if recipe.gradients.second_seed else 1)
        return sampled + pool.n_train * pool.longest_prompt, pool.n_train * row
    sets = pool.evaluation_sets(recipe)
    tokens = 2 * sum(s.n_problems * s.num_samples * s.max_new_tokens for s in sets)
    return tokens, _TOKEN_CHARACTERS * tokens


def _changes(name: str, recipe: Recipe, fits: Callable[[Recipe], bool]) -> tuple[str, ...]:
    """Keys and values with which a stage fits, in the order in which they cost least; none when none helps."""
    changed: dict[str, Any] = {}
    for key, value in _candidates(name, recipe):
        changed[key] = value
        if fits(_with_keys(recipe, changed)):
            for other in list(changed):  # what turns out not to be needed stays as it was
                fewer = {k: v for k, v in changed.items() if k != other}
                changed = fewer if fits(_with_keys(recipe, fewer)) else changed
            return tuple(f"{k}={str(v).lower()}" for k, v in changed.items())
    return ()


def _with_keys(recipe: Recipe, changed: Mapping[str, Any]) -> Recipe:
    for key, value in changed.items():
        recipe = with_key(recipe, key, value)
    return recipe


def _candidates(name: str, recipe: Recipe) -> Iterator[tuple[str, Any]]:
    section = getattr(recipe, name)
    if name in ("rollouts", "evaluation"):
        least = recipe.rollouts.num_generations if name == "rollouts" else 1
        yield from _halves(f"{name}.batch_size", section.batch_size, least)
        return
    if not section.gradient_checkpointing:
        yield f"{name}.gradient_checkpointing", True
    if name == "gradients":
        yield from _halves("gradients.token_budget", section.token_budget, 256)
        yield from _halves("gradients.logprob_chunk", section.logprob_chunk, 64)
        return
    yield from _smaller_batches(name, section, recipe.rollouts.num_generations)


def _smaller_batches(name: str, trainer: TrainerRecipe, num_generations: int) -> Iterator[tuple[str, Any]]:
    """First what is sampled at once, down to the larger of a micro-batch and a group; then the micro-batch."""
    step = trainer.prompts_per_step * num_generations
    unit, at_once = math.lcm(trainer.micro_batch, num_generations), trainer.sampled_at_once(num_generations)
    for _, size in _halves("", at_once, unit):
        fitting = next(n for n in range(size // unit * unit, 0, -unit) if step % n == 0)
        yield f"{name}.sampling_batch", fitting
    yield from _halves(f"{name}.micro_batch", trainer.micro_batch, 1)


def _halves(key: str, value: int, least: int) -> Iterator[tuple[str, int]]:
    while value // 2 >= least:
        value //= 2
        yield key, value


def with_key(recipe: Recipe, key: str, value: Any) -> Recipe:
    """The recipe with one dotted key changed."""
    section, field = key.split(".")
    changed = dataclasses.replace(getattr(recipe, section), **{field: value})
    return dataclasses.replace(recipe, **{section: changed})
