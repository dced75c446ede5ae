"""What a run will take, before anything is downloaded or run: memory, disk, tokens and time of each stage.

Each stage's own code runs once, at its largest, on a model of the recipe's shapes that holds no numbers
(torch's `meta` device), while every tensor's bytes are counted.  So the figures follow from the model's
configuration, the recipe and the code, and change with them.

Not counted: what a kernel allocates within itself, and gaps between blocks of the allocator.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from lean_align.choices import choose_backend, choose_engine
from lean_align.errors import LeanAlignError, ModelError
from lean_align.gradients.prompt_sharing import SHARED, gradient_path, why_plain
from lean_align.grpo import TrainerSettings
from lean_align.machine.costs import Cost, cost_of, vllm_weights, whole_weights
from lean_align.machine.place import ALLOCATOR_SHARE, CONTEXT_BYTES, Place, Speed, place_of
from lean_align.machine.plan_records import Plan, PlannedStage, StagePlan
from lean_align.machine.pool_sizes import Pool, pool_of
from lean_align.memory import human_bytes
from lean_align.policy import Policy
from lean_align.policy.families import family_of
from lean_align.policy.four_bits import share_4bit, shortfall
from lean_align.policy.output_layer import backbone_of
from lean_align.policy.shapes import is_local, loading_bytes, model_config, shape_policy, weight_bytes
from lean_align.progress import say
from lean_align.recipe import LoraRecipe, ModelRecipe, Recipe, TrainerRecipe
from lean_align.rollouts.paths import PLAIN, rollout_path
from lean_align.selection import recipe_method

_TOKEN_CHARACTERS = 12
"""Of a completion's line in rollouts.jsonl, a token: its text and its number."""


def plan_run(
    recipe: Recipe,
    stages: Sequence[PlannedStage],
    vram_bytes: int | None = None,
    pool: Pool | None = None,
    speed: Speed | None = None,
) -> Plan:
    """Plan every stage of a recipe.

    Parameters
    ----------
    recipe : Recipe
    stages : sequence of PlannedStage
        Those to plan, in order: `lean_align.stages.GRAPH.planned(recipe)`.
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
        When the model's configuration cannot be found, or a stage would refuse it, or its shapes cannot be computed.
    RecipeError
        When the data cannot be counted.
    """
    pool = pool or pool_of(recipe)
    try:
        notes = check_model_serves(recipe, pool.longest_prompt + recipe.rollouts.max_new_tokens)
        return _plan(recipe, stages, pool, place_of(recipe, vram_bytes, speed), notes)
    except LeanAlignError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # whatever code of a model that is not known here does on shapes alone
        reason = (str(error).splitlines() or [""])[0]
        raise ModelError(
            f"{recipe.model.name} cannot be planned: {type(error).__name__}: {reason}. A run works without a plan."
        ) from error


def check_model_serves(recipe: Recipe, longest: int | None = None) -> tuple[str, ...]:
    """Refuse a model that a later stage would, from its configuration and a copy of it that holds no numbers.

    Parameters
    ----------
    recipe : Recipe
    longest : int, optional
        Tokens of the longest prompt with a completion; without it every window counts as shorter.

    Returns
    -------
    tuple of str
        What is done differently from a plain decoder, and why.

    Raises
    ------
    ModelError
        When it completes no text, cannot be decoded or differentiated, or takes no adapter on `lora.target_modules`.
    """
    family = family_of(model_config(recipe.model))
    notes = []
    engine = recipe.rollouts.engine
    if engine != "vllm" and choose_engine(engine) != "vllm":  # which decodes in its own way
        path = rollout_path(family, longest).or_refuse()
        notes += [path.reason] if path.name != PLAIN else []
    shaped = _shapes(recipe.model, recipe.lora)
    if "gradients" in recipe_method(recipe).needs or _by_lean(recipe.training):
        backbone_of(shaped.causal_lm)
        if gradient_path(family) != SHARED and recipe.gradients.share_prompt:
            notes.append(f"{why_plain(family)}: gradients recompute the prompt for each completion, which is slower")
    return tuple(notes)


def _by_lean(trainer: TrainerRecipe) -> bool:
    """Whether this machine trains with the passes of the gradient stage."""
    if trainer.backend == "auto":
        return choose_backend("auto", only_lean=trainer.only_lean() is not None) == "lean"
    return trainer.backend == "lean"


