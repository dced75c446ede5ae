"""The tables of a comparison; page and Markdown show the same ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from lean_align.report.comparison import Comparison, Correlation, Method, Pair
from lean_align.report.comparison_wording import until_interval, until_text
from lean_align.report.costs import Cost, ToGoal, Until
from lean_align.report.formatting import (
    MISSING,
    bare_interval,
    bare_p,
    bare_share,
    coefficient,
    count,
    difference_interval,
    duration,
    hours,
    multiple,
    points,
    won_lost,
)
from lean_align.table import Cell, Column, Row, Table

_MEASURES = (("n_tokens", "Length"), ("gradient_norm", "Gradient norm"))
_COEFFICIENTS = (("spearman", "Spearman"), ("pearson", "Pearson"), ("partial", "partial"))


def result_table(found: Comparison) -> Table:
    """Every method: accuracy, difference from the reference, p-values and cost."""
    heads = (
        *("Method", "Prompts", "Seeds", "Accuracy, %", "Difference, points", "p", "p, Holm", "Seeds won : lost"),
        *("Selection time", "Generated tokens", "Training tokens"),
    )
    caption = (
        f"Accuracy over the seeds, and the difference of each method from {found.reference}, or from the one named "
        "(method minus reference), with 95 % intervals. Costs are means over the seeds."
    )
    return _table("Results", caption, heads, [_result_row(found, m) for m in found.methods], found.reference)


def _result_row(found: Comparison, method: Method) -> tuple[Cell, ...]:
    label, cost = method.label, method.cost or Cost()
    gap = found.gap(label)
    return (
        Cell(label, _remarks(method)),
        Cell(count(method.n, gap)),
        Cell(_seeds(found, method)),
        Cell(bare_share(method.accuracy, gap), bare_interval(method.interval)),
        *_paired_cells(found, label),
        Cell(duration(cost.selection_seconds, gap)),
        Cell(count(cost.generated_tokens, gap)),
        Cell(count(cost.training_tokens, gap)),
    )


def _remarks(method: Method) -> str:
    """Settings that the label does not name, and whether the method is flagged."""
    settings = [f"{key} = {value}" for key, value in method.settings.items()]
    told = [setting for setting in settings if setting.replace(" ", "") not in method.label]
    return ", ".join([*told, *(["flagged, see above"] if method.flags else [])])


def _seeds(found: Comparison, method: Method) -> str:
    n, whole = method.n_done, len(found.seeds)
    return count(n) if n >= whole else f"{count(n)} of {count(whole)}"


def _paired_cells(found: Comparison, label: str) -> tuple[Cell, Cell, Cell, Cell]:
    if label == found.reference:
        return Cell("reference"), Cell(""), Cell(""), Cell("")
    row, gap = found.pair(label), found.gap(label, found.reference_of(label))
    notes = (difference_interval(row.interval), found.against(label))
    return (
        Cell(points(row.difference, gap), " ".join(note for note in notes if note)),
        Cell(bare_p(row.p_value, gap)),
        Cell(bare_p(row.p_holm, gap)),
        Cell(won_lost(row.seed_wins, row.seed_losses, gap)),
    )


def cost_table(found: Comparison) -> Table | None:
    """Every method's tokens, of choosing and of training, and its hours; None before one has all counted."""
    if all(method.cost is None or method.cost.total_tokens is None for method in found.methods):
        return None
    heads = (
        *("Method", "Accuracy, %", "Chosen with: sampled", "with gradients", "without"),
        *("Trained with: sampled", "with gradients", "Tokens in all", "Hours"),
    )
    rows = []
    for method in found.methods:
        cost, gap = method.cost or Cost(), found.gap(method.label)
        seconds = cost.seconds
        tokens = (
            *(cost.generated_tokens, cost.selection_trained_tokens, cost.selection_read_tokens),
            *(cost.training_tokens, cost.trained_tokens, cost.total_tokens),
        )
        cells = [Cell(count(value, gap)) for value in tokens]
        time = Cell(hours(None if seconds is None else seconds / 3600, gap))
        rows.append((Cell(method.label), Cell(bare_share(method.accuracy, gap)), *cells, time))
    caption = (
        "Completion tokens of each method by itself, as means over the seeds: sampled, gone over with gradients, and "
        "gone over without. Hours are those of this machine, evaluation not among them."
    )
    return _table("Cost", caption, heads, rows, found.reference)


