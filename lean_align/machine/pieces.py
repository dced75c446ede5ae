"""What is timed, each in a process of its own: `python -m lean_align.machine.pieces NAME JSON` prints JSON, last.

Every piece is the pipeline's own code on a prepared run folder.  Loading is timed separately, and each piece does a
little of its work once before it is timed.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from lean_align.artifacts import StageFolder
from lean_align.errors import RecipeError
from lean_align.memory import peak_rss_bytes, peak_vram_bytes
from lean_align.pipeline.backends import policy_at
from lean_align.pipeline.engines import longest_of, sampling_engine
from lean_align.pipeline.environment import set_threads
from lean_align.pipeline.graph import stored_recipe
from lean_align.pipeline.halving import OUT_OF_MEMORY
from lean_align.stages.inputs import read_prompts
from lean_align.stages.trainings import train_policy

TRAINED = "training-lean"
SAMPLED = "rollouts-transformers"
COMPLETIONS = "completions.jsonl"


def training(run_dir: Path, way: str, steps: int) -> dict[str, Any]:
    """Training steps an hour: the median time from the first reward of a step to that of the next one."""
    recipe = stored_recipe(run_dir)
    count = steps * recipe.training.num_iterations  # so that completions are drawn `steps` times
    trainer = replace(recipe.training, backend=way, steps=count, save_steps=count)
    if way != "lean" and (asked := trainer.only_lean()) is not None:
        raise RecipeError(f"training.{asked} is {getattr(trainer, asked)!r}, which only lean can do.")
    prompts, given, began, loaded = read_prompts(run_dir, "train"), list[float](), time.perf_counter(), list[float]()

    def reward(gold: str, completion: str) -> float:
        given.append(time.perf_counter())
        return float(len(given) % 2)  # every group has something to learn

    folder = _folder(run_dir, f"training-{way}")
    log = train_policy(
        replace(recipe, training=trainer),
        trainer,
        None,
        prompts,
        "training",
        folder,
        reward,
        lambda: loaded.append(time.perf_counter() - began),
    )
    if OUT_OF_MEMORY in folder.counts:
        smaller = folder.counts[OUT_OF_MEMORY][-1]
        raise MemoryError(f"a training step does not fit; it does with {smaller['key']}={smaller['value']}")
    rewards = trainer.prompts_per_step * recipe.rollouts.num_generations
    drawn = given[::rewards]  # num_iterations steps are taken on what is drawn once
    seconds = statistics.median(later - earlier for earlier, later in pairwise(drawn)) / trainer.num_iterations
    tokens = statistics.mean(row["mean_tokens"] for row in log) * rewards / trainer.num_iterations
    return {
        "load_seconds": loaded[0],
        "steps_per_hour": 3600 / seconds,
        "completion_tokens_per_second": tokens / seconds,
        "chosen": folder.counts["backend"],
    }


def rollouts(run_dir: Path, way: str) -> dict[str, Any]:
    """Completion tokens a second of an engine on the trained adapter."""
    from lean_align.rollouts import Sampling, complete, generate_batch, read_completions

    recipe, prompts = stored_recipe(run_dir), read_prompts(run_dir, "train")
    folder, sampling = _folder(run_dir, f"rollouts-{way}"), Sampling.of_rollouts(recipe)
    chosen = replace(recipe, rollouts=replace(recipe.rollouts, engine=way))
    path, began = folder.path / COMPLETIONS, time.perf_counter()
    longest = longest_of(prompts, sampling.max_new_tokens)
    with sampling_engine(chosen, folder, run_dir / TRAINED / "adapter", longest, sampling.slots) as engine:
        loaded = time.perf_counter() - began
        generate_batch(engine, prompts[:1], replace(sampling, max_new_tokens=4, stage="before"), lambda *_: 0.0)
        began = time.perf_counter()
        complete(engine, prompts, path, sampling, lambda *_: 0.0, _unguarded)
        seconds = time.perf_counter() - began
    tokens = sum(completion.n_tokens for completion in read_completions(path))
    return {
        "load_seconds": loaded,
        "completion_tokens_per_second": tokens / seconds,
        "completion_tokens": tokens,
        "chosen": folder.counts["engine"],
    }


def gradients(run_dir: Path, way: str) -> dict[str, Any]:
    """Tokens a second of the gradient stage, prompts counted once, on the completions that the decode loop sampled."""
    import torch

    from lean_align.gradients import GradientSettings, checkpoint_layers, prompt_gradients
    from lean_align.projection import recipe_projector
    from lean_align.rollouts import group_completions, read_completions

    recipe, prompts = stored_recipe(run_dir), read_prompts(run_dir, "train")
    settings, began = GradientSettings.of(recipe), time.perf_counter()
    policy = policy_at(recipe, run_dir, TRAINED)
    if recipe.gradients.gradient_checkpointing:
        checkpoint_layers(policy)
    loaded = time.perf_counter() - began
    found = (replace(c, reward=float(c.index % 2)) for c in read_completions(run_dir / SAMPLED / COMPLETIONS))
    groups = group_completions(prompts, found)
    project, _ = recipe_projector(recipe.gradients, policy.lora_sizes, recipe.seed, policy.device)
    moments = None
    if recipe.gradients.precondition == "adam":  # any numbers take the same time
        moments = {name: torch.ones_like(parameter) for name, parameter in policy.lora_parameters.items()}

    def work(some: list[Any]) -> float:
        began = time.perf_counter()
        for _ in prompt_gradients(policy, some, project, settings, moments):
            pass
        return time.perf_counter() - began

    work(groups[:1])
    seconds = work(groups)
    tokens = sum(len(policy.encoder.encode(g.prompt)) + sum(c.n_tokens for c in g.completions) for g in groups)
    return {"load_seconds": loaded, "tokens_per_second": tokens / seconds, "tokens": tokens}


@contextmanager
def _unguarded(path: Path) -> Iterator[None]:
    yield


def _folder(run_dir: Path, name: str) -> StageFolder:
    path = run_dir / name
    shutil.rmtree(path, ignore_errors=True)  # of the turn before
    path.mkdir()
    return StageFolder(path, path, {}, 0.0)


PIECES: dict[str, Callable[..., dict[str, Any]]] = {"training": training, "rollouts": rollouts, "gradients": gradients}


def main() -> None:
    """The child: time the piece that the first argument names."""
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    run_dir = Path(arguments.pop("run_dir"))
    set_threads(stored_recipe(run_dir))
    row = PIECES[name](run_dir, **arguments)
    print("\n" + json.dumps(row | {"peak_rss_bytes": peak_rss_bytes(), "peak_vram_bytes": peak_vram_bytes()}))


if __name__ == "__main__":
    main()
