"""The tokenizer, and how a prompt is put to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import AutoTokenizer

from lean_align.errors import ModelError
from lean_align.policy.sources import load_part
from lean_align.recipe import DataRecipe, ModelRecipe
from lean_align.types import Prompt


@dataclass(frozen=True)
class PromptEncoder:
    """Tokenizer and the way a prompt is put to the model."""

    tokenizer: Any
    prompt_format: str
    system_prompt: str | None
    prompt_template: str

    def request(self, prompt: Prompt) -> str | list[dict[str, str]]:
        """The prompt as trl takes it: a text, or chat messages."""
        text = self.prompt_template.replace("{prompt}", prompt.prompt)
        if self.prompt_format == "plain":
            return text
        text_of_system = prompt.system if self.system_prompt is None else self.system_prompt
        system = [{"role": "system", "content": text_of_system}] if text_of_system is not None else []
        return [*system, {"role": "user", "content": text}]

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of the prompt, up to where the completion begins."""
        request = self.request(prompt)
        if isinstance(request, str):
            return list(self.tokenizer(request)["input_ids"])
        return list(
            self.tokenizer.apply_chat_template(request, add_generation_prompt=True, tokenize=True, return_dict=True)[
                "input_ids"
            ]
        )

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of a completion, without special tokens."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))


def load_encoder(model: ModelRecipe, data: DataRecipe) -> PromptEncoder:
    """Load the tokenizer.

    Raises
    ------
    ModelError
        When it cannot be loaded, or has no chat template and the recipe asks for one.
    """
    tokenizer = load_part(AutoTokenizer, model)
    if data.prompt_format == "chat" and not tokenizer.chat_template:
        raise ModelError(f"the tokenizer of {model.name} has no chat template. Set data.prompt_format=plain.")
    return PromptEncoder(tokenizer, data.prompt_format, data.system_prompt, data.prompt_template)
