"""What a user of a card installs and opens: the extra resolves, the lock is its resolution, the notebook runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lean_align.machine.inventory import OPTIONAL, TESTED

pytestmark = pytest.mark.stack
ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements" / "gpu.txt"
PLATFORM = ("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28")


def pins(text: str) -> dict[str, str]:
    lines = (line.split(";")[0].strip() for line in text.splitlines() if line.strip() and line[0] not in "#-")
    return {
        re.sub(r"[-_.]+", "-", name).lower(): version for name, _, version in (line.partition("==") for line in lines)
    }


def resolve(*more: str) -> subprocess.CompletedProcess[str]:
    """Resolve lean-align[gpu] for Linux with CUDA against the registry; nothing is installed."""
    uv = [str(Path(sys.executable).parent / "uv"), "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    command = [*uv, *PLATFORM, "--extra", "gpu", str(ROOT / "pyproject.toml"), *more]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_gpu_extra_resolves_to_the_lock():
    done = resolve("--constraint", str(LOCK))
    assert done.returncode == 0, done.stderr
    assert pins(done.stdout) == pins(LOCK.read_text())


def test_the_check_sees_versions_that_do_not_go_together(tmp_path):
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("torch==2.12.0\n")
    assert resolve("--constraint", str(wrong)).returncode != 0


def test_the_lock_has_the_tested_versions():
    found = pins(LOCK.read_text())
    tested = {name: version for name, version in (TESTED | OPTIONAL).items() if name != "numpy"}  # see the lock's head
    assert {name: found[name] for name in tested} == tested


def test_the_notebook_runs_up_to_its_first_cell_for_a_card(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "recipes" / "gsm8k.ipynb", as_version=4)
    nbformat.validate(notebook)
    is_cuda = ["cuda" in cell.metadata.get("tags", []) for cell in notebook.cells]
    first = is_cuda.index(True)
    assert "torch.cuda" in notebook.cells[first].source
    notebook.cells = notebook.cells[:first]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert "Qwen2.5-1.5B-Instruct on GSM8K" in printed
    assert "fits; at most" in printed
