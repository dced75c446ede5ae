"""The results table: figures and intervals in place, the paper's apart, Markdown and LaTeX that cannot break."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lean_align.errors import DataError
from lean_align.report.paper import (
    ABLATION_FIGURES,
    DAPO_MATH_17K,
    GSM8K_FIGURES,
    GSM8K_SIZES,
    PaperRow,
    PaperTable,
    gsm8k_table,
    table_for,
)
from lean_align.report.results_table import MethodResults, methods_of, results_table
from lean_align.report.summary import Summary
from lean_align.table import Row, Table, latex_escape

GREEDY = {"num_samples": 1, "temperature": 0.0, "top_p": 1.0, "max_new_tokens": 1024}
SAMPLED = {"num_samples": 8, "temperature": 0.6, "top_p": 0.95, "max_new_tokens": 3072}


def score(value: float, n: int, k: int = 1, truncated: int = 0) -> dict[str, Any]:
    """A SCORE as the evaluation writes it; the interval is 5 points to either side."""
    return {
        "metric": "pass@1" if k == 1 else f"avg@{k}",
        "value": value,
        "interval": [value - 0.05, value + 0.05],
        "interval_kind": "Wilson" if k == 1 else "bootstrap over problems",
        "n": n,
        "num_samples": k,
        "n_correct": round(value * n * k),
        "n_truncated": truncated,
        "n_unanswered": 0,
        "mean_tokens": 210.3,
        "pass_at_k": {"1": value},
    }


def benchmark(title: str, n: int, decoding: dict[str, Any], base: float, trained: float) -> dict[str, Any]:
    k = decoding["num_samples"]
    return {
        "title": title,
        "n": n,
        "source": f"{title} at 1a2b3c",
        "prompt_source": "our own",
        "licence": "MIT",
        "decoding": decoding,
        "models": {"base": score(base, n, k, truncated=3), "trained": score(trained, n, k, truncated=12)},
        "difference": {
            "difference": trained - base,
            "interval": [-0.01, 0.09],
            "wins": 12,
            "losses": 4,
            "p_value": 0.077,
            "test": "McNemar, exact" if k == 1 else "sign flips",
        },
    }


SUMMARY: dict[str, Any] = {
    "seed": 0,
    "model": {"name": "models/Tiny_7"},
    "selection": {"method": "learnalign", "n": 1000, "pool_size": 17290},
    "benchmarks": {
        "gsm8k": benchmark("GSM8K", 1319, GREEDY, 0.25, 0.5),
        "amc2023": benchmark("AMC2023", 83, SAMPLED, 0.125, 0.25),
    },
    "mean": {
        "base": {"value": 0.1875, "interval": [0.15, 0.23]},
        "trained": {"value": 0.375, "interval": [0.33, 0.41]},
        "difference": {
            "difference": 0.1875,
            "interval": [0.1, 0.28],
            "wins": 24,
            "losses": 8,
            "p_value": 0.002,
            "test": "sign flips",
        },
    },
}


def edited(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(SUMMARY), **changes}


def table_of(summary: dict[str, Any], paper: PaperTable | None = None, **given: Any) -> Table:
    return results_table(methods_from_summary(summary), paper, **given)


def methods_from_summary(summary: dict[str, Any]) -> list[MethodResults]:
    return methods_of(Summary.from_json(summary))


def label_of(row: Row) -> str:
    return row.cells[0].value


def values(table: Table, label: str, kind: str = "") -> list[str]:
    return [cell.value for row in table.of_kind(kind) if label_of(row) == label for cell in row.cells[1:]]


# --- what the table holds -------------------------------------------------------------------------------------


def test_methods_are_read_from_a_summary_and_labelled() -> None:
    base, trained = methods_from_summary(json.loads(json.dumps(SUMMARY)))
    assert (base.label, trained.label) == ("base", "LearnAlign, 1,000 of 17,290 (ours)")
    assert (base.model, base.seed) == ("Tiny_7", 0)
    assert trained.scores["amc2023"].interval == (0.2, 0.3)
    assert trained.benchmarks["amc2023"].decoding.top_p == 0.95
    assert trained.mean is not None
    assert trained.mean.benchmarks == ("gsm8k", "amc2023")


@pytest.mark.parametrize(
    ("method", "label"), [("random", "random, 1,000 of 17,290 (ours)"), ("new", "new, 1,000 of 17,290 (ours)")]
)
def test_other_selections_are_named(method: str, label: str) -> None:
    summary = edited(selection=SUMMARY["selection"] | {"method": method})
    assert methods_from_summary(summary)[1].label == label


def test_models_evaluated_without_a_run_are_rows_of_their_own() -> None:
    summary = edited(model=None, selection=None, mean={"org/a": SUMMARY["mean"]["base"]})
    for tree in summary["benchmarks"].values():
        tree["models"] = {"org/a": tree["models"]["base"], "runs/b": tree["models"]["trained"]}
    table = table_of(summary)
    assert values(table, "org/a") == ["25.0", "12.5", "18.8"]
    assert values(table, "runs/b") == ["50.0", "25.0", "–"]  # noqa: RUF001
    assert "Model of the runs" not in table.markdown()


def test_cells_heads_and_notes() -> None:
    table = table_of(SUMMARY)
    assert [column.title for column in table.columns] == ["Method", "GSM8K", "AMC2023", "Mean"]
    assert table.columns[1].under == "n = 1,319; pass@1, greedy"
    assert table.columns[2].under == "n = 83; avg@8, T 0.6, top_p 0.95"
    assert values(table, "LearnAlign, 1,000 of 17,290 (ours)") == ["50.0", "25.0", "37.5"]
    assert table.rows[0].cells[1].under == "[20.0, 30.0]"
    notes = " ".join(table.notes)
    for words in (
        "Model of the runs' rows: Tiny_7.",
        "GSM8K: Wilson; AMC2023: bootstrap over problems.",
        "Mean: unweighted, over GSM8K and AMC2023",
        "AMC2023: k = 8, temperature 0.6, top_p 0.95, max_new_tokens 3,072",
        "GSM8K: k = 1, greedy (temperature 0, top_p 1), max_new_tokens 1,024",
    ):
        assert words in notes


def test_truncated_completions_are_counted_in_rows_of_their_own() -> None:
    """3 of 1,319 completions, and 3 of 83 problems x 8 samples = 664."""
    table = table_of(SUMMARY)
    assert values(table, "base", "truncated") == ["3 of 1,319", "3 of 664", ""]
    assert "| *truncated:* base | 3 of 1,319 | 3 of 664 |" in table.markdown()
    assert "Truncated completions" in table.latex()


def test_a_method_that_lacks_a_benchmark_has_a_dash_and_no_mean() -> None:
    summary = edited()
    summary["benchmarks"]["amc2023"]["models"]["base"] = None
    table = table_of(summary)
    assert values(table, "base") == ["25.0", "–", "–"]  # noqa: RUF001
    assert values(table, "base", "truncated")[1] == "–"  # noqa: RUF001
    assert values(table, "LearnAlign, 1,000 of 17,290 (ours)")[2] == "37.5"


def test_a_mean_over_other_columns_is_not_shown() -> None:
    """The summary's mean is over two benchmarks; a table of one has no mean, one of three not this one."""
    assert [column.name for column in table_of(SUMMARY, benchmarks=["gsm8k"]).columns[1:]] == ["gsm8k"]
    more = edited()
    more["benchmarks"]["crux"] = benchmark("CRUX", 800, GREEDY, 0.2, 0.2)
    table = results_table([*methods_from_summary(SUMMARY), *methods_from_summary(more)])
    assert values(table, "LearnAlign, 1,000 of 17,290 (ours), seed 0") == [
        *("50.0", "25.0", "–", "–"),  # noqa: RUF001
        *("50.0", "25.0", "20.0", "37.5"),
    ]


