"""What is put side by side: a method at a size, with or without changes to the recipe.

    METHOD[@N][+KEY=VALUE]...

`learnalign` takes selection.n prompts, `learnalign@50` 50; `learnalign@50+warmup.steps=0` does so under a recipe
without a warm-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lean_align.errors import RecipeError
from lean_align.recipe import Recipe, changed_recipe
from lean_align.selection.registry import find_method, recipe_method

_NAMED = {
    "selection.method": "the method comes first",
    "selection.n": "the size is written METHOD@N",
    "seed": "seeds belong to the whole comparison: --seeds says how many, --set seed=S where they begin",
}
FULL = "full"
"""Takes the whole pool, whatever the size."""


@dataclass(frozen=True)
class Variant:
    """A method at a size; `n` is None of the whole pool; `settings` are recipe keys and values as texts."""

    method: str
    n: int | None
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """As tables and folders name it."""
        size = "" if self.n is None else f"@{self.n}"
        return f"{self.method}{size}" + "".join(f"+{key}={value}" for key, value in self.settings)

    def recipe(self, base: Recipe, seed: int) -> Recipe:
        """The recipe of its run."""
        own = {"selection.method": self.method, "seed": seed, **dict(self.settings)}
        return changed_recipe(base, own if self.n is None else {"selection.n": self.n, **own})


def cell_folder(folder: Path, variant: Variant, seed: int) -> Path:
    """The run folder of a cell."""
    return folder / f"seed-{seed}" / variant.label.replace("/", "_")


def read_variant(text: str, base: Recipe, seed: int = 0) -> Variant:
    """Read METHOD[@N][+KEY=VALUE]...

    Raises
    ------
    RecipeError
        When the method, the size, a key or a value is not valid.
    """
    head, *settings = text.strip().split("+")
    name, at, size = head.partition("@")
    find_method(name)
    if at and not (size.isascii() and size.isdigit() and int(size) > 0):
        raise RecipeError(f"{text!r}: the size is {size!r}; expected a whole number above 0, as in {name}@50.")
    pairs = [setting.partition("=") for setting in settings]
    if any(not equals or not key for key, equals, _ in pairs):
        raise RecipeError(
            f"{text!r} has a setting without '='; expected METHOD@N+KEY=VALUE, as in {name}+warmup.steps=0."
        )
    for key, _, _ in pairs:
        if key.strip() in _NAMED:
            raise RecipeError(f"{text!r} sets {key.strip()}; {_NAMED[key.strip()]}.")
    n = None if name == FULL else int(size) if at else base.selection.n
    variant = Variant(name, n, tuple((key.strip(), value) for key, _, value in pairs))
    recipe_method(variant.recipe(base, seed))  # a wrong key is refused now, and a method without its target
    return variant


def read_variants(texts: Sequence[str], sizes: Sequence[int], base: Recipe) -> list[Variant]:
    """Variants in order, each once; one without a size of its own is taken at each of `sizes`, where there are any."""
    found = []
    for text in texts:
        variant = read_variant(text, base)
        own_size = "@" in text.split("+")[0] or variant.n is None
        found += [variant] if own_size or not sizes else [Variant(variant.method, n, variant.settings) for n in sizes]
    return list(dict.fromkeys(found))


def find_variant(text: str, among: Sequence[Variant], base: Recipe) -> Variant | None:
    """The variant that a name means: its own size where it has one, otherwise selection.n, or the first there is."""
    wanted = read_variant(text, base)
    if wanted in among or "@" in text:
        return wanted if wanted in among else None
    alike = [v for v in among if (v.method, v.settings) == (wanted.method, wanted.settings)]
    return alike[0] if alike else None
