"""Benchmarks: their rows, prompts, extraction and rewards, on rows made here and on the real files where they are."""

from __future__ import annotations

import ast
import dataclasses
import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from lean_align.benchmarks import (
    DEFAULT_NAMES,
    Benchmark,
    benchmark_names,
    choose_problems,
    find_benchmarks,
    load_problems,
    registry,
)
from lean_align.benchmarks.assertions import arguments_of, find_answer, output_of
from lean_align.benchmarks.benchmark import field
from lean_align.errors import DataError, RecipeError
from lean_align.types import Prompt

CRUX, CRUX_INPUT = find_benchmarks(["crux", "crux-input"])
DOUBLE = json.dumps({"code": "def f(x, y=1):\n    return x * 2 * y", "output": "6"})
SIZES = {"gsm8k": 1319, "math500": 500, "amc2023": 83, "aime2024": 30, "crux": 800, "crux-input": 800}


def made(benchmark: Benchmark, folder: Path, rows: list[dict]) -> Path:
    path = folder / benchmark.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_shipped_ones_are_the_columns_of_the_paper_and_the_input_task() -> None:
    assert tuple(benchmark_names()) == (*DEFAULT_NAMES, "crux-input")
    for benchmark in find_benchmarks(benchmark_names()):
        assert all((benchmark.source, benchmark.prompt_source, benchmark.licence))
        assert "{prompt}" in benchmark.prompt_template
        assert "{prompt}" in benchmark.plain_template


def test_rows_become_problems_with_ids_by_row_number(tmp_path: Path) -> None:
    amc = find_benchmarks(["amc2023"])[0]
    folder = made(
        amc, tmp_path, [{"question": " What is 71 twice? ", "answer": 142.0}, {"problem": "1/2?", "answer": 0.5}]
    )
    assert load_problems(amc, folder) == [
        Prompt("amc2023-000000", "What is 71 twice?", "142"),
        Prompt("amc2023-000001", "1/2?", "0.5"),
    ]


def test_equal_rows_stay_two_problems(tmp_path: Path) -> None:
    gsm8k = find_benchmarks(["gsm8k"])[0]
    folder = made(gsm8k, tmp_path, [{"question": "q", "answer": "#### 1"}] * 2)
    assert [p.prompt_id for p in load_problems(gsm8k, folder)] == ["gsm8k-000000", "gsm8k-000001"]
    made(gsm8k, tmp_path, [])
    with pytest.raises(DataError, match="has no rows"):
        load_problems(gsm8k, folder)


def test_a_missing_file_and_a_missing_field_are_named(tmp_path: Path) -> None:
    gsm8k = find_benchmarks(["gsm8k"])[0]
    with pytest.raises(DataError, match=r"gsm8k/test.jsonl; expected the file of gsm8k there.*openai/gsm8k"):
        load_problems(gsm8k, tmp_path)
    made(gsm8k, tmp_path, [{"question": "q", "answer": "#### 1"}, {"question": "q"}])
    with pytest.raises(DataError, match=r"row 2: there is no answer among the columns question"):
        load_problems(gsm8k, tmp_path)


@pytest.mark.parametrize(("value", "text"), [(142.0, "142"), (0.5, "0.5"), ("025", "025"), (7, "7"), (" x ", "x")])
def test_a_field_as_text(value: object, text: str) -> None:
    assert field({"answer": value}, "answer") == text


def test_a_subset_is_the_same_for_every_run_and_nested_in_nothing_else() -> None:
    problems = [Prompt(f"crux-{i:06d}", "", "") for i in range(50)]
    chosen = choose_problems(CRUX, problems, 10)
    assert chosen == choose_problems(CRUX, problems, 10) != problems[:10]
    assert [p.prompt_id for p in chosen] == sorted(p.prompt_id for p in chosen)
    assert choose_problems(CRUX, problems, 50) == problems == choose_problems(CRUX, problems, None)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["gsm8"], "did you mean 'gsm8k'"),
        (["gsm8k", "gsm8k"], "expected each once"),
        (["tea"], "There are: gsm8k, math500"),
    ],
)
def test_names_that_do_not_serve(names: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        find_benchmarks(names)


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch):
    """Installs one entry point, `own`, that loads what it is given."""

    def install(value: object, name: str = "own") -> None:
        class Entry(EntryPoint):
            def load(self) -> object:
                if isinstance(value, Exception):
                    raise value
                return value

        monkeypatch.setattr(registry, "entry_points", lambda group: [Entry(name, "package:BENCHMARK", group)])

    return install


def test_a_benchmark_of_ones_own_comes_with_an_entry_point(entry) -> None:
    own = dataclasses.replace(CRUX, name="own")
    entry(own)
    assert find_benchmarks(["own", "gsm8k"])[0] is own


@pytest.mark.parametrize(
    ("value", "message"),
    [("no benchmark", "gives str"), (CRUX, "gives the benchmark 'crux'"), (TypeError("sizes"), "TypeError: sizes")],
)
def test_a_wrong_entry_point_is_named_where_it_is_asked_for(entry, value: object, message: str) -> None:
    entry(value)
    assert find_benchmarks(["gsm8k"])
    with pytest.raises(RecipeError, match=rf"the entry point 'own' of lean_align.benchmarks .*{message}"):
        find_benchmarks(["gsm8k", "own"])


def test_a_shipped_name_is_not_taken_by_a_package(entry) -> None:
    entry(CRUX_INPUT, "crux")
    assert find_benchmarks(["crux"]) == [CRUX]
    assert benchmark_names().count("crux") == 1