def test_columns_come_in_the_order_asked_for() -> None:
    table = table_of(SUMMARY, benchmarks=["amc2023", "gsm8k"])
    assert [column.name for column in table.columns[1:]] == ["amc2023", "gsm8k", "mean"]
    assert values(table, "base") == ["12.5", "25.0", "18.8"]


def test_the_same_base_is_shown_once_and_seeds_tell_runs_apart() -> None:
    other = edited(seed=1)
    other["benchmarks"]["gsm8k"]["models"]["trained"]["value"] = 0.51
    table = results_table([*methods_from_summary(SUMMARY), *methods_from_summary(other)])
    labels = [label_of(row) for row in table.of_kind("")]
    name = "LearnAlign, 1,000 of 17,290 (ours)"
    assert labels == ["base", f"{name}, seed 0", f"{name}, seed 1"]


def test_different_models_are_named_in_their_rows() -> None:
    other = edited(model={"name": "org/Other"})
    labels = [label_of(row) for row in results_table(methods_from_summary(SUMMARY) + methods_from_summary(other)).rows]
    assert labels[:3] == ["base, Tiny_7", "LearnAlign, 1,000 of 17,290 (ours), Tiny_7", "base, Other"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 40}, r"in n \(83 and 40\)"),
        ({"decoding": SAMPLED | {"temperature": 1.0}}, "in decoding"),
        ({"source": "x"}, "in source"),
    ],
)
def test_figures_of_different_conditions_share_no_column(change: dict[str, Any], words: str) -> None:
    other = edited()
    other["benchmarks"]["amc2023"] |= change
    with pytest.raises(DataError, match=f"base and .* differ on amc2023 {words}.*Evaluate both in the same way"):
        results_table([methods_from_summary(SUMMARY)[0], methods_from_summary(other)[1]])


