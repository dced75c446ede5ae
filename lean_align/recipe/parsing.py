"""Read a recipe: YAML to frozen dataclasses, checked key by key.

An unknown key, a value of the wrong type or out of its range is refused with the nearest valid one.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import yaml

from lean_align.demo.problems import FAMILIES, GRADES
from lean_align.errors import RecipeError
from lean_align.recipe.fields import PoolRecipe, Recipe
from lean_align.recipe.scalars import Plain, converted, read_setting, read_tree, shown
from lean_align.recipe.targets import read_target
from lean_align.recipe.trainers import TrainerRecipe

ONLINE = "online"
"""The selection method that `selection.online` is."""

LONGEST_NAME = 200
"""Bytes of a recipe's name, which is a folder's."""

EMBEDDED = {
    "model.dtype": "float32",
    "rollouts.max_new_tokens": 64,
    "warmup.prompts_per_step": 8,
    "selection.n": 64,
    "training.steps": 20,
    "training.prompts_per_step": 12,
}
"""What `load_recipe` takes for the model inside the package where a recipe names no other value: its context and its
generated pool are small, and it should not take hours."""


def recipe_folder() -> Path:
    """Where the shipped recipes are: inside an installed wheel, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "shipped_recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Name of each shipped recipe and the file it is in."""
    return {path.stem: path for path in sorted(recipe_folder().glob("*.yaml"))}