def test_a_template_without_the_prompt_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"prompt_template of the benchmark crux is 'Be brief\.'"):
        dataclasses.replace(CRUX, prompt_template="Be brief.")


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("[ANSWER]\nassert f(1) == [1, 2]\n[/ANSWER]", 1.0),
        ("[ANSWER]assert f(1) == [2]\n[/ANSWER] no: [ANSWER]\nassert f(1) == [ 1,2 ]\n[/ANSWER]", 0.0),
        ("[ANSWER]\nassert f(1) == [1, 2]\n[/ANSWER] [PYTHON]... [ANSWER]\nassert f(1) == [2]\n[/ANSWER]", 1.0),
        ("[ANSWER] is here: [ANSWER]\nassert f(1) == [1, 2]\n[/ANSWER]", 1.0),
        ("[ANSWER]\n[1, 2]\n[/ANSWER]", 1.0),
        ("[ANSWER]\n```python\nassert f(1) == [1, 2]\n```\n[/ANSWER]", 1.0),
        ("Step 1. f(1) is a list.\nassert f(1) == [1, 2]", 1.0),
        ("[ANSWER]\nassert f('==') == [1, 2]\n[/ANSWER]", 1.0),
        ("[ANSWER]\nassert f(1) == [1, 2", 0.0),
        ("[ANSWER]\nassert f(1) == list((1, 2))\n[/ANSWER]", 0.0),
        ("[ANSWER]\nassert f(1) == ??\n[/ANSWER]", 0.0),
        ("It returns [1, 2].", 0.0),
        ("[ANSWER]" + "[" * 100_000, 0.0),
        ("[ANSWER]" + "-" * 9_000 + "1[/ANSWER]", 0.0),
        *((f"[ANSWER]assert f({signs}1) == {signs}1[/ANSWER]", 0.0) for signs in ("-" * n for n in (150, 900, 4_900))),
        (f"[ANSWER]assert f('{'a' * 20_000}') == [1, 2][/ANSWER]", 0.0),
        ("", 0.0),
    ],
    ids=range(19),
)
def test_crux_output(completion: str, reward: float) -> None:
    assert CRUX.reward("[1, 2]", completion) == reward


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("[ANSWER]\nassert f(3) == 6\n[/ANSWER]", 1.0),
        ("[ANSWER]\nassert f(1, y=3) == 6\n[/ANSWER]", 1.0),
        ("[ANSWER]\nassert f(1, **{'y': 3}) == 6\n[/ANSWER]", 1.0),
        ("[ANSWER]\nf(len('abc'))\n[/ANSWER]", 1.0),
        ("[ANSWER]\nassert f(2) == 6\n[/ANSWER]", 0.0),
        ("[ANSWER]\nassert g(3) == 6\n[/ANSWER]", 0.0),
        ("[ANSWER]\nassert f(__import__('sys').exit(0)) == 6\n[/ANSWER]", 0.0),
        ("[ANSWER]\nassert f(type('X', (), {'__mul__': lambda s, o: 6})()) == 6\n[/ANSWER]", 0.0),
        ("[ANSWER]\nassert f(3, 4, 5, 6) == 6\n[/ANSWER]", 0.0),
        (f"[ANSWER]assert f({'-' * 900}1) == 6[/ANSWER]", 0.0),
        ("[ANSWER]\nassert f(\n    3,  # the x\n) == 6\n[/ANSWER]", 1.0),
        ("no answer", 0.0),
    ],
)
def test_crux_input(completion: str, reward: float) -> None:
    assert CRUX_INPUT.reward(DOUBLE, completion) == reward


def test_the_parts_of_an_assertion() -> None:
    assert find_answer("x [ANSWER] assert f(1) == 2 [/ANSWER] y") == "assert f(1) == 2"
    assert find_answer("[ANSWER]  [/ANSWER]") is None
    assert output_of("assert f(1) == {'a': 2}") == "{'a': 2}"
    assert arguments_of("assert f([1], k='a, b') == 2") == "[1], k='a, b'"
    assert arguments_of("assert f() == 2") == ""
    assert arguments_of("1 + 1") is None


@pytest.mark.parametrize("name", SIZES)
def test_the_real_files(name: str, shared_data: Path) -> None:
    """Sizes, and that the gold put where a model's answer stands is right; crux-input on every tenth."""
    benchmark = find_benchmarks([name])[0]
    problems = load_problems(benchmark, shared_data)
    assert len(problems) == SIZES[name] == benchmark.size
    if name == "crux":
        golds = [f"[ANSWER]\nassert f() == {p.answer}\n[/ANSWER]" for p in problems]
    elif name == "crux-input":
        problems = problems[::80]
        rows = [json.loads(line) for line in (shared_data / benchmark.file).open()][::80]
        golds = [f"[ANSWER]\nassert f({row['input']}) == {row['output']}\n[/ANSWER]" for row in rows]
    else:
        golds = [f"\\boxed{{{p.answer.rpartition('####')[2]}}}" for p in problems]
    wrong = [p.prompt_id for p, text in zip(problems, golds) if benchmark.reward(p.answer, text) != 1.0]
    assert wrong == []


def test_crux_asks_for_what_it_reads() -> None:
    """The example of each template is answered in the form that is read, and rightly."""
    shown = CRUX.extract(CRUX.prompt_template)
    assert shown is not None
    assert ast.literal_eval(shown) == ["bee", "elk"]
    gold = json.dumps({"code": "def f(a, b):\n    return b + 2 * a", "output": "11"})
    assert CRUX_INPUT.reward(gold, CRUX_INPUT.prompt_template.partition("{prompt}")[0]) == 1.0
