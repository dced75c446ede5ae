"""What a user should know about how prompts are put to a model: said once, before anything is sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lean_align.progress import say
from lean_align.types import Prompt

if TYPE_CHECKING:
    from lean_align.policy import PromptEncoder


def prompt_notes(asked: Mapping[str, tuple[PromptEncoder, Sequence[Prompt]]]) -> list[str]:
    """A line for each thing that was settled, and for each set with prompts that name control tokens.

    Parameters
    ----------
    asked : mapping of str to (PromptEncoder, prompts)
        What the prompts of a set are called, and how they are put to the model.
    """
    lines = dict.fromkeys(note for encoder, _ in asked.values() for note in encoder.notes())
    for name, (encoder, prompts) in asked.items():
        found = [(prompt, names) for prompt in prompts if (names := encoder.within(prompt))]
        if found:
            first, names = found[0]
            line = f"{len(found)} of {len(prompts)} {name} have names of control tokens in their text (first: "
            lines[f"{line}{names[0]!r} in {first.prompt_id}), which are put to the model as text"] = None
    return list(lines)


def say_prompt_notes(stage: str, asked: Mapping[str, tuple[PromptEncoder, Sequence[Prompt]]]) -> None:
    """Say the lines of `prompt_notes` under the name of a stage."""
    for line in prompt_notes(asked):
        say(f"{stage}: {line}")
