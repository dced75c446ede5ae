"""The report: complete, self-contained, escaped, deterministic, and readable without a picture."""

from __future__ import annotations

import copy
import itertools
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lean_align.errors import DataError, StageError
from lean_align.report import ReportScores, Summary, formatting, write_report
from lean_align.report import run_wording as wording
from lean_align.report.counts import Rollouts, SelectionCounts
from lean_align.report.results_table import methods_of
from lean_align.report.summary import Contamination, Mean, Means, Stability, StageCost
from lean_align.types import PairedDifference
from tests.test_results_table import SUMMARY as BENCHMARKS

INLINE = {"span", "code", "strong", "a"}
VOID = {"meta", "br", "hr", "img", "input", "link"}
SUMMARY: dict[str, Any] = {
    "recipe": "demo",
    "seed": 7,
    "git_commit": "abc123",
    "device": "cpu",
    "model": {"name": "tiny", "quantization": "nf4", "dtype": "float32"},
    "benchmark": "sums",
    "accuracy": {
        "base": {"correct": 250, "n": 500, "accuracy": 0.5, "interval": [0.456, 0.544]},
        "trained": {"correct": 330, "n": 500, "accuracy": 0.66, "interval": [0.617, 0.7]},
        "difference": {"difference": 0.16, "interval": [0.12, 0.2], "wins": 100, "losses": 20, "p_value": 1e-9},
    },
    "rollouts": {
        "n_prompts": 12,
        "num_generations": 8,
        "n_completions": 96,
        "share_all_wrong": 0.25,
        "share_all_right": 0.3,
        "share_learnable": 0.45,
        "share_truncated": 0.01,
        "share_unparsable": 0.0,
        "mean_reward": 0.55,
        "tokens": 81920,
    },
    "selection": {
        "method": "learnalign",
        "n": 4,
        "pool_size": 12,
        "n_without_signal": 0,
        "explanation": "the 4 highest scores V_i <u_i, m> of 12 prompts",
    },
    "dropped_rows": 3,
    "total_wall_seconds": 120.5,
    "peak_rss_bytes": 1_200_000_000,
    "stages": {
        "data": {"wall_seconds": 1.25, "peak_rss_bytes": 2**28, "peak_vram_bytes": None},
        "rollouts": {"wall_seconds": 4000.0, "peak_rss_bytes": 900_000_000, "peak_vram_bytes": None},
        "training": {"wall_seconds": 95.0, "peak_rss_bytes": 1_100_000_000, "peak_vram_bytes": None},
    },
}
BENCHMARKED = (
    SUMMARY
    | copy.deepcopy(BENCHMARKS)
    | {
        "accuracy": None,
        "benchmark": None,
        "contamination": {
            "mode": "keep",
            "n_train": 17290,
            "benchmarks": {"amc2023": {"n_problems": 83, "exact": 14, "near": 2, "train_prompts": 17}},
            "pairs": [
                {
                    "prompt_id": f"train-{i}",
                    "benchmark": "amc2023",
                    "problem_id": f"amc-{i}",
                    "kind": "exact",
                    "similarity": 1.0,
                }
                for i in range(60)
            ],
            "n_pairs": 75,
            "n_dropped": 0,
        },
    }
)
MEAN = Mean(0.5, (0.4, 0.6))
SAMPLE = {
    "prompt": "What is 7 + 5?",
    "answer": "12",
    "completion_base": "7 + 5 = 13",
    "reward_base": 0.0,
    "completion_trained": "7 + 5 = 12",
    "reward_trained": 1.0,
}