def test_nothing_to_show_is_an_error() -> None:
    assert methods_from_summary({"benchmarks": None}) == []
    with pytest.raises(DataError, match="Evaluate them first"):
        results_table([])
    with pytest.raises(DataError, match="got the benchmarks gsm9k"):
        table_of(SUMMARY, benchmarks=["gsm9k"])


def test_a_summary_without_a_field_is_refused_by_name() -> None:
    summary = edited()
    del summary["benchmarks"]["gsm8k"]["models"]["base"]["n_truncated"]
    with pytest.raises(DataError, match=r"base of gsm8k of summary.json has .* expected n_truncated too"):
        methods_from_summary(summary)


# --- the paper's figures --------------------------------------------------------------------------------------


def test_the_papers_rows_are_labelled_and_have_no_interval() -> None:
    table = table_of(SUMMARY, DAPO_MATH_17K)
    rows = table.of_kind("paper")
    assert [label_of(row) for row in rows][::5] == ["base (Qwen2.5-7B)", "LearnAlign (Qwen2.5-7B)"]
    assert not any(cell.under for row in rows for cell in row.cells)
    assert rows[0].cells[1].value == "26.4"
    assert "arXiv 2506.11480 v4" in table.markdown()
    assert "[" not in next(line for line in table.markdown().splitlines() if "*paper:*" in line)


def test_the_papers_mean_stands_only_next_to_all_its_benchmarks() -> None:
    assert values(table_of(SUMMARY, DAPO_MATH_17K), "base (Qwen2.5-7B)", "paper") == ["26.4", "18.1", "–"]  # noqa: RUF001
    whole = edited(mean=None)
    whole["benchmarks"] = {name: benchmark(name, 10, GREEDY, 0.2, 0.3) for name in DAPO_MATH_17K.benchmarks}
    table = table_of(whole, DAPO_MATH_17K)
    assert values(table, "base (Qwen2.5-7B)", "paper")[-1] == "30.7"
    assert "The mean printed for LearnAlign is 54.6; that of the five figures next to it is 53.6." in table.notes


def test_the_printed_means_are_those_of_the_figures_but_for_one() -> None:
    """Guards the copying: 88.3 + 70.4 + 35.4 + 30.0 + 44.0 = 268.1, a mean of 53.6 where the paper prints 54.6."""
    odd = {row.method: row.recomputed_mean for row in DAPO_MATH_17K.rows if row.recomputed_mean is not None}
    assert odd == {"LearnAlign": pytest.approx(53.62)}
    assert PaperRow("x", {"a": 1.0, "b": 2.0}, 1.6).recomputed_mean == 1.5


def test_the_papers_gsm8k_figures() -> None:
    rows = {row.method: row.percent["gsm8k"] for row in gsm8k_table(1000).rows}
    assert (rows["base"], rows["all 7,473"], rows["random"], rows["LearnAlign"]) == (55.7, 77.0, 75.6, 77.5)
    assert all(len(figures) == len(GSM8K_SIZES) for figures in GSM8K_FIGURES.values())
    assert ABLATION_FIGURES["LearnAlign"] == GSM8K_FIGURES["LearnAlign"][2:]
    with pytest.raises(ValueError, match="got n_selected = 64; the paper has 100, 500, 1000, 2000"):
        gsm8k_table(64)


def test_which_of_the_papers_tables_goes_with_a_run() -> None:
    assert table_for(["gsm8k"], 1000) == gsm8k_table(1000)
    assert table_for(["gsm8k"], 64) is None
    assert table_for(["gsm8k", "crux"], 64) is DAPO_MATH_17K
    assert table_for(["sums", "crux"], 1000) is None


def test_a_paper_without_any_of_the_columns_adds_nothing() -> None:
    table = table_of(SUMMARY, PaperTable("m", "t", ("other",), (PaperRow("base", {"other": 1.0}),)))
    assert {row.kind for row in table.rows} == {"", "truncated"}
    assert "paper" not in table.groups


# --- Markdown and LaTeX ---------------------------------------------------------------------------------------

HOSTILE = "50% of a_b & c|d {e} \\f [g] ~^ #$ <br> `h` *i*\n–−"  # noqa: RUF001