@lru_cache(maxsize=1)
def _shapes(model: ModelRecipe, lora: LoraRecipe) -> Policy:
    """The model's shapes, built once, to look at: what is rehearsed changes modes of a copy of its own."""
    return shape_policy(model, lora, 1)


def _lora_size(policy: Policy) -> int:
    return sum(p.numel() for p in policy.lora_parameters.values())


def _plan(recipe: Recipe, stages: Sequence[PlannedStage], pool: Pool, place: Place, notes: Sequence[str]) -> Plan:
    policy = _shapes(recipe.model, recipe.lora)
    loaded = weight_bytes(policy)
    download = whole_weights(recipe.model, torch.bfloat16)
    loading = loading_bytes(policy)
    planned = tuple(_plan_stage(stage, recipe, pool, place, loaded, loading, download) for stage in stages)
    return Plan(
        recipe.name,
        recipe.model.name,
        place.device,
        place.limit_bytes,
        loaded,
        _lora_size(policy),
        0 if is_local(recipe.model) else download,
        planned,
        (*_assumptions(recipe, stages, pool, place), *notes, *_not_in_4_bits(recipe, policy)),
    )


def _not_in_4_bits(recipe: Recipe, policy: Policy) -> tuple[str, ...]:
    if recipe.model.quantization != "nf4":
        return ()
    line = shortfall(recipe.model.name, *share_4bit(policy.causal_lm))
    return () if line is None else (line,)


def _assumptions(recipe: Recipe, stages: Sequence[PlannedStage], pool: Pool, place: Place) -> tuple[str, ...]:
    trainers: list[TrainerRecipe] = [getattr(recipe, stage.section) for stage in stages if stage.work == "training"]
    backends = {place.backend(trainer) for trainer in trainers}
    found = [
        f"every completion takes rollouts.max_new_tokens ({recipe.rollouts.max_new_tokens}) and every prompt "
        f"{pool.longest_prompt} tokens ({pool.source}), so tokens and hours are upper bounds",
        place.speed.source,
    ]
    if place.vllm:
        found.append(
            "rollouts and evaluation are vLLM's: whole weights, keys and values, and on a card 2 GiB of workspace; "
            "while one of them runs, the whole weights also lie on the disk, and are counted there"
        )
        if "lean" in backends:
            found.append("trainings by lean sample with vLLM too, which lies beside the policy as long as they last")
        found.append("hours of sampling are those of our own decode loop: vLLM's are not planned")
    elif place.device == "cuda" and recipe.rollouts.engine == "auto":
        found.append(
            "rollouts, evaluation and trainings by lean take our own decode loop; auto takes vLLM where it is "
            "installed: --set rollouts.engine=vllm plans that"
        )
    unplanned = sorted(recipe_method(recipe).needs - {"rollouts", "gradients", "scores", "target"})
    if unplanned:
        found.append(f"{', '.join(unplanned)}, which {recipe.selection.method} needs, are not planned")
    if recipe.rollouts.predicts:
        found.append(
            "rollouts and gradients are those of rollouts.budget_share: fewer where a choice is settled before"
        )
    if recipe.selection.rounds > 1:
        found.append(
            f"selection.rounds is {recipe.selection.rounds}: rollouts and gradients run that often, counted once"
        )
    if "unsloth" in backends:
        found.append("trainings by Unsloth are planned as trl's: they take less, how much less has not been measured")
    elif place.device == "cuda" and any(trainer.backend == "auto" for trainer in trainers):
        found.append(
            "trainings are lean's; where Unsloth is installed, auto uses it: --set warmup.backend=unsloth --set "
            "training.backend=unsloth plans that"
        )
    if place.device == "cuda":
        found.append(
            f"a stage fits when its peak, {ALLOCATOR_SHARE:.0%} more for gaps and {CONTEXT_BYTES / 2**30:.1f} GiB for "
            "CUDA itself are within the card"
        )
        found.append("RAM is that of the libraries, without CUDA's own, and of the checkpoint's pages that were read")
    elif recipe.model.device != "cpu":
        found.append(
            "there is no card here, so this is for the CPU; to plan for a card, give its memory, as in --vram 24GiB"
        )
    return tuple(found)


