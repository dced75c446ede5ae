"""The tables of a comparison; page and Markdown show the same ones."""

from __future__ import annotations

from collections.abc import Sequence

from lean_align.report.comparison.cells import (
    Cell,
    Table,
    bare_p,
    coefficient,
    difference,
    difference_interval,
    score,
    share,
    share_interval,
)
from lean_align.report.comparison.records import Comparison, Tree, by_seed, n_seeds
from lean_align.report.formatting import MISSING, count, duration

_MEASURES = (("n_tokens", "Length"), ("gradient_norm", "Gradient norm"))
_COEFFICIENTS = (("spearman", "Spearman"), ("pearson", "Pearson"), ("partial", "partial"))


def result_table(found: Comparison) -> Table:
    """Every method: accuracy, difference to the reference, p-values and cost."""
    heads = (
        *("Method", "Prompts", "Seeds", "Accuracy, %", "Difference, points", "p", "p, Holm", "Seeds won : lost"),
        *("Selection time", "Generated tokens", "Training tokens"),
    )
    caption = (
        f"Accuracy over the seeds, and the difference of each method to {found.reference} or to what is named (method "
        "minus reference), with 95 % intervals. Costs are means over the seeds."
    )
    return _of_methods(found, "Results", caption, heads, [_result_row(found, method) for method in found.methods])


def _result_row(found: Comparison, method: Tree) -> tuple[Cell, ...]:
    label = method["label"]
    gap, cost = found.gap(label), method.get("cost") or {}
    return (
        Cell(label, _remarks(method)),
        Cell(count(method.get("n"), gap)),
        Cell(_seeds(found, method)),
        Cell(share(method.get("accuracy"), gap), share_interval(method.get("interval"))),
        *_paired_cells(found, label),
        Cell(duration(cost.get("selection_seconds"), gap)),
        Cell(count(cost.get("generated_tokens"), gap)),
        Cell(count(cost.get("training_tokens"), gap)),
    )


def _remarks(method: Tree) -> str:
    """Settings that the label does not tell, and that the method is flagged."""
    settings = [f"{key} = {value}" for key, value in (method.get("settings") or {}).items()]
    told = [setting for setting in settings if setting.replace(" ", "") not in method["label"]]
    return ", ".join([*told, *(["flagged, see above"] if method.get("flags") else [])])


def _seeds(found: Comparison, method: Tree) -> str:
    n, whole = n_seeds(method), len(found.seeds)
    return count(n) if n >= whole else f"{count(n)} of {count(whole)}"


def _paired_cells(found: Comparison, label: str) -> tuple[Cell, Cell, Cell, Cell]:
    if label == found.reference:
        return Cell("reference"), Cell(""), Cell(""), Cell("")
    row, gap = found.paired.get(label) or {}, found.gap(label, found.reference_of(label))
    notes = (difference_interval(row.get("interval")), found.against(label))
    return (
        Cell(difference(row.get("difference"), gap), " ".join(note for note in notes if note)),
        Cell(bare_p(row.get("p_value"), gap)),
        Cell(bare_p(row.get("p_holm"), gap)),
        Cell(score(row.get("seed_wins"), row.get("seed_losses"), gap)),
    )


def comparison_table(found: Comparison) -> Table | None:
    """Every comparison in full: three intervals, wins and losses by problem, the test and its family."""
    entries = found.tree.get("comparisons") or []
    if not entries:
        return None
    tests = list(dict.fromkeys(str(row.get("test") or "not recorded") for row in entries))
    rows = [_comparison_row(found, row, len(tests) > 1) for row in entries]
    heads = (
        *("Comparison", "Family", "Seeds", "Difference, points", "Interval, problems drawn anew"),
        *("Interval, seeds drawn anew", "Answers won : lost", "p", "p, Holm", "Smallest p"),
        *(["Test"] if len(tests) > 1 else []),
    )
    caption = (
        f"Each comparison in full, against {found.reference} where no other is named; the interval under the "
        "difference draws problems and seeds anew. An answer is that to one problem on one seed; won: the method is "
        "right and the reference wrong. "
    ) + ("" if len(tests) > 1 else f"Test: {tests[0]}.")
    return Table("Comparisons in full", caption, heads, tuple(rows), frozenset({0, 1, len(heads) - 1} - {9}))


