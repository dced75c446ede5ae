"""The trainer behind a training: our own, trl's, or Unsloth's, which must be imported before trl and transformers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lean_align.artifacts import StageFolder, read_json, write_json
from lean_align.choices import choose_backend
from lean_align.errors import StageError
from lean_align.progress import say
from lean_align.recipe import Recipe, TrainerRecipe
from lean_align.types import Prompt

if TYPE_CHECKING:
    from lean_align.policy import Policy

BACKEND = "backend.json"
CACHE = ".unsloth_compiled_cache"
_PATCHED = ("trl", "transformers", "peft")


@contextmanager
def training_backend(
    recipe: Recipe, trainer: TrainerRecipe, run_dir: Path, folder: StageFolder
) -> Iterator[dict[str, Any]]:
    """Choose the backend, or keep the one an earlier attempt began with, and import it where it must come first.

    Yields
    ------
    dict
        backend, version; of unsloth also fast_inference, as the manifest keeps them.  What Unsloth prints goes to
        stderr while the block runs.

    Raises
    ------
    MissingPackageError
        When it is not installed.
    StageError
        When what it patches was imported first.
    """
    path = folder.path / BACKEND
    begun = read_json(path) if path.exists() else None
    wanted = begun["backend"] if begun else trainer.backend
    name = choose_backend(wanted, folder.final.name, trainer.only_lean() is not None)
    chosen: dict[str, Any] = {"backend": name, "version": version("lean-align" if name == "lean" else name)}
    if name == "unsloth":
        chosen["fast_inference"] = _fast_inference(recipe)
    chosen = begun or chosen
    write_json(path, chosen)
    folder.counts["backend"] = chosen
    if name != "unsloth":
        say(f"{folder.final.name}: by {chosen['backend']} {chosen['version']}")
        yield chosen
        return
    early = [module for module in _PATCHED if module in sys.modules]
    if early and "unsloth" not in sys.modules:
        raise StageError(
            f"{', '.join(early)} had already been imported, but Unsloth must be imported first. Run the stage in a "
            "process of its own, as lean-align run does, or set its backend to lean or trl."
        )
    with redirect_stdout(sys.stderr):
        os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str((run_dir / CACHE).resolve()))
        if chosen["fast_inference"]:
            os.environ.setdefault("UNSLOTH_VLLM_STANDBY", "1")
        import unsloth  # noqa: F401

        faster = ", sampling with vLLM" if chosen["fast_inference"] else ""
        say(f"{folder.final.name}: Unsloth {chosen['version']}{faster}")
        yield chosen


def policy_at(recipe: Recipe, run_dir: Path, adapter_from: str | None, fresh: bool = False) -> Policy:
    """The base with the adapter of a finished stage, with a fresh one, or bare."""
    from lean_align.policy import load_policy

    adapter = run_dir / adapter_from / "adapter" if adapter_from else None
    return load_policy(recipe.model, recipe.data, recipe.lora if fresh else None, adapter, recipe.seed)


def policy_to_train(
    recipe: Recipe,
    trainer: TrainerRecipe,
    run_dir: Path,
    start: str | None,
    prompts: Sequence[Prompt],
    chosen: dict[str, Any],
) -> Policy:
    """The policy that a training begins with, as the backend loads it: a finished stage's adapter or a fresh one."""
    if chosen["backend"] != "unsloth":
        return policy_at(recipe, run_dir, start, fresh=start is None)
    from lean_align.policy import load_encoder
    from lean_align.policy.unsloth import load_unsloth_policy

    encoder = load_encoder(recipe.model, recipe.data)
    return load_unsloth_policy(
        recipe.model,
        recipe.data,
        recipe.lora,
        max(len(encoder.encode(prompt)) for prompt in prompts) + recipe.rollouts.max_new_tokens,
        run_dir / start / "adapter" if start else None,
        recipe.seed,
        trainer.gradient_checkpointing,
        chosen["fast_inference"],
    )


def _fast_inference(recipe: Recipe) -> bool:
    """Whether Unsloth samples with vLLM: where there is a card and the rollouts would use it too."""
    import torch

    return (
        torch.cuda.is_available()
        and recipe.model.device != "cpu"
        and recipe.rollouts.engine != "transformers"
        and find_spec("vllm") is not None
    )
