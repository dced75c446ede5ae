"""Selection while training: what a training finds out of its prompts draws those that it meets next.

`PromptStream` brings it to trl's own GRPOTrainer.  The rest imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lean_align.online.posterior import Prior, SuccessPosterior
from lean_align.online.sampling import StepOrder
from lean_align.online.selector import OnlineSelector, OnlineSettings

if TYPE_CHECKING:
    from lean_align.online.stream import PromptStream

__all__ = ["OnlineSelector", "OnlineSettings", "Prior", "PromptStream", "StepOrder", "SuccessPosterior"]


def __getattr__(name: str) -> Any:
    if name != "PromptStream":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("lean_align.online.stream").PromptStream  # which imports datasets and transformers