class Page(HTMLParser):
    """Elements of a page with attributes and text; `faults` names tags that do not balance."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.faults: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if len(dict(attrs)) != len(attrs):
            self.faults.append(f"<{tag}> repeats an attribute")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self._open[-1:] or 'nothing'}")
        else:
            self._open.pop()
        if tag not in INLINE:
            self.texts.append(("", " "))

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(data for tag, data in self.texts if tag != "style"))

    def values(self, name: str) -> list[str]:
        return [value for _, attrs in self.elements if (value := attrs.get(name)) is not None]


def outside_references(html: str) -> list[str]:
    """Everything on a page that would make a browser ask for another file."""
    page = Page(html)
    loading = ("src", "srcset", "href", "xlink:href", "action", "data", "poster", "background", "ping", "formaction")
    found = [value for name in loading for value in page.values(name) if not value.startswith("#")]
    css = [data for tag, data in page.texts if tag == "style"] + page.values("style") + page.values("clip-path")
    found += [
        url for text in css for url in re.findall(r"url\(([^)]*)\)|(@import)", text) if not url[0].startswith("#")
    ]
    return found + [tag for tag in page.tags if tag in {"script", "link", "iframe", "object", "embed", "base", "img"}]


def make_scores(n: int = 12, n_selected: int = 4) -> ReportScores:
    """Prompt i has p = (i mod 9) / 8 and alignment (i + 1) / 100; the best by score are chosen."""
    success_rate = (np.arange(n) % 9) / 8
    learnability = success_rate * (1 - success_rate)
    alignment = (np.arange(n) + 1) / 100
    score = learnability * alignment
    rank = np.empty(n, dtype=np.int64)
    rank[np.argsort(-score, kind="stable")] = np.arange(1, n + 1)
    ids = tuple(f"p{i}" for i in range(n))
    n_tokens = np.full(n, 40.0)
    return ReportScores(ids, success_rate, learnability, alignment, score, rank, score, n_tokens, rank <= n_selected)


def make_selected(scores: ReportScores) -> list[dict[str, Any]]:
    best = np.argsort(scores.rank)[: scores.n_selected]
    return [
        {
            "prompt": f"prompt {i}",
            "answer": str(i),
            "prompt_id": scores.prompt_ids[i],
            "score": float(scores.score[i]),
            "rank": int(scores.rank[i]),
        }
        for i in best
    ]


def report(path: Path, summary: dict[str, Any] | None = None, **changed: Any) -> str:
    scores = make_scores()
    arguments: dict[str, Any] = {
        "scores": scores,
        "selected": make_selected(scores),
        "samples": [SAMPLE],
        "training_log": [{"step": step, "reward": step / 20} for step in range(1, 11)],
    }
    found = Summary.from_json(SUMMARY if summary is None else summary)
    write_report(path, found, **(arguments | changed))
    return path.read_text("utf-8")


def bare_report(path: Path, summary: dict[str, Any], **changed: Any) -> str:
    """A report with nothing to plot but what the summary holds: fast."""
    return report(path, summary, **({"scores": None, "selected": [], "samples": [], "training_log": []} | changed))


def contamination(tree: dict[str, Any]) -> Contamination:
    found = Summary.from_json({"contamination": tree}).contamination
    assert found is not None
    return found


def stability(tree: dict[str, Any]) -> Stability | None:
    return Summary.from_json({"stability": tree}).stability


def edited(**changes: Any) -> dict[str, Any]:
    """SUMMARY with entries of its nested objects replaced: `edited(rollouts={"tokens": 1})`."""
    summary = copy.deepcopy(SUMMARY)
    for key, value in changes.items():
        summary[key] = {**summary[key], **value} if isinstance(value, dict) else value
    return summary


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report(tmp_path_factory.mktemp("full") / "report" / "index.html")


# --- the page as a document -------------------------------------------------------------------------------


def test_tags_balance_and_ids_are_unique(full: str) -> None:
    page = Page(full)
    assert page.faults == []
    ids = page.values("id")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("fault", ["<p><b>x</p></b>", "<div>", "</div>", '<p class="a" class="b"></p>'])
def test_the_tag_check_finds_planted_faults(fault: str) -> None:
    assert Page(fault).faults


def test_nothing_is_fetched_from_elsewhere(full: str) -> None:
    assert outside_references(full) == []
    assert "http:" not in full
    assert "https:" not in full
    policy = next(attrs["content"] for _, attrs in Page(full).elements if "http-equiv" in attrs)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


@pytest.mark.parametrize(
    "planted",
    [
        '<img src="https://example.org/a.png">',
        '<a href="//example.org">x</a>',
        "<style>@import 'a.css'; p { background: url(b.png) }</style>",
        "<script>1</script>",
        '<g clip-path="url(other.svg#a)"></g>',
    ],
)
def test_the_outside_check_finds_planted_references(full: str, planted: str) -> None:
    assert outside_references(full.replace("<main>", f"<main>{planted}"))


def test_inner_references_lead_somewhere(full: str) -> None:
    page = Page(full)
    ids = set(page.values("id"))
    targets = [value[1:] for value in page.values("href")]
    targets += [value[len("url(#") : -1] for value in page.values("clip-path")]
    targets += " ".join(page.values("aria-labelledby")).split()
    assert len(targets) > 50
    assert set(targets) <= ids


def test_headings_never_skip_a_level(full: str) -> None:
    levels = [int(tag[1]) for tag in Page(full).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_plot_is_described_and_every_table_captioned(full: str) -> None:
    page = Page(full)
    plots = [attrs for tag, attrs in page.elements if tag == "svg"]
    assert len(plots) == 12  # six plots, each wide and narrow
    assert all(attrs["role"] == "img" and attrs["aria-labelledby"] for attrs in plots)
    described = [data for tag, data in page.texts if tag == "desc"]
    assert len(described) == len(plots)
    assert "base 50.0 %, interval 45.6 to 54.4 %; trained 66.0 %" in described[0]
    assert page.tags.count("caption") == page.tags.count("table") == 6


def test_sections_come_in_order(full: str) -> None:
    headings = [data for tag, data in Page(full).texts if tag == "h2"]
    assert headings == [
        *("Accuracy", "Selection", "Rollouts", "Training", "Samples", "Time and memory", "How to read this")
    ]


def test_colours_come_from_the_style_sheet(full: str) -> None:
    assert not re.search(r"#0[1-9a-f]0[1-9a-f]0[1-9a-f]\b", full), "a placeholder colour was not replaced"
    assert "prefers-color-scheme: dark" in full
    defined = set(re.findall(r"(--[a-z-]+):", full))
    assert set(re.findall(r"var\((--[a-z-]+)\)", full)) <= defined


# --- what it says -----------------------------------------------------------------------------------------


def test_headline_and_facts(full: str) -> None:
    text = Page(full).text
    assert (
        "The trained model solves 66.0 % of 500 held-out problems, the base 50.0 %: +16.0 points, "
        "95 % interval +12.0 to +20.0, McNemar p < 0.001." in text
    )
    assert "The interval lies above 0: training helped" in text
    for fact in ("tiny, nf4, float32", "sums", "abc123", "cpu"):
        assert fact in text


def test_counts_of_wins_and_losses_are_completed(full: str) -> None:
    """250 = losses 20 + both, so both = 230; neither = 500 - 230 - 100 - 20 = 150."""
    text = Page(full).text
    assert "(win) 100 " in text
    assert "(loss) 20 " in text
    assert "Both solve it 230 " in text
    assert "Neither solves it 150 " in text


def test_counts_that_do_not_add_up_are_not_completed(tmp_path: Path) -> None:
    difference = SUMMARY["accuracy"]["difference"] | {"wins": 99}
    html = bare_report(tmp_path / "a.html", edited(accuracy={"difference": difference}))
    assert "Both solve it" not in html


def test_selection_rollouts_time_and_memory(full: str) -> None:
    text = Page(full).text
    assert "Method learnalign chose 4 of 12 prompts: the 4 highest scores V_i <u_i, m> of 12 prompts." in text
    assert "4 of 4 chosen prompts, best first" in text
    assert "96 completions, 8 for each of 12 prompts, 81,920 tokens in all; mean reward 0.550." in text
    assert "Prompts with all completions wrong 25.0 %" in text
    assert "Whole run: 2 min 0 s, peak memory 1.1 GiB. 3 rows of the data could not be used and were dropped." in text
    assert "data 1.2 s 256.0 MiB rollouts 1 h 7 min 858.3 MiB training 1 min 35 s 1.0 GiB" in text
    assert "GPU memory" not in text


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({}, ""),
        ({"engine": {"engine": "vllm", "version": "0.32.0"}}, "vllm 0.32.0"),
        ({"backend": {"backend": "trl", "version": "1.14.2"}}, "trl 1.14.2"),
        (
            {"backend": {"backend": "lean", "version": "0.1"}, "engine": {"engine": "vllm", "version": "0.32.0"}},
            "lean 0.1, vllm 0.32.0",
        ),
    ],
)
def test_a_stage_names_what_trained_and_what_sampled(counts: dict[str, Any], text: str) -> None:
    assert StageCost(**counts).ran == text


def test_chosen_prompts_show_score_and_success_rate(full: str) -> None:
    """Best of 12: p = 4/8 at i = 4 gives 0.25 * 0.05 = 0.0125; i = 11 has p = 2/8, 0.1875 * 0.12 = 0.0225."""
    assert "1 prompt 11 Answer: 11 0.250 0.0225" in Page(full).text


def test_gpu_memory_is_shown_where_measured(tmp_path: Path) -> None:
    stages = {"training": {"wall_seconds": 5.0, "peak_rss_bytes": 2**30, "peak_vram_bytes": 3 * 2**30}}
    text = Page(bare_report(tmp_path / "a.html", {"stages": stages})).text
    assert "training 5.0 s 1.0 GiB 3.0 GiB" in text
    assert "Peak GPU memory" in text


def test_every_prompt_is_one_dot_in_the_colour_of_its_side(full: str) -> None:
    drawing = re.search(r'<svg[^>]*aria-labelledby="alignment-wide-title.*?</svg>', full, re.DOTALL)
    assert drawing is not None
    groups = re.findall(r'<g[^>]*style="([^"]*)"[^>]*>((?:<use [^>]*/>)+)</g>', drawing[0])
    dots = dict.fromkeys(("selected", "rest"), 0)
    for style, uses in groups:
        for name in dots:
            dots[name] += uses.count("<use") if f"var(--{name})" in style else 0
    assert dots == {"selected": 4 + 1, "rest": 8 + 1}  # one more each in the legend


def test_dots_left_out_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lean_align.report.score_plots.MAX_DOTS", 5)
    text = Page(report(tmp_path / "a.html")).text
    assert "all 4 chosen and 5 of the 8 others are drawn" in text


# --- runs that stopped early, or had no scores --------------------------------------------------------------


def test_without_scores(tmp_path: Path) -> None:
    selected = [{"prompt": "a prompt", "answer": "1", "prompt_id": "p0", "score": None, "rank": None}]
    html = report(tmp_path / "a.html", edited(selection={"method": "random"}), scores=None, selected=selected)
    page = Page(html)
    assert page.faults == []
    assert "This method gives no scores" in page.text
    assert "1 a prompt Answer: 1" in page.text
    assert "Score by rank" not in page.text
    assert page.tags.count("svg") == 6


@pytest.mark.parametrize("missing", [None, "absent"])
def test_without_the_trained_model(tmp_path: Path, missing: str | None) -> None:
    accuracy: dict[str, Any] = {"base": SUMMARY["accuracy"]["base"]}
    if missing is None:
        accuracy |= {"trained": None, "difference": None}
    sample = {key: value for key, value in SAMPLE.items() if "trained" not in key}
    page = Page(bare_report(tmp_path / "a.html", SUMMARY | {"accuracy": accuracy}, samples=[sample]))
    assert page.faults == []
    assert "The base model solves 50.0 % of 500 held-out problems; the trained model was not evaluated." in page.text
    assert "Trained not run" in page.text
    assert "Both solve it" not in page.text


@pytest.mark.parametrize("key", sorted(SUMMARY))
@pytest.mark.parametrize("how", ["null", "absent"])
def test_any_part_of_the_summary_may_be_missing(tmp_path: Path, key: str, how: str) -> None:
    summary = {name: value for name, value in SUMMARY.items() if name != key} | ({key: None} if how == "null" else {})
    page = Page(bare_report(tmp_path / "a.html", summary))
    assert page.faults == []
    assert not re.search(r"\b(nan|None|inf|Undefined)\b", page.text)


def test_an_empty_run_says_so(tmp_path: Path) -> None:
    page = Page(bare_report(tmp_path / "a.html", {}))
    assert page.faults == []
    assert "svg" not in page.tags
    for sentence in ("No model was evaluated in this run.", "Selection was not run.", "Rollouts were not run."):
        assert sentence in page.text
    assert "No training reward was logged." in page.text


def test_training_rows_without_reward_are_left_out(tmp_path: Path) -> None:
    log = [{"step": 1, "reward": 0.25}, {"step": 2, "reward": None}, {"step": 2, "loss": 1.0}]
    log.append({"step": 3, "reward": float("nan")})
    text = Page(bare_report(tmp_path / "a.html", {}, training_log=log)).text
    assert "1 steps; running mean 0.25 at first and 0.25 at last." in text


# --- model output is text, not markup -------------------------------------------------------------------------

HOSTILE = "<script>alert('x')</script> <img src=https://example.org/a onerror=\"y()\"> {{ 7 * 7 }} </style> & ]]>"


def test_model_output_is_escaped_everywhere(tmp_path: Path) -> None:
    scores = make_scores()
    selected = [row | {"prompt": HOSTILE, "answer": HOSTILE} for row in make_selected(scores)]
    sample = SAMPLE | dict.fromkeys(("prompt", "answer", "completion_base", "completion_trained"), HOSTILE)
    summary = edited(
        recipe=HOSTILE,
        model={"name": HOSTILE},
        selection={"method": HOSTILE, "explanation": HOSTILE},
        stages={HOSTILE: {"wall_seconds": 1.0, "peak_rss_bytes": 1, "peak_vram_bytes": None}},
    )
    html = report(tmp_path / "a.html", summary, selected=selected, samples=[sample])
    page = Page(html)
    assert page.faults == []
    assert outside_references(html) == []
    assert "<script" not in html
    assert page.text.count(HOSTILE) >= 12
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=80))
def test_any_completion_comes_back_as_typed(tmp_path: Path, text: str) -> None:
    plain = Page(bare_report(tmp_path / "a.html", {}, samples=[SAMPLE | {"completion_base": "x"}]))
    page = Page(bare_report(tmp_path / "a.html", {}, samples=[SAMPLE | {"completion_base": text}]))
    assert page.tags == plain.tags
    assert text in "".join(data for _, data in page.texts)


def test_text_that_utf8_or_html_cannot_hold_is_replaced(tmp_path: Path) -> None:
    html = bare_report(tmp_path / "a.html", {}, samples=[SAMPLE | {"completion_base": "a\ud83db\x00c\x1bd\te"}])
    assert "a?b\ufffdc\ufffdd\te" in html


def test_long_prompts_are_folded_not_cut(tmp_path: Path) -> None:
    prompt = "word " * 100 + "end"
    html = bare_report(tmp_path / "a.html", {}, selected=[{"prompt": prompt, "answer": "1", "prompt_id": "p"}])
    assert prompt in html
    assert 'class="long"' in html


# --- the same input, the same bytes ---------------------------------------------------------------------------


def test_same_input_same_bytes_whatever_matplotlib_is_set_to(full: str, tmp_path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "axes.labelsize": 20, "xtick.major.size": 9}):
        again = report(tmp_path / "a.html")
        assert matplotlib.rcParams["font.size"] == 30
    assert again == full


def test_different_input_different_page(full: str, tmp_path: Path) -> None:
    assert report(tmp_path / "a.html", edited(dropped_rows=4)) != full


def test_only_the_page_is_left_behind(tmp_path: Path) -> None:
    bare_report(tmp_path / "report" / "index.html", {})
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["index.html"]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"is a folder.*Pass .*index\.html"):
        bare_report(tmp_path, {})


def test_import_is_light() -> None:
    code = (
        "import sys, lean_align.report; "
        "print(sorted({'torch', 'matplotlib', 'jinja2', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_writing_never_imports_torch_or_pyplot(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from lean_align.report import Summary, write_report; path = pathlib.Path(sys.argv[1]); "
        "write_report(path, Summary(), None, [], [], [{'step': 1, 'reward': 1.0}]); "
        "print(sorted({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.html")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# --- benchmarks and contamination -----------------------------------------------------------------------------------


def test_runs_without_benchmarks_show_neither_section(full: str) -> None:
    assert 'id="benchmarks"' not in full
    assert 'id="contamination"' not in full
    assert "avg@k" not in full


@pytest.fixture(scope="module")
def benchmarked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run with benchmarks and without a held-out set."""
    return bare_report(tmp_path_factory.mktemp("benchmarked") / "index.html", BENCHMARKED)


