"""Sentences that say what a comparison shows, what it does not show, and how its numbers are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from lean_align.report.comparison import Comparison, Pair
from lean_align.report.costs import Until
from lean_align.report.formatting import bounds, count, difference_interval, multiple, p_value, percent, points

MIN_SEEDS = 4
"""Fewer say too little of the spread between seeds to promise a bound."""
LEVEL = 0.05
"""A corrected p-value below this counts as shown."""


def progress(found: Comparison) -> str:
    """`40 of 168 trainings done.`, with what that means while some are to come."""
    if found.n_done is None or found.n_cells is None:
        return "How many trainings are done is not recorded."
    sentence = f"{count(found.n_done)} of {count(found.n_cells)} trainings done."
    return sentence if found.is_finished else f"{sentence} Figures and p-values can still change."


def headline(found: Comparison) -> str:
    """Whether the reference beats a random choice of the same size, as far as the numbers show it."""
    warning = "Faults were found, so this is not a result to quote. " if found.faults else ""
    return warning + _claim(found)


def _claim(found: Comparison) -> str:
    reference, control = found.method(found.reference), found.at_reference_size("random")
    if reference is None or reference.accuracy is None:
        return f"No result of {found.reference or 'the reference'} yet."
    solved = f"{percent(reference.accuracy)}{_of_problems(found)}"
    start = f"{found.reference} solves {solved}"
    if control is None or control.label == found.reference:
        return (
            f"{start}. No random choice of the same size is in this comparison, so it does not show whether choosing "
            "helps."
        )
    row = found.pair(control.label)
    if row.difference is None:
        return f"{start}; it is not compared with {control.label} yet."
    other = percent(control.accuracy, "a share not known yet")
    return f"{_shown(found, row)} {start}, {control.label} {other}: {_figures(found, row)}."


def _of_problems(found: Comparison) -> str:
    return "" if found.n_problems is None else f" of {count(found.n_problems)} problems"


def judged(found: Comparison, row: Pair) -> str:
    """The reference against another method: what is shown, the difference, its interval and its corrected p-value.

    Parameters
    ----------
    found : Comparison
    row : Pair
        One with a difference, which is the other's accuracy minus the reference's.
    """
    return f"{_shown(found, row)} {_figures(found, row)}."


def _against(found: Comparison, row: Pair) -> str:
    return row.reference or found.reference


def _figures(found: Comparison, row: Pair) -> str:
    advantage, ends = -_known(row), bounds(row.interval)
    parts = [f"{points(advantage)} points for {_against(found, row)}"]
    if ends is not None:
        parts.append(f"95 % interval {points(-ends[1])} to {points(-ends[0])}")
    if row.p_holm is not None:
        parts.append(f"{p_value(row.p_holm)} after Holm's correction")
    if row.n_seeds is not None:
        parts.append("1 seed" if row.n_seeds == 1 else f"{count(row.n_seeds)} seeds")
    return ", ".join(parts)


def _known(row: Pair) -> float:
    """The difference of a comparison that is known to have one."""
    return 0.0 if row.difference is None else row.difference


def _shown(found: Comparison, row: Pair) -> str:
    reference, other, difference = _against(found, row), str(row.label), _known(row)
    if row.p_holm is None:
        return f"Without a corrected p-value nothing is shown about {reference} and {other}."
    if row.n_seeds == 1:
        return f"One seed shows nothing about {reference} and {other}: each was trained once."
    if row.p_holm < LEVEL and difference != 0:
        sentence = f"{reference} {'beats' if difference < 0 else 'does worse than'} {other}."
        ends = bounds(row.interval)
        if ends is not None and ends[0] <= 0 <= ends[1]:
            sentence += " The interval includes 0, so it does not confirm the test: read this with caution."
        return sentence
    too_few = ""
    if row.smallest_p is not None and row.smallest_p >= LEVEL:
        too_few = f" With so few seeds no p-value of this test can fall below {row.smallest_p:.2g}: more are needed."
    return f"It is not shown that {reference} beats {other}, nor that the two are equal.{too_few}{_power(row)}"


def _power(row: Pair) -> str:
    """How large a difference would have been found, so that a "not shown" can be read."""
    if row.detectable is None:
        return ""
    return (
        f" With the spread seen here, {count(row.n_seeds)} seeds find a true difference of "
        f"{points(row.detectable).lstrip('+')} points in 80 of 100 comparisons, and miss most smaller ones."
    )


def verdicts(found: Comparison) -> list[str]:
    """What else the comparison says: against all prompts, the families, and how far it has come."""
    sentences = [progress(found)]
    for name, whole in (("full", "all prompts"), ("learnability", "learnability alone")):
        row = _paired(found, name)
        if row is not None:
            sentences.append(f"Against {whole} ({row.label}): {judged(found, row)}{_at_least(found, row)}")
    sentences += [_family(found, family) for family in _families(found)]
    if found.base is not None and found.base.accuracy is not None:
        sentences.append(f"Without training the model solves {percent(found.base.accuracy)}.")
    return [*sentences, *filter(None, [goal_sentence(found)])]


def _at_least(found: Comparison, row: Pair) -> str:
    """How much worse than the other the reference may be."""
    bound = row.reference_at_least
    if bound is None or (row.n_seeds or 0) < MIN_SEEDS:
        return ""
    than = (
        f"better by at least {points(bound).lstrip('+')}"
        if bound > 0
        else f"worse by at most {points(-bound).lstrip('+')}"
    )
    return f" {found.reference} is {than} points (one-sided 95 % bound)."


def _paired(found: Comparison, name: str) -> Pair | None:
    """The comparison with the method of that name: of the reference's size, or for `full` of any."""
    method = found.named(name) if name == "full" else found.at_reference_size(name)
    row = found.pair(method.label) if method is not None else Pair()
    return None if row.difference is None else row


