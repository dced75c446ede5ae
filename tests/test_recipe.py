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
    recipe = load(tmp_path, "seed: 7\nmodel: {name: x/y}\nselection: {n: 12}\n")
    expected = dataclasses.replace(
        Recipe(),
        name="mine",
        seed=7,
        model=dataclasses.replace(Recipe().model, name="x/y"),
        selection=dataclasses.replace(Recipe().selection, n=12),
    )
    assert recipe == expected


def test_a_recipe_that_names_nothing_fits_the_embedded_model(tmp_path: Path) -> None:
    """Its context has 256 tokens, its generated pool 320 prompts."""
    recipe = load(tmp_path, "name: a\n")
    assert (recipe.model.name, recipe.model.dtype) == ("demo", "float32")
    assert (recipe.rollouts.max_new_tokens, recipe.selection.n) == (64, 64)
    assert load(tmp_path, "rollouts: {max_new_tokens: 99}\n", selection__n="5").rollouts.max_new_tokens == 99
    assert load(tmp_path, "name: a\n", model__name="x/y").rollouts.max_new_tokens == 512


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
        ("name", 12, r"name is 12 \(int\); expected str"),
        ("model.name", None, r"model.name is None \(NoneType\); expected str"),
        ("data.contamination", False, r"data.contamination is False \(bool\); expected str"),
        ("seed", "010.5", r"seed is '010.5' \(str\); expected int"),
        ("data.system_prompt", "a\udcff", "data.system_prompt holds half of a character"),
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


def test_lean_takes_any_micro_batch() -> None:
    sizes = {"training.micro_batch": 100, "training.backend": "lean", "warmup.backend": "lean"}
    assert load_recipe("demo", sizes).training.micro_batch == 100


def test_warmup_of_no_steps_is_allowed() -> None:
    assert load_set(warmup__steps=0).warmup.steps == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"training.micro_batch": 100, "training.backend": "trl"},
            r"training.micro_batch is 100.*96 completions.*12 x .*num_generations 8",
        ),
        ({"rollouts.num_generations": 3, "warmup.loss": "bnpo"}, "warmup.micro_batch is 64.*24 completions"),
        ({"data.prompt_template": "Solve it."}, r"expected a text with \{prompt\} in it"),
        ({"data.system_prompt": "Be brief.", "data.prompt_format": "plain"}, "system_prompt needs .*chat"),
        ({"data.demo_grade_weights": [1, 1]}, r"expected \w+ weights"),
        ({"data.demo_grade_weights": [0] * len(GRADES)}, "not all 0"),
        ({"gradients.precondition": "adam", "warmup.steps": 0}, r"gradients.precondition is adam, warmup.steps is 0"),
        ({"gradients.precondition": "adam", "warmup.optimizer": "adamw_8bit"}, "warmup.optimizer adamw_8bit"),
        ({"gradients.sjlt_nonzeros": 3}, "gradients.sjlt_nonzeros is 3"),
        ({"gradients.sjlt_nonzeros": 4, "gradients.projection": "trak"}, "with gradients.projection trak"),
        ({"training.init": "warmup", "warmup.steps": 0}, "training.init is 'warmup' but warmup.steps is 0"),
        (
            {"training.backend": "trl", "training.refill": True},
            "training.backend is trl and training.refill True.*lean",
        ),
        ({"warmup.backend": "unsloth", "warmup.keep_rows": True}, r"warmup.keep_rows True.*Set warmup\.backend=lean"),
        ({"training.backend": "trl", "training.kl_groups": "spread"}, "training.kl_groups 'spread', which only lean"),
        ({"evaluation.at_steps": [5, 21]}, r"at_steps is \[5, 21\] and training.steps 20; expected steps from 0 to 20"),
        ({"evaluation.at_steps": [5, 5]}, r"at_steps is \[5, 5\].*each once and in order"),
        ({"training.refill_tokens": 9}, r"training.refill_tokens is 9, but training\.refill is false"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("demo", overrides)


@pytest.mark.parametrize("backend", ["auto", "lean"])
def test_what_only_lean_can_do_may_be_asked_of_it(backend: str) -> None:
    asked = {"refill": True, "refill_tokens": 9, "keep_rows": True, "kl_groups": "spread", "backend": backend}
    recipe = load_recipe("demo", {f"training.{key}": value for key, value in asked.items()})
    assert {key: getattr(recipe.training, key) for key in asked} == asked
    assert recipe.training.only_lean() is not None
    assert recipe.warmup.only_lean() is None


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf")])
def test_a_weight_that_is_no_frequency_is_refused(weight: float) -> None:
    with pytest.raises(RecipeError, match="demo_grade_weights"):
        load_set(data__demo_grade_weights=[weight] + [1] * (len(GRADES) - 1))


def test_every_grade_of_the_generator_has_a_weight() -> None:
    assert len(Recipe().data.demo_grade_weights) == len(GRADES)


# Texts, choices and lists, in --set and in files

TEXTS = [
    "Finish with a line #### and the number.",
    r"Put it in \boxed{}.",
    "a: b: c",
    "two\nlines\n",
    "[1",
    "'",
    'say "so" twice: "so"',
    "it's \\n and \t",
    " spaced ",
    "{a} %x @y & *z | > !",
    "off",
    "12",
    "1:30",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_value_of_a_text_key_is_the_text(text: str) -> None:
    assert load_set(data__system_prompt=text).data.system_prompt == text
    assert load_set(description=text).description == text


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_survives_the_file_of_a_run(tmp_path: Path, text: str) -> None:
    recipe = load_set(data__system_prompt=text)
    assert load(tmp_path, dump_recipe(recipe)) == recipe


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (r'"Put it in \boxed{}."', r"Put it in \boxed{}."),
        (r"'Put it in \boxed{}.'", r"Put it in \boxed{}."),
        ('"null"', "null"),
        ('""', ""),
        ('"A" or "B"', '"A" or "B"'),
        ('"', '"'),
    ],
)
def test_one_pair_of_quotes_around_a_text_is_taken_off(given: str, text: str) -> None:
    assert load_set(data__system_prompt=given).data.system_prompt == text


