"""How many prompts a run has, and how long they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lean_align.data import load_rows, prepare_prompts
from lean_align.errors import RecipeError
from lean_align.policy import load_encoder
from lean_align.policy.shapes import is_local
from lean_align.recipe import Recipe
from lean_align.verify import parse_gold

_CHARACTERS_A_TOKEN = 3.0
"""Fewer than English text has (about 4): lengths are meant as upper ends."""
_KNOWN_ROWS = {"openai/gsm8k": (7473, 1319, 192)}
"""Training rows, test rows, and the longest question in tokens of SmolLM2 (no template, no system prompt)."""
_TEMPLATE_TOKENS = 64
"""A chat template and a short system prompt."""


@dataclass(frozen=True)
class Pool:
    """Sizes of a run's data.

    Attributes
    ----------
    n_train, n_test : int
    longest_prompt : int
        In tokens, with template and system prompt.
    source : str
        Where the figures come from.
    """

    n_train: int
    n_test: int
    longest_prompt: int
    source: str


def pool_of(recipe: Recipe) -> Pool:
    """Count the recipe's prompts and their tokens, where data and tokenizer are at hand; else take what is known.

    Raises
    ------
    RecipeError
        When the data are on the hub and not known to the package.
    """
    splits = [_split(recipe, split) for split in ("train", "test")]
    limits = (recipe.data.limit, recipe.data.test_limit)
    n_train, n_test = (min(n, limit or n) for (n, _, _), limit in zip(splits, limits))
    source = "; ".join(dict.fromkeys(text for _, _, text in splits))
    return Pool(n_train, n_test, max(longest for _, longest, _ in splits), source)


def _split(recipe: Recipe, split: str) -> tuple[int, int, str]:
    """Rows, longest prompt in tokens, and how that is known."""
    data = recipe.data
    path = data.train_path if split == "train" else data.test_path
    if path == "demo" or Path(path).is_file():
        found = prepare_prompts(load_rows(data, split), split, path, parse_gold, lambda prompt: True)
        texts = [prompt.prompt for prompt in found.prompts]
        if is_local(recipe.model):
            encoder = load_encoder(recipe.model, data)
            return len(texts), max(len(encoder.encode(p)) for p in found.prompts), f"tokens counted in {path}"
        return len(texts), _estimate(recipe, texts), f"characters counted in {path}, {_CHARACTERS_A_TOKEN:g} a token"
    if path in _KNOWN_ROWS:
        n_train, n_test, longest = _KNOWN_ROWS[path]
        template = _estimate(recipe, [""])
        return n_train if split == "train" else n_test, longest + template, f"{path} is known to the package"
    raise RecipeError(
        f"data.{split}_path is {path!r}, on the hub and not known to the package, so its prompts cannot be counted "
        "before they are downloaded. Give a local file to plan with."
    )


def _estimate(recipe: Recipe, texts: Sequence[str]) -> int:
    data = recipe.data
    fixed = len(data.prompt_template) + len(data.system_prompt or "")
    longest = max(map(len, texts))
    return int((fixed + longest) / _CHARACTERS_A_TOKEN) + (_TEMPLATE_TOKENS if data.prompt_format == "chat" else 0)