def _families(found: Comparison) -> list[str]:
    return list(dict.fromkeys(row.family for row in found.pairs.values() if row.family))


def _family(found: Comparison, family: str) -> str:
    rows = [row for row in found.pairs.values() if row.family == family]
    shown = [row for row in rows if row.p_holm is not None and row.p_holm < LEVEL]
    sentence = f"Family {family}, {count(len(rows))} {'comparison' if len(rows) == 1 else 'comparisons'}"
    if not shown:
        return f"{sentence}: none has a p-value below {LEVEL} after Holm's correction."
    names = "; ".join(f"{row.label} {_direction(row)}" for row in shown)
    return f"{sentence}: p below {LEVEL} after Holm's correction for {names}."


def _direction(row: Pair) -> str:
    if row.difference is None:
        return "(difference not known yet)"
    word, other = "worse" if row.difference < 0 else "better", row.reference or "the reference"
    return f"({word} than {other}, {points(row.difference)} points, {difference_interval(row.interval)})"


def until_text(until: Until, shown: Callable[[float | None], str]) -> str:
    """`61,234`; where it was not reached the bound that is known, `above 98,000`; `never` where nothing is."""
    if until.value is not None:
        return shown(until.value)
    if until.at_least is not None:
        return f"above {shown(until.at_least)}"
    return "never" if until.at_most is None else f"below {shown(until.at_most)}"


def until_interval(until: Until, shown: Callable[[float | None], str]) -> str:
    """`[54,000, 71,000]`; an upper end that was not reached in the draws is `never`."""
    if until.interval is None or len(until.interval) != 2:
        return ""
    low, high = ("never" if end is None else shown(end) for end in until.interval)
    return f"[{low}, {high}]"


def goal_sentence(found: Comparison) -> str:
    """What the reference costs until the accuracy of all prompts, against a random choice; empty where not known."""
    goal, reference = found.goal, found.method(found.reference)
    if goal is None or reference is None or reference.to_goal is None or reference.to_goal.tokens is None:
        return ""
    until, ratio = reference.to_goal.tokens, reference.to_goal.to_random
    start = f"Until the accuracy of {goal.label} at step {goal.step} ({percent(goal.accuracy)}) {found.reference} "
    if until.value is None:
        spent = f"had not come when {count(until.at_least)} tokens were spent"
    else:
        spent = f"spent {until_text(until, count)} tokens"
    if ratio is None:
        return f"{start}{spent}."
    ends = until_interval(ratio, multiple)
    said = f", {until_text(ratio, multiple)} times those of a random choice"
    return f"{start}{spent}{said}{f', 95 % interval {ends}' if ends else ''}."


