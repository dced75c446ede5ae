"""The tokenizer, and how a prompt is put to the model: the same in rollouts, gradients, training and evaluation.

So are the tokens that end a completion and the one that pads short rows: they are settled once, for every engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from lean_align.errors import DataError, ModelError, RecipeError
from lean_align.policy.chat_template import THOUGHT, ChatTemplate, put, read_template
from lean_align.policy.control_tokens import ControlTokens, control_tokens
from lean_align.policy.sources import load_part, model_path
from lean_align.recipe import DataRecipe, ModelRecipe
from lean_align.types import Prompt


@dataclass(frozen=True)
class PromptEncoder:
    """Tokenizer and the way a prompt is put to the model; made by `load_encoder`.

    Attributes
    ----------
    tokenizer : PreTrainedTokenizerBase
    prompt_format, system_prompt, prompt_template
        As in the recipe.
    chat_template_kwargs : mapping
        Variables for the chat template.
    takes_system : bool
        Whether the chat template has a place for a system message; where not, its text goes in front of the user's.
    eos_token_ids : tuple of int
        Any of them ends a completion.
    controls : ControlTokens
    vocabulary : int
        Rows of the model's embedding.
    opening : str
        What of a thought the chat template writes itself; the text of a completion begins with it.
    remarks : tuple of str
        What was settled for the model as it was loaded.
    """

    tokenizer: Any
    prompt_format: str
    system_prompt: str | None
    prompt_template: str
    chat_template_kwargs: Mapping[str, Any]
    takes_system: bool
    eos_token_ids: tuple[int, ...]
    controls: ControlTokens = field(compare=False, repr=False)
    vocabulary: int
    opening: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def end_names(self) -> list[str]:
        """The tokens that end a completion, as the tokenizer writes them."""
        return [str(name) for name in self.tokenizer.convert_ids_to_tokens(list(self.eos_token_ids))]

    def request(self, prompt: Prompt) -> str | list[dict[str, str]]:
        """The prompt as a text, or as chat messages."""
        text = self.prompt_template.replace("{prompt}", prompt.prompt)
        if self.prompt_format == "plain":
            return text
        system = prompt.system if self.system_prompt is None else self.system_prompt
        if system is None:
            return [{"role": "user", "content": text}]
        if not self.takes_system:
            return [{"role": "user", "content": f"{system}\n\n{text}"}]
        return [{"role": "system", "content": system}, {"role": "user", "content": text}]

    def text(self, prompt: Prompt) -> str:
        """The whole text that is put to the model, up to where the completion begins."""
        request = self.request(prompt)
        return request if isinstance(request, str) else str(put(self.tokenizer, request, self.chat_template_kwargs))

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of the prompt, up to where the completion begins.

        Raises
        ------
        DataError
            When the prompt is not text that can be written in UTF-8.
        ModelError
            When the template cannot be rendered with it, or the tokenizer gives a token that the model does not know.
        """
        self._check_text(prompt)
        name = prompt.prompt_id or "a prompt"
        try:
            ids = self._encode_as_text(prompt) if self.within(prompt) else self._encode(prompt)
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from error
        if max(ids, default=0) >= self.vocabulary:
            raise ModelError(
                f"{name} has token {max(ids)} "
                f"({self.tokenizer.convert_ids_to_tokens(max(ids))!r}), but the model has rows for {self.vocabulary} "
                "tokens: tokens were added to the tokenizer and not to the model. Use the tokenizer that the model "
                "was trained with, or a model whose embedding was resized."
            )
        return ids

    def within(self, prompt: Prompt) -> list[str]:
        """Names of control tokens in the prompt's own text, which are encoded as text."""
        return self.controls.within(prompt.prompt)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of a completion, without special tokens and without the end token.

        What marks a thought stays, whether it is a special token or the chat template wrote it: a thought that was not
        ended could not be told from an answer.
        """
        ids = list(token_ids)
        if ids and ids[-1] in self.eos_token_ids:
            ids.pop()
        text, start = self.opening, 0
        for end, token in enumerate(ids):
            if token in self._thought_marks:
                text += self._plain_text(ids[start:end]) + self._thought_marks[token]
                start = end + 1
        return text + self._plain_text(ids[start:])

    @cached_property
    def _thought_marks(self) -> dict[int, str]:
        return {number: name for name, number in self.controls.ids.items() if name in THOUGHT}

    def _plain_text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def notes(self) -> list[str]:
        """What a user should be told about the way prompts are put to this model, one sentence each."""
        folded = self.prompt_format == "chat" and self.system_prompt is not None and not self.takes_system
        note = "the chat template has no place for a system message: its text is put in front of the user's"
        return [*self.remarks, *([note] if folded else [])]

    def _encode(self, prompt: Prompt) -> list[int]:
        request = self.request(prompt)
        if isinstance(request, str):
            return list(self.tokenizer(request)["input_ids"])
        return list(put(self.tokenizer, request, self.chat_template_kwargs, tokenize=True))

    def _encode_as_text(self, prompt: Prompt) -> list[int]:
        def asked(text: str) -> Prompt:
            return replace(prompt, prompt=text)

        return self.controls.encode(
            prompt.prompt,
            lambda text: self.text(asked(text)),
            lambda text: self._encode(asked(text)),
            self.prompt_format == "plain",
        )

    def _check_text(self, prompt: Prompt) -> None:
        own = {"data.prompt_template": self.prompt_template, "data.system_prompt": self.system_prompt or ""}
        for name, text in {"its text": prompt.prompt, "its system message": prompt.system or "", **own}.items():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise DataError(
                    f"{prompt.prompt_id or 'a prompt'}: {name} holds {text[error.start]!r} at character "
                    f"{error.start}, half of a character; expected text that can be written in UTF-8. Fix it or leave "
                    "it out."
                ) from error


def load_encoder(model: ModelRecipe, data: DataRecipe) -> PromptEncoder:
    """Load the tokenizer, and settle how prompts are put to the model and what ends a completion.

    Raises
    ------
    ModelError
        When it cannot be loaded, has no chat template and the recipe asks for one, or one that cannot be rendered; when
        nothing ends a completion.
    RecipeError
        When data.chat_template_kwargs are none that a template can read.
    """
    if data.chat_template_kwargs and data.prompt_format == "plain":
        raise RecipeError("data.chat_template_kwargs needs data.prompt_format: chat; a plain prompt has no template.")
    tokenizer, config = load_part(AutoTokenizer, model), load_part(AutoConfig, model)
    template = _chat_template(tokenizer, model, data) if data.prompt_format == "chat" else None
    ends, remarks = settle_ends(tokenizer, model, config, template.turn_end if template else None)
    return PromptEncoder(
        tokenizer,
        data.prompt_format,
        data.system_prompt,
        data.prompt_template,
        data.chat_template_kwargs,
        template is not None and template.takes_system,
        ends,
        control_tokens(tokenizer, ends),
        vocabulary_size(config),
        template.opening if template else "",
        (*remarks, *(_template_remarks(template, model.name) if template else ())),
    )


def _chat_template(tokenizer: Any, model: ModelRecipe, data: DataRecipe) -> ChatTemplate:
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(f"the tokenizer of {model.name} has no chat template. Set data.prompt_format=plain.")
    return read_template(tokenizer, data.chat_template_kwargs, model.name)


def _template_remarks(template: ChatTemplate, name: str) -> list[str]:
    remarks = []
    if template.dated:
        remarks.append(
            f"{name}: the chat template may write today's date, so that prompts change with the day; set "
            "data.chat_template_kwargs.date_string to fix the date if the template reads that variable"
        )
    if template.unread:
        remarks.append(f"{name}: the chat template does not read {', '.join(template.unread)}: no effect")
    return remarks


def settle_ends(
    tokenizer: Any, model: ModelRecipe, config: Any, turn_end: str | None
) -> tuple[tuple[int, ...], list[str]]:
    """Ids that end a completion: the tokenizer's, those that the model declares, and a turn's end in the chat template.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Changed where it must be: an end token where it has none, and a padding token that the model has a row for.
        trl, vLLM and the decode loop then read the same from it.
    model : ModelRecipe
    config : PretrainedConfig
    turn_end : str or None
        Token right behind an assistant's text in the chat template.

    Returns
    -------
    ids : tuple of int
        Each below the size of the model's vocabulary; the tokenizer's own first.
    remarks : list of str
        What a user should hear of it.

    Raises
    ------
    ModelError
        When there is no end token, or the model's own padding lies outside its embedding.
    """
    rows = vocabulary_size(config)
    _check_own_padding(config, rows, model.name)
    own = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    named = [token for token in dict.fromkeys([*own, *_declared(model, config)]) if 0 <= token < rows]
    of_turn = None if turn_end is None else tokenizer.convert_tokens_to_ids(turn_end)
    ends, remarks = list(named), []
    if of_turn is not None and of_turn < rows and of_turn not in named:
        ends.append(int(of_turn))
        others = ", ".join(repr(tokenizer.convert_ids_to_tokens(token)) for token in named) or "none"
        remarks.append(
            f"{model.name}: the chat template ends a turn with {turn_end!r}, which is not among the end tokens that "
            f"tokenizer and model name ({others}): completions end there too"
        )
    if not ends:
        raise ModelError(
            f"{model.name}: neither tokenizer nor model names an end token that the model can write, and the chat "
            "template shows none; completions could not end. Name one as eos_token_id in generation_config.json."
        )
    if tokenizer.eos_token_id is None or not 0 <= tokenizer.eos_token_id < rows:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
        remarks.append(f"{model.name}: the tokenizer names no usable end token; {tokenizer.eos_token!r} is taken")
    pad = tokenizer.pad_token_id
    if pad is None or not 0 <= pad < rows:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(ends[0])
        if pad is not None:
            remarks.append(
                f"{model.name}: the tokenizer pads with token {pad}, which is beyond the model's {rows} rows; "
                f"{tokenizer.pad_token!r} is taken"
            )
    return tuple(ends), remarks


def vocabulary_size(config: Any) -> int:
    """Rows of the model's embedding."""
    return int(getattr(config.get_text_config(), "vocab_size", None) or 2**31)


def _declared(model: ModelRecipe, config: Any) -> list[int]:
    """Ids in the model's generation_config.json; those in its configuration where there is no such file."""
    try:
        generation = GenerationConfig.from_pretrained(model_path(model.name), revision=model.revision)
    except (OSError, ValueError, TypeError):  # none there, or not one that transformers reads: as it does itself
        generation = GenerationConfig.from_model_config(config)
    except RecursionError as error:
        raise ModelError(
            f"model.name is {model.name!r}: could not load its generation_config.json, which is nested too deeply. "
            "Fix or delete the file."
        ) from error
    found = generation.eos_token_id
    return [found] if isinstance(found, int) else [int(token) for token in found or []]


def _check_own_padding(config: Any, rows: int, name: str) -> None:
    pad = getattr(config.get_text_config(), "pad_token_id", None)
    if isinstance(pad, int) and pad >= rows:
        raise ModelError(
            f"{name}: config.json has pad_token_id {pad} and vocab_size {rows}; expected a token that the model has a "
            "row for. Set pad_token_id to null there."
        )
