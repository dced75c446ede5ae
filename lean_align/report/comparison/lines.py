"""The table of a comparison as plain lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lean_align.report.comparison.cells import bare_p, difference, difference_interval, score, share, share_interval
from lean_align.report.comparison.records import Comparison, Tree, n_seeds, read_comparison
from lean_align.report.comparison.wording import progress, warnings
from lean_align.report.text_tables import aligned, printable

_HEADS = ("method", "seeds", "acc. %", "interval", "diff.", "interval", "p", "Holm", "w:l", "")


def comparison_lines(results: Mapping[str, Any]) -> list[str]:
    """Give the table of a comparison, aligned, in the order of the methods.

    Parameters
    ----------
    results : mapping
        As for `write_comparison`; any part may be missing.

    Returns
    -------
    list of str
        Faults first, then what is done, the table, and the flags.  At most 100 columns wide where no label is longer
        than 26 characters; a longer one is shown whole.
    """
    found = read_comparison(results)
    rows = [_row(found, method) for method in found.methods]
    return [
        *(f"FAULT: {printable(str(fault))}" for fault in found.tree.get("faults") or []),
        f"{printable(str(found.tree.get('recipe') or 'comparison'))}: {progress(found)}",
        *(aligned([_HEADS, *rows]) if rows else []),
        *(f"FLAG: {printable(warning)}" for warning in warnings(found)),
    ]


def _row(found: Comparison, method: Tree) -> tuple[str, ...]:
    label = method["label"]
    gap, paired_gap, row = found.gap(label), found.gap(label, found.reference_of(label)), found.paired.get(label) or {}
    start = (
        printable(label),
        f"{n_seeds(method)}/{len(found.seeds)}",
        share(method.get("accuracy"), gap),
        share_interval(method.get("interval")) or gap,
    )
    if label == found.reference:
        return (*start, "ref.", "", "", "", "", "")
    return (
        *start,
        difference(row.get("difference"), paired_gap),
        difference_interval(row.get("interval"), paired_gap),
        bare_p(row.get("p_value"), paired_gap).replace(" ", ""),
        bare_p(row.get("p_holm"), paired_gap).replace(" ", ""),
        score(row.get("seed_wins"), row.get("seed_losses"), paired_gap).replace(" ", ""),
        found.against(label),
    )
