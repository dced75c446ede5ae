"""Selection methods side by side, on the same footing: `lean-align compare`.

A cell is one method with one seed, and a run like any other.  Stages that cells agree in run once; trainings have the
same steps, start and evaluation problems, and what would make them unequal is looked for in every cell before its
figures count.
"""

from lean_align.compare.runner import compare
from lean_align.compare.transfer import comparison_transfer, run_transfer
from lean_align.compare.variants import Variant, read_variant, read_variants

__all__ = ["Variant", "compare", "comparison_transfer", "read_variant", "read_variants", "run_transfer"]
