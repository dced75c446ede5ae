"""Models that turn the positions of long rows at another pace."""

from __future__ import annotations

from typing import Any


def beyond_rope(causal_lm: Any, n_tokens: int) -> bool:
    """Whether a row is so long that a model turns its positions at another pace than those of shorter rows.

    `dynamic` and `longrope` do (Phi-3 with 128k tokens), by the longest of the rows that are computed together: such a
    row is to be computed whole and alone.
    """
    text = causal_lm.config.get_text_config(decoder=True)
    parameters = getattr(text, "rope_parameters", None) or {}
    kinds = [part for part in parameters.values() if isinstance(part, dict)] or [parameters]
    reaches = []
    for kind in kinds:
        if kind.get("rope_type") == "longrope":
            reaches.append(kind.get("original_max_position_embeddings") or text.max_position_embeddings)
        elif "dynamic" in str(kind.get("rope_type")):
            reaches.append(text.max_position_embeddings)
    return bool(reaches) and n_tokens > min(reaches)