def _comparison_row(found: Comparison, row: Tree, names_test: bool) -> tuple[Cell, ...]:
    label, other = str(row.get("label")), str(row.get("reference", found.reference))
    gap = found.gap(label, other)
    return (
        Cell(label, "" if other == found.reference else f"against {other}"),
        Cell(str(row.get("family") or gap)),
        Cell(count(row.get("n_seeds"), gap)),
        Cell(difference(row.get("difference"), gap), difference_interval(row.get("interval"))),
        Cell(difference_interval(row.get("interval_problems"), gap)),
        Cell(difference_interval(row.get("interval_seeds"), gap)),
        Cell(score(row.get("wins"), row.get("losses"), gap)),
        Cell(bare_p(row.get("p_value"), gap)),
        Cell(bare_p(row.get("p_holm"), gap)),
        Cell(bare_p(row.get("smallest_p"), gap)),
        *([Cell(str(row.get("test") or gap))] if names_test else []),
    )


def kinds_table(found: Comparison) -> Table:
    """What each method chose: kinds of prompts, prompts without signal, wrong golds and length."""
    kinds = list(dict.fromkeys(kind for method in found.methods for kind in method.get("kinds") or {}))
    wrong = any(method.get("n_wrong_gold") is not None for method in found.methods)
    heads = ("Method", "Prompts", *kinds, "No signal", *(["Wrong gold"] if wrong else []), "Mean length, tokens")
    rows = []
    for method in found.methods:
        gap, counts = found.gap(method["label"]), method.get("kinds") or {}
        numbers = [counts.get(kind, 0 if counts else None) for kind in kinds] + [method.get("n_without_signal")]
        numbers += [*([method.get("n_wrong_gold")] if wrong else []), method.get("mean_tokens")]
        cells = [Cell(_one_decimal(value, gap)) for value in numbers]
        rows.append((Cell(method["label"]), Cell(count(method.get("n"), gap)), *cells))
    caption = (
        "How many prompts of each kind a method chose, as a mean over the seeds. No signal: all completions right or "
        "all wrong, so that the prompt has no gradient. Length: completions of the chosen prompts."
    )
    return _of_methods(found, "What was chosen", caption, heads, rows)


def length_table(found: Comparison) -> Table | None:
    """How the value that a method gives a prompt goes with response length and gradient norm."""
    measured = [method for method in found.methods if method.get("correlations")]
    if not measured:
        return None
    heads = ("Method", *(f"{title}, {name}" for _, title in _MEASURES for _, name in _COEFFICIENTS))
    rows = []
    for method in measured:
        trees = [method["correlations"].get(key) or {} for key, _ in _MEASURES]
        values = [tree.get(key) for tree in trees for key, _ in _COEFFICIENTS]
        rows.append(
            (Cell(method["label"]), *(Cell(coefficient(value, found.gap(method["label"]))) for value in values))
        )
    caption = (
        "Correlation, over the prompts of the pool that have a gradient, of the value that a method gives a prompt "
        "with the mean length of its completions and with the norm of its gradient; means over the seeds. Partial: "
        "Spearman with learnability held fixed. Methods that give no value are left out."
    )
    return _of_methods(found, "The length question", caption, heads, rows)


def seed_table(found: Comparison) -> Table:
    """Accuracy of each method on each seed."""
    heads = ("Method", *(f"Seed {seed}" for seed in found.seeds), "Mean")
    rows = []
    for method in found.methods:
        values, gap = by_seed(method), found.gap(method["label"])
        cells = [Cell(share(values.get(str(seed)), gap)) for seed in found.seeds]
        rows.append((Cell(method["label"]), *cells, Cell(share(method.get("accuracy"), gap))))
    return _of_methods(found, "By seed", "Accuracy on each seed, in percent.", heads, rows)


def overlap_table(found: Comparison) -> Table | None:
    """Shares of the overlap matrix in percent; columns are numbered as the rows are."""
    overlap = found.tree.get("overlap") or {}
    labels = [str(label) for label in overlap.get("labels") or []]
    if not labels:
        return None
    rows = [
        (Cell(f"{row} {label}"), *(Cell(MISSING if value is None else f"{100 * value:.0f}") for value in values))
        for row, (label, values) in enumerate(zip(labels, overlap.get("share") or [], strict=False), start=1)
    ]
    heads = ("Method", *(str(column) for column in range(1, len(labels) + 1)))
    caption = "Share, in percent, of the smaller choice that is also in the other; means over the seeds."
    return Table("Overlap of choices", caption, heads, tuple(rows))


def _of_methods(
    found: Comparison, heading: str, caption: str, heads: tuple[str, ...], rows: Sequence[tuple[Cell, ...]]
) -> Table:
    marked = frozenset(row for row, cells in enumerate(rows) if cells[0].value == found.reference)
    return Table(heading, caption, heads, tuple(rows), marked=marked)


def _one_decimal(value: float | None, gap: str) -> str:
    return gap if value is None else f"{value:,.1f}"
