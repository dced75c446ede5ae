"""LearnAlign on one consumer GPU: choose the reasoning prompts worth training on, then train on them.

Names but `verify` are imported on first use, so that `import lean_align` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lean_align.verify import verify  # at once: the function must go before the submodule of the same name

if TYPE_CHECKING:
    from lean_align.errors import LeanAlignError, StoreError
    from lean_align.gradients import prompt_gradients
    from lean_align.projection import make_projector
    from lean_align.recipe import load_recipe
    from lean_align.scoring import score_prompts
    from lean_align.selection import select_top
    from lean_align.stages import run
    from lean_align.store import open_store

__version__ = "0.1.0"

_HOME = {
    "LeanAlignError": "errors",
    "StoreError": "errors",
    "load_recipe": "recipe",
    "run": "stages",
    "make_projector": "projection",
    "open_store": "store",
    "score_prompts": "scoring",
    "select_top": "selection",
    "prompt_gradients": "gradients",
}

__all__ = [
    "LeanAlignError",
    "StoreError",
    "load_recipe",
    "make_projector",
    "open_store",
    "prompt_gradients",
    "run",
    "score_prompts",
    "select_top",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lean_align' has no attribute {name!r}")
    value = getattr(import_module(f"lean_align.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