def test_benchmarks_are_a_section_of_a_whole_page(benchmarked: str) -> None:
    page = Page(benchmarked)
    assert page.faults == []
    assert outside_references(benchmarked) == []
    headings = [data for tag, data in page.texts if tag == "h2"]
    assert headings[:3] == ["Benchmarks", "Contamination", "Selection"]
    assert "Accuracy" not in headings
    assert {value[1:] for value in page.values("href")} <= set(page.values("id"))
    assert page.tags.count("caption") == page.tags.count("table")
    assert not re.search(r"\b(nan|None|inf|Undefined)\b", page.text)


def test_the_headline_of_benchmarks_is_their_mean(benchmarked: str) -> None:
    text = Page(benchmarked).text
    assert (
        "On average over 2 benchmarks the trained model solves 37.5 %, the base 18.8 %: +18.8 points, "
        "95 % interval +10.0 to +28.0, sign flips: p = 0.002." in text
    )
    assert "The interval lies above 0" in text
    assert "GSM8K, AMC2023 Seed" in text


def test_benchmark_figures_differences_and_completions(benchmarked: str) -> None:
    text = Page(benchmarked).text
    for words in (
        "base 25.0 [20.0, 30.0] 12.5 [7.5, 17.5] 18.8 [15.0, 23.0]",
        "LearnAlign, 1,000 of 17,290 (ours) 50.0",
        "n = 83 avg@8 T 0.6 top_p 0.95",
        "AMC2023 +12.5 −1.0 to +9.0 12 4 p = 0.077 sign flips",  # noqa: RUF001
        "Mean +18.8 +10.0 to +28.0 24 8 p = 0.002 sign flips",
        "These are 3 tests",
        "AMC2023 base 83 of 664 3 0 210",
        "max_new_tokens 3,072",
        "Source: AMC2023 at 1a2b3c. Prompt: our own. Licence: MIT.",
        "As printed in the paper: Qwen2.5-7B, LearnAlign, arXiv 2506.11480 v4",
        "LearnAlign (Qwen2.5-7B) 88.3 35.4 –",  # noqa: RUF001
    ):
        assert words in text


