"""The page and the tables of `lean-align compare`: selection methods side by side.

`write_comparison` writes FOLDER/index.html, one file that needs nothing else, and FOLDER/results.md, the same
tables in Markdown.  `comparison_lines` is the table for a terminal.  All three may be called while the table fills
in: a cell that is still to come is an ellipsis, one that will stay empty a dash.  The same input gives the same bytes.
"""

from lean_align.report.comparison.lines import comparison_lines
from lean_align.report.comparison.page import write_comparison

__all__ = ["comparison_lines", "write_comparison"]
