"""One table of text: by hand in Markdown, in LaTeX and on a terminal."""

from __future__ import annotations

from lean_align.table import Cell, Column, Row, Table

TABLE = Table(
    columns=(
        Column("Method", words=True),
        Column("GSM_8K", "n = 3; greedy", name="gsm8k"),
        Column("What", words=True),
    ),
    rows=(
        Row((Cell("base"), Cell("5.0", "[1.0, 9.0]"), Cell("a|b"))),
        Row((Cell("best"), Cell("10.0"), Cell("")), marked=True),
        Row((Cell("theirs"), Cell("7.5"), Cell("c")), kind="paper"),
    ),
    heading="Results",
    caption="In percent.",
    groups={"paper": "As printed"},
    notes=("A note.",),
    sources={"gsm8k": "Where it is from."},
)


def test_markdown_by_hand() -> None:
    assert TABLE.markdown().splitlines() == [
        "## Results",
        "",
        "In percent.",
        "",
        r"| Method | GSM\_8K[^gsm8k]<br>n = 3; greedy | What |",
        "| --- | ---: | --- |",
        r"| base | 5.0 [1.0, 9.0] | a\|b |",
        "| **best** | **10.0** |  |",
        "| *paper:* theirs | 7.5 | c |",
        "",
        "- A note.",
        "",
        "[^gsm8k]: Where it is from.",
    ]


def test_latex_by_hand() -> None:
    lines = TABLE.latex().splitlines()
    assert lines[2:4] == [r"\caption{In percent.}", r"\begin{tabular}{lrl}"]
    assert lines[4:17] == [
        r"\toprule",
        r"Method & \textbf{GSM\_8K} & \textbf{What} \\",
        r" & {\scriptsize n = 3} &  \\",
        r" & {\scriptsize greedy} &  \\",
        r"\midrule",
        r"base & 5.0 & a\textbar{}b \\",
        r" & {\scriptsize {[}1.0, 9.0{]}} &  \\",
        r"best & 10.0 &  \\",
        r"\midrule",
        r"\multicolumn{3}{l}{\emph{As printed}} \\",
        r"theirs & 7.5 & c \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert TABLE.latex("50 %").splitlines()[2] == r"\caption{50 \%}"


def test_text_by_hand() -> None:
    assert TABLE.text() == [
        "Method          GSM_8K  What",
        "----------------------------",
        "base    5.0 [1.0, 9.0]  a|b",
        "best              10.0",
        "theirs             7.5  c",
    ]


def test_text_without_a_rule_or_a_head() -> None:
    rows = [("demo", "1", "small"), ("gsm8k-cpu", "22", "larger\x1b[2J")]
    table = Table.of_texts(("recipe", "n", ""), rows, words=(0, -1))
    assert table.text(rule=False) == ["recipe      n", "demo        1  small", "gsm8k-cpu  22  larger\ufffd[2J"]
    assert Table.of_texts(("", "", ""), rows[:1]).text() == ["demo  1  small"]
