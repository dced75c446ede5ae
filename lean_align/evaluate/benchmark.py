"""A model on a benchmark, and two models on the same one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from lean_align.evaluate.bootstrap import average_at_k, bootstrap_interval, difference_ends, samples_a_problem
from lean_align.evaluate.paired import check_same_problems, paired_difference
from lean_align.evaluate.passes import mean_pass_at_k
from lean_align.evaluate.proportions import wilson
from lean_align.evaluate.signs import sign_flip_p
from lean_align.rng import rng_for
from lean_align.types import BenchmarkScore, Outcome, ScoreDifference

Outcomes = Mapping[str, Sequence[Outcome]]
"""What each problem's completions came to, by problem_id; equally many of each."""
MCNEMAR, SIGN_FLIPS = "McNemar, exact", "sign flips"
WILSON, BONETT_PRICE, BOOTSTRAP = "Wilson", "Bonett-Price", "bootstrap over problems"


def score_completions(outcomes: Outcomes, seed: int) -> BenchmarkScore:
    """pass@1 of one completion a problem, or avg@k of k.

    Completions that were cut off or hold no answer count as they were rewarded, and are counted besides.

    Parameters
    ----------
    outcomes : mapping of problem_id to outcomes
        Equally many of each problem; rewards in {0, 1}.
    seed : int

    Returns
    -------
    BenchmarkScore
        With Wilson's interval for one completion a problem, a bootstrap over problems for several.

    Raises
    ------
    ValueError
        When there is no problem, when problems have not equally many outcomes, or a reward is neither 0 nor 1.
    """
    k, counts = samples_a_problem(outcomes), _right(outcomes)
    flat = [outcome for problem in outcomes.values() for outcome in problem]
    rewards = {key: [outcome.reward for outcome in problem] for key, problem in outcomes.items()}
    average = average_at_k(rewards, seed)
    return BenchmarkScore(
        metric="pass@1" if k == 1 else f"avg@{k}",
        value=average.value,
        interval=wilson(sum(counts), len(counts)).interval if k == 1 else average.interval,
        interval_kind=WILSON if k == 1 else BOOTSTRAP,
        n=len(counts),
        num_samples=k,
        n_correct=sum(counts),
        n_truncated=sum(not outcome.finished for outcome in flat),
        n_unanswered=sum(not outcome.answered for outcome in flat),
        mean_tokens=math.fsum(outcome.n_tokens for outcome in flat) / len(flat),
        pass_at_k=mean_pass_at_k(counts, k),
    )


def compare_scores(base: Outcomes, trained: Outcomes, seed: int) -> ScoreDifference:
    """Trained minus base over the same problems.

    Parameters
    ----------
    base, trained : mapping of problem_id to outcomes
        The same problems, with as many completions each; rewards in {0, 1}.
    seed : int

    Returns
    -------
    ScoreDifference
        One completion a problem: Bonett and Price's interval, McNemar's exact test.  Several: a bootstrap over
        problems of the mean difference, a sign-flip test; wins and losses count problems.

    Raises
    ------
    ValueError
        When the problems or the numbers of completions are not the same.
    """
    check_same_problems(base, trained)
    before, after = samples_a_problem(base), samples_a_problem(trained)
    if before != after:
        raise ValueError(f"got {before} and {after} completions a problem; expected as many of both models.")
    base_means, trained_means = problem_means(base), problem_means(trained)
    if before == 1:
        paired = paired_difference(base_means, trained_means)
        return ScoreDifference(**asdict(paired), test=MCNEMAR, interval_kind=BONETT_PRICE)
    differences = [trained_means[key] - base_means[key] for key in sorted(base_means)]
    return ScoreDifference(
        difference=math.fsum(differences) / len(differences),
        interval=bootstrap_interval(
            differences, difference_ends(differences), rng_for(seed, "bootstrap", "difference")
        ),
        wins=sum(difference > 0 for difference in differences),
        losses=sum(difference < 0 for difference in differences),
        p_value=sign_flip_p(differences, rng_for(seed, "sign flips")),
        test=SIGN_FLIPS,
        interval_kind=BOOTSTRAP,
    )


def problem_means(outcomes: Outcomes) -> dict[str, float]:
    """Mean reward of each problem's completions, in [0, 1]."""
    k = samples_a_problem(outcomes)
    return {key: right / k for key, right in zip(outcomes, _right(outcomes), strict=True)}


def _right(outcomes: Outcomes) -> list[int]:
    """How many completions of each problem are right."""
    for key, problem in outcomes.items():
        for outcome in problem:
            if outcome.reward not in (0.0, 1.0):
                raise ValueError(f"got reward {outcome.reward!r} in problem {key!r}; expected 0 or 1.")
    return [sum(outcome.reward == 1.0 for outcome in problem) for problem in outcomes.values()]