def load_recipe(source: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe and apply overrides to it.

    Parameters
    ----------
    source : str or Path
        Name of a shipped recipe, or the path of a YAML file.
    overrides : mapping, optional
        Dotted keys and values, as {"data.limit": 64}; a string is read as the key's type ("64" -> 64), by the rules of
        `scalars.py`: the value of a text key is the text as it is.

    Returns
    -------
    Recipe

    Raises
    ------
    RecipeError
        When there is no such recipe, key or value; the message offers the nearest.
    """
    path = _find(source)
    return _recipe({"name": path.stem, **read_tree(path)}, overrides, EMBEDDED)


def recipe_of(name: str, overrides: Mapping[str, Any]) -> Recipe:
    """A recipe of defaults with overrides, as `load_recipe` has them."""
    return _recipe({"name": name}, overrides)


def changed_recipe(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe with overrides applied, as `load_recipe` has them."""
    return _recipe(recipe_tree(recipe), overrides)


def _recipe(
    tree: dict[str, Any], overrides: Mapping[str, Any] | None, embedded: Mapping[str, Any] | None = None
) -> Recipe:
    for key, value in (overrides or {}).items():
        _put(tree, key, read_setting(key, _type_of(key), value) if isinstance(value, str) else value)
    model = tree.get("model")
    if not isinstance(model, dict) or model.get("name", "demo") == "demo":
        for key, value in (embedded or {}).items():
            section, name = key.split(".")
            if not isinstance(tree.get(section), dict) or name not in tree[section]:
                _put(tree, key, value)
    recipe = _with_online(_build(Recipe, tree, ""), tree, overrides or {})
    _check(recipe)
    return recipe


def _with_online(recipe: Recipe, tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> Recipe:
    """Settle `selection.online` and `selection.method: online`, which say the same: the one that is given last decides.

    What online trains with comes and goes with it: rows are kept, and groups without spread replaced unless
    `training.refill` is given.

    Raises
    ------
    RecipeError
        When both are given at once and contradict each other.
    """
    selection, training = recipe.selection, recipe.training
    online, method = selection.online, selection.method
    changed = {key for key in ("online", "method") if f"selection.{key}" in overrides}
    if online != (method == ONLINE):
        given = changed or {"online", "method"} & set(tree["selection"])
        if len(given) == 2:
            raise RecipeError(
                f"selection.online is {str(online).lower()} and selection.method {method}. Give one of them: "
                "selection.online=true, or a method that chooses before the training."
            )
        online = online if given == {"online"} else method == ONLINE
        if online or method == ONLINE:
            method = ONLINE if online else type(selection).method
        if not online:  # it was until now
            kept, refill = ("training.keep_rows" in overrides, "training.refill" in overrides)
            training = dataclasses.replace(
                training, keep_rows=training.keep_rows and kept, refill=training.refill and refill
            )
    if online:
        named = "training.refill" in overrides or (not changed and "refill" in (tree.get("training") or {}))
        training = dataclasses.replace(training, keep_rows=True, refill=training.refill if named else True)
    return dataclasses.replace(
        recipe, selection=dataclasses.replace(selection, online=online, method=method), training=training
    )


def _type_of(key: str) -> Any:
    """Type of the value of a dotted key; an unknown key is refused later, with the nearest."""
    kind: Any = Recipe
    for name in key.split("."):
        if dataclasses.is_dataclass(kind):
            kind = get_type_hints(kind).get(name, str)
        else:  # what lies in a mapping has no type of its own
            kind = Any if kind is Any or get_origin(kind) is dict else str
    return kind


def recipe_tree(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain dictionaries, every field present; lists in place of tuples."""
    return dict(_plain(recipe))


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every field present."""
    return yaml.safe_dump(_plain(recipe), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return copy.deepcopy(value)  # an override is put into the tree, never into the recipe
    return list(value) if isinstance(value, tuple) else value


def _find(source: str | Path) -> Path:
    shipped = shipped_recipes()
    if str(source) in shipped:
        return shipped[str(source)]
    path = Path(source)
    if path.is_file():
        return path
    raise RecipeError(
        f"there is no recipe {str(source)!r}: expected the path of a YAML file or a shipped name"
        f"{_nearest(str(source), shipped)} Shipped: {', '.join(shipped)}."
    )


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, last = dotted.split(".")
    for section in sections:
        if tree.get(section) in (None, ""):
            tree[section] = {}
        below = tree[section]
        if not isinstance(below, dict):
            raise RecipeError(f"{dotted!r}: {section!r} is not a section of the recipe.")
        tree = below
    tree[last] = value


def _build(kind: type, tree: Any, prefix: str) -> Any:
    if not isinstance(tree, dict):
        raise RecipeError(f"recipe key {prefix.rstrip('.')!r} is {shown(tree)}; expected a section of keys.")
    hints = get_type_hints(kind)
    values = {}
    for key, value in tree.items():
        if key not in hints:
            raise RecipeError(f"unknown recipe key {prefix + str(key)!r}{_nearest(prefix + str(key), _words())}")
        values[key] = _value(kind, key, hints[key], value, prefix)
    return kind(**values)


def _value(kind: type, key: str, hint: Any, value: Any, prefix: str) -> Any:
    if dataclasses.is_dataclass(hint):
        empty = value is None or (isinstance(value, Plain) and not value)
        return _build(hint, {} if empty else value, f"{prefix}{key}.")  # type: ignore[arg-type]
    metadata = kind.__dataclass_fields__[key].metadata  # type: ignore[attr-defined]
    value = converted(hint, value, f"{prefix}{key}")
    if "choices" in metadata and value not in metadata["choices"]:
        near = _nearest(str(value), metadata["choices"])
        raise RecipeError(f"{prefix}{key} is {value!r}; expected one of {', '.join(metadata['choices'])}{near}")
    if "low" in metadata and value is not None and not metadata["low"] <= value <= metadata["high"]:
        upper = "" if metadata["high"] == float("inf") else f" and at most {metadata['high']}"
        raise RecipeError(f"{prefix}{key} is {value!r}; expected at least {metadata['low']}{upper}.")
    return value


def all_keys() -> list[str]:
    """Every dotted key of a recipe."""
    keys = []
    for name, hint in get_type_hints(Recipe).items():
        keys += [f"{name}.{key}" for key in get_type_hints(hint)] if dataclasses.is_dataclass(hint) else [name]
    return keys


def _words() -> list[str]:
    """Keys and section names, for the nearest to a wrong one."""
    keys = all_keys()
    return [*keys, *dict.fromkeys(key.split(".")[0] for key in keys)]


def _nearest(word: str, valid: Iterable[str]) -> str:
    choices = list(valid)
    # its section was left out, or its case is another
    same = [choice for choice in choices if choice.rpartition(".")[2] == word or choice.lower() == word.lower()]
    near = same[:1] or difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else "."


def _check(recipe: Recipe) -> None:
    """Refuse combinations that no stage could run."""
    _check_name(recipe.name)
    _check_not_empty(recipe)
    generations = recipe.rollouts.num_generations
    for name, trainer in (("warmup", recipe.warmup), ("training", recipe.training)):
        completions = trainer.prompts_per_step * generations
        if completions % trainer.micro_batch and _takes_micro_batches(trainer):
            raise RecipeError(
                f"{name}.micro_batch is {trainer.micro_batch}, which does not divide the {completions} completions of "
                f"a step ({name}.prompts_per_step {trainer.prompts_per_step} x rollouts.num_generations {generations})."
            )
        _check_online(name, trainer, recipe)
        _check_backend(name, trainer)
    if "{prompt}" not in recipe.data.prompt_template:
        raise RecipeError(
            f"data.prompt_template is {recipe.data.prompt_template!r}; expected a text with {{prompt}} in it."
        )
    if recipe.data.system_prompt is not None and recipe.data.prompt_format == "plain":
        raise RecipeError("data.system_prompt needs data.prompt_format: chat; a plain prompt has no system message.")
    if len(recipe.data.demo_grade_weights) != 5 or not (
        all(0 <= w < float("inf") for w in recipe.data.demo_grade_weights) and sum(recipe.data.demo_grade_weights) > 0
    ):
        raise RecipeError(
            f"data.demo_grade_weights is {list(recipe.data.demo_grade_weights)}; expected five weights of at least 0, "
            "one per grade, not all 0."
        )
    if recipe.data.test_path is None and not recipe.evaluation.benchmarks:
        raise RecipeError(
            "data.test_path is null and evaluation.benchmarks is empty: nothing to evaluate on. Give one of them."
        )
    _check_gradients(recipe)
    _check_stages_of_selection(recipe)
    if recipe.selection.target is not None:
        read_target(recipe.selection.target)
    _check_steps(recipe)
    _check_pool(recipe.pool)
    if recipe.training.init == "warmup" and recipe.warmup.steps == 0:
        raise RecipeError("training.init is 'warmup' but warmup.steps is 0. Set training.init=base, or give it steps.")


def _takes_micro_batches(trainer: TrainerRecipe) -> bool:
    """Whether a training may cut its steps into micro-batches: lean does so for bnpo alone."""
    may_be_unsloth = trainer.backend == "auto" and find_spec("unsloth") is not None
    return trainer.backend in ("trl", "unsloth") or trainer.loss == "bnpo" or may_be_unsloth


def _check_online(name: str, trainer: TrainerRecipe, recipe: Recipe) -> None:
    if name != "training" or not recipe.selection.online:
        return
    if trainer.backend in ("trl", "unsloth"):
        raise RecipeError(
            f"selection.online is true and training.backend {trainer.backend}; only lean draws its prompts while it "
            "trains. Set training.backend=lean. For trl's own trainer there is lean_align.online.PromptStream."
        )
    if recipe.selection.rounds > 1:
        raise RecipeError(
            f"selection.online is true and selection.rounds {recipe.selection.rounds}; expected 1: each step's prompts "
            "are drawn anew."
        )


def _check_backend(name: str, trainer: TrainerRecipe) -> None:
    if trainer.backend in ("trl", "unsloth") and (wanted := trainer.only_lean()):
        raise RecipeError(
            f"{name}.backend is {trainer.backend} and {name}.{wanted} {getattr(trainer, wanted)!r}, which only lean "
            f"can do. Set {name}.backend=lean, or leave {name}.{wanted} out."
        )
    if trainer.refill_tokens is not None and not trainer.refill:
        raise RecipeError(
            f"{name}.refill_tokens is {trainer.refill_tokens}, but {name}.refill is false. Set it to true."
        )


def _check_not_empty(recipe: Recipe) -> None:
    """Most code takes an empty path for the working directory, which no one means."""
    for key, text in (
        ("model.name", recipe.model.name),
        ("data.train_path", recipe.data.train_path),
        ("data.test_path", recipe.data.test_path),
        ("data.train_split", recipe.data.train_split),
        ("data.test_split", recipe.data.test_split),
        ("evaluation.data_dir", recipe.evaluation.data_dir),
        ("lora.target_modules", recipe.lora.target_modules),
    ):
        if text is not None and not text.strip():
            raise RecipeError(f"{key} is empty; expected a path or a name. Is it an unset shell variable?")


def _check_name(name: str) -> None:
    """The name becomes a folder below runs/, and nothing else may be written to."""
    bad = not name.strip(". ") or name != name.strip() or len(name.encode()) > LONGEST_NAME
    if bad or any(sign in "/\\" or not sign.isprintable() for sign in name):
        raise RecipeError(
            f"name is {shown(name)}; expected the name of a folder below runs/: letters, digits and signs other than "
            f"slashes, at most {LONGEST_NAME} bytes. To write elsewhere, use --run-dir."
        )


def _check_gradients(recipe: Recipe) -> None:
    gradients, warmup = recipe.gradients, recipe.warmup
    if gradients.precondition == "adam" and (warmup.steps == 0 or warmup.optimizer != "adamw_torch"):
        raise RecipeError(
            f"gradients.precondition is adam, warmup.steps is {warmup.steps} and warmup.optimizer {warmup.optimizer}; "
            "expected at least one step of adamw_torch, whose second moments it divides by."
        )
    dense = gradients.projection != "sjlt"
    if gradients.sjlt_nonzeros > 1 and (dense or gradients.proj_dim % gradients.sjlt_nonzeros):
        raise RecipeError(
            f"gradients.sjlt_nonzeros is {gradients.sjlt_nonzeros} with gradients.projection {gradients.projection} "
            f"and gradients.proj_dim {gradients.proj_dim}; expected 1, or a divisor of proj_dim with sjlt."
        )


def _check_stages_of_selection(recipe: Recipe) -> None:
    rollouts, rounds, total = recipe.rollouts, recipe.selection.rounds, recipe.selection_generations
    if rollouts.allocation == "sequential" and rollouts.first_generations >= total:
        raise RecipeError(
            f"rollouts.first_generations is {rollouts.first_generations} and the completions per prompt are {total}; "
            "expected fewer, so that the rest can follow where the first rewards differ."
        )
    if recipe.training.steps < rounds:
        raise RecipeError(
            f"selection.rounds is {rounds} and training.steps {recipe.training.steps}; expected at least one step per "
            "round."
        )


def _check_steps(recipe: Recipe) -> None:
    steps, last = recipe.evaluation.at_steps, recipe.training.steps
    if any(not 0 <= step <= last for step in steps) or list(steps) != sorted(set(steps)):
        raise RecipeError(
            f"evaluation.at_steps is {list(steps)} and training.steps {last}; expected steps from 0 to {last}, each "
            "once and in order."
        )


def _check_pool(pool: PoolRecipe) -> None:
    kinds = (pool.target, pool.too_easy, pool.too_hard, pool.long_winded, pool.unlike, pool.near_duplicates)
    if not any(kinds):
        raise RecipeError("every kind of prompt in the section pool is 0; expected at least one above 0.")
    spare = pool.near_duplicates % pool.duplicates_of_each
    if spare:
        below = pool.near_duplicates - spare
        raise RecipeError(
            f"pool.near_duplicates is {pool.near_duplicates} and pool.duplicates_of_each {pool.duplicates_of_each}; "
            f"expected a multiple of it, such as {below} or {below + pool.duplicates_of_each}."
        )
    for key, given, known in (("families", pool.target_families, FAMILIES), ("grades", pool.target_grades, GRADES)):
        if not given or len(set(given)) < len(given) or not set(given) <= set(known):
            raise RecipeError(
                f"pool.target_{key} is {list(given)}; expected one or more of {', '.join(map(str, known))}, each once."
            )
