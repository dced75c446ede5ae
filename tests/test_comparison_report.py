"""The comparison's page, Markdown and terminal table: they say what was found, and no more.

`python -m tests.test_comparison_report FOLDER` writes an example to look at.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lean_align import report
from lean_align.errors import StageError
from lean_align.report import Comparison
from lean_align.report import comparison_tables as tables
from lean_align.report import comparison_wording as wording
from lean_align.table import Table, markdown_escape
from tests.test_report import Page, outside_references

HOSTILE = '<script>alert("x|y")</script>'
SEEDS = list(range(8))
KINDS = ("target", "too easy", "too hard", "long-winded", "unlike", "near-duplicate")
LABELS = (
    *("learnalign@130", "random@130", "random-length-matched@130", "learnability@130", "alignment@130", "full"),
    *("learnalign@50", "learnalign@270", "random@50", "random@270", "learnability@50", "learnability@270"),
    *("token-length@130", "learnalign-loo@130", "gradient-dot@130", "pass-rate-band@130", "top-ppl@130", "ifd@130"),
    *("selectit@130", "feature-similarity@130", "learnalign-diverse@130"),
)
POOL = 1000


def a_method(label: str, position: int, rng: np.random.Generator) -> dict[str, Any]:
    name, _, size = label.partition("@")
    n = int(size.partition("+")[0]) if size else POOL
    values = 0.74 - 0.004 * position + 0.01 * np.log(n / 130) + rng.normal(0, 0.012, len(SEEDS))
    kinds = rng.dirichlet([3, 1, 1, 1, 2, 1]) * n
    edges = np.linspace(10, 110, 11)
    curve = 0.4 + 0.35 * (1 - np.exp(-np.arange(1, 25) / 8)) + rng.normal(0, 0.015, 24) - 0.01 * position
    ranks = name not in {"random", "random-length-matched", "full"}
    return {
        "label": label,
        "method": name,
        "n": n,
        "settings": {},
        "n_seeds": len(SEEDS),
        "accuracy": float(values.mean()),
        "interval": [float(values.mean() - 0.018), float(values.mean() + 0.018)],
        "by_seed": {str(seed): float(value) for seed, value in zip(SEEDS, values, strict=True)},
        "cost": {
            "selection_seconds": 0.4 if name == "random" else 181.0 + position,
            "generated_tokens": 0 if name == "random" else 345678 + position,
            "training_tokens": 98765 + position,
            "training_seconds": 51.5,
        },
        "lengths": {
            "edges": edges.tolist(),
            "counts": rng.poisson(30 * np.exp(-(((edges[1:] - 45) / 25) ** 2))).tolist(),
        },
        "mean_tokens": 41.25 + position,
        "n_without_signal": 0.0 if ranks else 3.5,
        "kinds": dict(zip(KINDS, kinds.round(1).tolist(), strict=True)),
        "n_wrong_gold": 4.0,
        "correlations": {
            "n_tokens": {"spearman": 0.12, "pearson": -0.2 - position / 100, "partial": 0.05},
            "gradient_norm": {"spearman": 0.4, "pearson": 0.41, "partial": None},
        }
        if ranks
        else None,
        "learning_curve": {
            "step": list(range(1, 25)),
            "reward": curve.tolist(),
            "low": (curve - 0.03).tolist(),
            "high": (curve + 0.03).tolist(),
        },
        "flags": [],
    }


def a_comparison(method: dict[str, Any], reference: dict[str, Any], position: int) -> dict[str, Any]:
    gap = method["accuracy"] - reference["accuracy"]
    return {
        "label": method["label"],
        "reference": reference["label"],
        "difference": gap,
        "interval": [gap - 0.02, gap + 0.02],
        "interval_problems": [gap - 0.017, gap + 0.017],
        "interval_seeds": [gap - 0.011, gap + 0.011],
        "p_value": min(1.0, 0.0078 * (position + 1)),
        "p_holm": min(1.0, 0.0312 * (position + 1)),
        "family": "primary" if 0 < position < 5 else "others",
        "test": "sign flips over 8 seeds, exact",
        "smallest_p": 0.0078125,
        "wins": 210 + position,
        "losses": 260,
        "seed_wins": 2,
        "seed_losses": 6,
        "n_seeds": len(SEEDS),
    }


def make_results(labels: tuple[str, ...] = LABELS) -> dict[str, Any]:
    """A finished comparison with made-up figures."""
    rng = np.random.default_rng(0)
    methods = [a_method(label, position, rng) for position, label in enumerate(labels)]
    share = rng.uniform(0.1, 0.6, (len(labels), len(labels)))
    share = (share + share.T) / 2
    np.fill_diagonal(share, 1.0)
    success = rng.integers(0, 9, POOL) / 8
    alignment = rng.normal(0.02, 0.02, POOL)
    chosen = np.argsort(-success * (1 - success) * alignment) < 130
    return {
        "recipe": "testbed",
        "description": "A pool made to be hard on selectors.",
        "reference": labels[0],
        "seeds": SEEDS,
        "n_problems": 500,
        "benchmark": "testbed",
        "pool_size": POOL,
        "git_commit": "abc123",
        "device": "cpu",
        "processor": "Two Cores",
        "n_cells": len(SEEDS) * len(labels),
        "n_done": len(SEEDS) * len(labels),
        "training_steps": 24,
        "prompts_per_step": 12,
        "base": {"accuracy": 0.413, "interval": [0.37, 0.456]},
        "methods": methods,
        "comparisons": [
            a_comparison(method, methods[0], position) for position, method in enumerate(methods) if position
        ],
        "overlap": {"labels": list(labels), "share": share.tolist()},
        "scatter": {
            "seed": 0,
            "label": labels[0],
            "learnability": (success * (1 - success)).tolist(),
            "alignment": alignment.tolist(),
            "chosen": chosen.astype(int).tolist(),
            "kind": rng.choice(KINDS, POOL).tolist(),
        },
        "faults": [],
    }


STEPS = (0, 5, 12, 24)


def with_costs(results: dict[str, Any]) -> dict[str, Any]:
    """The same with steps evaluated: the second method never comes to the goal, the third had it first."""
    found = copy.deepcopy(results)
    found["goal"] = {"label": "full", "step": 24, "accuracy": 0.7, "n_problems": 200}
    for position, method in enumerate(found["methods"]):
        start, growth = method["cost"]["generated_tokens"], 0.1 + 0.01 * position
        accuracy = [0.4 + growth * step / 8 for step in STEPS]
        method["cost"] |= {
            "selection_trained_tokens": 123000.0 + position,
            "selection_read_tokens": 0.0,
            "trained_tokens": 45678.0 + position,
            "total_tokens": start + 123000 + 98765 + 45678 + position,
        }
        method["cost_curve"] = {
            "step": list(STEPS),
            "accuracy": accuracy,
            "low": [value - 0.05 for value in accuracy],
            "high": [value + 0.05 for value in accuracy],
            "generated_tokens": [start + 4000 * step for step in STEPS],
            "trained_tokens": [123000 + 2000 * step for step in STEPS],
            "total_tokens": [start + 123000 + 6000 * step for step in STEPS],
            "hours": [0.05 + 0.001 * step for step in STEPS],
        }
        ratio = {"value": 0.5 + position / 100, "interval": [0.3, 0.9], "share_reached": 1.0}
        method["to_goal"] = {
            "n_seeds": 8,
            "tokens": {"value": 51234.4 + position, "interval": [40000, 60000], "share_reached": 1.0},
            "hours": {"value": 0.123, "interval": [0.1, 0.2], "share_reached": 1.0},
            "to_reference": ratio,
            "to_random": ratio,
        }
    if len(found["methods"]) > 1:
        never = {"value": None, "interval": [90000, None], "share_reached": 0.2, "at_least": 98765.0}
        own = {"tokens": never, "to_reference": {"at_least": 1.93, "interval": [1.1, None]}, "to_random": None}
        found["methods"][1]["to_goal"] |= own
    return found


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Page and Markdown of 21 methods on 8 seeds."""
    return write(tmp_path_factory.mktemp("complete") / "compare", make_results())


