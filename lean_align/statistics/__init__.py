"""Tests, intervals and correlations: shares, paired comparisons, bootstraps, methods over seeds.

Every function is pure and takes the seed that it draws with.  Selection methods are compared over seeds:
`seed_differences`, with the seed as the unit and intervals over seeds and problems (`crossed`); `holm` for several
comparisons; `detectable_difference` says what the test can do.
"""

from lean_align.statistics.bootstrap import average_at_k, bootstrap_interval
from lean_align.statistics.correlations import (
    Correlations,
    partial_spearman,
    pearson,
    spearman,
    value_correlations,
)
from lean_align.statistics.paired import mcnemar, paired_difference, sign_flip_p
from lean_align.statistics.power import detectable_difference, holm
from lean_align.statistics.proportions import Z_95, accuracy, pass_at_k, wilson
from lean_align.statistics.rank_tests import RankCorrelation, rank_correlation_test
from lean_align.statistics.reaching import (
    Reached,
    cost_ratio,
    cost_to_reach,
    first_reached,
    reached_costs,
    seed_draws,
)
from lean_align.statistics.seeds import (
    BySeed,
    SeedComparison,
    SeedMean,
    mean_over_seeds,
    problem_p_value,
    seed_differences,
    seed_p_value,
)

__all__ = [
    "Z_95",
    "BySeed",
    "Correlations",
    "RankCorrelation",
    "Reached",
    "SeedComparison",
    "SeedMean",
    "accuracy",
    "average_at_k",
    "bootstrap_interval",
    "cost_ratio",
    "cost_to_reach",
    "detectable_difference",
    "first_reached",
    "holm",
    "mcnemar",
    "mean_over_seeds",
    "paired_difference",
    "partial_spearman",
    "pass_at_k",
    "pearson",
    "problem_p_value",
    "rank_correlation_test",
    "reached_costs",
    "seed_differences",
    "seed_draws",
    "seed_p_value",
    "sign_flip_p",
    "spearman",
    "value_correlations",
    "wilson",
]
