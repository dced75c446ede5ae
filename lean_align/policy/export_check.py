"""What an export is worth is what comes back from it: the folder is loaded again and asked, beside the policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from lean_align.errors import ModelError
from lean_align.memory import release_memory
from lean_align.policy.adapter_files import some
from lean_align.policy.loading import Policy
from lean_align.types import Prompt

_TEXT = (
    "Ann has 12 apples, and Ben has 3 boxes with 5 apples in each. How many apples do they have together? "
    "Ben has 3 * 5 = 15 apples, so together they have 12 + 15 = 27."
)
TOLERANCE, TOLERANCE_16_BIT = 0.01, 0.2
"""Nats.  Rounding alone gave SmolLM2-135M 0.04 to 0.06 in 16 bits, and less than 0.0001 in float32."""


def check_export(policy: Policy, folder: Path, dtype: torch.dtype) -> None:
    """Refuse a folder that transformers does not read back as the policy.

    Checked are 1. the keys: every weight of the architecture that the folder's configuration names is there, of the
    right size, and none besides; 2. log-probabilities on one prompt of a few dozen tokens, with all tokens whose
    embedding an adapter trains: at each position the mean over the policy's next tokens of |log p - log q|, p the
    policy and q the folder; over positions the mean, or the median where one of the two computes in 16 bits (there a
    router near a tie may send a token to another expert).

    Parameters
    ----------
    policy : Policy
    folder : Path
        As `save_dense` wrote it.
    dtype : torch.dtype
        Of its weights.

    Raises
    ------
    ModelError

    Notes
    -----
    The folder is loaded on the CPU and in the type of its files, so that its weights are the files' own pages:
    beside the policy it takes no memory that the system cannot have back, and none of a card.  Experts that the files
    hold one by one are the exception: put together they take their own bytes.
    """
    reread, found = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, device_map={"": "cpu"}, trust_remote_code=False, output_loading_info=True
    )
    wrong = [
        f"{len(found[kind])} {kind.replace('_', ' ')} ({some(found[kind])})"
        for kind in ("missing_keys", "unexpected_keys")
        if found[kind]
    ]
    if wrong:
        raise ModelError(
            f"{_name(policy)} as a folder of whole weights does not read back: {'; '.join(wrong)}. This architecture "
            "cannot be handed to vLLM; set rollouts.engine=transformers."
        )
    ids = torch.tensor([_tokens(policy)])
    with torch.no_grad():
        ours, theirs = (
            model(input_ids=ids.to(device), use_cache=False).logits[0].float().log_softmax(-1).cpu()
            for model, device in ((policy.model, policy.device), (reread.eval(), torch.device("cpu")))
        )
    del reread
    release_memory()
    gaps = (ours.exp() * (ours - theirs).abs().nan_to_num(nan=torch.inf)).sum(-1)
    few_bits = 2 in (dtype.itemsize, policy.causal_lm.dtype.itemsize)
    gap = float(gaps.median() if few_bits else gaps.mean())
    tolerance = TOLERANCE_16_BIT if few_bits else TOLERANCE
    if not gap <= tolerance:
        raise ModelError(
            f"{_name(policy)} as a folder of whole weights reads back as another model: log-probabilities differ by "
            f"{gap:.3g} nats (expected at most {tolerance}). It cannot be handed to vLLM; set "
            "rollouts.engine=transformers."
        )


def _tokens(policy: Policy) -> list[int]:
    """A prompt as the policy reads it, then every token whose row of the embedding is trained apart."""
    ids = list(policy.encoder.encode(Prompt("export", _TEXT, "27")))
    for config in getattr(policy.model, "peft_config", {}).values():
        indices: Any = getattr(config, "trainable_token_indices", None) or ()
        groups = indices.values() if isinstance(indices, dict) else [indices]
        ids += [int(index) for group in groups for index in group][:256]
    return ids


def _name(policy: Policy) -> str:
    return str(policy.causal_lm.config.name_or_path)
