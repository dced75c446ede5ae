"""The page and the tables of `lean-align compare`: selection methods side by side.

Both may be written while the table fills in: a cell that is still to come is an ellipsis, one that will stay empty a
dash.  The same input gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lean_align.artifacts import write_text
from lean_align.errors import StageError
from lean_align.report import comparison_tables as tables
from lean_align.report import comparison_wording as wording
from lean_align.report.comparison import Comparison
from lean_align.report.templates import render
from lean_align.table import Table, markdown_escape


def write_comparison(folder: Path, found: Comparison, page: bool = True) -> None:
    """Write FOLDER/index.html, which needs no other file and no network, and FOLDER/results.md, the same tables.

    Parameters
    ----------
    folder : Path
        DIR/compare; made if it is not there.
    found : Comparison
        As it was read: any part may be missing while the table fills in.
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
        raise StageError(f"{folder} is a file; expected the folder for index.html and results.md. Pass its parent.")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "results.md", _markdown(found))
    if page:
        write_text(folder / "index.html", _html(found))


def _html(found: Comparison) -> str:
    return render("compare.html.j2", tables=_tables(found), plots=_plots(found), **_sentences(found))


def _sentences(found: Comparison) -> dict[str, Any]:
    return {
        "recipe": found.recipe or "unnamed recipe",
        "description": found.description or "",
        "facts": wording.facts(found),
        "faults": found.faults,
        "warnings": wording.warnings(found),
        "headline": wording.headline(found),
        "verdicts": wording.verdicts(found),
        "progress": wording.progress(found),
        "reading": wording.READING,
    }


def _tables(found: Comparison) -> dict[str, Table | None]:
    return {
        "results": tables.result_table(found) if found.methods else None,
        "cost": tables.cost_table(found),
        "goal": tables.goal_table(found),
        "chosen": tables.kinds_table(found) if found.methods else None,
        "length": tables.length_table(found),
        "seeds": tables.seed_table(found) if found.methods else None,
        "comparisons": tables.comparison_table(found),
        "overlap": tables.overlap_table(found),
    }


def _plots(found: Comparison) -> dict[str, Any]:
    # matplotlib takes most of a second to import, and only this function needs it.
    from lean_align.report import choice_plots, cost_plots
    from lean_align.report import comparison_plots as plots

    return {
        "differences": plots.difference_plot(found),
        "sizes": plots.size_plot(found),
        "curves": plots.curve_plot(found),
        "tokens": cost_plots.token_plot(found),
        "hours": cost_plots.hour_plot(found),
        "overlap": choice_plots.overlap_plot(found),
        "scatter": choice_plots.scatter_plot(found),
        "lengths": choice_plots.length_plot(found),
    }


def _markdown(found: Comparison) -> str:
    said = _sentences(found)
    parts = [
        f"# Selection methods side by side: {markdown_escape(str(said['recipe']))}",
        markdown_escape(said["description"]),
    ]
    parts += [f"**FAULT: {markdown_escape(fault)}**" for fault in said["faults"]]
    parts += [f"Flagged: {markdown_escape(warning)}" for warning in said["warnings"]]
    parts += [markdown_escape(said["headline"])]
    parts += ["\n".join(f"- {markdown_escape(verdict)}" for verdict in said["verdicts"])]
    parts += ["\n".join(f"- {markdown_escape(name)}: {markdown_escape(value)}" for name, value in said["facts"])]
    parts += [table.markdown().strip() for table in _tables(found).values() if table is not None]
    parts += ["## How to read this"]
    parts += ["\n".join(f"- **{markdown_escape(term)}.** {markdown_escape(text)}" for term, text in said["reading"])]
    return "\n\n".join(part for part in parts if part) + "\n"
