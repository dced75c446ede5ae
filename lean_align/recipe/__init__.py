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
    TrainerRecipe,
    TrainingRecipe,
    WarmupRecipe,
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

__all__ = [
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
    "TrainerRecipe",
    "TrainingRecipe",
    "WarmupRecipe",
    "all_keys",
    "changed_recipe",
    "dump_recipe",
    "load_recipe",
    "recipe_of",
    "recipe_tree",
    "shipped_recipes",
]
