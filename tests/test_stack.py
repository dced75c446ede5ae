"""The real 135M instruct model on real data; run by `make test-stack`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.stack


def quick_type() -> str:
    """bfloat16, as the recipe has it; float32 on a processor without instructions for it, ten times as fast there."""
    import torch

    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_gradient_after_generate_equals_the_one_before(smollm2, quantization):
    import torch

    from lean_align.gradients import check_log_probs, prompt_gradients
    from lean_align.policy import load_policy
    from lean_align.recipe import load_recipe
    from lean_align.rollouts import Sampling, TransformersEngine, generate_batch, group_completions
    from lean_align.types import Completion, Prompt

    own = {"model.name": str(smollm2), "model.quantization": quantization, "model.dtype": quick_type()}
    recipe = load_recipe("gsm8k-cpu", own)
    policy = load_policy(recipe.model, recipe.data, recipe.lora)
    prompt = Prompt("p", "Ann has 12 apples and buys 7 more. How many apples does she have?", "19")
    sampled = generate_batch(
        TransformersEngine(policy), [prompt], Sampling(2, 1.0, 16, 2, 0, "stack"), lambda gold, text: 0.0
    )
    planted = [Completion(**{**c.__dict__, "reward": float(c.index)}) for c in sampled]
    (group,) = group_completions([prompt], iter(planted))
    check_log_probs(policy, group)
    before = next(iter(prompt_gradients(policy, [group])))[1]
    generate_batch(TransformersEngine(policy), [prompt], Sampling(2, 1.0, 16, 2, 1, "stack"), lambda gold, text: 0.0)
    after = next(iter(prompt_gradients(policy, [group])))[1]
    assert before.norm() > 0
    assert torch.equal(before, after)


def test_select_from_gsm8k_with_a_real_model(smollm2, shared_data, tmp_path):
    """Warm-up, rollouts, gradients, scores and selection on 6 real rows."""
    rows = (shared_data / "gsm8k" / "train.jsonl").read_text().splitlines()[:6]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(rows) + "\n")
    settings = {
        "model.quantization": "none",
        "model.dtype": quick_type(),
        "rollouts.max_new_tokens": 48,
        "rollouts.num_generations": 4,
        "rollouts.temperature": 1.5,
        "warmup.steps": 1,
        "warmup.prompts_per_step": 2,
        "warmup.beta": 0.0,
        "gradients.proj_dim": 512,
    }
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    output = tmp_path / "selected.jsonl"
    command = [sys.executable, "-m", "lean_align", "select-from", str(data), "--model", str(smollm2), "-n", "2"]
    done = subprocess.run([*command, "-o", str(output), *sets], capture_output=True, text=True)
    rollouts = (tmp_path / "selected.jsonl.run/rollouts/rollouts.jsonl").read_text().splitlines()
    assert len(rollouts) == 6 * 4
    rewards = {json.loads(line)["reward"] for line in rollouts}
    if rewards == {0.0}:  # so weak a model may solve none of so few: then the run must say so
        assert done.returncode == 1
        assert "Nothing can be learned from these rollouts." in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert len(output.read_text().splitlines()) == 2
