"""Models and adapters that failed once, where their folder is on this machine: made by its scripts, run as users do.

The kinds have tests of their own beside small models made here: test_prompts, test_family_runs, test_adapters,
test_dense, test_four_bits, test_gradients.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from forked import Done, command

pytestmark = pytest.mark.stack
MODELS = ("llama", "llama_tied", "qwen2", "gpt2", "granite", "cohere", "gemma3", "mixtral", "qwen3_moe", "qwen3_5_text")
MODELS += ("olmoe", "gpt_oss", "deepseek_v3")
ADAPTERS = ("plain", "rslora", "dora", "lm_head_saved", "embed_saved", "norm_saved", "lm_head_lora", "embed_lora")
ADAPTERS += (
    "tied_lm_head_lora",
    "tied_embed_lora",
    "tied_saved",
    "bias_all",
    "patterns",
    "tokens",
    "moe_experts",
    "ia3",
)


@pytest.fixture(scope="module")
def scratch(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder's files, with the models and adapters that its scripts make."""
    cases = shared_data.parent / "cases" / "files"
    if not cases.is_dir():
        pytest.skip("the failing inputs are not on this machine")
    folder = tmp_path_factory.mktemp("cases") / "files"
    shutil.copytree(cases, folder)
    folder.chmod(0o755)
    script(folder, "zoo.py", *MODELS)
    script(folder, "variants.py")
    return folder


def script(folder: Path, name: str, *arguments: str, whole: bool = True) -> str:
    """What one of the folder's scripts prints; one that is not `whole` ends in an error of its own."""
    done = subprocess.run([sys.executable, name, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 or not whole, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def adapters(scratch: Path) -> dict[str, str]:
    """Lines that the scripts of adapters print, by adapter; they leave the adapters in work/adapters."""
    printed = script(scratch, "adapters.py", whole=False) + script(scratch, "adapters2.py")
    lines = [line.removeprefix("odd ") for line in printed.splitlines() if line.strip()]
    return {line.split()[0]: line for line in lines}


def run(scratch: Path, run_dir: Path, model: str, *settings: str) -> Done:
    paths = (
        f"model.name={scratch}/work/models/{model}",
        f"data.train_path={scratch}/train24.jsonl",
        f"data.test_path={scratch}/test8.jsonl",
    )
    sets = [part for setting in (*paths, *settings) for part in ("--set", setting)]
    return command("run", scratch / "tiny.yaml", "--run-dir", run_dir, *sets)


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        ("v_gemmatmpl", ["data.system_prompt=Answer briefly."], "no place for a system message"),
        ("v_padout", [], ""),
        ("v_tokeosnone", [], ""),
        ("granite", [], ""),
        ("cohere", [], ""),
        ("gemma3", ["rollouts.max_new_tokens=40"], ""),
        ("v_think", ["data.chat_template_kwargs.enable_thinking=false"], ""),
        ("mixtral", [], "4 bits"),
        ("qwen3_moe", [], "4 bits"),
    ],
)
def test_a_model_runs(scratch: Path, tmp_path: Path, model: str, settings: list[str], said: str) -> None:
    done = run(scratch, tmp_path / "run", model, *settings)
    if done.returncode:  # nothing right in so few completions of a random model: then all before it has run
        assert "Nothing can be learned from these rollouts." in done.stderr, done.stderr
        assert (tmp_path / "run" / "rollouts" / "manifest.json").exists()
    else:
        assert json.loads((tmp_path / "run" / "summary.json").read_text())["accuracy"]["base"]["n"] == 8
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hybrid_is_planned_or_refused_in_a_sentence(scratch: Path) -> None:
    model = f"model.name={scratch}/work/models/qwen3_5_text"
    data = [f"data.train_path={scratch}/train24.jsonl", f"data.test_path={scratch}/test8.jsonl"]
    done = command("plan", scratch / "tiny.yaml", *(part for setting in (model, *data) for part in ("--set", setting)))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["renamed", "half", "deeper", "noweights", "truncated", "noconfig", "nan"])
def test_an_adapter_that_does_not_fit_is_refused(scratch: Path, adapters: dict[str, str], name: str) -> None:
    assert "ModelError" in adapters[name]
    folder, model = scratch / "work" / "adapters" / name, scratch / "work" / "models" / "llama"
    done = command("evaluate", model, "--adapter", folder, "--benchmarks", "gsm8k", "--data-dir", scratch)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert name in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_an_adapter_becomes_as_whole_weights(adapters: dict[str, str], name: str) -> None:
    """Equal to the live model, or refused in a sentence."""
    line = adapters[name]
    found = re.search(r"dense diff (\S+)", line)
    assert "ModelError" in line if found is None else float(found[1]) < 1e-3, line


def test_mixtures_of_experts_as_whole_weights(scratch: Path) -> None:
    lines = [line for line in script(scratch, "moedense.py").splitlines() if " diff " in line or "Error" in line]
    assert len(lines) >= 10
    for line in lines:
        found = re.search(r" diff (\S+)", line)
        assert "ModelError" in line if found is None else float(found[1]) < 1e-3, line


def test_a_stray_gradient_is_not_in_the_row(scratch: Path) -> None:
    cosine = re.search(r"cos (\S+)", script(scratch, "stale.py"))
    assert cosine is not None
    assert float(cosine[1]) > 1 - 1e-6
