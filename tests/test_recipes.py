"""Every shipped recipe parses, and every key is explained where it is defined."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from lean_align.recipe import Recipe, all_keys, fields, load_recipe, shipped_recipes, trainers

SHIPPED = shipped_recipes()
SOURCES = (fields, trainers)
SECTIONS = list(dict.fromkeys(v for source in SOURCES for v in vars(source).values() if dataclasses.is_dataclass(v)))


def unexplained_fields(source: str) -> list[str]:
    """Fields of dataclasses without a text in the line below them."""
    missing = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        for statement, below in zip(node.body, [*node.body[1:], None]):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                text = (
                    below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
                )
                if not (isinstance(text, str) and text.strip()):
                    missing.append(f"{node.name}.{statement.target.id}")
    return missing


def keys_of(tree: dict[str, Any]) -> set[str]:
    return {
        key
        for name, below in tree.items()
        for key in ([f"{name}.{k}" for k in below] if isinstance(below, dict) else [name])
    }


class OneOfEach(yaml.SafeLoader):
    """YAML takes the last of two equal keys; a shipped recipe must not have them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key occurs twice: {keys}"
        return super().construct_mapping(node, deep)


def test_recipes_are_shipped() -> None:
    assert {"demo", "gsm8k", "gsm8k-cpu"} <= set(SHIPPED)
    assert all(path.is_file() for path in SHIPPED.values())


def test_every_yaml_of_the_checkout_is_shipped() -> None:
    folder = Path(__file__).parent.parent / "recipes"
    assert {path.name for path in folder.iterdir() if path.suffix in (".yaml", ".yml")} == {
        path.name for path in SHIPPED.values()
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_parses_under_its_own_name(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_has_each_key_once_and_only_known_ones(name: str) -> None:
    tree = yaml.load(SHIPPED[name].read_text(encoding="utf-8"), OneOfEach)
    assert keys_of(tree) <= set(all_keys())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_selects_a_part_of_its_pool(name: str) -> None:
    recipe = load_recipe(name)
    pool = recipe.data.demo_train if recipe.data.train_path == "demo" else recipe.data.limit
    assert pool is None or recipe.selection.n < pool
    assert pool is None or recipe.warmup.n_prompts <= pool


def test_every_field_is_explained_under_it() -> None:
    assert [field for source in SOURCES for field in unexplained_fields(inspect.getsource(source))] == []


def test_the_check_for_explanations_finds_a_missing_one() -> None:
    source = 'class A:\n    x: int = 1\n    """Known."""\n    y: int = 2\n    z: int = 3\n    """"""\n'
    assert unexplained_fields(source) == ["A.y", "A.z"]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_default_keeps_its_own_range(section: type) -> None:
    for field in dataclasses.fields(section):
        if "choices" in field.metadata:
            assert field.default in field.metadata["choices"]
        if "low" in field.metadata and field.default is not None:
            assert field.metadata["low"] <= field.default <= field.metadata["high"]


def test_the_defaults_are_a_valid_recipe(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("model: {name: x/y}\n")
    assert load_recipe(path) == Recipe(name="empty", model=dataclasses.replace(Recipe().model, name="x/y"))
