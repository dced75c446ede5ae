"""Sentences that say what the numbers mean, and say so plainly when they mean little."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lean_align.report.counts import Prediction, Rollouts, SelectionCounts, Target
from lean_align.report.formatting import count, number, p_value, percent, points
from lean_align.report.results_table import MethodResults
from lean_align.report.summary import Accuracy, Contamination, Means, Stability
from lean_align.types import BenchmarkScore, PairedDifference, Proportion

FEW_LEARNABLE = 0.2
"""Below this share of learnable prompts the report explains what that means."""
MANY_UNREADABLE = 0.1
"""Above this share of truncated or unparsable completions the report explains what that means."""
_SIGNIFICANT = 0.05


def headline(accuracy: Accuracy) -> str:
    """The result of the run in one sentence; `base`, `trained` and `difference` may each be None."""
    base, trained = accuracy.base, accuracy.trained
    if trained is None:
        if base is None:
            return "No model was evaluated in this run."
        return f"The base model solves {_of_problems(base)}; the trained model was not evaluated."
    if base is None:
        return f"The trained model solves {_of_problems(trained)}; the base model was not evaluated."
    start = f"The trained model solves {_of_problems(trained)}, the base {percent(base.accuracy)}"
    return _compared(start, accuracy.difference, "McNemar")


def benchmarks_headline(mean: Means, titles: Sequence[str]) -> str:
    """The result over benchmarks in one sentence, for a run without a held-out set.

    Parameters
    ----------
    mean : Means
        `base`, `trained` and the difference may each be missing.
    titles : sequence of str
        Titles of the benchmarks, at least one.
    """
    base, trained = mean.models.get("base"), mean.models.get("trained")
    where = f"On {titles[0]}" if len(titles) == 1 else f"On average over {count(len(titles))} benchmarks"
    if trained is None:
        if base is None:
            return f"{where} no mean of base and trained model was taken; the tables hold what was evaluated."
        return f"{where} the base model solves {percent(base.value)}; the trained model was not evaluated."
    if base is None:
        return f"{where} the trained model solves {percent(trained.value)}; the base model was not evaluated."
    start = f"{where} the trained model solves {percent(trained.value)}, the base {percent(base.value)}"
    return _compared(start, mean.difference, f"{mean.difference.test}:" if mean.difference else "")


def _compared(start: str, difference: PairedDifference | None, test: str) -> str:
    """How a headline that has named both models ends."""
    if difference is None:
        return f"{start}; the two were not compared problem by problem."
    low, high = difference.interval
    return (
        f"{start}: {points(difference.difference)} points, 95 % interval {points(low)} to {points(high)}, "
        f"{test} {p_value(difference.p_value)}."
    )


def benchmark_notes(methods: Sequence[MethodResults]) -> list[str]:
    """A warning where many completions were cut off, and one where many hold no answer; each names all of them."""
    cut = _many(methods, lambda score: score.n_truncated)
    empty = _many(methods, lambda score: score.n_unanswered)
    notes = []
    if cut:
        notes.append(
            f"Completions that were cut off at the token limit: {cut}. The figures hold for this limit; a higher "
            "evaluation.max_new_tokens may raise them."
        )
    if empty:
        notes.append(
            f"Completions without an answer, which count as wrong: {empty}. The figures reflect the form of the "
            "answers too."
        )
    return notes


def _many(methods: Sequence[MethodResults], of: Callable[[BenchmarkScore], int]) -> str:
    """Where it is more than a few: `AMC2023, base 50.0 %; CRUX, base 40.0 %`."""
    found = []
    for method in methods:
        for name, score in method.scores.items():
            n = score.n * score.num_samples
            if of(score) > MANY_UNREADABLE * n:
                found.append(f"{method.benchmarks[name].title}, {method.label} {percent(of(score) / n)}")
    return "; ".join(found)


def contamination_sentences(contamination: Contamination) -> list[str]:
    """What was looked for in the training prompts, and what the recipe did about it."""
    n_train, dropped = count(contamination.n_train), contamination.n_dropped or 0
    later, names = contamination.unchecked, ", ".join(contamination.benchmarks)
    compared = f"every problem of {names}" if later else "every problem that this run was evaluated on"
    matched = f"a problem of {names}" if later else "a problem that this run was evaluated on"
    unchecked = [f"Not compared, since they came after the prompts were prepared: {', '.join(later)}."] if later else []
    if not any(matches.train_prompts for matches in contamination.benchmarks.values()):
        return [f"None of the {n_train} training prompts matches {matched}.", *unchecked]
    did = {
        "keep": "The recipe keeps the matches (data.contamination: keep), so the model may have trained on problems "
        "that it is evaluated on.",
        "drop": f"The recipe leaves out exact and near matches (data.contamination: drop): {count(dropped)} training "
        "prompts, before anything was selected.",
        "drop_exact": f"The recipe leaves out exact matches (data.contamination: drop_exact): {count(dropped)} "
        "training prompts, before anything was selected. Near matches stay.",
    }
    mode = str(contamination.mode)
    return [
        f"The {n_train} training prompts were compared with {compared}.",
        did.get(mode, f"The recipe says data.contamination: {mode}; {count(dropped)} training prompts were left out."),
        *unchecked,
    ]


def _of_problems(proportion: Proportion) -> str:
    return f"{percent(proportion.accuracy)} of {count(proportion.n)} held-out problems"


def verdict(difference: PairedDifference | None, test: str = "exact") -> str | None:
    """What a paired difference does and does not show, with a p-value of that kind of test; None without one."""
    if difference is None:
        return None
    low, high = difference.interval
    if low <= 0 <= high:
        return (
            "The interval includes 0: this run does not show that training changed the accuracy. "
            "A difference of this size can be chance; more held-out problems or more seeds would tell."
        )
    direction = "above 0: training helped" if low > 0 else "below 0: training made the model worse"
    sentence = f"The interval lies {direction} on these problems. Another seed may give another difference."
    if difference.p_value >= _SIGNIFICANT:
        sentence += f" The {test} test does not confirm this, so read the difference with caution."
    return sentence


def selection_notes(selection: SelectionCounts | None) -> list[str]:
    """Warnings about the chosen set, most important first, and a note where it was chosen again during the training."""
    if selection is None:
        return []
    notes, rounds = [], selection.rounds or 1
    if selection.n_without_signal:
        n, whole = count(selection.n_without_signal), count(selection.n)
        notes.append(
            f"{n} of the {whole} chosen prompts have learnability 0: their gradient is zero and they teach nothing."
        )
    notes += [] if selection.target is None else target_notes(selection.target)
    if rounds > 1:
        notes.append(
            f"The training was cut into {rounds} rounds; what is shown here is the choice of the first. The later ones "
            "are in training/rounds, each a run of its own."
        )
    if selection.online and selection.pool_size:
        notes.append(
            f"Prompts were drawn while the model was trained: {drawn_sentence(selection.online, selection.pool_size)}."
        )
    return notes


def target_notes(target: Target) -> list[str]:
    """What to look at in a target."""
    notes = []
    if target.n_near:
        notes.append(
            f"{count(target.n_near)} of the {count(target.n_problems)} problems of the target are near matches of "
            "evaluation problems (target/near_matches.jsonl): the choice may aim at the test."
        )
    if target.n_in_pool:
        notes.append(
            f"{count(target.n_in_pool)} prompts of the pool are problems of the target; none counts for itself."
        )
    return notes


def drawn_sentence(online: Mapping[str, int], pool_size: int) -> str:
    """What an online training drew, as a clause."""
    drawn, met, spread = online["n_drawn"], online["n_met"], online["n_with_spread"]
    return (
        f"{count(drawn)} groups of {count(met)} of the pool's {count(pool_size)} prompts, "
        f"{count(online['n_explored'])} of them to explore; {count(spread)} had rewards that differ"
    )


def stability_notes(stability: Stability | None) -> list[str]:
    """How many of the chosen prompts would be others, with other prompts in the pool and with another projection."""
    if stability is None:
        return []
    notes, bootstrap, second = [], stability.bootstrap, stability.second_seed
    if bootstrap:
        notes.append(
            f"When the pool is resampled {count(bootstrap.replicates)} times, the best {count(stability.n)} prompts "
            f"share {percent(bootstrap.mean_overlap)} with the best of the whole pool on average, and at least "
            f"{percent(bootstrap.low_overlap)} in 95 % of the draws."
        )
    if second:
        sentence = f"Another seed of the projection changes {percent(second.share_changed)} of them"
        if second.spearman is not None:
            sentence += f" (rank correlation {second.spearman:.2f} over the learnable prompts)"
        notes.append(f"{sentence}; a larger gradients.proj_dim lowers that.")
    return notes


def rollout_notes(rollouts: Rollouts | None) -> list[str]:
    """What unusual shares of the rollouts mean and what to change."""
    if rollouts is None:
        return []
    notes = [] if rollouts.prediction is None else prediction_notes(rollouts.prediction)
    if rollouts.share_learnable is not None and rollouts.share_learnable < FEW_LEARNABLE:
        notes.append(_few_learnable(rollouts))
    if (rollouts.share_truncated or 0.0) > MANY_UNREADABLE:
        notes.append("Many completions hit the token limit before they ended. A higher limit may turn some right.")
    if (rollouts.share_unparsable or 0.0) > MANY_UNREADABLE:
        notes.append(
            "Many completions hold no answer that the verifier can read. They count as wrong; a longer warm-up or a "
            "clearer instruction on the form of the answer usually helps."
        )
    return notes


def prediction_notes(found: Prediction) -> list[str]:
    """What was sampled, what that saved, and how good the predictions were that it rests on."""
    if found.share_of_tokens is None:
        return []
    why = "the choice was settled" if found.stopped == "settled" else "the budget was spent"
    notes = [
        f"{count(found.n_sampled)} of {count(found.n_pool)} prompts were sampled, those that were predicted to be "
        f"chosen after a first {count(found.n_first)}, until {why}. That took {count(found.tokens)} tokens, about "
        f"{percent(found.share_of_tokens)} of what all prompts would have taken. Figures below are of these prompts. "
        f"{number(found.expected_missing)} of the best are expected among the others."
    ]
    if found.correlation is not None and found.expected_best is not None:
        notes.append(
            f"Of the prompts that were sampled after a prediction, predicted and measured success rates have the "
            f"correlation {found.correlation:.2f}; {count(found.expected_best)} of them were expected among the best "
            f"and {count(found.n_best)} are."
        )
    return notes


def _few_learnable(rollouts: Rollouts) -> str:
    wrong, right = rollouts.share_all_wrong or 0.0, rollouts.share_all_right or 0.0
    start = (
        f"Only {percent(rollouts.share_learnable)} of the prompts are learnable. All others got completions "
        "that all earned the same reward, which gives no gradient, so the choice is made among few prompts. "
    )
    if wrong >= right:
        return start + "Most of the others are too hard: easier prompts, a stronger model or a longer warm-up help."
    return start + "Most of the others are too easy: harder prompts help."
