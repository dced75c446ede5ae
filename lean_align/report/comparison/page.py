"""The comparison's page and its Markdown, each written in one rename."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lean_align.artifacts import write_text
from lean_align.errors import StageError
from lean_align.report.comparison import tables, wording
from lean_align.report.comparison.cells import Table, escaped
from lean_align.report.comparison.records import Comparison, read_comparison
from lean_align.report.templates import render


def write_comparison(folder: Path, results: Mapping[str, Any], page: bool = True) -> None:
    """Write FOLDER/index.html, which needs no other file and no network, and FOLDER/results.md.

    Parameters
    ----------
    folder : Path
        DIR/compare; made if it is not there.
    results : mapping
        DIR/compare/results.json.  Any part may be missing, null or NaN while the table fills in.  `recipe`,
        `description`,
        `reference` (a label), `seeds`, `n_problems`, `benchmark`, `pool_size`, `git_commit`, `device`, `processor`,
        `n_cells` and `n_done` (trainings), `training_steps`, `prompts_per_step`; `base`: accuracy; `methods`: label,
        method, n, settings, n_seeds, accuracy, interval, by_seed, cost, lengths, mean_tokens, n_without_signal, kinds,
        n_wrong_gold, correlations, learning_curve, flags; `comparisons`: label, reference, difference (label minus
        reference), interval, interval_problems, interval_seeds, p_value, p_holm, family, test, smallest_p, wins,
        losses, seed_wins, seed_losses, n_seeds; `overlap`: labels, share; `scatter`: seed, label, learnability,
        alignment, chosen, kind; `faults`: sentences.

    page : bool
        Whether to write the page too, which takes seconds; results.md takes none.

    Raises
    ------
    StageError
        If `folder` is a file.
    DiskFullError
        If the disk has no room for the files.
    """
    if folder.exists() and not folder.is_dir():
        raise StageError(f"{folder} is a file, expected the folder for index.html and results.md. Pass its parent.")
    found = read_comparison(results)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "results.md", _markdown(found))
    if page:
        write_text(folder / "index.html", _html(found))


def _html(found: Comparison) -> str:
    return render(
        "compare.html.j2",
        tables=_tables(found),
        plots=_plots(found),
        **_sentences(found),
    )


def _sentences(found: Comparison) -> dict[str, Any]:
    return {
        "recipe": found.tree.get("recipe") or "unnamed recipe",
        "description": found.tree.get("description") or "",
        "facts": wording.facts(found),
        "faults": [str(fault) for fault in found.tree.get("faults") or []],
        "warnings": wording.warnings(found),
        "headline": wording.headline(found),
        "verdicts": wording.verdicts(found),
        "progress": wording.progress(found),
        "reading": wording.READING,
    }


def _tables(found: Comparison) -> dict[str, Table | None]:
    return {
        "results": tables.result_table(found) if found.methods else None,
        "chosen": tables.kinds_table(found) if found.methods else None,
        "length": tables.length_table(found),
        "seeds": tables.seed_table(found) if found.methods else None,
        "comparisons": tables.comparison_table(found),
        "overlap": tables.overlap_table(found),
    }


def _plots(found: Comparison) -> dict[str, Any]:
    # matplotlib takes most of a second to import, and only this function needs it.
    from lean_align.report.comparison import choice_plots, plots

    return {
        "differences": plots.difference_plot(found),
        "sizes": plots.size_plot(found),
        "curves": plots.curve_plot(found),
        "overlap": choice_plots.overlap_plot(found),
        "scatter": choice_plots.scatter_plot(found),
        "lengths": choice_plots.length_plot(found),
    }


def _markdown(found: Comparison) -> str:
    said = _sentences(found)
    parts = [f"# Selection methods side by side: {escaped(str(said['recipe']))}", escaped(said["description"])]
    parts += [f"**FAULT: {escaped(fault)}**" for fault in said["faults"]]
    parts += [f"Flagged: {escaped(warning)}" for warning in said["warnings"]]
    parts += [escaped(said["headline"])]
    parts += ["\n".join(f"- {escaped(verdict)}" for verdict in said["verdicts"])]
    parts += ["\n".join(f"- {escaped(name)}: {escaped(value)}" for name, value in said["facts"])]
    parts += [table.markdown().strip() for table in _tables(found).values() if table is not None]
    parts += ["## How to read this"]
    parts += ["\n".join(f"- **{escaped(term)}.** {escaped(text)}" for term, text in said["reading"])]
    return "\n\n".join(part for part in parts if part) + "\n"
