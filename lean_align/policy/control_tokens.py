"""Control tokens in the text of a prompt, such as `<|im_end|>`: encoded as text, so that data cannot end a turn.

A tokenizer finds its control tokens by their names wherever they stand.  A prompt that holds such a name is therefore
encoded by a twin of the tokenizer whose control tokens have other names, which no text has: those of the template
are renamed, those of the prompt are left and are nothing but letters to the twin.  Every other prompt goes the usual
way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from lean_align.errors import ModelError

_MARK = "\U0010fffd"
"""Stands at both ends of a name that no text has: the last character but one for private use."""

_FORM = re.compile(r"<[|｜].*[|｜]>")  # noqa: RUF001


@dataclass(frozen=True)
class ControlTokens:
    """A tokenizer's control tokens, and how to write their names without meaning them.

    Attributes
    ----------
    tokenizer : PreTrainedTokenizerBase
    ids : dict of str to int
        By name; those of spaces alone are left out.
    """

    tokenizer: Any
    ids: dict[str, int]

    @cached_property
    def _order(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.ids)}

    @cached_property
    def _names(self) -> re.Pattern[str]:
        longest_first = sorted(self.ids, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def within(self, text: str) -> list[str]:
        """Names in the text, each once."""
        return list(dict.fromkeys(self._names.findall(text)))

    def encode(
        self, text: str, put: Callable[[str], str], usual: Callable[[str], list[int]], add_special: bool
    ) -> list[int]:
        """Token ids of a prompt whose text holds names of control tokens.

        Parameters
        ----------
        text : str
            The bare prompt.
        put : callable
            Bare prompt -> the text that is put to the model.
        usual : callable
            Bare prompt -> its token ids, as a prompt without such names is encoded.
        add_special : bool
            Whether the tokenizer adds what it adds in front of a text.

        Raises
        ------
        ModelError
            When this tokenizer cannot be made to take them as text.
        """
        refusal = ModelError(
            f"the tokenizer cannot take {', '.join(map(repr, self.within(text)))} as text; expected a prompt without "
            "the names of control tokens. Leave it out, or write them in another way."
        )
        if self._twin is None or _MARK in text:
            raise refusal
        names = list(self.ids)
        hidden = put(self._names.sub(lambda found: f"{_MARK}:{self._order[found[0]]}{_MARK}", text))
        shown = re.sub(f"{_MARK}:(\\d+){_MARK}", lambda found: names[int(found[1])], self._renamed(hidden))
        ids = self._by_twin(shown, add_special)
        # the twin is trusted where it encodes the same prompt with other words there as the tokenizer does
        harmless = self._names.sub("x", text)
        expected = usual(harmless)
        if self._by_twin(self._renamed(put(harmless)), add_special) != expected:
            raise refusal
        if self._controls(ids) != self._controls(expected):
            raise refusal
        return ids

    def _renamed(self, text: str) -> str:
        return self._names.sub(lambda found: f"{_MARK}{self._order[found[0]]}{_MARK}", text)

    def _controls(self, ids: list[int]) -> list[int]:
        known = set(self.ids.values()) - {self.tokenizer.unk_token_id}  # which stands for text too
        return [token for token in ids if token in known]

    def _by_twin(self, text: str, add_special: bool) -> list[int]:
        assert self._twin is not None  # asked before
        twin, ids = self._twin
        return [ids.get(token, token) for token in twin.encode(text, add_special_tokens=add_special).ids]

    @cached_property
    def _twin(self) -> tuple[Tokenizer, dict[int, int]] | None:
        """The twin, and its ids of renamed tokens with those of the tokenizer; None for one not of `tokenizers`."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            return None
        tree = json.loads(backend.to_str())
        for token in tree["added_tokens"]:
            token["content"] = self._renamed(token["content"]) if token["content"] in self.ids else token["content"]
        twin = Tokenizer.from_str(json.dumps(tree))
        twin.no_truncation()
        twin.no_padding()
        renamed = {twin.token_to_id(self._renamed(name)): number for name, number in self.ids.items()}
        return twin, {new: number for new, number in renamed.items() if new is not None}


def control_tokens(tokenizer: Any, ends: tuple[int, ...]) -> ControlTokens:
    """The special tokens of a tokenizer, others of their form, and those that end a completion."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    ids = {token.content: number for number, token in added.items() if token.special or _FORM.fullmatch(token.content)}
    ids |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids))
    ids |= {added[number].content: number for number in ends if number in added}
    return ControlTokens(tokenizer, {name: number for name, number in ids.items() if name.strip()})
