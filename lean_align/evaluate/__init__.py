"""Statistics of evaluation: shares, averages over samples, paired comparisons, means over benchmarks.

Greedy pass@1 is a share of problems and gets Wilson's interval; avg@k, the mean over k samples of each problem,
gets a bootstrap over problems, since the samples of one problem are no independent draws.  Two models are compared
on the same problems: one sample by McNemar's exact test, several by sign flips.  Every function is pure and takes
the seed that it draws with.

Selection methods are compared over seeds: `seed_differences`, with the seed as the unit (`seed_tests`) and intervals
over seeds and problems (`crossed`); `holm` for several comparisons; `simulate_null` and `detectable_difference` say
what the test can do.
"""

from lean_align.evaluate.benchmark import compare_scores, problem_means, score_completions
from lean_align.evaluate.bootstrap import average_at_k, bootstrap_interval
from lean_align.evaluate.corrections import holm, seeds_needed
from lean_align.evaluate.correlations import (
    Correlations,
    partial_spearman,
    pearson,
    spearman,
    value_correlations,
)
from lean_align.evaluate.means import mean_difference, mean_score
from lean_align.evaluate.paired import mcnemar, paired_difference
from lean_align.evaluate.passes import pass_at_k
from lean_align.evaluate.power import detectable_difference
from lean_align.evaluate.proportions import Z_95, accuracy, wilson
from lean_align.evaluate.seed_records import SeedComparison, SeedMean
from lean_align.evaluate.seed_tests import problem_p_value, seed_p_value
from lean_align.evaluate.seeds import BySeed, mean_over_seeds, seed_differences
from lean_align.evaluate.signs import sign_flip_p
from lean_align.evaluate.simulation import RejectionRate, resampled_null, simulate_null

__all__ = [
    "Z_95",
    "BySeed",
    "Correlations",
    "RejectionRate",
    "SeedComparison",
    "SeedMean",
    "accuracy",
    "average_at_k",
    "bootstrap_interval",
    "compare_scores",
    "detectable_difference",
    "holm",
    "mcnemar",
    "mean_difference",
    "mean_over_seeds",
    "mean_score",
    "paired_difference",
    "partial_spearman",
    "pass_at_k",
    "pearson",
    "problem_means",
    "problem_p_value",
    "resampled_null",
    "score_completions",
    "seed_differences",
    "seed_p_value",
    "seeds_needed",
    "sign_flip_p",
    "simulate_null",
    "spearman",
    "value_correlations",
    "wilson",
]