@pytest.mark.parametrize("given", ["null", "~", ""])
def test_a_text_that_may_be_null_can_be_set_to_null(given: str) -> None:
    assert load_recipe("gsm8k", {"data.system_prompt": given}).data.system_prompt is None


def test_a_prompt_template_without_its_place_is_named() -> None:
    with pytest.raises(RecipeError, match=r"prompt_template is 'a: b: c'; expected a text with \{prompt\} in it"):
        load_set(data__prompt_template="a: b: c")


@pytest.mark.parametrize("text", ["off", "'off'", '"off"'])
def test_a_choice_named_off_is_no_boolean(tmp_path: Path, text: str) -> None:
    assert load_set(data__contamination=text).data.contamination == "off"
    assert load(tmp_path, f"data: {{contamination: {text}}}\n").data.contamination == "off"
    assert load(tmp_path, f"data:\n  contamination: {text}  # by hand\n").data.contamination == "off"


@pytest.mark.parametrize("text", ["no", "Yes", "true", "on", "010", "1e3", "2026-11-29", "0x1F", "1_0"])
def test_a_text_in_a_file_is_taken_as_it_is_written(tmp_path: Path, text: str) -> None:
    recipe = load(tmp_path, f"name: {text}\nmodel: {{revision: {text}}}\n")
    assert (recipe.name, recipe.model.revision) == (text, text)


@pytest.mark.parametrize(("text", "value"), [("010", 10), ("1_000", 1000), ("+5", 5), ("0", 0)])
def test_whole_numbers_are_decimal(tmp_path: Path, text: str, value: int) -> None:
    assert load_set(seed=text).seed == load(tmp_path, f"seed: {text}\n").seed == value


@pytest.mark.parametrize(
    ("text", "value"), [("yes", True), ("on", True), ("True", True), ("no", False), ("off", False), ("false", False)]
)
def test_a_boolean_may_be_written_as_yaml_does(tmp_path: Path, text: str, value: bool) -> None:
    assert load_set(gradients__second_seed=text).gradients.second_seed is value
    assert load(tmp_path, f"gradients: {{second_seed: {text}}}\n").gradients.second_seed is value