def goal_table(found: Comparison) -> Table | None:
    """What each method costs until the accuracy of the whole pool; None where no steps were evaluated."""
    goal = found.goal
    if goal is None or goal.accuracy is None:
        return None
    control = found.at_reference_size("random")
    ratios: dict[str, Callable[[ToGoal], Until | None]] = {found.reference: lambda own: own.to_reference}
    if control is not None and control.label != found.reference:
        ratios[control.label] = lambda own: own.to_random
    heads = ("Method", "Seeds", "Last step, %", "Tokens", "Hours", *(f"Times {label}" for label in ratios))
    rows = []
    for method in found.methods:
        own, gap = method.to_goal or ToGoal(), found.gap(method.label)
        last = method.cost_curve.accuracy[-1] if method.cost_curve and method.cost_curve.accuracy else None
        rows.append(
            (
                Cell(method.label),
                Cell(count(own.n_seeds, gap)),
                Cell(bare_share(last, gap)),
                _until_cell(own.tokens, count, gap),
                _until_cell(own.hours, hours, gap),
                *(
                    Cell("1") if label == method.label else _until_cell(ratio(own), multiple, gap)
                    for label, ratio in ratios.items()
                ),
            )
        )
    caption = (
        f"What was spent until the accuracy of {goal.label} at its last step ({bare_share(goal.accuracy)} % of "
        f"{count(goal.n_problems)} problems, the same for all): tokens, choosing included, hours of this machine, and "
        "tokens as a multiple of another method's. 95 % intervals over the seeds."
    )
    return _table("Cost until the accuracy of all prompts", caption, heads, rows, found.reference)


def _until_cell(until: Until | None, shown: Callable[[float | None], str], gap: str) -> Cell:
    """A cost, or what is known where it was never reached; under it the interval."""
    if until is None:
        return Cell(gap)
    return Cell(until_text(until, shown), until_interval(until, shown))


def comparison_table(found: Comparison) -> Table | None:
    """Every comparison in full: three intervals, wins and losses by problem, the test and its family."""
    if not found.comparisons:
        return None
    tests = list(dict.fromkeys(row.test or "not recorded" for row in found.comparisons))
    rows = [_comparison_row(found, row, len(tests) > 1) for row in found.comparisons]
    heads = (
        *("Comparison", "Family", "Seeds", "Difference, points", "Interval, problems resampled"),
        *("Interval, seeds resampled", "Answers won : lost", "p", "p, Holm", "Smallest p"),
        *(["Test"] if len(tests) > 1 else []),
    )
    caption = (
        f"Each comparison in full, against {found.reference} unless another is named; the interval under the "
        "difference resamples problems and seeds. An answer is to one problem on one seed; won: the method is right "
        "and the reference wrong. "
    ) + ("" if len(tests) > 1 else f"Test: {tests[0]}.")
    return _table("Comparisons in full", caption, heads, rows, words={0, 1, len(heads) - 1} - {9})


def _comparison_row(found: Comparison, row: Pair, names_test: bool) -> tuple[Cell, ...]:
    label, other = str(row.label), row.reference or found.reference
    gap = found.gap(label, other)
    return (
        Cell(label, "" if other == found.reference else f"against {other}"),
        Cell(row.family or gap),
        Cell(count(row.n_seeds, gap)),
        Cell(points(row.difference, gap), difference_interval(row.interval)),
        Cell(difference_interval(row.interval_problems, gap)),
        Cell(difference_interval(row.interval_seeds, gap)),
        Cell(won_lost(row.wins, row.losses, gap)),
        Cell(bare_p(row.p_value, gap)),
        Cell(bare_p(row.p_holm, gap)),
        Cell(bare_p(row.smallest_p, gap)),
        *([Cell(row.test or gap)] if names_test else []),
    )