def comparison_lines(results: dict[str, Any]) -> list[str]:
    return report.comparison_lines(Comparison.from_json(results))


def write_comparison(folder: Path, results: dict[str, Any]) -> None:
    report.write_comparison(folder, Comparison.from_json(results))


def write(folder: Path, results: dict[str, Any]) -> tuple[str, str]:
    write_comparison(folder, results)
    return (folder / "index.html").read_text("utf-8"), (folder / "results.md").read_text("utf-8")


def plain(results: dict[str, Any]) -> dict[str, Any]:
    """The same with nothing to plot but what the tables need: fast."""
    bare = copy.deepcopy(results) | {"overlap": None, "scatter": None}
    for method in bare["methods"]:
        method |= {"lengths": None, "learning_curve": None}
    return bare


def half_full() -> dict[str, Any]:
    """Three methods of which the first has all seeds, the second three, and the third none."""
    results = make_results(LABELS[:3]) | {"n_done": 11}
    second, third = results["methods"][1:]
    second |= {"n_seeds": 3, "by_seed": {seed: second["by_seed"][seed] for seed in "012"}}
    results["methods"][2] = {key: third[key] for key in ("label", "method", "n")}
    del results["comparisons"][1]
    results["comparisons"][0] |= {"p_value": None, "p_holm": None, "n_seeds": 3}
    results["overlap"]["share"] = [[1.0, 0.2, None], [0.2, 1.0, None], [None, None, None]]
    return results


