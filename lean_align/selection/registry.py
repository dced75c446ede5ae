"""Selection methods by name: those that ship, and those of the entry point group `lean_align.selection_methods`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lean_align.errors import RecipeError
from lean_align.recipe import HELD_OUT, Recipe, read_target
from lean_align.selection import (
    alignment,
    alignment_target,
    dynamic_sampling,
    feature_similarity,
    feature_similarity_target,
    full,
    gradient_dot,
    ifd,
    learnability,
    learnalign,
    learnalign_diverse,
    learnalign_diverse_target,
    learnalign_loo,
    learnalign_target,
    learnalign_whitened,
    learnalign_whitened_target,
    length_matched,
    limr,
    online,
    pass_rate_band,
    random_subset,
    selectit,
    token_length,
    top_ppl,
)
from lean_align.selection.method import Choice, SelectionMethod
from lean_align.selection.pool import SelectionPool

GROUP = "lean_align.selection_methods"
SHIPPED: tuple[SelectionMethod, ...] = tuple(
    module.METHOD
    for module in (
        learnalign,
        random_subset,
        length_matched,
        full,
        token_length,
        learnability,
        alignment,
        learnalign_loo,
        gradient_dot,
        pass_rate_band,
        top_ppl,
        ifd,
        selectit,
        feature_similarity,
        limr,
        learnalign_diverse,
        learnalign_target,
        learnalign_diverse_target,
        alignment_target,
        feature_similarity_target,
        learnalign_whitened,
        learnalign_whitened_target,
        dynamic_sampling,
        online,
    )
)


def selection_methods() -> list[str]:
    """Names of all methods, those of other packages among them; nothing of theirs is loaded."""
    return list(dict.fromkeys([method.name for method in SHIPPED] + [e.name for e in entry_points(group=GROUP)]))


def find_method(name: str) -> SelectionMethod:
    """The method of a name.

    Raises
    ------
    RecipeError
        When there is none, or a package's own cannot be loaded.
    """
    shipped = {method.name: method for method in SHIPPED}
    if name in shipped:  # a name that ships is never looked for elsewhere
        return shipped[name]
    known = selection_methods()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        offer = f"; did you mean {near[0]!r}?" if near else "."
        raise RecipeError(f"there is no selection method {name!r}{offer} There are: {', '.join(known)}.")
    return _load(next(entry for entry in entry_points(group=GROUP) if entry.name == name))


def recipe_method(recipe: Recipe) -> SelectionMethod:
    """The method of a recipe.

    Raises
    ------
    RecipeError
        As `find_method`, when the method aims at a target and the recipe names none, and when the recipe has only some
        prompts sampled and the method must see them all.
    """
    method = find_method(recipe.selection.method)
    if "target" in method.needs and recipe.selection.target is None:
        raise RecipeError(
            f"selection.method is {method.name}, which aims at a target, and selection.target is null; expected "
            "labelled problems of what is wanted: a file, a hub id, or held-out:64 for 64 training rows, set apart."
        )
    if recipe.rollouts.predicts and "rollouts" in method.needs and method.ranks_by is None:
        able = ", ".join(shipped.name for shipped in SHIPPED if shipped.ranks_by is not None)
        raise RecipeError(
            f"rollouts.allocation is predicted and selection.method {method.name}, which must see every prompt's "
            f"completions; expected a method whose value can be predicted: {able}. Or set rollouts.allocation=fixed."
        )
    return method


def rows_set_apart(recipe: Recipe) -> int:
    """Rows of the training data that the recipe's target takes out of the pool; 0 of a method that does not aim.

    The generator of `demo` makes further ones, so that its pool stays as it is.
    """
    if "target" not in recipe_method(recipe).needs or recipe.data.train_path == "demo":
        return 0
    target = read_target(str(recipe.selection.target))
    return target.n or 0 if target.source == HELD_OUT else 0


def method_file(name: str) -> Path | None:
    """The source file of a method that another package brings; None of one that ships, or without a file."""
    entry = next((entry for entry in entry_points(group=GROUP) if entry.name == name), None)
    if entry is None or name in {method.name for method in SHIPPED}:
        return None
    spec = find_spec(entry.module)
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def method_of(function: Callable[[SelectionPool, int], Sequence[int]], name: str) -> SelectionMethod:
    """A method from a bare function.

    Parameters
    ----------
    function : callable
        (pool, n) -> n indices into the pool, best first.  Its docstring's first line becomes the method's source.
    name : str

    Returns
    -------
    SelectionMethod
        It needs rollouts, gradients and scores.
    """

    def choose(pool: SelectionPool, n: int) -> Choice:
        order: Any = np.asarray(function(pool, n))
        if order.ndim == 1 and order.dtype.kind in "iu":  # anything else is refused by `select_prompts`
            order = order.astype(np.int64)
        return Choice(order, None, f"{n} chosen by {name}")

    first_line = (function.__doc__ or "").strip().partition("\n")[0]
    return SelectionMethod(
        name, frozenset({"rollouts", "gradients", "scores"}), choose, first_line or "no source given"
    )


def _load(entry: EntryPoint) -> SelectionMethod:
    try:
        found: object = entry.load()
    except Exception as error:  # whatever a module of another's does as it is imported
        raise _unfit(entry, f"cannot be loaded ({type(error).__name__}: {error})") from error
    if not isinstance(found, SelectionMethod):
        if not callable(found):
            raise _unfit(entry, f"gives {type(found).__name__}")
        return method_of(found, entry.name)
    if found.name != entry.name:
        raise _unfit(entry, f"gives the method {found.name!r}")
    return found


def _unfit(entry: EntryPoint, what: str) -> RecipeError:
    return RecipeError(
        f"the entry point {entry.name!r} of {GROUP} ({entry.value}) {what}; expected a "
        "lean_align.selection.SelectionMethod of that name, or a function of (pool, n). Fix the package that provides "
        "it, or uninstall it."
    )