def test_contamination_is_counted_and_listed(benchmarked: str) -> None:
    text = Page(benchmarked).text
    assert "The recipe keeps the matches (data.contamination: keep)" in text
    assert "AMC2023 83 14 2 17" in text
    assert "50 listed; 25 more are not listed here." in text
    assert "train-49 AMC2023 amc-49 exact 1.00" in text
    assert "train-50" not in text


def test_held_out_set_and_benchmarks_stand_side_by_side(tmp_path: Path) -> None:
    both = BENCHMARKED | {key: SUMMARY[key] for key in ("accuracy", "benchmark")} | {"contamination": None}
    page = Page(bare_report(tmp_path / "a.html", both))
    assert page.faults == []
    assert [data for tag, data in page.texts if tag == "h2"][:3] == ["Accuracy", "Benchmarks", "Selection"]
    assert "The trained model solves 66.0 % of 500 held-out problems" in page.text


def test_benchmarks_without_the_trained_model(tmp_path: Path) -> None:
    summary = copy.deepcopy(BENCHMARKED) | {"contamination": None}
    for tree in summary["benchmarks"].values():
        tree |= {"models": {"base": tree["models"]["base"]}, "difference": None}
    summary["mean"] |= {"trained": None, "difference": None}
    page = Page(bare_report(tmp_path / "a.html", summary))
    assert page.faults == []
    assert "over 2 benchmarks the base model solves 18.8 %; the trained model was not evaluated." in page.text
    assert "Trained against base" not in page.text


