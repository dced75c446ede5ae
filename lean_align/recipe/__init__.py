"""The recipe: one YAML file, read into frozen dataclasses, that fixes a whole run.

Every field has a default; a recipe file names what it changes.
"""

from lean_align.recipe.fields import (
    CompareRecipe,
    DataRecipe,
    EvaluationRecipe,
    GradientRecipe,
    LoraRecipe,
    ModelRecipe,
    PoolRecipe,
    Recipe,
    RolloutRecipe,
    SelectionRecipe,
)
from lean_align.recipe.parsing import (
    all_keys,
    changed_recipe,
    dump_recipe,
    load_recipe,
    recipe_of,
    recipe_tree,
    shipped_recipes,
)
from lean_align.recipe.targets import FEWEST_PROBLEMS, HELD_OUT, TESTBED, TargetSource, read_target
from lean_align.recipe.trainers import TrainerRecipe, TrainingRecipe, WarmupRecipe

__all__ = [
    "FEWEST_PROBLEMS",
    "HELD_OUT",
    "TESTBED",
    "CompareRecipe",
    "DataRecipe",
    "EvaluationRecipe",
    "GradientRecipe",
    "LoraRecipe",
    "ModelRecipe",
    "PoolRecipe",
    "Recipe",
    "RolloutRecipe",
    "SelectionRecipe",
    "TargetSource",
    "TrainerRecipe",
    "TrainingRecipe",
    "WarmupRecipe",
    "all_keys",
    "changed_recipe",
    "dump_recipe",
    "load_recipe",
    "read_target",
    "recipe_of",
    "recipe_tree",
    "shipped_recipes",
]
