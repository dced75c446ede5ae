"""The engine that samples a stage's completions: chosen once per stage, recorded next to its completions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
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
    import torch

    from lean_align.policy import Policy, PromptEncoder
    from lean_align.rollouts import Engine
    from lean_align.rollouts.vllm import VllmSettings

ENGINE = "engine.json"
DENSE, FOLLOWED = "dense", "followed"


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
    from lean_align.policy import save_dense
    from lean_align.policy.adapters import check_adapter, check_request
    from lean_align.rollouts.vllm import vllm_engine

    merged = chosen["adapter"] == "merged"
    if adapter is not None and not merged:
        check_adapter(recipe.model, adapter)
        check_request(adapter)
    _say_which(folder, chosen, adapter is not None)
    with _below(folder, DENSE) as dense:
        policy = load_policy(recipe.model, recipe.data, None, adapter if merged else None, recipe.seed)
        keep_share(policy, folder)
        save_dense(policy, dense, _dtype(chosen))
        settings = _settings(recipe, chosen, policy, longest, batch_size, None if merged else adapter)
        common = policy.encoder, policy.eos_token_ids
        del policy
        release_memory()
        with vllm_engine(dense, *common, settings, on_halving) as engine:
            yield engine


@contextmanager
def live_engine(
    recipe: Recipe,
    policy: Policy,
    folder: StageFolder,
    longest: Callable[[PromptEncoder], int],
    batch_size: int,
    on_halving: Callable[[Halving], None] = lambda halving: None,
) -> Iterator[tuple[Engine, Callable[[int], None]]]:
    """The stage's engine on a policy that is trained in this process, and what makes it follow the policy.

    vLLM is loaded once.  `merged`: the weights that the adapter changes are put in the place of those that it holds;
    `request`: it holds the base, and the adapter is written to the stage's folder for it to read.

    Parameters
    ----------
    recipe : Recipe
    policy : Policy
        With an adapter.  Its weights may change, and the engine is to be told then.
    folder : StageFolder
        For vllm it holds, while the block runs, a copy of the model in whole weights, `dense/`, and for requests the
        adapter, `followed/`.
    longest, batch_size, on_halving
        As for `sampling_engine`.

    Yields
    ------
    Engine
        Samples with the policy as it was when it last followed, or, with transformers, as it is.
    follow : callable
        Given the number of the step that is about to sample, any; called before each step, the first one too.

    Raises
    ------
    ModelError
        When the adapter is of a kind that vLLM's requests do not take, or that cannot be merged.
    StageError
        From `follow`, while completions are still sampled.

    Notes
    -----
    Loading vLLM seeds Python's, NumPy's and torch's global generators, and on a CPU makes `torch.set_num_threads` do
    nothing for the rest of the process.  The policy's gradients stay the same bit for bit (tests/test_stack_vllm.py).
    """
    from lean_align.rollouts import TransformersEngine

    chosen = begin_engine(recipe, folder)
    if chosen["engine"] == "transformers":
        yield TransformersEngine(policy), lambda step: None
        return
    from lean_align.policy import changed_weights, save_adapter, save_dense
    from lean_align.policy.adapters import check_request
    from lean_align.rollouts.vllm import vllm_engine

    merged, dtype = chosen["adapter"] == "merged", _dtype(chosen)
    _say_which(folder, chosen, True)
    with _below(folder, DENSE) as dense, _below(folder, FOLLOWED) as followed:
        adapter = None if merged else followed / "start"
        if adapter is not None:
            save_adapter(policy.model, adapter)
            check_request(adapter)
        with nullcontext() if merged else policy.model.disable_adapter():
            save_dense(policy, dense, dtype)
        release_memory()
        settings = _settings(recipe, chosen, policy, longest, batch_size, adapter)
        with vllm_engine(dense, policy.encoder, policy.eos_token_ids, settings, on_halving) as engine:

            def merge(step: int) -> None:
                engine.loaded.take_weights(changed_weights(policy, dtype))

            def request(step: int) -> None:
                adapter = followed / f"step-{step}"
                save_adapter(policy.model, adapter)
                engine.loaded.take_adapter(adapter)
                for earlier in set(followed.iterdir()) - {adapter}:
                    shutil.rmtree(earlier)

            yield engine, merge if merged else request


def _say_which(folder: StageFolder, chosen: Mapping[str, Any], with_adapter: bool) -> None:
    how = "merged" if chosen["adapter"] == "merged" else "as a LoRA request"
    how = f"adapter {how}" if with_adapter else "without an adapter"
    say(f"{folder.final.name}: vLLM {chosen['version']}, {chosen['dtype']}, {how}")


@contextmanager
def _below(folder: StageFolder, name: str) -> Iterator[Path]:
    """A folder below the stage's that is not there before the block or after it."""
    path = folder.path / name
    shutil.rmtree(path, ignore_errors=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _dtype(chosen: Mapping[str, Any]) -> torch.dtype:
    import torch

    found: torch.dtype = getattr(torch, chosen["dtype"])
    return found


def _settings(
    recipe: Recipe,
    chosen: Mapping[str, Any],
    policy: Policy,
    longest: Callable[[PromptEncoder], int],
    batch_size: int,
    request: Path | None,
) -> VllmSettings:
    from lean_align.rollouts.vllm import VllmSettings

    return VllmSettings(batch_size, longest(policy.encoder), _dtype(chosen), policy.device, request, recipe.threads)