def test_names_of_benchmarks_are_escaped(tmp_path: Path) -> None:
    summary = copy.deepcopy(BENCHMARKED)
    summary["benchmarks"]["amc2023"] |= dict.fromkeys(("title", "source", "licence", "prompt_source"), HOSTILE)
    summary["contamination"]["pairs"][0] |= {"prompt_id": HOSTILE, "problem_id": HOSTILE}
    html = bare_report(tmp_path / "a.html", summary)
    assert Page(html).faults == []
    assert outside_references(html) == []
    assert "<script" not in html


@pytest.mark.parametrize(
    ("mean", "titles", "expected"),
    [
        (Means(), ["A"], "On A no mean"),
        (Means({"trained": MEAN}), ["A"], "On A the trained model solves 50.0 %; the base model was not evaluated."),
        (Means({"base": MEAN, "trained": MEAN}), ["A", "B"], "not compared problem by problem."),
    ],
)
def test_headlines_of_incomplete_means(mean: Means, titles: list[str], expected: str) -> None:
    assert expected in wording.benchmarks_headline(mean, titles)


def test_many_truncated_or_unanswered_completions_are_warned_about() -> None:
    summary = copy.deepcopy(BENCHMARKED)
    assert wording.benchmark_notes(methods_of(Summary.from_json(summary))) == []
    summary["benchmarks"]["amc2023"]["models"]["base"] |= {"n_truncated": 332, "n_unanswered": 166}
    truncated, unanswered = wording.benchmark_notes(methods_of(Summary.from_json(summary)))
    assert "cut off at the token limit: AMC2023, base 50.0 %." in truncated
    assert "without an answer, which count as wrong: AMC2023, base 25.0 %." in unanswered


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mode": "drop"}, "leaves out exact and near matches (data.contamination: drop): 17 training prompts"),
        ({"mode": "drop_exact"}, "Near matches stay."),
        ({"mode": "new"}, "data.contamination: new; 17 training prompts were left out."),
        ({"benchmarks": {"x": {"train_prompts": 0}}}, "None of the 17,290 training prompts matches"),
        ({"benchmarks": {}}, "None of the 17,290 training prompts matches"),
    ],
)
def test_what_the_recipe_did_about_contamination_is_said(change: dict[str, Any], expected: str) -> None:
    found = BENCHMARKED["contamination"] | {"n_dropped": 17} | change
    assert expected in " ".join(wording.contamination_sentences(contamination(found)))


