"""A recipe's plan: every stage rehearsed, compared with the memory there is, and what to change where it is short."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import torch

from lean_align.choices import choose_engine
from lean_align.errors import LeanAlignError, ModelError
from lean_align.machine.changes import changes_that_fit
from lean_align.machine.costs import ALLOCATOR_SHARE, CONTEXT_BYTES, COSTS, Cost, Place, vllm_weights, whole_weights
from lean_align.machine.plan_records import Plan, StagePlan
from lean_align.machine.pool_sizes import Pool, pool_of
from lean_align.machine.process import process_bytes
from lean_align.machine.serving import check_model_serves
from lean_align.machine.speed import CARD, Speed, measured_speed
from lean_align.memory import human_bytes
from lean_align.policy import Policy
from lean_align.policy.four_bits import share_4bit, shortfall
from lean_align.policy.shapes import is_local, loading_bytes, shape_policy, weight_bytes
from lean_align.progress import say
from lean_align.recipe import Recipe, TrainerRecipe
from lean_align.selection import find_method

_TOKEN_CHARACTERS = 12
"""Of a completion's line in rollouts.jsonl, a token: its text and its number."""


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
        When the model's configuration cannot be found, or a stage would refuse it, or its shapes cannot be computed.
    RecipeError
        When the data cannot be counted.
    """
    pool = pool or pool_of(recipe)
    notes = check_model_serves(recipe, pool.longest_prompt + recipe.rollouts.max_new_tokens)
    try:
        return _plan(recipe, pool, _place(recipe, vram_bytes, speed), notes)
    except LeanAlignError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # whatever code of a model that is not known here does on shapes alone
        reason = (str(error).splitlines() or [""])[0]
        raise ModelError(
            f"{recipe.model.name} cannot be planned: {type(error).__name__}: {reason}. A run does without a plan."
        ) from error


def _plan(recipe: Recipe, pool: Pool, place: Place, notes: Sequence[str]) -> Plan:
    policy = shape_policy(recipe.model, recipe.lora, pool.longest_prompt)
    loaded = weight_bytes(policy)
    download = whole_weights(recipe.model, torch.bfloat16)
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
        (*_assumptions(recipe, pool, place), *notes, *_not_in_4_bits(recipe, policy)),
    )


def _not_in_4_bits(recipe: Recipe, policy: Policy) -> tuple[str, ...]:
    if recipe.model.quantization != "nf4":
        return ()
    line = shortfall(recipe.model.name, *share_4bit(policy.causal_lm))
    return () if line is None else (line,)


def _place(recipe: Recipe, vram_bytes: int | None, speed: Speed | None) -> Place:
    here, process = recipe.model.device != "cpu" and torch.cuda.is_available(), process_bytes()
    engine = recipe.rollouts.engine  # of another machine, what auto would mean is not known
    vllm = engine == "vllm" or (here and vram_bytes is None and choose_engine(engine) == "vllm")
    if vram_bytes is not None:
        return Place("cuda", vram_bytes, process, speed or CARD, vllm)
    found = speed or measured_speed(getattr(torch, recipe.model.dtype), torch.device("cuda" if here else "cpu"))
    if here:
        return Place("cuda", torch.cuda.get_device_properties(0).total_memory, process, found, vllm)
    return Place("cpu", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), process, found, vllm)


def _assumptions(recipe: Recipe, pool: Pool, place: Place) -> tuple[str, ...]:
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
    unplanned = sorted(find_method(recipe.selection.method).needs - {"rollouts", "gradients", "scores"})
    if unplanned:
        found.append(f"{', '.join(unplanned)}, which {recipe.selection.method} needs, are not planned")
    if recipe.selection.rounds > 1:
        found.append(
            f"selection.rounds is {recipe.selection.rounds}: rollouts and gradients are taken as often, counted once"
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
    name: str, recipe: Recipe, pool: Pool, place: Place, loaded: int, loading: int, download: int
) -> StagePlan:
    def cost(changed: Recipe) -> Cost:
        return COSTS[name](changed, pool, place, loaded)

    found = cost(recipe)
    fits = place.fits(name, loaded + found.peak_bytes)
    if not fits:
        say(f"plan: {name} takes {human_bytes(loaded + found.peak_bytes)}; looking for keys with which it fits")
    changes = () if fits else changes_that_fit(name, recipe, lambda r: place.fits(name, loaded + cost(r).peak_bytes))
    tokens, disk = _size(name, recipe, pool)
    if place.vllm and name in ("rollouts", "evaluation"):
        disk += vllm_weights(recipe, place)
    peak, process = loaded + found.peak_bytes, place.process.of(name)
    on_card = place.device == "cuda"  # then the checkpoint is read through the machine's memory
    ram = process + (download if on_card else max(peak, loading))
    return StagePlan(
        name, peak if on_card else ram, ram, found.peak_bytes, tokens, found.seconds / 3600, disk, changes, fits
    )


def _size(name: str, recipe: Recipe, pool: Pool) -> tuple[int, int]:
    """Tokens and bytes on disk of a stage."""
    rollouts = recipe.rollouts
    sampled = pool.n_train * recipe.selection_generations * rollouts.max_new_tokens
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