def row_of(table: Table, label: str) -> list[str]:
    return next([cell.text for cell in row.cells] for row in table.rows if row.cells[0].value == label)


def found(results: dict[str, Any]) -> Comparison:
    return Comparison.from_json(results)


# --- the page as a document -------------------------------------------------------------------------------


def test_page_is_sound_and_self_contained(complete: tuple[str, str]) -> None:
    html, _ = complete
    page = Page(html)
    assert page.faults == []
    assert outside_references(html) == []
    assert "http" not in html.replace("http-equiv", "")
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = [value[1:] for value in page.values("href")] + " ".join(page.values("aria-labelledby")).split()
    assert set(targets) <= set(ids)
    levels = [int(tag[1]) for tag in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_plots_are_described_and_tables_captioned(complete: tuple[str, str]) -> None:
    page = Page(complete[0])
    described = [data for tag, data in page.texts if tag == "desc"]
    assert page.tags.count("svg") == len(described) == 12  # six plots, each wide and narrow
    assert all(len(text) > 20 for text in described)
    assert page.tags.count("caption") == page.tags.count("table") == 6
    assert not re.search(r"#0[1-9a-f]0[1-9a-f]0[1-9a-f]\b", complete[0]), "a placeholder colour was not replaced"


def test_costs_are_drawn_and_tabulated_where_steps_were_evaluated(tmp_path: Path) -> None:
    results = with_costs(make_results())
    html, markdown = write(tmp_path, results)
    page = Page(html)
    assert page.faults == []
    assert page.tags.count("svg") == 16
    assert page.tags.count("table") == 8
    assert len(page.values("id")) == len(set(page.values("id")))
    described = [data for tag, data in page.texts if tag == "desc" and "At the last step" in data]
    # of the first method 345,678 + 123,000 + 24 x 6,000 tokens
    assert sum("learnalign@130 70.0 % at 612,678; random@130" in text for text in described) == 2
    assert sum("learnalign@130 70.0 % at 0.074; random@130" in text for text in described) == 2
    for text in (page.text, markdown):
        assert "Until the accuracy of full at step 24 (70.0 %) learnalign@130 spent 51,234 tokens" in text
        assert "above 98,765" in text
    assert "No steps of the trainings were evaluated" not in page.text
    assert (
        "No steps of the trainings were evaluated"
        in Page(write(tmp_path / "plain", plain(results_of_before()))[0]).text
    )


def results_of_before() -> dict[str, Any]:
    return make_results(LABELS[:2])


def test_costs_of_the_tables_are_those_given() -> None:
    comparison = found(with_costs(make_results(LABELS[:3])))
    costs, goal = tables.cost_table(comparison), tables.goal_table(comparison)
    assert costs is not None
    assert goal is not None
    row = row_of(costs, "random@130")
    assert row[2:] == ["0", "123,001", "0", "98,766", "45,679", "267,444", "0.014"]
    assert [column.title for column in goal.columns][-2:] == ["Times learnalign@130", "Times random@130"]
    last = ["8", "70.0", "51,234 [40,000, 60,000]", "0.12 [0.1, 0.2]", "1", "0.50 [0.30, 0.90]"]
    assert row_of(goal, "learnalign@130")[1:] == last
    assert row_of(goal, "random@130")[3:] == [
        "above 98,765 [90,000, never]",
        "0.12 [0.1, 0.2]",
        "above 1.93 [1.10, never]",
        "1",
    ]
    assert "(70.0 % of 200 problems, the same for all)" in goal.caption
    before = found(results_of_before())
    assert (tables.cost_table(before), tables.goal_table(before)) == (None, None)


def test_costs_in_the_terminal_fit_and_say_what_was_not_reached() -> None:
    lines = comparison_lines(with_costs(make_results()))
    head = next(i for i, line in enumerate(lines) if line.startswith("until 70.0 % (full)"))
    rows = lines[head + 2 :][: len(LABELS)]
    assert [row.split()[0] for row in rows] == list(LABELS)
    assert rows[1].split() == ["random@130", "above", "98,765", "[90,000,", "never]", "0.12", "–"]  # noqa: RUF001
    assert max(map(len, [lines[head], *rows])) <= 100
    assert not any("until" in line for line in comparison_lines(make_results()))


def test_costs_that_are_still_to_come_wait() -> None:
    results = with_costs(half_full() | {"methods": make_results(LABELS[:3])["methods"]})
    results["methods"][2] = {key: results["methods"][2][key] for key in ("label", "method", "n")}
    goal = tables.goal_table(found(results))
    assert goal is not None
    assert row_of(goal, LABELS[2])[1:] == ["…"] * 6


def test_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    results = make_results(LABELS[:3])
    assert write(tmp_path / "a", results) == write(tmp_path / "b", json.loads(json.dumps(results)))


@pytest.mark.parametrize("results", [{}, {"methods": None, "recipe": None}, {"methods": [{"method": "random"}]}])
def test_next_to_nothing_is_a_page(tmp_path: Path, results: dict[str, Any]) -> None:
    html, markdown = write(tmp_path, results)
    assert Page(html).faults == []
    assert "No result of the reference yet." in html
    assert "No result of the reference yet." in markdown
    assert comparison_lines(results)


@pytest.mark.parametrize("text", [HOSTILE, "\x1b[2J\ud800 [x](y)"])
def test_labels_are_escaped(tmp_path: Path, text: str) -> None:
    results = make_results((text, "random@130"))
    results |= dict.fromkeys(("recipe", "description", "git_commit"), text) | {"faults": [text]}
    results["methods"][0] |= {"settings": {text: text}, "flags": [text]}
    html, markdown = write(tmp_path, results)
    assert Page(html).faults == []
    assert outside_references(html) == []
    assert "<script" not in html
    assert "<script" not in markdown.replace("\\<", "")
    assert not re.search(r"\]\(", markdown)
    assert "\x1b" not in "".join(comparison_lines(results)) + html + markdown


def test_a_bar_in_a_label_keeps_the_columns_of_markdown(tmp_path: Path) -> None:
    _, markdown = write(tmp_path, plain(make_results((HOSTILE, "random@130"))))
    rows = [line for line in markdown.splitlines() if line.startswith("| ") and "alert" in line]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} >= {12}
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 12  # 11 columns


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "compare").write_text("x")
    with pytest.raises(StageError, match="is a file; expected the folder"):
        write_comparison(tmp_path / "compare", {})


