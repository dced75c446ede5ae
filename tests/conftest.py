"""Small models and data made on the spot, and the place of the optional data sets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lean_align.recipe import load_recipe
from lean_align.types import Completion, Group, Prompt

ROOT = Path(__file__).parent.parent
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # a thread that looks a name up, beside tests that fork
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as our own processes: read when torch is imported
QUESTIONS = (
    ("Ann has 12 apples. Ann finds 7 more apples. How many apples does Ann have?", "19"),
    ("Ben has 3 boxes with 5 pens in each. How many pens does Ben have?", "15"),
    ("Kim rides 6 km an hour for 3 hours. How many km does Kim travel?", "18"),
    ("Leo has 9 coins. Ida has 4 more than Leo. How many coins does Ida have?", "13"),
)


def data_folder() -> Path | None:
    """The folder of public data sets, where there is one."""
    folder = Path(os.environ.get("LEAN_ALIGN_DATA", ROOT.parent / "shared" / "data"))
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = data_folder()
    if folder is None:
        pytest.skip("the public data sets are not on this machine; set LEAN_ALIGN_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def smollm2(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a plain folder, from a package registry."""
    given = os.environ.get("LEAN_ALIGN_SMOLLM2")
    if given:
        return Path(given)
    script = shared_data.parent / "tools" / "get_smollm2.py"
    if not script.exists():
        pytest.skip("set LEAN_ALIGN_SMOLLM2 to a folder with SmolLM2-135M-Instruct")
    folder = tmp_path_factory.mktemp("smollm2")
    subprocess.run([sys.executable, str(script), str(folder)], check=True)
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For matrices so small that a second thread is only waited for."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def few_layers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The models that plans know, with two layers each: the same code in a fraction of the time."""
    from lean_align.machine import costs, plan, rehearsals
    from lean_align.policy.shapes import KNOWN_MODELS

    names = "gradient_work", "decoding_work", "sampling_work", "loss_work", "group_work", "adapter_bytes"
    kept = (*(getattr(rehearsals, name) for name in names), costs.whole_weights, plan._shapes)
    small = {name: config | {"num_hidden_layers": 2} for name, config in KNOWN_MODELS.items()}
    monkeypatch.setattr("lean_align.policy.shapes.KNOWN_MODELS", small)
    for work in kept:
        work.cache_clear()
    yield
    for work in kept:
        work.cache_clear()


@pytest.fixture(scope="session")
def make_policy() -> Callable[..., object]:
    """Build a policy of the embedded model with a random, non-zero adapter."""
    import torch

    from lean_align.policy import load_policy

    def make(quantization: str = "none", dtype: str = "float32", b_scale: float = 0.05, double: bool = False):
        recipe = load_recipe("demo", {"model.quantization": quantization, "model.dtype": dtype})
        policy = load_policy(recipe.model, recipe.data, recipe.lora, seed=3)
        generator = torch.Generator().manual_seed(5)
        for name, parameter in policy.lora_parameters.items():
            if "lora_B" in name:
                parameter.data = b_scale * torch.randn(parameter.shape, generator=generator)
        if double:
            policy.model.double()
            for module in policy.model.modules():
                if type(module).__name__ == "LlamaRMSNorm":  # its own forward goes through float32
                    module.forward = _double_rms_norm(module)
        return policy

    return make


@pytest.fixture(scope="session")
def groups(make_policy) -> list[Group]:
    """Real completions of the embedded model, with rewards that differ inside each group."""
    from lean_align.rollouts import Sampling, TransformersEngine, generate_batch, group_completions

    policy = make_policy()
    prompts = [Prompt(f"p-{i}", question, answer) for i, (question, answer) in enumerate(QUESTIONS)]
    completions = generate_batch(
        TransformersEngine(policy), prompts, Sampling(4, 2.0, 24, 64, 0, "tests"), lambda gold, text: 0.0
    )
    for prompt in prompts:  # equal completions would cancel in the gradient of their group
        assert len({c.token_ids for c in completions if c.prompt_id == prompt.prompt_id}) >= 3
    planted = [_with_reward(c, float(c.index in (0, 3) if c.prompt_id != "p-1" else c.index == 1)) for c in completions]
    return group_completions(prompts, iter(planted))


def _double_rms_norm(module):
    def forward(x):
        return module.weight * x * (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()

    return forward


def _with_reward(completion: Completion, reward: float) -> Completion:
    return Completion(**{**completion.__dict__, "reward": reward})


@pytest.fixture
def fake_stages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Stages of milliseconds; the list gets (stage, run folder) of each that runs."""
    from fake_stages import put_in_place

    return put_in_place(monkeypatch)