def warnings(found: Comparison) -> list[str]:
    """Flags of the methods, and families that are too large for the number of seeds."""
    notes = [f"{method.label}: {flag}" for method in found.methods for flag in method.flags]
    sizes = Counter(row.family for row in found.pairs.values() if row.family)
    for family, size in sizes.items():
        # Holm multiplies the smallest of m p-values by m, and no later one comes out below it.
        floors = [row.smallest_p for row in found.pairs.values() if row.family == family]
        floor = min((value for value in floors if value is not None), default=0.0) * size
        if floor >= LEVEL:
            many = "1 comparison" if size == 1 else f"{size} comparisons"
            notes.append(
                f"Family {family}: {many} on so few seeds cannot give a corrected p-value below {min(floor, 1.0):.2g}, "
                f"so a difference in it cannot be shown at {LEVEL}, however large."
            )
    return notes


READING = (
    (
        "The unit is the seed",
        "Each seed has a warm-up, completions and random choices of its own, and one training of each method. All "
        "methods of a seed share these stages, except those whose label names another setting; they get the same "
        "number of training steps and answer the same problems. So methods are compared within a seed.",
    ),
    (
        "Difference",
        "Accuracy of a method minus accuracy of the reference, or of its method at the same size where one is named, "
        "in percentage points, as a mean over the seeds that both have. Negative: the reference is better.",
    ),
    (
        "Intervals",
        "Problems and seeds are resampled, with replacement and in pairs, and the middle 95 % of the differences "
        "found is the interval, widened for the small number of seeds. The full table also has the intervals with only "
        "the problems and with only the seeds resampled. With one seed only problems are resampled, and the interval "
        "says nothing about other seeds.",
    ),
    (
        "p-value",
        "If a method and the reference were alike, the difference on each seed could just as well have the opposite "
        "sign. The p-value is the share of all ways to flip the signs that give a mean at least as far from 0. With "
        "one seed the test is over problems and sees only one training of each method.",
    ),
    (
        "Smallest attainable p",
        "With S seeds there are 2 to the power S ways, at least two of which give a mean as far from 0 as any: no "
        "p-value lies below 2 divided by that number. It is 0.0078 for 8 seeds and 0.0625 for 5, where nothing can be "
        "shown at 0.05.",
    ),
    (
        "Holm's correction and the families",
        "Of twenty comparisons one falls below 0.05 by chance. Holm's correction keeps the chance of even one such "
        "false finding in a family under 5 %. The family primary holds the questions asked before the figures were "
        "seen; other sizes holds methods compared with the reference's method at their own size; others the rest. Each "
        "is corrected separately.",
    ),
    (
        "Not shown",
        "A large p-value does not mean that two methods are alike, only that the data do not tell them apart. The "
        "interval says how large a difference is still possible.",
    ),
    (
        "Cost",
        "Selection time is that of the stages a method needs in order to choose. Generated tokens are those sampled "
        "to choose; training tokens those of the training itself. Tokens in all are those of completions, each as "
        "often as it was sampled or gone over; a method pays for what it needs itself, whatever others shared.",
    ),
    (
        "Until the accuracy of all prompts",
        "Where evaluation.at_steps names steps, the adapter of each is evaluated on the same problems. What a method "
        "had spent when its mean accuracy first passed that of full at its last step is read off the line between two "
        "evaluated steps. Above a number: it had not come that far when that much was spent. Seeds are resampled for "
        "the interval, with the goal; never: in more than 2.5 % of the draws it was not reached.",
    ),
)
"""Terms and what they mean, for the page and for results.md."""


def facts(found: Comparison) -> list[tuple[str, str]]:
    """Recipe, commit, machine and sizes, each with its name."""
    steps, prompts = found.training_steps, found.prompts_per_step
    problems = None if found.n_problems is None else f"{count(found.n_problems)} problems"
    values = [
        ("Recipe", found.recipe),
        ("Reference", found.reference),
        ("Evaluation", ", ".join(filter(None, (found.benchmark, problems)))),
        ("Pool", None if found.pool_size is None else f"{count(found.pool_size)} prompts"),
        ("Seeds", ", ".join(map(str, found.seeds))),
        ("Training", steps and f"{count(steps)} steps" + (f" of {count(prompts)} prompts" if prompts else "")),
        ("Commit", found.git_commit),
        ("Machine", ", ".join(filter(None, (found.device, found.processor)))),
        ("Done", progress(found).split(" done")[0]),
    ]
    return [(name, str(value) if value else "not recorded") for name, value in values]