# --- what it says -----------------------------------------------------------------------------------------


def test_numbers_of_the_tables_are_those_given() -> None:
    results = make_results(LABELS[:3])
    results["methods"][1] |= {"accuracy": 0.7384, "interval": [0.7, 0.7761]}
    row = results["comparisons"][0] | {"difference": -0.0123, "interval": [-0.031, 0.0064], "p_value": 0.0312}
    results["comparisons"][0] = row | {"p_holm": 0.12345, "seed_wins": 1, "seed_losses": 7}
    assert row_of(tables.result_table(found(results)), "random@130") == [
        *("random@130", "130", "8", "73.8 [70.0, 77.6]", "−1.2 [−3.1, +0.6]", "0.031", "0.123", "1 : 7"),  # noqa: RUF001
        *("0.4 s", "0", "98,766"),
    ]
    full_table = tables.comparison_table(found(results))
    assert full_table is not None
    assert row_of(full_table, "random@130")[-4:] == ["211 : 260", "0.031", "0.123", "0.008"]
    assert "sign flips over 8 seeds, exact" in full_table.caption


def test_page_markdown_and_terminal_hold_the_same_figures(complete: tuple[str, str]) -> None:
    html, markdown = complete
    text = Page(html).text
    for row in tables.result_table(found(make_results())).rows:
        assert " ".join(cell.text for cell in row.cells if cell.text) in text
        assert markdown_escape(row.cells[3].text) in markdown
    for fact in ("abc123", "Two Cores", "24 steps of 12 prompts", "500 problems", "168 of 168 trainings done"):
        assert fact in text
        assert fact in markdown
    lines = comparison_lines(make_results())
    assert [line.split()[0] for line in lines[3:24]] == list(LABELS)
    assert "40.0" not in lines[3]
    assert max(len(line) for line in lines[:24]) <= 100
    assert len({len(line) for line in lines[4:24]}) == 1, "columns are not aligned"


