"""The models, prompts and completions that the benches share.

The real case is SmolLM2-135M-Instruct on GSM8K with the recipe gsm8k-cpu; where its weights or the data are missing,
the embedded demo model on its own problems takes its place.  Completions are sampled once from the model and kept in
.bench_cache; rewards are planted, 0 and 1 in turn, so that every group has a gradient.  The adapter has the shape of
the recipe, with lora_B at plus or minus 1e-4: what some steps of Adam at the recipe's learning rate leave.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from bench.measure import commit
from lean_align.data import load_rows, prepare_prompts
from lean_align.policy import Policy, load_policy, save_adapter
from lean_align.recipe import Recipe, load_recipe
from lean_align.rollouts import Sampling, TransformersEngine, generate_batch, group_completions, read_completions
from lean_align.stages.inputs import read_groups
from lean_align.types import Completion, Group, Prompt
from lean_align.verify import parse_gold

ROOT = Path(__file__).parent.parent
CACHE = Path(os.environ.get("LEAN_ALIGN_BENCH_CACHE", ROOT / ".bench_cache"))
DATA = Path(os.environ.get("LEAN_ALIGN_DATA", ROOT.parent / "shared" / "data"))
WARM_ENTRY = 1e-4


class AbsentError(Exception):
    """A model or a data set is not on this machine."""


@dataclass(frozen=True)
class Case:
    """A recipe with the first prompts of its training data."""

    name: str
    recipe: Recipe
    prompts: tuple[Prompt, ...]

    @property
    def adapter(self) -> Path:
        """Folder of the adapter that every way loads; made at the first call."""
        folder = CACHE / f"adapter-{self.name}"
        if not (folder / "adapter_config.json").exists():
            policy = load_policy(self.recipe.model, self.recipe.data, self.recipe.lora)
            generator = torch.Generator().manual_seed(0)
            for name, parameter in policy.lora_parameters.items():
                if "lora_B" in name:
                    signs = torch.randint(0, 2, parameter.shape, generator=generator) * 2 - 1
                    parameter.data = WARM_ENTRY * signs.float().to(parameter.device)
            save_adapter(policy.model, folder)
        return folder

    def policy(self, quantization: str | None = None, dtype: str | None = None) -> Policy:
        model = self.recipe.model
        model = replace(model, quantization=quantization or model.quantization, dtype=dtype or model.dtype)
        return load_policy(model, self.recipe.data, adapter=self.adapter)

    def groups(self) -> list[Group]:
        """The prompts with completions sampled once and kept, prompt by prompt, and planted rewards."""
        count, limit = self.recipe.rollouts.num_generations, self.recipe.rollouts.max_new_tokens
        path = CACHE / f"completions-{self.name}-{count}x{limit}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        kept = list(read_completions(path))
        missing = [prompt for prompt in self.prompts if prompt.prompt_id not in {c.prompt_id for c in kept}]
        if missing:
            kept += self._sample(missing, path)
        wanted = {prompt.prompt_id for prompt in self.prompts}
        return group_completions(self.prompts, (c for c in kept if c.prompt_id in wanted))

    def _sample(self, prompts: list[Prompt], path: Path) -> list[Completion]:
        policy, rollouts = self.policy(), self.recipe.rollouts
        count, sampled = rollouts.num_generations, []
        sampling = Sampling(count, rollouts.temperature, rollouts.max_new_tokens, count, 0, "bench")
        with path.open("a") as file:
            for prompt in prompts:
                found = generate_batch(TransformersEngine(policy), [prompt], sampling, lambda gold, text: 0.0)
                sampled += [replace(c, reward=float(c.index % 2)) for c in found]
                file.writelines(json.dumps(asdict(c)) + "\n" for c in sampled[-count:])
                file.flush()
        return sampled


def real_case(n_prompts: int, max_new_tokens: int = 100) -> Case:
    """SmolLM2-135M-Instruct on the first usable rows of GSM8K; AbsentError when either is missing."""
    data = DATA / "gsm8k" / "train.jsonl"
    if not data.exists():
        raise AbsentError(f"no GSM8K at {data}; set LEAN_ALIGN_DATA")
    settings = {"model.name": str(smollm2()), "data.train_path": str(data), "data.config": None}
    return _case("smollm2", "gsm8k-cpu", n_prompts, settings | {"rollouts.max_new_tokens": max_new_tokens})


def demo_case(n_prompts: int) -> Case:
    """The embedded model on its own problems, with the recipe demo."""
    return _case("demo", "demo", n_prompts, {})


def real_or_demo(n_prompts: int, max_new_tokens: int = 100) -> tuple[Case, str | None]:
    """The real case; else the demo, with the reason."""
    try:
        return real_case(n_prompts, max_new_tokens), None
    except AbsentError as error:
        return demo_case(n_prompts), f"skipped: {error}; the embedded model takes its place"


def _case(name: str, recipe_name: str, n_prompts: int, settings: dict[str, object]) -> Case:
    recipe = load_recipe(recipe_name, settings)
    rows = load_rows(recipe.data, "train")[: 2 * n_prompts]
    found = prepare_prompts(rows, "train", recipe.data.train_path, parse_gold, lambda prompt: True)
    return Case(name, recipe, found.prompts[:n_prompts])


def smollm2() -> Path:
    """Folder of SmolLM2-135M-Instruct: LEAN_ALIGN_SMOLLM2, or made once in the cache."""
    if given := os.environ.get("LEAN_ALIGN_SMOLLM2"):
        return Path(given)
    folder, script = CACHE / "smollm2", ROOT.parent / "shared" / "tools" / "get_smollm2.py"
    if (folder / "model.safetensors").exists():
        return folder
    if not script.exists():
        raise AbsentError("no SmolLM2; set LEAN_ALIGN_SMOLLM2 to a folder with SmolLM2-135M-Instruct")
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise AbsentError(f"{script.name} could not make SmolLM2: {done.stderr.strip().splitlines()[-1]}")
    return folder


def run_recipe(name: str, folder: Path, stop_after: str | None) -> None:
    """`lean-align run NAME`, up to a stage."""
    command = [sys.executable, "-m", "lean_align", "run", name, "--run-dir", str(folder)]
    command += ["--stop-after", stop_after] if stop_after else []
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"the run of {name} failed: {done.stderr.strip().splitlines()[-1]}")


def demo_folder() -> Path:
    """Where the benches of one commit find the demo's run."""
    return CACHE / f"demo-run-{commit()}"


def demo_run() -> tuple[Path, Recipe, list[Group]]:
    """The demo up to its rollouts, made once for a commit: run folder, recipe and the learnable prompts."""
    folder = demo_folder()
    if not (folder / "rollouts" / "manifest.json").exists():
        run_recipe("demo", folder, "rollout")
    learnable = [group for group in read_groups(folder) if group.learnability > 0]
    return folder, load_recipe(folder / "recipe.yaml"), learnable
