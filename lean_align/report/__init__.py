"""The pages that a run leaves behind: RUN/report/index.html and RUN/compare/index.html, each one file by itself.

`write_report` takes records that the stages already wrote (`Summary`, scores, selection, samples,
training log) and writes plain HTML with inline CSS and SVG: no script, no request to anywhere.  The same
input gives the same bytes.  `write_comparison` does the same for selection methods side by side.
matplotlib and jinja2 are imported on the first call, not with this package.
"""

from lean_align.report.comparison import Comparison
from lean_align.report.comparison_page import write_comparison
from lean_align.report.page import write_report
from lean_align.report.summary import ReportScores, Summary
from lean_align.report.terminal import comparison_lines, evaluation_lines, run_lines

__all__ = [
    "Comparison",
    "ReportScores",
    "Summary",
    "comparison_lines",
    "evaluation_lines",
    "run_lines",
    "write_comparison",
    "write_report",
]