def test_kinds_seeds_lengths_and_overlap_are_those_given() -> None:
    results = make_results(LABELS[:2])
    results["methods"][0] |= {"kinds": {"target": 30.5, "unlike": 60}, "n_wrong_gold": 4.0, "n_without_signal": 3.5}
    results["methods"][1]["by_seed"]["3"] = 0.6543
    results["overlap"]["share"][0][1] = 0.456
    comparison = found(results)
    chosen = tables.kinds_table(comparison)
    assert dict(zip([column.title for column in chosen.columns], row_of(chosen, "learnalign@130"), strict=True)) | {
        "target": "30.5"
    } == {
        **{"Method": "learnalign@130", "Prompts": "130", "target": "30.5", "unlike": "60.0", "No signal": "3.5"},
        **dict.fromkeys(("too easy", "too hard", "long-winded", "near-duplicate"), "0.0"),
        **{"Wrong gold": "4.0", "Mean length, tokens": "41.2"},
    }
    assert row_of(tables.seed_table(comparison), "random@130")[4] == "65.4"
    length, overlap = tables.length_table(comparison), tables.overlap_table(comparison)
    assert length is not None
    assert overlap is not None
    assert [row.cells[0].value for row in length.rows] == ["learnalign@130"]  # random gives no values
    assert row_of(length, "learnalign@130")[1:] == ["+0.12", "−0.20", "+0.05", "+0.40", "+0.41", "–"]  # noqa: RUF001
    assert overlap.rows[0].cells[2].value == "46"


def test_half_full_table_waits_and_does_not_invent(tmp_path: Path) -> None:
    html, markdown = write(tmp_path, half_full())
    assert Page(html).faults == []
    assert "11 of 24 trainings done. Figures and p-values can still change." in Page(html).text
    assert "11 of 24 trainings done" in markdown
    table = tables.result_table(found(half_full()))
    assert row_of(table, "random@130")[2] == "3 of 8"
    assert row_of(table, "random@130")[5:7] == ["…", "…"]
    assert row_of(table, "random-length-matched@130")[2:] == ["0 of 8", *["…"] * 8]
    assert "nothing is shown about learnalign@130 and random@130" in Page(html).text
    line = next(line for line in comparison_lines(half_full()) if line.startswith("random-length"))
    assert line.split() == ["random-length-matched@130", "0/8", *["…"] * 7]


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_p_is_not_shown_as_zero(tmp_path: Path, missing: float | None) -> None:
    results = plain(make_results(LABELS[:2]))
    results["comparisons"][0] |= dict.fromkeys(("p_value", "p_holm", "smallest_p"), missing)
    assert row_of(tables.result_table(found(results)), "random@130")[5:7] == ["–", "–"]  # noqa: RUF001
    html, markdown = write(tmp_path, results)
    for text in (Page(html).text, markdown, "\n".join(comparison_lines(results))):
        assert not re.search(r"p [<=] 0|< ?0\.001|\bnan\b|None", text.split("How to read this")[0])
    assert "beats random" not in html