def test_benchmarks_that_the_prompts_were_not_compared_with_are_named() -> None:
    found = BENCHMARKED["contamination"] | {"unchecked": ["crux"]}
    sentences = wording.contamination_sentences(contamination(found))
    assert sentences[-1] == "Not compared, since they came after the prompts were prepared: crux."
    assert "evaluated on" not in sentences[0]
    assert "were compared with every problem of amc2023" in sentences[0]


# --- parts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "p_value", "expected"),
    [
        ([-0.01, 0.04], 0.4, "The interval includes 0: this run does not show that training changed the accuracy."),
        ([0.0, 0.04], 0.05, "The interval includes 0"),
        ([0.01, 0.04], 0.01, "above 0: training helped on these problems."),
        ([-0.04, -0.01], 0.01, "below 0: training made the model worse on these problems."),
        ([0.001, 0.04], 0.06, "The exact test does not confirm this"),
    ],
)
def test_verdict_is_honest(interval: list[float], p_value: float, expected: str) -> None:
    assert expected in str(wording.verdict(PairedDifference(0.0, (interval[0], interval[1]), 1, 1, p_value)))


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"share_learnable": 0.45, "share_truncated": 0.01}, []),
        ({"share_learnable": 0.1, "share_all_wrong": 0.8, "share_all_right": 0.1}, ["too hard"]),
        ({"share_learnable": 0.1, "share_all_wrong": 0.1, "share_all_right": 0.8}, ["too easy"]),
        ({"share_learnable": None, "share_truncated": 0.3, "share_unparsable": 0.2}, ["token limit", "no answer that"]),
    ],
)
def test_unusual_rollouts_are_explained(shares: dict[str, float], expected: list[str]) -> None:
    notes = wording.rollout_notes(Rollouts.from_json(shares))
    assert len(notes) == len(expected)
    assert all(words in note for words, note in zip(expected, notes, strict=True))