def kinds_table(found: Comparison) -> Table:
    """What each method chose: kinds of prompts, prompts without signal, wrong golds and length."""
    kinds = list(dict.fromkeys(kind for method in found.methods for kind in method.kinds or {}))
    wrong = any(method.n_wrong_gold is not None for method in found.methods)
    heads = ("Method", "Prompts", *kinds, "No signal", *(["Wrong gold"] if wrong else []), "Mean length, tokens")
    rows = []
    for method in found.methods:
        gap, counts = found.gap(method.label), method.kinds or {}
        numbers = [counts.get(kind, 0 if counts else None) for kind in kinds] + [method.n_without_signal]
        numbers += [*([method.n_wrong_gold] if wrong else []), method.mean_tokens]
        cells = [Cell(_one_decimal(value, gap)) for value in numbers]
        rows.append((Cell(method.label), Cell(count(method.n, gap)), *cells))
    caption = (
        "How many prompts of each kind a method chose, as a mean over the seeds. No signal: all completions right or "
        "all wrong, so that the prompt has no gradient. Length: completions of the chosen prompts."
    )
    return _table("What was chosen", caption, heads, rows, found.reference)


def length_table(found: Comparison) -> Table | None:
    """How the value that a method gives a prompt relates to response length and gradient norm."""
    measured = [(method, method.correlations) for method in found.methods if method.correlations]
    if not measured:
        return None
    heads = ("Method", *(f"{title}, {name}" for _, title in _MEASURES for _, name in _COEFFICIENTS))
    rows = []
    for method, correlations in measured:
        gap, both = found.gap(method.label), (getattr(correlations, key) or Correlation() for key, _ in _MEASURES)
        values = [getattr(correlation, key) for correlation in both for key, _ in _COEFFICIENTS]
        rows.append((Cell(method.label), *(Cell(coefficient(value, gap)) for value in values)))
    caption = (
        "Correlation, over the prompts of the pool that have a gradient, of the value that a method gives a prompt "
        "with the mean length of its completions and with the norm of its gradient; means over the seeds. Partial: "
        "Spearman with learnability held fixed. Methods that give no value are left out."
    )
    return _table("The length question", caption, heads, rows, found.reference)


def seed_table(found: Comparison) -> Table:
    """Accuracy of each method on each seed."""
    heads = ("Method", *(f"Seed {seed}" for seed in found.seeds), "Mean")
    rows = []
    for method in found.methods:
        gap = found.gap(method.label)
        cells = [Cell(bare_share(method.by_seed.get(str(seed)), gap)) for seed in found.seeds]
        rows.append((Cell(method.label), *cells, Cell(bare_share(method.accuracy, gap))))
    return _table("By seed", "Accuracy on each seed, in percent.", heads, rows, found.reference)


def overlap_table(found: Comparison) -> Table | None:
    """Shares of the overlap matrix in percent; columns are numbered like the rows."""
    overlap = found.overlap
    if overlap is None or not overlap.labels:
        return None
    rows = [
        (Cell(f"{row} {label}"), *(Cell(MISSING if value is None else f"{100 * value:.0f}") for value in values))
        for row, (label, values) in enumerate(zip(overlap.labels, overlap.share, strict=False), start=1)
    ]
    heads = ("Method", *(str(column) for column in range(1, len(overlap.labels) + 1)))
    caption = "Share, in percent, of the smaller choice that is also in the other; means over the seeds."
    return _table("Overlap of choices", caption, heads, rows)


def _table(
    heading: str,
    caption: str,
    heads: Sequence[str],
    rows: Sequence[tuple[Cell, ...]],
    reference: str | None = None,
    words: Collection[int] = (0,),
) -> Table:
    """A table in which the row of the reference stands out."""
    columns = tuple(Column(head, words=place in words) for place, head in enumerate(heads))
    return Table(columns, tuple(Row(cells, marked=cells[0].value == reference) for cells in rows), heading, caption)


def _one_decimal(value: float | None, gap: str) -> str:
    return gap if value is None else f"{value:,.1f}"