def test_the_check_for_a_zero_p_finds_a_planted_one() -> None:
    results = make_results(LABELS[:2])
    results["comparisons"][0] |= {"p_value": 0.0, "p_holm": 0.0}
    assert "<0.001" in "\n".join(comparison_lines(results))
    assert "p < 0.001" in wording.headline(found(results))


def test_nan_everywhere_is_no_number(tmp_path: Path) -> None:
    def spoiled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: spoiled(part) for key, part in value.items()}
        if isinstance(value, list):
            return [spoiled(part) for part in value]
        return float("nan") if isinstance(value, float) else value

    html, markdown = write(tmp_path, spoiled(with_costs(make_results(LABELS[:3]))))
    assert Page(html).faults == []
    assert not re.search(
        r"\b(nan|None)\b", Page(html).text + markdown + "\n".join(comparison_lines(spoiled(make_results())))
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"difference": -0.03, "interval": [-0.05, -0.01], "p_holm": 0.02}, "learnalign@130 beats random@130."),
        ({"difference": 0.03, "interval": [0.01, 0.05], "p_holm": 0.02}, "learnalign@130 does worse than random@130."),
        ({"difference": -0.03, "p_holm": 0.05}, "It is not shown that learnalign@130 beats random@130, nor that"),
        ({"difference": 0.0, "p_holm": 1.0}, "It is not shown that learnalign@130 beats"),
        ({"difference": -0.03, "interval": [-0.07, 0.01], "p_holm": 0.02}, "The interval includes 0"),
        (
            {"difference": -0.03, "p_holm": 0.3, "smallest_p": 0.25, "n_seeds": 3},
            "can fall below 0.25: more are needed",
        ),
        ({"difference": -0.03, "p_holm": 0.001, "smallest_p": None, "n_seeds": 1}, "One seed shows nothing"),
        ({"difference": -0.03, "p_holm": None}, "Without a corrected p-value nothing is shown"),
    ],
)
def test_the_headline_claims_only_what_is_shown(change: dict[str, Any], expected: str) -> None:
    results = make_results(LABELS[:2])
    results["comparisons"][0] |= change
    headline = wording.headline(found(results))
    assert expected in headline
    beats = re.search(r"(?<!that )learnalign@130 beats", headline)
    assert bool(beats) == (change["difference"] < 0 and (change["p_holm"] or 1) < 0.05 and change.get("n_seeds") != 1)


def test_the_headline_turns_the_sign_to_the_reference() -> None:
    """Other minus reference -1.2 points in [-3.1, 0.7] is +1.2 points for the reference in [-0.7, +3.1]."""
    results = make_results(LABELS[:2])
    results["methods"][0]["accuracy"], results["methods"][1]["accuracy"] = 0.76, 0.748
    results["comparisons"][0] |= {"difference": -0.012, "interval": [-0.031, 0.007], "p_holm": 0.12}
    assert (
        "learnalign@130 solves 76.0 % of 500 problems, random@130 74.8 %: +1.2 points for learnalign@130, "
        "95 % interval −0.7 to +3.1, p = 0.120 after Holm's correction, 8 seeds." in wording.headline(found(results))  # noqa: RUF001
    )


def test_a_random_choice_of_another_size_or_recipe_is_no_control() -> None:
    results = make_results(("learnalign@130", "random@50", "random@130+warmup.steps=0"))
    results["methods"][2] |= {"method": "random", "n": 130, "settings": {"warmup.steps": 0}}
    assert "No random choice of the same size is in this comparison" in wording.headline(found(results))


def test_families_say_what_is_below_the_level() -> None:
    results = make_results(LABELS[:7])
    results["comparisons"][1] |= {"p_holm": 0.031, "difference": -0.02, "interval": [-0.03, -0.01]}
    said = " ".join(wording.verdicts(found(results)))
    assert (
        "Family primary, 4 comparisons: p below 0.05 after Holm's correction for random-length-matched@130 (worse"
        in said
    )
    assert "Family others, 2 comparisons: none has a p-value below 0.05" in said
    assert "Without training the model solves 41.3 %." in said


