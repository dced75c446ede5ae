"""Prompts from files, from the hub and from the generator, by the rules at the top of `lean_align.data`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lean_align.data import (
    Census,
    PreparedPrompts,
    PromptRules,
    load_rows,
    prepare_prompts,
    prompt_rows,
    prompts_from_rows,
    read_row,
)
from lean_align.demo.problems import GRADES
from lean_align.errors import DataError, LeanAlignError
from lean_align.recipe import DataRecipe
from lean_align.types import Prompt
from lean_align.verify import parse_gold, verify

ROWS = [{"prompt": "1 + 1?", "answer": "2"}, {"prompt": "2 + 2?", "answer": "4"}]


def jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], Any]] = {
    "rows.jsonl": lambda path, rows: path.write_bytes(jsonl(rows)),
    "rows.json": lambda path, rows: path.write_text(json.dumps(rows, indent=1)),
    "rows.jsonl.gz": lambda path, rows: path.write_bytes(gzip.compress(jsonl(rows))),
    "rows.json.gz": lambda path, rows: path.write_bytes(gzip.compress(json.dumps(rows).encode())),
    "rows.parquet": write_parquet,
}


def read(path: Path) -> list[dict[str, Any]]:
    return load_rows(DataRecipe(train_path=str(path)), "train")


def read_bytes(folder: Path, name: str, content: bytes) -> list[dict[str, Any]]:
    (folder / name).write_bytes(content)
    return read(folder / name)


def prepare(rows: list[Any], **options: Any) -> PreparedPrompts:
    given = {"parse_gold": parse_gold, "fits": lambda prompt: True, "benchmarks": None} | options
    rules = PromptRules(**{key: value for key, value in options.items() if key in PromptRules.__dataclass_fields__})
    return prepare_prompts(rows, "train", "rows.jsonl", given["parse_gold"], given["fits"], rules, given["benchmarks"])


def pairs(prepared: PreparedPrompts) -> list[tuple[str, str]]:
    return [(prompt.prompt, prompt.answer) for prompt in prepared.prompts]


def numbered(n: int) -> list[dict[str, str]]:
    return [{"prompt": f"{i} + 0?", "answer": str(i)} for i in range(n)]


# Reading


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, ROWS)
    assert read(tmp_path / name) == ROWS


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_ends_in_the_same_prompts(tmp_path: Path, name: str) -> None:
    rows = [{"question": "How many?", "answer": "so\n#### 1,234"}, {"question": "And now?", "answer": "7"}]
    WRITERS[name](tmp_path / name, rows)
    assert prepare(read(tmp_path / name)).prompts == (
        Prompt("train-000000", "How many?", "1,234"),
        Prompt("train-000001", "And now?", "7"),
    )


def test_blank_lines_are_passed_over(tmp_path: Path) -> None:
    assert read_bytes(tmp_path, "rows.jsonl", b"\n" + jsonl(ROWS) + b"  \n\n") == ROWS


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_only_a_newline_ends_a_row(tmp_path: Path, mark: str) -> None:
    """JSON allows these characters inside a text as they are; str.splitlines() cuts at them."""
    rows = [{"prompt": f"one{mark}two", "answer": "2"}]
    assert read_bytes(tmp_path, "rows.jsonl", jsonl(rows)) == rows


def test_each_split_has_its_own_file(tmp_path: Path) -> None:
    for split, row in zip(("train", "test"), ROWS):
        (tmp_path / f"{split}.jsonl").write_bytes(jsonl([row]))
    data = DataRecipe(train_path=str(tmp_path / "train.jsonl"), test_path=str(tmp_path / "test.jsonl"))
    assert load_rows(data, "train") == ROWS[:1]
    assert load_rows(data, "test") == ROWS[1:]


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl line 3 is not valid JSON"):
        read_bytes(tmp_path, "rows.jsonl", jsonl(ROWS) + b'{"prompt": ')


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", b'{"prompt": "\xff"}\n'),
        ("rows.jsonl.gz", b"not compressed"),
        ("rows.jsonl.gz", gzip.compress(b'{"prompt": "x"}' * 50)[:-9]),
        ("rows.parquet", b"PAR1 and no more"),
        ("rows.json", b"[1, 2"),
    ],
    ids=["no utf-8", "no gzip", "cut gzip", "no parquet", "cut list"],
)
def test_a_file_that_cannot_be_read_is_a_data_error(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(DataError, match=rf"{name}"):
        read_bytes(tmp_path, name, content)


@pytest.mark.parametrize(("name", "content"), [("rows.jsonl", b""), ("rows.jsonl", b"\n \n"), ("rows.json", b"[]")])
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(DataError, match=r"has no rows; expected one prompt"):
        read_bytes(tmp_path, name, content)


def test_a_missing_file_is_named_and_no_download_is_tried(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*gone\.jsonl"):
        read(tmp_path / "gone.jsonl")


def test_a_hub_name_gets_configuration_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    calls = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, split: calls.append((*names, split)) or iter(ROWS))
    data = DataRecipe(train_path="openai/gsm8k", test_path="openai/gsm8k", config="main", test_split="validation")
    assert load_rows(data, "train") == load_rows(data, "test") == ROWS
    assert calls == [("openai/gsm8k", "main", "train"), ("openai/gsm8k", "main", "validation")]


@pytest.mark.parametrize(
    "error", [ConnectionError("no net\nsecond line"), ValueError(""), KeyError("split"), OSError(5, "x")]
)
def test_a_hub_that_fails_is_a_data_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    import datasets

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=rf"'some/name'.*{type(error).__name__}") as caught:
        load_rows(DataRecipe(train_path="some/name"), "train")
    assert caught.value.__cause__ is error
    assert "second line" not in str(caught.value)
    assert "Give the path of a .jsonl" in str(caught.value)


# The generator


def test_demo_splits_have_the_sizes_asked_for_and_no_question_in_common() -> None:
    """Grade 1 alone: of 800 questions a split, drawn with nothing left out, 28 would be in both."""
    weights = tuple(float(grade == 1) for grade in GRADES)
    data = DataRecipe(demo_train=800, demo_test=700, demo_grade_weights=weights)
    train, test = load_rows(data, "train"), load_rows(data, "test")
    questions = {row["prompt"] for row in train} | {row["prompt"] for row in test}
    assert (len(train), len(test), len(questions)) == (800, 700, 1500)


def test_demo_rows_survive_every_rule() -> None:
    prepared = prepare(load_rows(DataRecipe(demo_train=50, demo_test=5), "train"))
    assert (len(prepared.prompts), prepared.dropped) == (50, ())


def test_a_weight_of_zero_leaves_a_grade_out() -> None:
    """A problem of grade 1 has at most two sentences and the question; one of the highest has three at least."""

    def sentences(grade: int) -> list[int]:
        weights = tuple(float(other == grade) for other in GRADES)
        data = DataRecipe(demo_train=40, demo_test=5, demo_grade_weights=weights)
        return [row["prompt"].count(".") for row in load_rows(data, "train")]

    assert max(sentences(1)) <= 2 < min(sentences(GRADES[-1]))


# Rule 1: copies


def test_whole_copies_are_read_once_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [verl("1 + 1?", "2"), verl("2 + 2?", "4")]
    assert read_bytes(tmp_path, "rows.jsonl", jsonl(rows * 100)) == rows
    assert "holds 2 different rows; 198 more repeat one of them in every field" in capsys.readouterr().err


def test_rows_that_differ_in_any_field_are_all_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**ROWS[0], "id": i} for i in range(3)]
    assert read_bytes(tmp_path, "rows.jsonl", jsonl(rows)) == rows
    assert capsys.readouterr().err == ""


def test_copies_are_not_held(tmp_path: Path) -> None:
    """20,000 copies of a row of 2,000 characters, 40 MB of text, are read in less than 4 MB."""
    import tracemalloc

    row = {"prompt": "x" * 2000, "answer": "1"}
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(jsonl([row]) * 20_000))
    tracemalloc.start()
    assert read(tmp_path / "rows.jsonl.gz") == [row]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6


# Rule 2: formats; no prompt or no answer


@pytest.mark.parametrize("row", [{"prompt": "x"}, {"prompt": "x", "answer": None}, {"prompt": "x", "answer": " "}])
def test_a_row_without_an_answer_is_dropped_and_a_file_of_them_refused(row: dict[str, Any]) -> None:
    prepared = prepare([*ROWS, row])
    assert (len(prepared.prompts), prepared.dropped_by_reason) == (2, {"no answer": 1})
    [dropped] = prepared.dropped
    assert (dropped["prompt_id"], dropped["prompt"], dropped["answer"]) == ("train-000002", "x", "")
    assert dropped["reason"].startswith("has no answer: got ['")
    with pytest.raises(DataError, match=r"rows\.jsonl, row 1 has no answer: got .*'prompt'.*data\.answer_field"):
        prepare([row, {**row, "prompt": "y"}])


@pytest.mark.parametrize(
    "row", [{"answer": "1"}, {"prompt": None, "answer": "1"}, {"prompt": " \n", "answer": "1"}, {"prompt": []}]
)
def test_a_row_without_a_prompt_is_dropped_and_a_file_of_them_refused(row: dict[str, Any]) -> None:
    assert prepare([*ROWS, row]).dropped_by_reason == {"no prompt": 1}
    with pytest.raises(DataError, match=r"rows\.jsonl, row 1 has no prompt.*one of prompt, question, problem"):
        prepare([row])


@pytest.mark.parametrize("row", [["prompt", "answer"], "text", 3, None])
def test_a_row_that_is_no_object_is_named(row: Any) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl, row 1 is {type(row).__name__}; expected an object"):
        prepare([row])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (3, "the prompt is int; expected text, or a list of chat messages"),
        ({"role": "user"}, "the prompt is dict; expected text"),
        (["1 + 1?"], "a list that holds str '1 \\+ 1.'; expected chat messages"),
        ([{"role": "user", "content": None}], "a list that holds dict .*; expected chat messages"),
        ([{"role": "system", "content": "x"}], "a chat of system; expected one user message"),
        ([{"role": "user", "content": "x"}] * 2, "a chat of user, user; expected one user message"),
        ([{"role": r, "content": "x"} for r in ("user", "assistant")], "a chat of user, assistant; expected one user"),
    ],
)
def test_a_prompt_of_another_kind_is_named(prompt: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl, row 2.* {message}"):
        prepare([ROWS[0], {"prompt": prompt, "answer": "1"}])


@pytest.mark.parametrize("name", ["prompt", "question", "problem"])
def test_a_prompt_has_three_names(name: str) -> None:
    assert pairs(prepare([{name: " 1 + 1?\n", "answer": 2}])) == [("1 + 1?", "2")]


FIRST = (
    "Solve the following math problem and keep to this: the last line is of the form Answer: $Answer (no quotes).\n\n"
)
LAST = '\n\nRemember to put your answer on its own line after the word "Answer:".'


def chat(question: str) -> list[dict[str, str]]:
    return [{"content": question, "role": "user"}]


def verl(question: str, answer: str) -> dict[str, Any]:
    return {"prompt": chat(FIRST + question + LAST), "reward_model": {"ground_truth": answer, "style": "rule"}}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "1 + 1?", "answer": "2"},
        {"question": "1 + 1?", "answer": "2"},
        {"problem": "1 + 1?", "solution": "First,\nthen 2.", "answer": "2"},
        {"problem": "1 + 1?", "solution": "2", "answer": None},
        {"prompt": chat("1 + 1?"), "answer": 2},
        {"prompt": [{"role": "system", "content": "Think."}, *chat("1 + 1?")], "answer": 2.0},
        {"prompt": "1 + 1?", "solution": "2", "source_prompt": chat("x"), "reward_model": {"ground_truth": "2"}},
        {"prompt": FIRST + "1 + 1?" + LAST, "solution": "2"},
        verl("1 + 1?", "2"),
    ],
)
def test_every_row_format_gives_question_and_answer(row: dict[str, Any]) -> None:
    assert read_row(row, "here") == ("1 + 1?", "2")


@pytest.mark.parametrize("question", ["Two\n\nparagraphs, Answer: $Answer", "  spaced \n", "Remember to put it down."])
def test_only_the_instruction_is_taken_off(question: str) -> None:
    assert read_row(verl(question, "2"), "here")[0] == question


@pytest.mark.parametrize("question", [FIRST + "1 + 1?", "1 + 1?" + LAST, FIRST.strip() + " 1 + 1?" + LAST])
def test_half_an_instruction_stays(question: str) -> None:
    assert read_row({"prompt": question, "answer": "2"}, "here")[0] == question


def test_an_instruction_around_nothing_is_no_prompt() -> None:
    with pytest.raises(DataError, match="has no prompt"):
        prepare([verl("", "2")])


@pytest.mark.parametrize(
    ("answer", "text"),
    [(142.0, "142"), (-3.0, "-3"), (0.5, "0.5"), (1e22, "1" + "0" * 22), (7, "7"), ("142.0", "142.0"), (0.0, "0")],
)
def test_a_whole_float_is_an_integer(answer: Any, text: str) -> None:
    assert read_row({"prompt": "x", "answer": answer}, "here") == ("x", text)


@pytest.mark.parametrize("answer", [{"value": 2}, b"2"])
def test_an_answer_that_is_neither_text_nor_number_is_named(answer: Any) -> None:
    with pytest.raises(DataError, match=f"row 1: the answer is {type(answer).__name__}; expected text or a number"):
        prepare([{"prompt": "x", "answer": answer}])


def test_a_missing_number_is_no_answer() -> None:
    with pytest.raises(DataError, match="row 1 has no answer"):
        prepare([{"prompt": "x", "answer": float("nan")}])


@pytest.mark.parametrize("solution", ["First,\nthen 2.", "so " * 100])
def test_a_worked_solution_is_no_answer(solution: str) -> None:
    with pytest.raises(DataError, match=r"row 1 has no answer: its `solution`, of \d+ characters, is a worked one"):
        prepare([{"problem": "x", "solution": solution}])


def test_zero_is_an_answer() -> None:
    assert pairs(prepare([{"prompt": "1 - 1?", "answer": 0}])) == [("1 - 1?", "0")]


# Rule 3: golds


def test_the_gold_is_what_follows_the_hashes() -> None:
    assert pairs(prepare([{"prompt": "x", "answer": "20 - 2 = <<20-2=18>>18\n#### 18"}])) == [("x", "18")]


def test_a_gold_with_commas_can_be_verified() -> None:
    [(_, gold)] = pairs(prepare([{"prompt": "x", "answer": "#### 1,234,567"}]))
    assert verify(gold, "#### 1234567") == verify(gold, "The answer is $1,234,567.") == 1.0
    assert verify(gold, "#### 1234") == 0.0


def test_an_unreadable_gold_is_dropped_with_its_reason() -> None:
    prepared = prepare([ROWS[0], {"prompt": "x", "answer": "no idea\n####"}])
    assert pairs(prepared) == [("1 + 1?", "2")]
    [row] = prepared.dropped
    assert (row["prompt_id"], row["prompt"], row["answer"]) == ("train-000001", "x", "no idea\n####")
    assert row["reason"].startswith("answer cannot be read: got the empty gold")


def test_an_error_of_the_parser_itself_is_not_swallowed() -> None:
    def broken(_: str) -> str:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        prepare(ROWS, parse_gold=broken)


# Rules 4 and 5: conflicts and duplicates


def test_a_duplicate_is_kept_once_the_first_time() -> None:
    prepared = prepare([*ROWS, {"prompt": " 1 + 1? ", "answer": "so #### 2"}, {"question": "1 + 1?", "answer": 2}])
    assert [prompt.prompt_id for prompt in prepared.prompts] == ["train-000000", "train-000001"]
    assert [(row["prompt_id"], row["reason"]) for row in prepared.dropped] == [
        ("train-000002", "duplicate of train-000000"),
        ("train-000003", "duplicate of train-000000"),
    ]


def test_a_prompt_with_answers_in_conflict_is_dropped_each_time() -> None:
    prepared = prepare([*ROWS, {"prompt": "1 + 1?", "answer": "3"}, {"prompt": "1 + 1?", "answer": "2"}])
    assert pairs(prepared) == [("2 + 2?", "4")]
    assert [row["prompt_id"] for row in prepared.dropped] == ["train-000000", "train-000002", "train-000003"]
    assert {row["reason"] for row in prepared.dropped} == {"answers in conflict for the same prompt: 2, 3"}


@pytest.mark.parametrize(
    "answers",
    [
        ("1", "1.0"),
        ("1,000", "1000"),
        ("+2", "2.00"),
        ("0.50", ".5"),
        ("x", "x"),
        ("1/2", "0.5"),
        (r"\frac12", "0.5"),
        ("7", "7 pens"),
    ],
)
def test_equal_values_are_no_conflict(answers: tuple[str, str]) -> None:
    prepared = prepare([{"prompt": "q", "answer": a} for a in answers] + [ROWS[0]], parse_gold=str)
    assert prepared.dropped_by_reason == {"duplicate": 1}
    assert ("q", answers[0]) in pairs(prepared)


def test_questions_are_compared_but_for_white_space() -> None:
    prepared = prepare([{"prompt": "1 +\n\n 1?", "answer": "2"}, *ROWS])
    assert pairs(prepared) == [("1 +\n\n 1?", "2"), ("2 + 2?", "4")]
    assert prepared.dropped_by_reason == {"duplicate": 1}


def test_the_census_by_hand() -> None:
    """Texts: "a?" (1 and 2), "a? " (2), "b?" (3, twice), "c?" (4 and 4.0): 4, one in conflict; questions: a, b, c."""
    given = [("a?", "1"), ("a?", "2"), ("a? ", "2"), ("b?", "3"), ("b?", "3"), ("c?", "4"), ("c?", "4.0")]
    prepared = prepare([{"prompt": prompt, "answer": answer} for prompt, answer in given])
    assert prepared.census == Census(7, 4, 1, 3, 1)
    assert prepared.dropped_by_reason == {"conflicting answers": 3, "duplicate": 2}


def test_an_unreadable_answer_does_not_make_a_conflict() -> None:
    assert pairs(prepare([ROWS[0], {"prompt": "1 + 1?", "answer": "####"}])) == [("1 + 1?", "2")]


# Rule 6: Chinese characters

CHINESE = [{"prompt": "设 x = 1, 求 x", "answer": "1"}, {"prompt": "\U00020000 = ?", "answer": "1"}]


def test_chinese_prompts_are_kept_or_dropped() -> None:
    assert len(prepare([*ROWS, *CHINESE]).prompts) == 4
    prepared = prepare([*ROWS, *CHINESE], chinese="drop")
    assert pairs(prepared) == [("1 + 1?", "2"), ("2 + 2?", "4")]
    assert [row["reason"] for row in prepared.dropped] == ["Chinese characters"] * 2
    assert prepared.dropped_by_reason == {"Chinese characters": 2}


def test_other_scripts_and_full_width_signs_are_not_chinese() -> None:
    rows = [{"prompt": text, "answer": "1"} for text in ("ж + я?", "がんばれ", "x\uff0c y?", "\u3002")]
    assert len(prepare(rows, chinese="drop").prompts) == 4


# Rule 7: contamination

LONG = "A farmer has {} cows and buys {} more cows at the market on a rainy day. How many cows are there now?"
HELD_OUT = [Prompt("test-000004", LONG.format(3, 4), "7"), Prompt("test-000005", LONG.format(8, 9), "17")]
HELD = [
    {"prompt": LONG.format(3, 4).upper(), "answer": "7"},
    {"prompt": LONG.format(5, 4), "answer": "9"},
    {"prompt": LONG.format(8, 9) + " Answer in full.", "answer": "17"},
    *ROWS,
]


@pytest.mark.parametrize(("rule", "left"), [("keep", 5), ("off", 5), ("drop_exact", 4), ("drop", 3)])
def test_contaminated_prompts_are_kept_or_dropped(rule: str, left: int) -> None:
    prepared = prepare(HELD, contamination=rule, benchmarks={"cows": HELD_OUT})
    assert len(prepared.prompts) == left
    assert LONG.format(5, 4) in [prompt.prompt for prompt in prepared.prompts], "other numbers, another problem"
    assert prepared.dropped_by_reason == ({"contaminated": 5 - left} if left < 5 else {})
    assert (prepared.contamination is None) == (rule == "off")


def test_the_reason_names_benchmark_and_problem() -> None:
    prepared = prepare(HELD, contamination="drop", benchmarks={"cows": HELD_OUT, "again": HELD_OUT[:1]})
    assert [(row["prompt_id"], row["reason"]) for row in prepared.dropped] == [
        ("train-000000", "contaminated: exact match of again test-000004, and 1 more"),
        ("train-000002", "contaminated: near match (1.00) of cows test-000005"),
    ]


def test_the_reason_names_an_exact_match_before_a_near_one() -> None:
    longer = Prompt("test-000009", HELD[2]["prompt"], "17")
    prepared = prepare(HELD[2:], contamination="drop", benchmarks={"a": HELD_OUT, "b": [longer]})
    assert [row["reason"] for row in prepared.dropped] == [
        "contaminated: exact match of b test-000009, and 1 more",
    ]


def test_the_check_comes_before_limit_and_length() -> None:
    prepared = prepare(HELD, limit=1, fits=lambda prompt: len(prompt.prompt) < 20, benchmarks={"cows": HELD_OUT})
    assert prepared.contamination is not None
    assert [pair.prompt_id for pair in prepared.contamination.pairs] == ["train-000000", "train-000002"]
    assert prepared.contamination.n_prompts == 5
    assert len(prepared.prompts) == 1


def test_without_benchmarks_nothing_is_found() -> None:
    assert prepare(HELD, contamination="drop").dropped == ()


# Rule 8: length


def test_a_prompt_too_long_is_dropped() -> None:
    prepared = prepare([*ROWS, {"prompt": "x" * 99, "answer": "1"}], fits=lambda prompt: len(prompt.prompt) < 50)
    assert pairs(prepared) == [("1 + 1?", "2"), ("2 + 2?", "4")]
    assert [row["reason"] for row in prepared.dropped] == [
        "no room for a completion: with rollouts.max_new_tokens past the context, or past data.max_prompt_tokens"
    ]


def test_the_length_of_a_duplicate_is_not_asked() -> None:
    asked: list[str] = []
    prepare([*ROWS, ROWS[0]], fits=lambda prompt: asked.append(prompt.prompt_id) or True)
    assert asked == ["train-000000", "train-000001"]


# Rule 9: limit


def test_limit_takes_a_seeded_subset_in_file_order() -> None:
    rows = numbered(50)
    first, again, other = (prepare(rows, limit=10, seed=seed) for seed in (3, 3, 4))
    ids = [prompt.prompt_id for prompt in first.prompts]
    assert first == again
    assert first.prompts != other.prompts
    assert (len(ids), ids) == (10, sorted(ids))
    assert ids != [f"train-{i:06d}" for i in range(10)], "a random subset, not the head of the file"


def test_a_smaller_limit_takes_a_part_of_a_larger() -> None:
    rows = numbered(50)
    small, large = (set(prepare(rows, limit=limit).prompts) for limit in (10, 30))
    assert small < large


def test_limit_counts_what_the_other_rules_leave() -> None:
    rows = [*numbered(5), {"prompt": "bad", "answer": "####"}, numbered(1)[0]]
    prepared = prepare(rows, limit=5)
    assert len(prepared.prompts) == 5
    assert len(prepared.dropped) == 2


@pytest.mark.parametrize("limit", [None, 5, 6])
def test_a_limit_above_the_pool_keeps_all(limit: int | None) -> None:
    assert len(prepare(numbered(5), limit=limit).prompts) == 5


def test_splits_draw_apart() -> None:
    def ids(split: str) -> list[str]:
        prepared = prepare_prompts(numbered(50), split, "rows.jsonl", str, lambda prompt: True, PromptRules(limit=10))
        return [prompt.prompt_id.removeprefix(f"{split}-") for prompt in prepared.prompts]

    assert ids("train") != ids("test")


# The whole


def test_every_row_is_kept_or_accounted_for() -> None:
    rows = [*numbered(4), numbered(1)[0], {"prompt": "1 + 0?", "answer": "9"}, {"prompt": "bad", "answer": "####"}]
    prepared = prepare(rows, fits=lambda prompt: prompt.answer != "3")
    ids = [prompt.prompt_id for prompt in prepared.prompts] + [row["prompt_id"] for row in prepared.dropped]
    assert sorted(ids) == [f"train-{i:06d}" for i in range(len(rows))]
    assert all(set(row) == {"prompt_id", "prompt", "answer", "kind", "reason"} for row in prepared.dropped)


def test_nothing_usable_is_refused_with_the_reasons() -> None:
    with pytest.raises(
        DataError,
        match=r"rows\.jsonl: none of its 2 rows can be used \(no room for a completion: .* data\.max_prompt_tokens\)",
    ):
        prepare(ROWS, fits=lambda prompt: False)


def test_no_rows_at_all_are_refused() -> None:
    with pytest.raises(LeanAlignError, match="no rows"):
        prepare([])


def test_prompts_round_trip_through_rows() -> None:
    prompts = prepare(ROWS).prompts
    assert tuple(prompts_from_rows(json.loads(json.dumps(prompt_rows(prompts))))) == prompts


# The real file


def test_dapo_math_17k(shared_data: Path) -> None:
    """17,917 rows, 17,290 different texts, 11 of them with answers in conflict."""
    rows = read(shared_data / "dapo_math_17k" / "dapo_math_17k.jsonl.gz")
    prepared = prepare(rows, chinese="drop", contamination="off")
    assert prepared.census == Census(17_917, 17_290, 11, 17_188, 12)
    assert len(prepared.prompts) + len(prepared.dropped) == len(rows) == 17_917
    assert prepared.dropped_by_reason == {"conflicting answers": 24, "duplicate": 717, "Chinese characters": 3_200}
    wrapped = [verl(row["question"], row["answer"]) for row in rows]
    assert prepare(wrapped, chinese="drop", contamination="off") == prepared
