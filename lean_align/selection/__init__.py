"""Which prompts to train on: selection methods, one module each, behind `select_prompts`.  Imports no torch."""

from lean_align.selection.full import select_full
from lean_align.selection.learnalign import select_top
from lean_align.selection.method import Choice, SelectionMethod, check_n, check_training, close_needs, select_prompts
from lean_align.selection.peeking import PeekingError, WithheldError, no_peeking, withholding
from lean_align.selection.pool import SelectionPool
from lean_align.selection.random_subset import select_random
from lean_align.selection.registry import (
    find_method,
    method_file,
    method_of,
    recipe_method,
    rows_set_apart,
    selection_methods,
)
from lean_align.selection.target import TargetProblems

__all__ = [
    "Choice",
    "PeekingError",
    "SelectionMethod",
    "SelectionPool",
    "TargetProblems",
    "WithheldError",
    "check_n",
    "check_training",
    "close_needs",
    "find_method",
    "method_file",
    "method_of",
    "no_peeking",
    "recipe_method",
    "rows_set_apart",
    "select_full",
    "select_prompts",
    "select_random",
    "select_top",
    "selection_methods",
    "withholding",
]
