"""The engine that samples a stage's completions: chosen once per stage, recorded next to its completions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lean_align.artifacts import StageFolder, read_json, write_json
from lean_align.choices import choose_engine
from lean_align.memory import Halving, release_memory
from lean_align.progress import say
from lean_align.recipe import Recipe
from lean_align.types import Prompt

if TYPE_CHECKING:
    from lean_align.policy import Policy, PromptEncoder
    from lean_align.rollouts import Engine

ENGINE = "engine.json"
DENSE = "dense"


def begin_engine(recipe: Recipe, folder: StageFolder) -> dict[str, Any]:
    """Choose the engine, or keep the one an earlier attempt began with: one file holds one engine's lines.

    Returns
    -------
    dict
        engine, version; of vllm also adapter (`merged` or `request`) and dtype, as the manifest keeps them.

    Raises
    ------
    MissingPackageError
        When it is not installed.
    """
    from lean_align.policy import resolve_device

    path = folder.path / ENGINE
    begun = read_json(path) if path.exists() else None
    name = choose_engine(begun["engine"] if begun else recipe.rollouts.engine)
    chosen: dict[str, Any] = {"engine": name, "version": version("transformers")}
    if name == "vllm":
        from lean_align.rollouts.vllm import vllm_version

        adapter = recipe.rollouts.vllm_adapter
        if adapter == "auto":
            adapter = "request" if resolve_device(recipe.model.device).type == "cuda" else "merged"
        dtype = "float32" if adapter == "merged" else recipe.model.dtype
        chosen = {"engine": name, "version": vllm_version(), "adapter": adapter, "dtype": dtype}
    if begun is None:
        write_json(path, chosen)
    folder.counts["engine"] = begun or chosen
    return begun or chosen


def longest_of(prompts: Sequence[Prompt], max_new_tokens: int) -> Callable[[PromptEncoder], int]:
    """Tokens of the longest of some prompts with a completion."""
    return lambda encoder: max(len(encoder.encode(prompt)) for prompt in prompts) + max_new_tokens


def keep_share(policy: Policy, folder: StageFolder) -> None:
    """Record in a stage's counts what share of its base is in 4 bits, where 4 bits were asked for."""
    if policy.share_4bit is not None:
        folder.counts["share_4bit"] = round(policy.share_4bit, 4)


@contextmanager
def sampling_engine(
    recipe: Recipe,
    folder: StageFolder,
    adapter: Path | None,
    longest: Callable[[PromptEncoder], int],
    batch_size: int,
    on_halving: Callable[[Halving], None] = lambda halving: None,
) -> Iterator[Engine]:
    """The stage's engine on the base with an adapter, or without one.

    Parameters
    ----------
    recipe : Recipe
    folder : StageFolder
        For vllm it holds a copy of the model in whole weights, `dense/`, while the block runs.
    adapter : Path or None
        Folder of a peft adapter.
    longest : callable
        Encoder -> tokens of the longest prompt with a completion; see `longest_of`.
    batch_size : int
        Completions that vllm holds keys and values for.
    on_halving : callable
        Called when they did not fit.
    """
    from lean_align.policy import load_policy
    from lean_align.rollouts import TransformersEngine

    chosen = begin_engine(recipe, folder)
    if chosen["engine"] == "transformers":
        policy = load_policy(recipe.model, recipe.data, None, adapter, recipe.seed)
        keep_share(policy, folder)
        yield TransformersEngine(policy)
        return
    import torch

    from lean_align.policy import save_dense
    from lean_align.policy.adapters import check_adapter, check_request
    from lean_align.rollouts.vllm import VllmSettings, vllm_engine

    merged, dtype = chosen["adapter"] == "merged", getattr(torch, chosen["dtype"])
    if adapter is not None and not merged:
        check_adapter(recipe.model, adapter)
        check_request(adapter)
    how = "without an adapter" if adapter is None else f"adapter {'merged' if merged else 'as a LoRA request'}"
    say(f"{folder.final.name}: vLLM {chosen['version']}, {chosen['dtype']}, {how}")
    dense = folder.path / DENSE
    shutil.rmtree(dense, ignore_errors=True)
    policy = load_policy(recipe.model, recipe.data, None, adapter if merged else None, recipe.seed)
    keep_share(policy, folder)
    request = None if merged else adapter
    try:
        save_dense(policy, dense, dtype)
        encoder, eos_token_ids, device = policy.encoder, policy.eos_token_ids, policy.device
        del policy
        release_memory()
        settings = VllmSettings(batch_size, longest(encoder), dtype, device, request, recipe.threads)
        with vllm_engine(dense, encoder, eos_token_ids, settings, on_halving) as engine:
            yield engine
    finally:
        shutil.rmtree(dense, ignore_errors=True)


@contextmanager
def live_engine(
    recipe: Recipe,
    policy: Policy,
    folder: StageFolder,
    longest: Callable[[PromptEncoder], int],
    batch_size: int,
    on_halving: Callable[[Halving], None] = lambda halving: None,
) -> Iterator[tuple[Engine, Callable[[int], None]]]:
    """An engine for a policy that is being trained."""
    from lean_align.rollouts import TransformersEngine

    begin_engine(recipe, folder)
    yield TransformersEngine(policy), lambda step: None