def test_a_family_too_large_for_its_seeds_is_said() -> None:
    """Holm takes the smallest p times the number of comparisons: 7 x 0.0078125 = 0.0547, 6 x that = 0.0469."""
    results = make_results(LABELS[:8])
    for row in results["comparisons"]:
        row["family"] = "primary"
    assert (
        "7 comparisons on so few seeds cannot give a corrected p-value below 0.055"
        in wording.warnings(found(results))[0]
    )
    del results["comparisons"][-1]
    assert wording.warnings(found(results)) == []


def test_faults_and_flags_come_before_the_results(tmp_path: Path) -> None:
    results = plain(make_results(LABELS[:2])) | {"faults": ["random@130: chose an evaluation problem"]}
    results["methods"][1]["flags"] = ["unequal steps: 20, expected 24"]
    html, markdown = write(tmp_path, results)
    for text in (Page(html).text, markdown):
        assert text.index("chose an evaluation problem") < text.index(
            "Faults were found, so this is not a result to quote."
        )
        assert text.index("random@130: unequal steps: 20, expected 24") < text.index("Selection time")
    assert "Fault: do not quote these figures" in Page(html).text
    assert "random@130 flagged, see above" in Page(html).text
    lines = comparison_lines(results)
    assert lines[0] == "FAULT: random@130: chose an evaluation problem"
    assert lines[-1] == "FLAG: random@130: unequal steps: 20, expected 24"
    sound = write(tmp_path / "sound", plain(make_results(LABELS[:2])))
    assert not any("do not quote" in text or "Faults were found" in text for text in sound)


def test_one_method_and_one_seed(tmp_path: Path) -> None:
    results = make_results(LABELS[:1]) | {"seeds": [0], "n_cells": 1, "n_done": 1}
    results["methods"][0] |= {"n_seeds": 1, "by_seed": {"0": 0.75}}
    html, _ = write(tmp_path, results)
    page = Page(html)
    assert page.faults == []
    assert "No random choice of the same size is in this comparison" in page.text
    assert "No comparison yet." in page.text
    assert len(comparison_lines(results)) == 4


def test_settings_are_shown_where_the_label_does_not_tell_them() -> None:
    results = make_results(("learnalign@130", "a", "b+warmup.steps=0"))
    for method in results["methods"][1:]:
        method["settings"] = {"warmup.steps": 0}
    table = tables.result_table(found(results))
    assert [row.cells[0].text for row in table.rows] == ["learnalign@130", "a warmup.steps = 0", "b+warmup.steps=0"]


def test_a_comparison_with_another_reference_says_so_everywhere() -> None:
    results = make_results(LABELS[:2])
    results["comparisons"][0] |= {"reference": "learnalign@50", "p_holm": 0.001}
    comparison = found(results)
    assert "against learnalign@50" in row_of(tables.result_table(comparison), "random@130")[4]
    whole = tables.comparison_table(comparison)
    assert whole is not None
    assert [row.cells[0].text for row in whole.rows] == ["random@130 against learnalign@50"]
    assert comparison_lines(results)[-1].endswith("against learnalign@50")
    assert "learnalign@50 beats random@130." in wording.judged(comparison, comparison.comparisons[0])


def test_the_terminal_table_needs_no_matplotlib() -> None:
    program = (
        "import sys; from lean_align.report import Comparison, comparison_lines\n"
        "comparison_lines(Comparison.from_json({'methods': [{'label': 'a'}]}))\n"
        "print(sorted({'matplotlib', 'jinja2', 'torch'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_large_pools_are_thinned_and_the_caption_says_so(tmp_path: Path) -> None:
    results = make_results(LABELS[:1])
    n = 4000
    results["scatter"] |= {"learnability": [0.25] * n, "alignment": [0.1] * n, "chosen": [0] * n, "kind": None}
    assert "3,000 of 4,000 prompts are drawn" in write(tmp_path, results)[0]


if __name__ == "__main__":
    write_comparison(Path(sys.argv[1]), with_costs(make_results()))
    print("\n".join(comparison_lines(make_results())))
