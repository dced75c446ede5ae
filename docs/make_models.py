"""Write docs/models.md from the tiny models of the tests: python -m docs.make_models."""

from __future__ import annotations

from pathlib import Path

from lean_align.gradients.prompt_sharing import SHARED, gradient_path
from lean_align.policy.families import Family, family_of
from lean_align.rollouts.paths import EQUAL_LENGTHS, WINDOWED, rollout_path
from tests import zoo

TARGET = Path(__file__).parent / "models.md"
_ABOVE = """# Models

Made by `make docs`; do not edit.

A model is run by what its configuration asks for, not by its name: the table holds for others that are built alike.
`make models-zoo` writes the tiny random models that the tests run; each family below decodes token for token as
transformers' `generate` does, greedily, with a window shorter than a prompt with its completion where it has one.
"""
_BELOW = """
- **decode loop**: rows join and leave one batch, see [rollouts](rollouts.md). **with its window**: the same loop;
  layers with a window see the last tokens of their row. Keys and values of the whole row are kept, so a window saves
  no memory.
- **equal lengths**: a running state can neither be padded nor joined later, so a batch holds prompts of one length,
  with the cache of transformers' `generate`. Noise still belongs to the completion: company changes it through
  rounding alone.
- Phi-3 with a long context (`longrope`) turns all positions at another pace once a row outgrows the short one: such
  rows go by equal lengths too, and are computed again at that length, as one forward pass over the row would.
- **shared prompt**: the prompt of a group is computed once for all its completions' gradients; without it, once for
  each.
- Scales and caps of logits (Granite, Cohere, Gemma 2) and attention sinks (gpt-oss) are the model's own forward's.
  Gemma 2 runs with eager attention, since transformers' sdpa leaves out the soft-cap of its attention.
- **vLLM** samples rollouts and evaluation by its own code. `tested`: `make test-stack` compares it; others were not
  tried.
- A model that cannot be decoded (an encoder with a decoder; RWKV, xLSTM and RecurrentGemma, whose past is in none of
  transformers' caches) or on which peft puts no adapter (Mamba, with `lora.target_modules=all-linear`) is refused by
  `plan` and in the data stage, before anything costly. Llama 4 and Mamba are decoded in tests, but were not run as a
  whole.
"""


def models_page() -> str:
    """The page: a row a family."""
    head = ("family", "rollouts", "gradients", "shared prompt", "vLLM", "what is slower")
    rows = [head, tuple("---" for _ in head), *(_row(name) for name in zoo.FAMILIES if name not in zoo.NOT_RUN)]
    return "\n".join([_ABOVE, *(f"| {' | '.join(row)} |" for row in rows), _BELOW])


def _row(name: str) -> tuple[str, ...]:
    family = family_of(zoo.make_config(name))
    path = rollout_path(family).name
    rollouts = {WINDOWED: "decode loop, with its window", EQUAL_LENGTHS: "equal lengths"}.get(path, "decode loop")
    shared = gradient_path(family) == SHARED
    vllm = "tested" if name in zoo.VLLM_TESTED else "not tried"
    return (zoo.LABELS[name], rollouts, "yes", "yes" if shared else "no", vllm, _slower(family, path, shared))


def _slower(family: Family, path: str, shared: bool) -> str:
    found = []
    if path == EQUAL_LENGTHS:
        found.append("rollouts, where few prompts have the same length")
    if not shared:
        found.append("gradients: a prompt is computed for each completion")
    if family.attention == "eager":
        found.append("eager attention")
    return "; ".join(found) or "nothing"


if __name__ == "__main__":
    TARGET.write_text(models_page(), encoding="utf-8")