def test_chosen_prompts_without_signal_are_named() -> None:
    assert (
        "26 of the 64 chosen prompts have learnability 0"
        in wording.selection_notes(SelectionCounts(n=64, n_without_signal=26))[0]
    )
    assert wording.selection_notes(SelectionCounts(n=64)) == []


STABILITY: dict[str, Any] = {
    "n": 1000,
    "bootstrap": {"replicates": 32, "mean_overlap": 0.874, "low_overlap": 0.8},
    "second_seed": {"share_changed": 0.123, "spearman": 0.956},
}


def test_stability_is_two_sentences(tmp_path: Path) -> None:
    first, second = wording.stability_notes(stability(STABILITY))
    assert "When the pool is resampled 32 times, the best 1,000 prompts share 87.4 %" in first
    assert "at least 80.0 % in 95 % of the draws" in first
    assert "Another seed of the projection changes 12.3 % of them (rank correlation 0.96" in second
    page = Page(bare_report(tmp_path / "index.html", SUMMARY | {"stability": STABILITY}))
    assert first in page.text
    assert second in page.text


def test_stability_says_nothing_about_what_was_not_measured(tmp_path: Path) -> None:
    assert len(wording.stability_notes(stability(STABILITY | {"second_seed": None}))) == 1
    assert (
        "rank correlation"
        not in wording.stability_notes(
            stability(STABILITY | {"second_seed": {"share_changed": 0.0, "spearman": None}})
        )[1]
    )
    assert wording.stability_notes(None) == []
    assert "resampled" not in bare_report(tmp_path / "index.html", SUMMARY | {"stability": None})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formatting.percent(0.66), "66.0 %"),
        (formatting.percent(None), "not run"),
        (formatting.percent(float("nan")), "not run"),
        (formatting.percent_interval((0.456, 0.544)), "45.6 to 54.4 %"),
        (formatting.points(0.16), "+16.0"),
        (formatting.points(-0.013), "−1.3"),  # noqa: RUF001
        (formatting.points(-0.0001), "0.0"),
        (formatting.p_value(0.0004), "p < 0.001"),
        (formatting.p_value(0.4829), "p = 0.483"),
        (formatting.duration(0.21), "0.2 s"),
        (formatting.duration(9.96), "10 s"),
        (formatting.duration(59.7), "1 min 0 s"),
        (formatting.duration(3599.9), "1 h 0 min"),
        (formatting.duration(4000), "1 h 7 min"),
        (formatting.memory(900_000_000), "858.3 MiB"),
        (formatting.memory(None), "–"),  # noqa: RUF001
        (formatting.number(0.02), "0.0200"),
        (formatting.number(-0.5), "−0.500"),  # noqa: RUF001
        (formatting.number(480.4, 3), "480"),
        (formatting.count(81920), "81,920"),
        (formatting.signed(80), "+80"),
        (formatting.signed(-7), "−7"),  # noqa: RUF001
        (formatting.shorten("one two three", 9), "one two…"),
        (formatting.shorten("one two", 7), "one two"),
        (formatting.shorten("x" * 20, 5), "xxxxx…"),
    ],
)
def test_numbers_are_written_for_people(text: str, expected: str) -> None:
    assert text == expected