@pytest.mark.parametrize("text", ["gsm8k,math500", "gsm8k, math500", "[gsm8k, math500]", '"gsm8k,math500"'])
def test_a_list_of_names_may_have_commas(tmp_path: Path, text: str) -> None:
    names = ("gsm8k", "math500")
    assert load_set(evaluation__benchmarks=text).evaluation.benchmarks == names
    assert load(tmp_path, f"evaluation:\n  benchmarks: {text}\n").evaluation.benchmarks == names


def test_every_list_may_have_commas() -> None:
    recipe = load_set(pool__target_grades="2,3", data__demo_grade_weights="1, 1e-1,1,1,0", compare__methods="random")
    assert (recipe.pool.target_grades, recipe.compare.methods) == ((2, 3), ("random",))
    assert recipe.data.demo_grade_weights == (1.0, 0.1, 1.0, 1.0, 0.0)
    assert load_set(evaluation__benchmarks="").evaluation.benchmarks == ()


def test_a_list_that_is_no_yaml_is_named() -> None:
    with pytest.raises(RecipeError, match=r"evaluation.benchmarks is '\[gsm8k', which is not a valid YAML list"):
        load_set(evaluation__benchmarks="[gsm8k")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", r"mine\.yaml gives the key 'seed' twice, on line 1 and on line 2"),
        ("data:\n  limit: 5\n\n  limit: 6\n", r"'data\.limit' twice, on line 2 and on line 4"),
        ("data: {limit: 5}\nseed: 3\ndata: {chinese: drop}\n", "'data' twice, on line 1 and on line 3"),
        ("data: {limit: 5, limit: 5}\n", r"'data\.limit' twice, on line 1 and on line 1"),
    ],
)
def test_a_key_given_twice_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load(tmp_path, text)


def test_anchors_and_merged_sections_are_read(tmp_path: Path) -> None:
    text = "warmup: &t {micro_batch: 4, beta: 0.1}\ntraining:\n  <<: *t\n  beta: 0.2\n"
    recipe = load(tmp_path, text)
    assert (recipe.training.micro_batch, recipe.training.beta, recipe.warmup.beta) == (4, 0.2, 0.1)


@pytest.mark.parametrize("text", ["a: " + "[" * 600, "a: " + "[" * 600 + "]" * 600, "{a: " * 600 + "}" * 600])
def test_deep_nesting_is_an_error_in_one_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match=r"mine\.yaml is nested too deeply") as caught:
        load(tmp_path, text)
    assert len(str(caught.value)) < 500


def test_a_message_does_not_repeat_a_long_value(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, f"data: [{', '.join(['x' * 1000] * 100)}]\n")
    assert len(str(caught.value)) < 5000


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeffseed: 3\n").seed == 3


@pytest.mark.parametrize(
    "name", ["../../evil", "/tmp/evil", "a/b", "a\\b", "..", ".", " ", "", "a\nb", "x" * 201, " a"]
)
def test_a_name_stays_below_runs(name: str) -> None:
    with pytest.raises(RecipeError, match=r"name is .*expected the name of a folder below runs/"):
        load_set(name=name)


@pytest.mark.parametrize("name", ["select-from my rows.jsonl", "Übung-1.2", "数学", "a..b"])
def test_a_name_may_be_of_any_letters(name: str) -> None:
    assert load_set(name=name).name == name


def test_a_key_below_a_value_is_refused() -> None:
    with pytest.raises(RecipeError, match="'name' is not a section"):
        load_set(name__first=1)


def test_a_value_in_place_of_a_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'data' is '3'; expected a section"):
        load(tmp_path, "data: 3\n")


@pytest.mark.parametrize("text", ["", "- 1\n", "just words\n", "a: [1\n", "a: !!python/object:os.x {}\n"])
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
    kwargs = load_recipe("demo", {"data.chat_template_kwargs": "{a: off, b: 3, c: 'off', d: 0.5, e: null, f: x}"}).data
    assert kwargs.chat_template_kwargs == {"a": False, "b": 3, "c": "off", "d": 0.5, "e": None, "f": "x"}
    assert load_recipe("demo", {"data.chat_template_kwargs.a": '"off"'}).data.chat_template_kwargs == {"a": "off"}
    with pytest.raises(RecipeError, match=r"data\.chat_template_kwargs is 'no'.*expected a mapping"):
        load_recipe("demo", {"data.chat_template_kwargs": "'no'"})
