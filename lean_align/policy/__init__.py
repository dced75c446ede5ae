"""The policy: a frozen base model, 4-bit or 16-bit, with a LoRA adapter.  The only importer of
bitsandbytes and peft.

Two traps are guarded here.  bitsandbytes on a CPU with avx512_bf16 repacks 4-bit weights in place at
the first forward without gradients, and every later backward then silently gives none: the switch is turned off right
after loading.  And peft writes its target modules in the order of a set: the saved configuration is put in order, so
that equal adapters are equal files.
"""

from __future__ import annotations

import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # when first imported it warns of a kernel not used here

from lean_align.policy.adapters import adapter_kept, save_adapter, seeded  # noqa: E402
from lean_align.policy.dense import changed_weights, save_dense  # noqa: E402
from lean_align.policy.encoding import PromptEncoder, load_encoder  # noqa: E402
from lean_align.policy.loading import Policy, load_policy, resolve_device  # noqa: E402
from lean_align.policy.sources import DEMO_MODEL, context_length, model_path  # noqa: E402

__all__ = [
    "DEMO_MODEL",
    "Policy",
    "PromptEncoder",
    "adapter_kept",
    "changed_weights",
    "context_length",
    "load_encoder",
    "load_policy",
    "model_path",
    "resolve_device",
    "save_adapter",
    "save_dense",
    "seeded",
]