def hostile_summary() -> dict[str, Any]:
    summary = edited(model={"name": HOSTILE}, selection=SUMMARY["selection"] | {"method": HOSTILE})
    summary["benchmarks"]["gsm8k"] |= {"title": HOSTILE, "source": HOSTILE, "licence": HOSTILE}
    return summary


def markdown_faults(text: str) -> list[str]:
    """Rows of a Markdown table whose number of unescaped bars is not the first row's, and unexplained footnotes."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    bars = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows]
    faults = [row for row, n in zip(rows, bars, strict=True) if n != bars[0]]
    marks, given_notes = (
        set(re.findall(r"\[\^([\w-]+)\](?!:)", text)),
        set(re.findall(r"^\[\^([\w-]+)\]:", text, re.MULTILINE)),
    )
    return faults + sorted(marks ^ given_notes)


def latex_faults(text: str) -> list[str]:
    """What keeps a table from compiling: braces or environments that do not balance, rows of the wrong width."""
    plain = re.sub(r"\\\\|\\[&%$#_{}]", "", text)
    faults = [] if plain.count("{") == plain.count("}") else ["braces"]
    faults += [f"bare {letter}" for letter in "%#_~^" if letter in plain]
    faults += ["math"] if re.sub(r"\$-\$", "", plain).count("$") else []
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end){(\w+)}", text):
        if kind == "begin":
            opened.append(name)
        elif not opened or opened.pop() != name:
            faults.append(f"environment {name}")
    faults += opened
    columns = len(re.search(r"{tabular}{(\w+)}", text)[1])  # type: ignore[index]
    body = [line for line in text.splitlines() if line.endswith(r" \\") and r"\multicolumn" not in line]
    faults += [line for line in body if len(re.findall(r"(?<!\\)&", line)) != columns - 1]
    return faults + [line for line in text.splitlines() if line.lstrip().startswith("[")]


@pytest.mark.parametrize("summary", [SUMMARY, hostile_summary()], ids=["plain", "hostile"])
def test_markdown_and_latex_hold_together(summary: dict[str, Any]) -> None:
    table = table_of(summary, DAPO_MATH_17K)
    assert markdown_faults(table.markdown()) == []
    assert latex_faults(table.latex(HOSTILE)) == []


@pytest.mark.parametrize("planted", ["| a | b |\n", "| a | b | c \\| d |\n", "text[^nowhere]\n"])
def test_the_markdown_check_finds_planted_faults(planted: str) -> None:
    assert markdown_faults(table_of(SUMMARY).markdown() + planted)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"\end{tabular}", ""),
        (r"base & ", "base "),
        ("{tabular}{lrrr}", "{tabular}{lrr}"),
        ("95 \\%", "95 %"),
        ("\\emph{", "\\emph"),
    ],
)
def test_the_latex_check_finds_planted_faults(old: str, new: str) -> None:
    text = table_of(SUMMARY).latex()
    assert old in text
    assert latex_faults(text.replace(old, new, 1))


def test_markdown_example() -> None:
    lines = table_of(SUMMARY).markdown().splitlines()
    assert lines[0].startswith(
        "| Method | GSM8K[^gsm8k]<br>n = 1,319; pass@1, greedy | AMC2023[^amc2023]<br>n = 83; avg@8"
    )
    assert lines[2] == "| base | 25.0 [20.0, 30.0] | 12.5 [7.5, 17.5] | 18.8 [15.0, 23.0] |"
    assert lines[-1] == "[^amc2023]: AMC2023. Source: AMC2023 at 1a2b3c. Prompt: our own. Licence: MIT."


def test_latex_example() -> None:
    text = table_of(SUMMARY).latex("A & B")
    assert r"\caption{A \& B}" in text
    assert "base & 25.0 & 12.5 & 18.8 \\\\\n & {\\scriptsize {[}20.0, 30.0{]}} & " in text
    assert r"top\_p 0.95" in text
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


@settings(max_examples=100)
@given(text=st.text(max_size=30))
def test_escaped_latex_leaves_no_command_of_the_text(text: str) -> None:
    escaped = latex_escape(text)
    rest = re.sub(r"\\text(backslash|ascii\w+|less|greater|bar){}|\\[&%$#_{}]|{\[}|{\]}|\$-\$", "", escaped)
    assert not set(rest) & set("\\&%$#_{}[]~^<>|\n")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    body = table_of(SUMMARY, DAPO_MATH_17K).latex("50 % & more")
    document = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{body}\\end{{document}}"
    (tmp_path / "a.tex").write_text(document, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
