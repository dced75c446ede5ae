"""A whole run, stage by stage in this process, with a tiny random model of each family that people use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from plans import plan_of

from lean_align.artifacts import read_jsonl, write_text
from lean_align.errors import ModelError
from lean_align.gradients.prompt_sharing import SHARED, gradient_path, path_of
from lean_align.machine import plan as plan_making
from lean_align.machine.place import ProcessBytes, Speed
from lean_align.machine.plan import check_model_serves
from lean_align.machine.pool_sizes import Pool
from lean_align.policy import load_policy
from lean_align.policy.families import family_of
from lean_align.recipe import Recipe, dump_recipe, load_recipe
from lean_align.rollouts import Sampling, decode
from lean_align.stages import GRAPH, run_stage

SETTINGS = {
    "model.quantization": "none",
    "model.dtype": "float32",
    "threads": 1,
    "lora.r": 4,
    "lora.alpha": 8,
    "rollouts.num_generations": 4,
    "rollouts.max_new_tokens": 12,
    "rollouts.batch_size": 16,
    "rollouts.window": 32,
    "rollouts.temperature": 1.5,
    "warmup.n_prompts": 2,
    "warmup.steps": 1,
    "warmup.prompts_per_step": 2,
    "warmup.micro_batch": 8,
    "gradients.proj_dim": 64,
    "selection.n": 2,
    "training.steps": 1,
    "training.prompts_per_step": 2,
    "training.micro_batch": 8,
    "evaluation.batch_size": 4,
    "evaluation.benchmarks": "[]",
}
FAST = ("granite", "gemma2", "gpt_oss", "qwen3_5")
RUN = [name for name in zoo.FAMILIES if name not in zoo.NOT_RUN]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    zoo.write_questions(folder / "train.jsonl", 8)
    zoo.write_questions(folder / "held_out.jsonl", 2, first=8)
    return folder


def recipe_of(name: str, models: Path, **more: object) -> Recipe:
    if not (models / name).exists():
        zoo.write_model(name, models)
    own = {
        "name": name,
        "model.name": str(models / name),
        "data.train_path": str(models / "train.jsonl"),
        "data.test_path": str(models / "held_out.jsonl"),
    }
    return load_recipe("demo", {**SETTINGS, **own, **more})


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.stack) for n in RUN])
def test_a_whole_run(name, models, tmp_path, monkeypatch):
    monkeypatch.setattr("lean_align.stages.data.write_plan", lambda *a: None)  # has tests of its own below
    recipe = recipe_of(name, models)
    write_text(tmp_path / "recipe.yaml", dump_recipe(recipe))
    for stage in GRAPH.needed_stages(recipe):
        if stage.folder != "report" or name == "llama":  # seconds, and it knows nothing of models
            run_stage(stage.command, tmp_path)
    rows = list(read_jsonl(tmp_path / "rollouts" / "rollouts.jsonl"))
    assert len(rows) == 8 * 4
    norms = np.load(tmp_path / "gradients" / "norms.npy")
    by_prompt = [[r["reward"] for r in rows if r["prompt_id"] == p] for p in sorted({r["prompt_id"] for r in rows})]
    learnable = sum(0 < sum(rewards) < 4 for rewards in by_prompt)
    assert np.load(tmp_path / "gradients" / "written.npy").all()
    assert 0 < learnable == np.count_nonzero(norms)
    assert np.isfinite(norms).all()
    assert len(list(read_jsonl(tmp_path / "selection" / "selected.jsonl"))) == 2
    assert len(list(read_jsonl(tmp_path / "evaluation" / "trained" / "held_out.jsonl"))) == 2
    check_greedy(recipe, tmp_path / "training" / "adapter")


def check_greedy(recipe: Recipe, adapter: Path) -> None:
    """The trained model's greedy completions are those of transformers' generate."""
    policy = load_policy(recipe.model, recipe.data, adapter=adapter)
    family = family_of(policy.causal_lm.config)
    assert path_of(policy).shares_prompt == (gradient_path(family) == SHARED)  # as docs/models.md says
    encoded = [policy.encoder.tokenizer(text)["input_ids"] for text in ("so so so what is 4 - 3?", "what is 5?", "1")]
    sampling = Sampling(1, 0.0, 16, 2, 0, "tests")
    ours = decode(policy, encoded, lambda p, g: np.zeros(16), sampling).token_ids
    for ids, (completion,) in zip(encoded, ours):
        with torch.no_grad():
            whole = policy.model.generate(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
                max_new_tokens=16,
                do_sample=False,
                eos_token_id=list(policy.eos_token_ids),
                pad_token_id=0,
            )
        assert tuple(whole[0, len(ids) :].tolist()) == completion


@pytest.fixture
def known_speed(monkeypatch) -> Speed:
    """Nothing is timed or measured: a plan is then a function of the recipe."""
    monkeypatch.setattr("lean_align.machine.place.process_bytes", lambda: ProcessBytes(0, 0, 0, 0))
    return Speed(1e9, 1e9, 1e-6, "made up")


@pytest.mark.parametrize(
    "name", ["qwen3_5", *(pytest.param(n, marks=pytest.mark.stack) for n in RUN if n != "qwen3_5")]
)
def test_a_plan(name, models, known_speed):
    plan = plan_of(recipe_of(name, models), pool=Pool(8, 2, 30, "made up"), speed=known_speed)
    assert all(stage.work_bytes > 0 for stage in plan.stages if stage.stage in ("rollouts", "gradients", "training"))
    text = "\n".join(plan.lines())
    assert ("prompts of equal length" in text) == (name in ("qwen3_5", "qwen3_next", "lfm2"))
    assert ("the last 24 tokens" in text) == (name in ("mistral", "gemma2", "gemma3", "phi3", "gpt_oss"))


def test_what_cannot_be_planned_is_told_in_a_sentence(models, known_speed, monkeypatch):
    def fails(*arguments):
        raise IndexError("list index out of range")

    plan_making._shapes.cache_clear()
    monkeypatch.setattr(plan_making, "shape_policy", fails)
    with pytest.raises(ModelError, match="cannot be planned: IndexError: list index out of range"):
        plan_of(recipe_of("llama", models), pool=Pool(8, 2, 30, "made up"), speed=known_speed)


def test_an_adapter_that_the_model_does_not_take_is_refused_before_anything_runs(models, tmp_path):
    recipe = recipe_of("mamba", models)
    write_text(tmp_path / "recipe.yaml", dump_recipe(recipe))
    with pytest.raises(ModelError, match=r"cannot take an adapter on lora\.target_modules=all-linear"):
        run_stage("prepare", tmp_path)


def test_a_model_that_cannot_be_decoded_is_refused_before_anything_runs(models, tmp_path):
    folder = models / "rwkv"
    folder.mkdir(exist_ok=True)
    zoo.make_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "rwkv", "architectures": ["RwkvForCausalLM"]}))
    recipe = load_recipe(
        "demo", {**SETTINGS, "model.name": str(folder), "data.train_path": str(models / "train.jsonl")}
    )
    with pytest.raises(ModelError, match="keeps its past in a way of its own"):
        check_model_serves(recipe)