def test_cut_score_is_the_lowest_chosen_score() -> None:
    scores = make_scores()
    assert scores.cut_score == pytest.approx(np.sort(scores.score)[-4])


def test_a_choice_that_skips_ranks_has_no_cut(tmp_path: Path) -> None:
    scores = make_scores()
    skipping = ReportScores(**{**vars(scores), "selected": scores.rank % 3 == 0})
    assert skipping.cut_score is None
    assert "The choice does not follow the score here" in report(tmp_path / "a.html", scores=skipping)


def test_columns_of_unequal_length_are_refused() -> None:
    columns = vars(make_scores())
    with pytest.raises(DataError, match=r"report column rank has shape \(11,\); expected \(12,\)"):
        ReportScores(**{**columns, "rank": columns["rank"][:-1]})


@pytest.mark.parametrize(("n", "n_selected"), [(1, 1), (1, 0), (3, 3), (12, 0), (40, 20)])
def test_pools_of_any_size_and_choice_are_drawn(tmp_path: Path, n: int, n_selected: int) -> None:
    page = Page(report(tmp_path / "a.html", {}, scores=make_scores(n, n_selected), samples=[], training_log=[]))
    assert page.faults == []
    assert page.tags.count("svg") == 6


def test_running_mean_by_hand() -> None:
    """Window 2 over 1, 3, 5: 1; (1 + 3) / 2; (3 + 5) / 2."""
    from lean_align.report.plots import running_mean

    assert running_mean(np.array([1.0, 3.0, 5.0]), 2).tolist() == [1.0, 2.0, 4.0]


def test_spread_columns_stay_apart() -> None:
    """Columns 0.234 and 0.25 are 0.0156 apart; shifted by at most 0.36 of that they cannot meet."""
    from lean_align.report.score_plots import spread_columns

    values = np.repeat([0.0, 0.109375, 0.1875, 0.234375, 0.25], 50)
    shifted, half_width = spread_columns(values)
    assert half_width == pytest.approx(0.36 * 0.015625)
    assert np.abs(shifted - values).max() <= half_width
    assert len(np.unique(shifted)) == len(shifted)
    assert np.array_equal(
        np.argsort(np.abs(shifted[:, None] - np.unique(values)).argmin(axis=1), kind="stable"), range(250)
    )


def test_many_different_values_are_not_shifted() -> None:
    from lean_align.report.score_plots import spread_columns

    values = np.linspace(0, 0.25, 200)
    shifted, half_width = spread_columns(values)
    assert half_width == 0
    assert np.array_equal(shifted, values)
