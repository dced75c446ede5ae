"""Statistics of evaluation: shares, averages over samples, paired comparisons, means over benchmarks.

Greedy pass@1 is a share of problems and gets Wilson's interval; avg@k, the mean over k samples of each problem,
gets a bootstrap over problems, since the samples of one problem are no independent draws.  Two models are compared
on the same problems: one sample by McNemar's exact test, several by sign flips.  Every function is pure and takes
the seed that it draws with.
"""

from lean_align.evaluate.benchmark import compare_scores, problem_means, score_completions
from lean_align.evaluate.bootstrap import average_at_k, bootstrap_interval
from lean_align.evaluate.means import mean_difference, mean_score
from lean_align.evaluate.paired import mcnemar, paired_difference
from lean_align.evaluate.passes import pass_at_k
from lean_align.evaluate.proportions import Z_95, accuracy, wilson
from lean_align.evaluate.signs import sign_flip_p

__all__ = [
    "Z_95",
    "accuracy",
    "average_at_k",
    "bootstrap_interval",
    "compare_scores",
    "mcnemar",
    "mean_difference",
    "mean_score",
    "paired_difference",
    "pass_at_k",
    "problem_means",
    "score_completions",
    "sign_flip_p",
    "wilson",
]