def _plan_stage(
    stage: PlannedStage, recipe: Recipe, pool: Pool, place: Place, loaded: int, loading: int, download: int
) -> StagePlan:
    pool = pool.of_target() if stage.of_target else pool.sampled(recipe)
    name, work = stage.folder, stage.work
    backend = place.backend(getattr(recipe, stage.section)) if work == "training" else ""
    process, cost = place.process.of(work, backend), cost_of(work, stage.section)

    def fits_with(changed: Recipe) -> bool:
        plain = changed.rollouts.engine == "transformers"
        there = dataclasses.replace(place, vllm=False) if plain else place
        return place.fits(loaded + cost(changed, pool, there, loaded).peak_bytes, process)

    found: Cost = cost(recipe, pool, place, loaded)
    peak = loaded + found.peak_bytes
    fits = place.fits(peak, process)
    if not fits:
        say(f"plan: {name} takes {human_bytes(peak)}; looking for keys with which it fits")
    changes = () if fits else changes_that_fit(stage, recipe, backend, place.vllm, fits_with)
    tokens, disk = _size(stage, recipe, pool)
    if place.vllm and (work in ("rollouts", "evaluation") or backend == "lean"):
        disk += vllm_weights(recipe, place)
    on_card = place.device == "cuda"  # then the checkpoint is read through the machine's memory
    ram = process + (download if on_card else max(peak, loading))
    return StagePlan(
        name, peak if on_card else ram, ram, found.peak_bytes, tokens, found.seconds / 3600, disk, changes, fits
    )


def _size(stage: PlannedStage, recipe: Recipe, pool: Pool) -> tuple[int, int]:
    """Tokens and bytes on disk of a stage."""
    rollouts = recipe.rollouts
    sampled = pool.n_train * recipe.selection_generations * rollouts.max_new_tokens
    if stage.work == "training":
        settings = TrainerSettings.of(recipe, stage.section)
        trainer = settings.trainer
        tokens = settings.draws * settings.most_completions * rollouts.max_new_tokens
        rows = 2 * recipe.gradients.proj_dim * settings.draws * trainer.prompts_per_step if trainer.keep_rows else 0
        kept = len(recipe.kept_steps) if stage.section == "training" else 0
        # adapter, second moments, two checkpoints with Adam's moments
        return tokens, (4 + 4 * kept + 4 + 2 * 12) * _lora_size(_shapes(recipe.model, recipe.lora)) + rows
    if stage.work == "rollouts":
        return sampled, _TOKEN_CHARACTERS * sampled
    if stage.work == "gradients":
        row = 2 * recipe.gradients.proj_dim * (2 if recipe.gradients.second_seed else 1)
        return sampled + pool.n_train * pool.longest_prompt, pool.n_train * row
    sets = pool.evaluation_sets(recipe)
    tokens = sum(n * s.num_samples * s.max_new_tokens for s, n in zip(sets, pool.solved(recipe)))
    return tokens, _TOKEN_CHARACTERS * tokens


def changes_that_fit(
    stage: PlannedStage, recipe: Recipe, backend: str, vllm: bool, fits: Callable[[Recipe], bool]
) -> tuple[str, ...]:
    """Keys and values with which a stage fits, the cheapest changes first; none when none helps."""
    changed: dict[str, Any] = {}
    for key, value in _candidates(stage, recipe, backend, vllm):
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


def _candidates(stage: PlannedStage, recipe: Recipe, backend: str, vllm: bool) -> Iterator[tuple[str, Any]]:
    name, settings = stage.section, getattr(recipe, stage.section)
    if stage.work in ("rollouts", "evaluation"):
        least = recipe.selection_generations if stage.work == "rollouts" else 1
        yield from _halves(f"{name}.batch_size", settings.batch_size, least)
        return
    if not settings.gradient_checkpointing:
        yield f"{name}.gradient_checkpointing", True
    passes = (
        *_halves(f"{name}.token_budget", settings.token_budget, 256),
        *_halves("gradients.logprob_chunk", recipe.gradients.logprob_chunk, 64),
    )
    if stage.work == "gradients":
        yield from passes
    elif backend == "lean":
        sampling = TrainerSettings.of(recipe, name).sampling(0)
        batches = _halves(f"{name}.sampling_batch", sampling.slots, sampling.num_generations)
        if vllm:  # its weights, keys and values lie beside the policy, and are the most of it
            yield from batches
            yield "rollouts.engine", "transformers"
        yield from passes
        yield from batches
    else:
        yield from _smaller_batches(name, settings, recipe.rollouts.num_generations)


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
