"""What stack tests do in a process of its own: `python -m tests.stack_children NAME JSON` prints JSON, last.

Unsloth patches its neighbours and vLLM binds threads, so neither runs in pytest's own process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
IDS = [[5 + i for i in range(20)], [60 - i for i in range(20)]]


def environment() -> dict[str, str]:
    """Logs of vLLM from INFO upwards, so that its banner is there."""
    return {**os.environ, "VLLM_LOGGING_LEVEL": "INFO", "HF_HUB_OFFLINE": "1"}


def in_child(name: str, **arguments: Any) -> tuple[Any, str]:
    """What a function below returned in a fresh process, and all that was printed beside it."""
    command = [sys.executable, "-m", "tests.stack_children", name, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 0, done.stderr[-4000:]
    *before, last = done.stdout.splitlines()
    return json.loads(last), "\n".join(before) + done.stderr


def lean_align(*arguments: str | Path, settings: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """The command, with its settings as `--set` options."""
    command = command_line(*arguments, settings=settings)
    return subprocess.run(command, capture_output=True, text=True, env=environment())


def command_line(*arguments: str | Path, settings: dict[str, Any] | None = None) -> list[str]:
    sets = [part for key, value in (settings or {}).items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return [sys.executable, "-m", "lean_align", *map(str, arguments), *sets]


def smollm2_with_an_adapter(model: str, folder: str) -> dict[str, Any]:
    """Greedy tokens of SmolLM2 in NF4 with a random adapter: by the decode loop, by vLLM merged and by request."""
    import torch

    from lean_align.policy import load_policy, save_adapter, save_dense
    from lean_align.recipe import load_recipe
    from lean_align.rollouts import Sampling, TransformersEngine, generate_batch
    from lean_align.rollouts.vllm import VllmSettings, vllm_engine
    from lean_align.types import Prompt

    recipe = load_recipe("gsm8k-cpu", {"model.name": model, "model.quantization": "nf4", "model.dtype": "float32"})
    policy = load_policy(recipe.model, recipe.data, recipe.lora)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.lora_parameters.items():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    adapter, dense = Path(folder) / "adapter", Path(folder) / "dense"
    save_adapter(policy.model, adapter)
    prompts = [Prompt(f"p-{i}", f"What is {i} plus {i + 3}? Explain.", "1") for i in range(8)]
    sampling = Sampling(1, 0.0, 24, 8, 0, "stack")
    longest = max(len(policy.encoder.encode(prompt)) for prompt in prompts) + sampling.max_new_tokens

    def tokens(engine: Any, sampling: Sampling = sampling) -> list[list[int]]:
        return [list(c.token_ids) for c in generate_batch(engine, prompts, sampling, lambda gold, text: 0.0)]

    found: dict[str, Any] = {"transformers": tokens(TransformersEngine(policy))}
    with policy.model.disable_adapter():
        found["base"] = tokens(TransformersEngine(policy))
    common = (policy.encoder, policy.eos_token_ids)
    settings = VllmSettings(8, longest, torch.float32, policy.device)
    save_dense(policy, dense / "merged", torch.float32)
    with vllm_engine(dense / "merged", *common, settings) as engine:
        found["merged"] = tokens(engine)
        drawn = [Sampling(2, 1.0, 24, 8, 0, stage) for stage in ("one", "one", "other")]
        found["drawn"] = [tokens(engine, sampling) for sampling in drawn]
    save_dense(load_policy(recipe.model, recipe.data), dense / "base", torch.float32)
    with vllm_engine(dense / "base", *common, replace(settings, adapter=adapter)) as engine:
        found["request"] = tokens(engine)
    found["end"] = list(policy.eos_token_ids)
    return found


def live(model: str, folder: str, way: str) -> dict[str, Any]:
    """Greedy tokens of a live vLLM as its policy's adapter changes, of the decode loop, and of a vLLM loaded afresh.

    Prompts are longer than a block of keys and values, which vLLM keeps: those of earlier weights would be seen.
    """
    import torch

    from lean_align.artifacts import StageFolder
    from lean_align.pipeline.engines import live_engine, longest_of, sampling_engine
    from lean_align.policy import load_policy, save_adapter
    from lean_align.recipe import load_recipe
    from lean_align.rollouts import Sampling, TransformersEngine, generate_batch
    from lean_align.types import Prompt

    settings = {"model.name": model, "model.quantization": "nf4", "model.dtype": "float32"}
    engine = {"rollouts.engine": "vllm", "rollouts.vllm_adapter": way}
    recipe = load_recipe("gsm8k-cpu", settings | engine)
    policy = load_policy(recipe.model, recipe.data, recipe.lora)
    story = "Ann counts her apples, and Ben his pens. " * 16
    prompts = [Prompt(f"p-{i}", f"{story}What is {i} plus {i + 3}? Explain.", "1") for i in range(8)]
    assert min(len(policy.encoder.encode(prompt)) for prompt in prompts) > 128
    sampling = Sampling(1, 0.0, 24, 8, 0, "stack")

    def tokens(engine: Any) -> list[list[int]]:
        return [list(c.token_ids) for c in generate_batch(engine, prompts, sampling, lambda gold, text: 0.0)]

    def take(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in policy.lora_parameters.items():
            if "lora_B" in name:
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)

    def gradient() -> torch.Tensor:
        take(0)
        ids = torch.tensor([policy.encoder.encode(prompts[0])])
        loss = policy.model(input_ids=ids, labels=ids).loss
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(policy.lora_parameters.values()))])

    def stage(name: str) -> StageFolder:
        path = Path(folder) / name
        path.mkdir()
        return StageFolder(path, path, {}, 0.0)

    found: dict[str, Any] = {}
    before, own, arguments = gradient(), stage("live"), (longest_of(prompts, 24), 8)
    with live_engine(recipe, policy, own, *arguments) as (engine, follow):
        take(1)
        follow(0)
        found["live"], found["loop"] = tokens(engine), tokens(TransformersEngine(policy))
        take(2)
        found["changed, not followed"] = tokens(engine)
        follow(1)
        found["followed"], found["loop, changed"] = tokens(engine), tokens(TransformersEngine(policy))
        save_adapter(policy.model, Path(folder) / "adapter")
        take(1)
        follow(2)
        found["back"] = tokens(engine)
        found["while"] = sorted(path.relative_to(own.path).as_posix() for path in own.path.glob("*/*step*"))
        after = gradient()
    found["after"] = sorted(path.name for path in own.path.iterdir())
    found["same gradient"] = torch.equal(before, after) and bool(before.norm() > 0)
    with sampling_engine(recipe, stage("fresh"), Path(folder) / "adapter", *arguments) as engine:
        found["fresh, changed"] = tokens(engine)
    return found


def logits(run_dir: str, stage: str, backend: str) -> list[Any]:
    """Logits of a stage's adapter on its base, as stock peft or as Unsloth loads it."""
    if backend == "unsloth":
        import unsloth  # noqa: F401  (before what it patches)
    import torch

    from lean_align.pipeline.graph import stored_recipe
    from lean_align.policy import load_policy
    from lean_align.policy.unsloth import load_unsloth_policy

    recipe, adapter = stored_recipe(Path(run_dir)), Path(run_dir) / stage / "adapter"
    if backend == "unsloth":
        policy = load_unsloth_policy(recipe.model, recipe.data, recipe.lora, 128, adapter)
    elif backend == "stock":
        policy = load_policy(recipe.model, recipe.data, adapter=adapter)
    else:
        policy = load_policy(recipe.model, recipe.data)
    with torch.no_grad():
        return policy.model.eval()(torch.tensor(IDS)).logits.float().tolist()


if __name__ == "__main__":
    functions = {"smollm2_with_an_adapter": smollm2_with_an_adapter, "live": live, "logits": logits}
    function = functions[sys.argv[1]]
    result = json.dumps(function(**json.loads(sys.argv[2])))
    print(f"\n{result}", flush=True)
