"""The recipe: what overrides, errors and the round trip through YAML promise."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from lean_align.demo.problems import GRADES
from lean_align.errors import RecipeError
from lean_align.recipe import (
    DataRecipe,
    Recipe,
    all_keys,
    changed_recipe,
    dump_recipe,
    load_recipe,
    recipe_tree,
    shipped_recipes,
)


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, **overrides: Any) -> Recipe:
    return load_recipe(write(folder, text), {key.replace("__", "."): value for key, value in overrides.items()})


def load_set(**overrides: Any) -> Recipe:
    return load_recipe("demo", {key.replace("__", "."): value for key, value in overrides.items()})


def test_a_file_changes_only_what_it_names(tmp_path: Path) -> None:
    recipe = load(tmp_path, "seed: 7\nselection: {n: 12}\n")
    expected = dataclasses.replace(
        Recipe(), name="mine", seed=7, selection=dataclasses.replace(Recipe().selection, n=12)
    )
    assert recipe == expected


def test_an_empty_section_keeps_its_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "data:\n").data == DataRecipe()


def test_an_override_may_fill_an_empty_section(tmp_path: Path) -> None:
    assert load(tmp_path, "data:\n", data__limit=3).data.limit == 3


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    recipe = load(tmp_path, "seed: 7\ndata: {limit: 5, test_limit: 6}\n", data__limit=64, seed="8")
    assert (recipe.seed, recipe.data.limit, recipe.data.test_limit) == (8, 64, 6)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("data.limit", "64", 64),
        ("data.limit", "null", None),
        ("training.learning_rate", "1e-5", 1e-5),
        ("training.learning_rate", "2", 2.0),
        ("training.gradient_checkpointing", "true", True),
        ("data.demo_grade_weights", str([0, *GRADES[1:]]), (0.0, *map(float, GRADES[1:]))),
        ("model.name", "Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct"),
    ],
)
def test_override_texts_are_read_as_yaml(key: str, text: str, value: object) -> None:
    section, name = key.split(".")
    got = getattr(getattr(load_recipe("demo", {key: text}), section), name)
    assert got == value
    assert type(got) is type(value)


def test_a_float_without_a_dot_is_a_float_in_a_file_too(tmp_path: Path) -> None:
    assert yaml.safe_load("1e-5") == "1e-5", "the trap that this test is about"
    assert load(tmp_path, "training: {learning_rate: 1e-5}\n").training.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("data.limt", "data.limit"),
        ("rollouts.temprature", "rollouts.temperature"),
        ("training.learning_rat", "training.learning_rate"),
        ("limit", "data.limit"),
        ("sed", "seed"),
    ],
)
def test_an_unknown_key_offers_the_nearest(key: str, nearest: str) -> None:
    with pytest.raises(RecipeError, match=rf"unknown recipe key '{key}'.*did you mean '{nearest}'"):
        load_recipe("demo", {key: 1})


def test_an_unknown_section_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"unknown recipe key 'rollout'.*did you mean 'rollouts"):
        load_set(rollout__num_generations=4)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.limit", "many", r"data.limit is 'many' \(str\); expected int or null"),
        ("data.limit", True, r"data.limit is True \(bool\); expected int or null"),
        ("seed", 1.5, r"seed is 1.5 \(float\); expected int"),
        ("training.learning_rate", "fast", r"training.learning_rate is 'fast' \(str\); expected float"),
        ("training.learning_rate", True, r"training.learning_rate is True \(bool\); expected float"),
        ("training.gradient_checkpointing", 1, r"gradient_checkpointing is 1 \(int\); expected bool"),
        ("name", "12", r"name is 12 \(int\); expected str"),
        ("model.name", None, r"model.name is None \(NoneType\); expected str"),
        ("data.demo_grade_weights", [1, 1, "x", 1, 1, 1], r"demo_grade_weights is 'x' \(str\); expected float"),
    ],
)
def test_a_wrong_type_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("demo", {key: value})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.limit", 0, "data.limit is 0; expected at least 1"),
        ("rollouts.num_generations", 1, "num_generations is 1; expected at least 2"),
        ("rollouts.temperature", 11.0, r"temperature is 11.0; expected at least 0.01 and at most 10.0"),
        ("rollouts.temperature", 0, "temperature is 0.0; expected at least 0.01"),
        ("training.learning_rate", -1e-6, "learning_rate is -1e-06; expected at least 0.0"),
        ("training.learning_rate", float("nan"), "learning_rate is nan; expected at least 0.0"),
        ("training.steps", 0, "training.steps is 0; expected at least 1"),
        ("seed", -1, "seed is -1; expected at least 0"),
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("demo", {key: value})


def test_a_wrong_choice_offers_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"expected one of grpo, dr_grpo; did you mean 'grpo'"):
        load_set(gradients__loss="gprpo")


def test_warmup_of_no_steps_is_allowed() -> None:
    assert load_set(warmup__steps=0).warmup.steps == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"training.micro_batch": 100}, r"training.micro_batch is 100.*96 completions.*12 x .*num_generations 8"),
        ({"rollouts.num_generations": 3}, "warmup.micro_batch is 64.*24 completions"),
        ({"data.prompt_template": "Solve it."}, r"expected a text with \{prompt\} in it"),
        ({"data.system_prompt": "Be brief.", "data.prompt_format": "plain"}, "system_prompt needs .*chat"),
        ({"data.demo_grade_weights": [1, 1]}, r"expected \w+ weights"),
        ({"data.demo_grade_weights": [0] * len(GRADES)}, "not all 0"),
        ({"gradients.precondition": "adam", "warmup.steps": 0}, r"gradients.precondition is adam, warmup.steps is 0"),
        ({"gradients.precondition": "adam", "warmup.optimizer": "adamw_8bit"}, "warmup.optimizer adamw_8bit"),
        ({"gradients.sjlt_nonzeros": 3}, "gradients.sjlt_nonzeros is 3"),
        ({"gradients.sjlt_nonzeros": 4, "gradients.projection": "trak"}, "with gradients.projection trak"),
        ({"training.init": "warmup", "warmup.steps": 0}, "training.init is 'warmup' but warmup.steps is 0"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("demo", overrides)


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf")])
def test_a_weight_that_is_no_frequency_is_refused(weight: float) -> None:
    with pytest.raises(RecipeError, match="demo_grade_weights"):
        load_set(data__demo_grade_weights=[weight] + [1] * (len(GRADES) - 1))


def test_every_grade_of_the_generator_has_a_weight() -> None:
    assert len(Recipe().data.demo_grade_weights) == len(GRADES)


@pytest.mark.parametrize("text", ["a: b: c", "{prompt}\nfoo", "[1", "'"])
def test_an_override_that_is_no_yaml_is_a_recipe_error(text: str) -> None:
    with pytest.raises(RecipeError, match="prompt_template"):
        load_set(data__prompt_template=text)


def test_a_key_below_a_value_is_refused() -> None:
    with pytest.raises(RecipeError, match="'name' is not a section"):
        load_set(name__first=1)


def test_a_value_in_place_of_a_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'data' is 3; expected a section"):
        load(tmp_path, "data: 3\n")


@pytest.mark.parametrize("text", ["", "- 1\n", "just words\n", "a: [1\n"])
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match=r"mine\.yaml"):
        load(tmp_path, text)


def test_a_missing_recipe_offers_the_shipped_ones() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'gsm8k_cpu'.*did you mean 'gsm8k-cpu'.*Shipped: .*demo"):
        load_recipe("gsm8k_cpu")


@pytest.mark.parametrize("name", [*shipped_recipes()])
def test_dump_and_load_give_the_same_recipe(tmp_path: Path, name: str) -> None:
    recipe = load_recipe(name, {"training.learning_rate": 1e-7, "seed": 3})
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, system_prompt="Ü: \\boxed{}\n#### "))
    text = dump_recipe(recipe)
    assert load(tmp_path, text) == recipe
    assert text.startswith(f"name: {name}\n"), "keys come in the order in which they are explained"


def test_the_tree_is_plain_and_names_every_key() -> None:
    tree = recipe_tree(Recipe())
    keys = {f"{s}.{k}" for s, below in tree.items() if isinstance(below, dict) for k in below}
    assert keys | {key for key, value in tree.items() if not isinstance(value, dict)} == set(all_keys())
    assert tree["data"]["demo_grade_weights"] == [*Recipe().data.demo_grade_weights]


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().seed = 3  # type: ignore[misc]


def test_loading_with_overrides_leaves_the_overrides_alone() -> None:
    overrides = {"data.demo_grade_weights": [1] * len(GRADES), "data.limit": "64"}
    load_recipe("demo", overrides)
    assert overrides == {"data.demo_grade_weights": [1] * len(GRADES), "data.limit": "64"}


def test_a_key_without_its_section_is_found():
    with pytest.raises(RecipeError, match=r"unknown recipe key 'proj_dim'; did you mean 'gradients\.proj_dim'"):
        load_recipe("demo", {"proj_dim": 3})


@pytest.mark.parametrize(
    ("prompts_per_step", "micro_batch", "sampling_batch", "expected"),
    [(48, 8, 128, 128), (3, 4, 128, 24), (24, 8, 128, 96), (48, 12, 20, 24), (48, 8, None, 384), (5, 8, 20, 8)],
)
def test_a_training_samples_whole_groups_and_micro_batches_that_divide_a_step(
    prompts_per_step: int, micro_batch: int, sampling_batch: int | None, expected: int
) -> None:
    """Groups of 8: 24 prompts are 192 completions, which 96 divides; micro-batches of 12 and groups share 24."""
    recipe = load_recipe("gsm8k", {"training.prompts_per_step": prompts_per_step, "training.micro_batch": micro_batch})
    trainer = dataclasses.replace(recipe.training, sampling_batch=sampling_batch)
    assert trainer.sampled_at_once(8) == expected


def test_variables_of_the_chat_template_are_a_mapping(tmp_path):
    for overrides in (
        {"data.chat_template_kwargs.enable_thinking": "false"},
        {"data.chat_template_kwargs": '{"enable_thinking": false}'},
        {"data.chat_template_kwargs": {"enable_thinking": False}},
    ):
        recipe = load_recipe("demo", overrides)
        assert recipe.data.chat_template_kwargs == {"enable_thinking": False}
    path = tmp_path / "kept.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe
    changed = changed_recipe(recipe, {"data.chat_template_kwargs.date_string": "1 May"})
    assert changed.data.chat_template_kwargs == {"enable_thinking": False, "date_string": "1 May"}
    assert recipe.data.chat_template_kwargs == {"enable_thinking": False}
    with pytest.raises(RecipeError, match=r"data\.chat_template_kwargs is 'no'.*expected a mapping"):
        load_recipe("demo", {"data.chat_template_kwargs": "'no'"})
