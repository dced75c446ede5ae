"""Data as it comes: files of every form, columns of every name, questions with context and options, mangled golds."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lean_align.data import (
    PreparedPrompts,
    PromptRules,
    data_sources,
    fields_for,
    load_rows,
    local_files,
    prepare_prompts,
    prompt_rows,
    prompts_from_rows,
    read_row,
)
from lean_align.data.options import ASKED_FOR, ASKED_FOR_NUMBER
from lean_align.data.row_formats import MAX_PROMPT_CHARS, read_prompt
from lean_align.errors import DataError, RecipeError
from lean_align.evaluation.problem_sets import held_out_name
from lean_align.recipe import DataRecipe, load_recipe
from lean_align.selection import check_n
from lean_align.types import Prompt
from lean_align.verify import parse_gold, verify

ROWS = [{"question": "1 + 1?", "answer": "2"}, {"question": "2 + 2?", "answer": "4"}]
CSV = 'question,answer,note\n"One, and\none?",2,\n\n2 + 2?,4,x\n'


def read(source: Path | str, split: str = "train", **keys: Any) -> list[dict[str, Any]]:
    return load_rows(DataRecipe(**{f"{split}_path": str(source), **keys}), split)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    found = pyarrow.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(found, path)
    else:
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, found.schema) as stream:
            stream.write_table(found)
    return path


def prepare(rows: list[Any], benchmarks: dict[str, list[Prompt]] | None = None, **rules: Any) -> PreparedPrompts:
    given = parse_gold, lambda prompt: True, PromptRules(**rules), benchmarks
    return prepare_prompts(rows, "train", "rows.jsonl", *given)


def pairs(prepared: PreparedPrompts) -> list[tuple[str, str]]:
    return [(prompt.prompt, prompt.answer) for prompt in prepared.prompts]


# Files


@pytest.mark.parametrize("name", ["r.csv", "r.csv.gz", "R.CSV", "r.tsv", "semicolon.csv"])
def test_delimited_text_is_read_and_stays_text(tmp_path: Path, name: str) -> None:
    text = CSV if ".csv" in name.lower() else 'question\tanswer\tnote\n"One, and\none?"\t2\t\n\n2 + 2?\t4\tx\n'
    if "semicolon" in name:
        text = 'question;answer;note\n"One, and\none?";2;\n\n2 + 2?;4;x\n'
    data = text.replace("\n", "\r\n").encode("utf-8-sig")
    found = read(write(tmp_path / name, gzip.compress(data) if name.endswith(".gz") else data))
    assert [row["question"].replace("\r", "") for row in found] == ["One, and\none?", "2 + 2?"]
    assert [(row["answer"], row["note"]) for row in found] == [("2", ""), ("4", "x")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question,answer\n1 + 1?,2\n\na, b,3\n", r"line 4 has 3 cells and the header has 2"),
        ("question,question\n", "line 1: the columns are"),
        ('question,answer\n"a"b,3\n', "cannot be read"),
    ],
)
def test_a_table_that_is_no_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"r\.csv {message}"):
        read(write(tmp_path / "r.csv", text))


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "r.csv", f"question,answer\n{'x' * 300_000},2\n"))[0]["question"]) == 300_000


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_row(tmp_path: Path, encoding: str) -> None:
    for name, text in (("r.jsonl", jsonl(*ROWS)), ("r.json", json.dumps(ROWS)), ("r.csv", "question,answer\n1,2\n")):
        assert list(read(write(tmp_path / name, text.encode(encoding)))[0]) == ["question", "answer"]


def test_an_object_that_holds_one_list_is_its_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", json.dumps({"version": 1, "data": ROWS}, indent=1))
    assert read(path) == ROWS
    with pytest.raises(DataError, match=r"holds one object with a, b"):
        read(write(path, json.dumps({"a": 1, "b": 2}, indent=1)))


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    for i, row in enumerate(ROWS):
        table(tmp_path / f"train-0000{i}-of-00002.parquet", [row])
    assert read(tmp_path) == read(f"{tmp_path}/*.parquet") == ROWS
    assert local_files(str(tmp_path))[0].name == "train-00000-of-00002.parquet"
    files = {str(path) for path in local_files(str(tmp_path))}
    assert data_sources(DataRecipe(train_path=str(tmp_path), test_path="demo")) == {*files, "demo"}


def test_a_folder_named_after_splits_gives_the_one_that_is_asked_for(tmp_path: Path) -> None:
    """A test set among the training prompts would be a leak that nobody sees."""
    for name, row in (("train-0.jsonl", ROWS[0]), ("test-0.jsonl", ROWS[1])):
        write(tmp_path / "data" / name, jsonl(row))
    write(tmp_path / "README.md", "x")
    assert (read(tmp_path), read(tmp_path, "test")) == (ROWS[:1], ROWS[1:])
    with pytest.raises(DataError, match="has files of test, train and none of validation"):
        read(tmp_path, train_split="validation")


def test_a_folder_may_have_one_for_each_configuration(tmp_path: Path) -> None:
    for name, row in zip(("main", "socratic"), ROWS):
        table(tmp_path / name / "train-00000-of-00001.parquet", [row])
    assert read(tmp_path, config="socratic") == ROWS[1:]
    with pytest.raises(DataError, match=r"without data files.*Its subfolders main, socratic have some"):
        read(tmp_path)


def test_a_saved_data_set_is_read(tmp_path: Path) -> None:
    table(tmp_path / "data-00000-of-00001.arrow", ROWS)
    write(tmp_path / "state.json", "{}")
    write(tmp_path / "dataset_info.json", "{}")
    assert read(tmp_path) == ROWS


def test_a_folder_of_several_formats_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", CSV)
    write(tmp_path / "a.jsonl", jsonl(*ROWS))
    with pytest.raises(DataError, match=r"several formats \(\.csv, \.jsonl\), which may hold the same rows"):
        read(tmp_path)


@pytest.mark.parametrize("source", ["gone/*.jsonl", "./gone", "/gone/rows", "a/b/c", "gone.csv", ""])
def test_what_is_not_there_is_never_asked_of_the_hub(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"(there is no file|no file matches|folder without data files)"):
        read(source)


@pytest.mark.parametrize("text", ["[" * 5000, "[" * 5000 + "]" * 5000])
def test_deep_nesting_is_an_error_in_one_sentence(tmp_path: Path, text: str) -> None:
    for name, content, where in (
        ("r.jsonl", f'{jsonl(ROWS[0])}\n{{"question": {text}}}\n', r"r\.jsonl line 3"),
        ("r.json", text, r"r\.json"),
    ):
        with pytest.raises(DataError, match=rf"{where} is (nested too deeply|not valid JSON)") as caught:
            read(write(tmp_path / name, content))
        assert len(str(caught.value)) < 500


def test_a_number_without_end_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"r\.jsonl line 2 is not valid JSON: Exceeds the limit"):
        read(write(tmp_path / "r.jsonl", f'{jsonl(ROWS[0])}{{"answer": {"9" * 5000}}}\n'))


def test_rows_are_named_by_the_lines_of_their_file(tmp_path: Path) -> None:
    bad = {"question": "x", "answer": {"value": 1}}
    path = write(tmp_path / "r.jsonl", f"\n{jsonl(ROWS[0])}\n\n{jsonl(bad)}")
    with pytest.raises(DataError, match=r"r\.jsonl line 5: the answer is dict.*data\.answer_field.*: value"):
        prepare(read(path))
    path = write(tmp_path / "r.csv", f"{CSV}x,,\n".replace("2 + 2?,4,x", "x,,"))
    with pytest.raises(DataError, match=r"r\.csv line 5 has no answer"):
        prepare(read(path)[1:])


# Columns


@pytest.mark.parametrize(
    ("row", "prompt_field", "answer_field"),
    [
        ({"query": "1 + 1?", "final": "2"}, "query", "final"),
        ({"query": "1 + 1?", "out": {"final": 2.0}}, "query", "out.final"),
        ({"query": {"text": "1 + 1?"}, "out": '{"final": ["2"]}'}, "query.text", "out.final.0"),
        ({"a.b": "1 + 1?", "Answers": ["2"]}, "a.b", "answers"),
        ({"prompt": "other", "query": "1 + 1?", "answer": "3", "gold": Decimal("2.0")}, "query", "gold"),
        ({"query": "1 + 1?", "response": "work\n#### 2\nThe answer is: 2"}, "query", "response"),
        ({"query": "1 + 1?", "response": "so\nThe answer is: 2."}, "query", "response"),
        ({"query": [{"role": "user", "content": "1 + 1?"}], "gold": 2}, "query", "gold"),
    ],
)
def test_columns_may_be_named(row: dict[str, Any], prompt_field: str, answer_field: str) -> None:
    prepared = prepare([row], prompt_field=prompt_field, answer_field=answer_field)
    assert pairs(prepared) == [("1 + 1?", "2")]


def test_a_named_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match=r"has no answer: got \['prompt', 'q'\], expected a value in a\.b, which is"):
        prepare([{"prompt": "x", "q": 1}], answer_field="a.b")
    with pytest.raises(DataError, match=r"has no prompt: .* expected text in query, which is data\.prompt_field"):
        prepare(ROWS, prompt_field="query")


def test_the_names_of_columns_may_be_of_any_case() -> None:
    row = {"Body": "A tin holds 8 nuts.", "Question": "How many in two?", "Answer": 16.0}
    assert read_row(row, "here") == ("A tin holds 8 nuts.\nHow many in two?", "16")


def test_an_empty_field_is_passed_over_for_the_next() -> None:
    row = {"prompt": "", "question": None, "problem": "1 + 1?", "answer": "", "reward_model": {}, "solution": "2"}
    assert read_row(row, "here") == ("1 + 1?", "2")


# Answers


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (Decimal("7.00"), "7"),
        (Decimal("0.50"), "0.50"),
        (5e-05, "0.00005"),
        ("5e-05", "0.00005"),
        ("1.5E+3", "1500"),
        (1.25e-7, "0.000000125"),
        (["7"], "7"),
        ([[7.0]], "7"),
        (["7", "7"], "7"),
        ('["1,234"]', "1,234"),
        ("9 (plums)", "9"),
        ("$1,234.50 (per week)", "$1,234.50"),
        ("rac{1}{2}", r"\frac{1}{2}"),
        ("\frac{1}{2}", r"\frac{1}{2}"),
        (r"so $x = \boxed{\frac{1}{2}}$", r"\frac{1}{2}"),
        ("(1, 2)", "(1, 2)"),
    ],
)
def test_answers_are_read_as_they_are_meant(answer: Any, gold: str) -> None:
    assert pairs(prepare([{"question": "x", "answer": answer}])) == [("x", gold)]
    assert verify(gold, f"\\boxed{{{gold}}}") == 1.0


@pytest.mark.parametrize("answer", ["proof", "notfound", "N/A", "see solution", [], [None], float("nan")])
def test_what_stands_for_a_missing_answer_is_dropped(answer: Any) -> None:
    prepared = prepare([*ROWS, {"question": "x", "answer": answer}])
    assert [row["prompt"] for row in prepared.dropped] == ["x"]
    assert {"no answer": 1, "unreadable answer": 1}.items() & prepared.dropped_by_reason.items()
    assert len(prepared.prompts) == 2


def test_several_answers_are_dropped() -> None:
    prepared = prepare([*ROWS, {"question": "x", "answer": ["1", "2"]}])
    assert prepared.dropped_by_reason == {"several answers": 1}


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        ("First.\nThen $\\boxed{7}$.", "7"),
        ("First \\boxed{3}.\nThen \\boxed{\\frac{1}{\\sqrt{2}}} \\{", r"\frac{1}{\sqrt{2}}"),
        ("so " * 100 + r"\fbox{7}", "7"),
        ("First.\n#### 7", "7"),
        ("First.\nThe final answer is 7.", "7"),
        ("7", "7"),
    ],
)
def test_a_worked_solution_gives_what_it_marks(solution: str, gold: str) -> None:
    assert pairs(prepare([{"problem": "x", "solution": solution}])) == [("x", gold)]


def test_reward_model_may_be_text() -> None:
    for text in ('{"style": "rule", "ground_truth": "2"}', "{'ground_truth': '2', 'style': 'rule'}"):
        assert read_row({"prompt": "1 + 1?", "reward_model": text}, "here") == ("1 + 1?", "2")


# Questions


MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "Add."}, {"type": "text", "text": "1 + 1?"}]}]


@pytest.mark.parametrize(
    ("prompt", "question", "system"),
    [
        (MESSAGES, "1 + 1?", "Be brief."),
        (json.dumps(MESSAGES), "1 + 1?", "Be brief."),
        (str(MESSAGES), "1 + 1?", "Be brief."),
        (PARTS, "Add.\n1 + 1?", None),
        (json.dumps(PARTS), "Add.\n1 + 1?", None),
        ('[{"a": 1}] is a list?', '[{"a": 1}] is a list?', None),
        ("[1, 2] has how many?", "[1, 2] has how many?", None),
    ],
)
def test_chats_give_question_and_system_message(prompt: Any, question: str, system: str | None) -> None:
    found = read_prompt({"prompt": prompt, "answer": "2"}, "p", "here")
    assert found == Prompt("p", question, "2", system)
    assert prompts_from_rows(prompt_rows([found])) == [found]


def test_a_prompt_without_a_system_message_is_written_as_before() -> None:
    assert prompt_rows([Prompt("p", "x", "2")]) == [{"prompt_id": "p", "prompt": "x", "answer": "2"}]


def test_a_chat_that_is_no_json_is_refused() -> None:
    with pytest.raises(DataError, match="begins like chat messages but is not JSON"):
        prepare([{"prompt": '[{"role": "user", "content": "x"', "answer": "2"}])


@pytest.mark.parametrize(
    "row",
    [
        {"question": "What is shown?", "images": [{"bytes": b"x"}], "answer": "2"},
        {"prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "answer": "2"},
    ],
)
def test_a_question_about_a_picture_is_dropped(row: dict[str, Any]) -> None:
    prepared = prepare([*ROWS, row])
    assert (len(prepared.prompts), prepared.dropped_by_reason) == (2, {"more than text": 1})


@pytest.mark.parametrize("name", ["body", "context", "passage"])
def test_what_stands_in_front_of_a_question_is_joined(name: str) -> None:
    rows = [
        {name: "Jo has 4 nuts and eats 1.", "question": "How many are left?", "answer": "3 (nuts)"},
        {name: "Al has 4 nuts and eats 3.", "question": "How many are left?", "answer": "1 (nuts)"},
    ]
    assert pairs(prepare(rows)) == [
        ("Jo has 4 nuts and eats 1.\nHow many are left?", "3"),
        ("Al has 4 nuts and eats 3.\nHow many are left?", "1"),
    ]
    whole = {"question": f"{rows[0][name]} How many?", name: rows[0][name], "answer": "3"}
    assert pairs(prepare([whole])) == [(whole["question"], "3")]


def test_a_context_that_is_no_text_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="the field 'context', which stands in front of the question, is dict"):
        prepare([{"question": "x", "context": {"title": ["a"]}, "answer": "2"}])


LISTED = f"Which is prime?\n\nA. 4\nB. 7\nC. 9\n\n{ASKED_FOR}"


@pytest.mark.parametrize(
    "options",
    [
        ["4", "7", "9"],
        [4, 7, 9],
        ["A) 4", "B) 7", "C) 9"],
        ["(A) 4", "(B) 7", "(C) 9"],
        {"A": "4", "B": "7", "C": "9", "D": None},
        {"text": ["4", "7", "9"], "label": ["A", "B", "C"]},
        [{"label": "A", "text": "4"}, {"label": "B", "text": "7"}, {"label": "C", "text": "9"}],
        '["4", "7", "9"]',
        "['4', '7', '9']",
    ],
)
@pytest.mark.parametrize(
    "answer", ["B", "b", "(B)", "B) 7", 1, "7", "1", ["B"], 1.0, r"so \boxed{B}.", "7 (units)", "The answer is B."]
)
def test_options_are_listed_and_the_gold_is_the_letter(options: Any, answer: Any) -> None:
    for name in ("options", "choices"):
        assert pairs(prepare([{"question": "Which is prime?", name: options, "answer": answer}])) == [(LISTED, "B")]


def test_a_letter_can_be_met() -> None:
    assert verify("B", "It is 7. The answer is B.") == verify("B", "\\boxed{B}") == 1.0
    assert verify("B", "\\boxed{A}") == 0.0


def test_a_number_is_a_place_before_it_is_a_text() -> None:
    [(_, gold)] = pairs(prepare([{"question": "Which is even?", "choices": ["1", "2", "3"], "answer": 1}]))
    assert gold == "B"


@pytest.mark.parametrize(("choices", "answer"), [(["1", "2", "3"], "1"), (["4", "7"], "5"), (["4", "7"], 3)])
def test_a_gold_that_names_no_one_option_is_dropped(choices: list[str], answer: Any) -> None:
    prepared = prepare([*ROWS, {"question": "x", "choices": choices, "answer": answer}])
    assert (len(prepared.prompts), prepared.dropped_by_reason) == (2, {"gold is none of the options": 1})


def test_labels_of_their_own_are_kept() -> None:
    row = {"question": "x", "choices": {"text": ["p", "q"], "label": ["1", "2"]}, "answerKey": "2"}
    [(question, gold)] = pairs(prepare([row], answer_field="answerKey"))
    assert ("1. p\n2. q" in question, gold) == (True, "2")


def test_a_question_that_lists_its_options_is_not_given_them_twice() -> None:
    row = {"question": "Which?\n(A) 4 (B) 7", "options": ["4", "7"], "answer": "B"}
    assert pairs(prepare([row])) == [(f"Which?\n(A) 4 (B) 7\n\n{ASKED_FOR}", "B")]


@pytest.mark.parametrize("options", [3, "none", [["a"]], {"text": ["a"], "label": []}, ["x"] * 27])
def test_options_of_another_form_are_refused_by_name(options: Any) -> None:
    with pytest.raises(DataError, match="the field 'options' is"):
        prepare([{"question": "x", "options": options, "answer": "A"}])


# Bounds


def test_a_row_too_large_is_named_and_dropped_before_it_is_compared(tmp_path: Path) -> None:
    """8 MB of short words, whose tokens and runs of three would be more than a gigabyte."""
    import tracemalloc

    huge = {"question": "ab 1 " * 1_600_000, "answer": "2"}
    path = write(tmp_path / "r.jsonl", jsonl(ROWS[0], huge))
    tracemalloc.start()
    prepared = prepare(read(path), benchmarks={"b": [Prompt("b-0", "1 + 1?", "2")]})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert prepared.dropped_by_reason == {"too large": 1}
    assert prepared.dropped[0]["reason"].startswith("has a prompt of 8,000,000 characters; 1,000,000 are read")
    assert len(prepared.dropped[0]["prompt"]) <= 1000
    assert peak < 8 * 8e6, peak
    assert len(prepare([{"question": "x" * MAX_PROMPT_CHARS, "answer": "2"}]).prompts) == 1


@pytest.mark.parametrize(
    "row",
    [
        {"question": "x \ud83d", "answer": "2"},
        {"question": "x", "answer": "2\udc00"},
        {"prompt": [{"role": "system", "content": "\udfff"}, {"role": "user", "content": "x"}], "answer": "2"},
    ],
)
def test_half_a_character_drops_its_row(row: dict[str, Any]) -> None:
    prepared = prepare([*ROWS, json.loads(json.dumps(row))])
    assert (len(prepared.prompts), prepared.dropped_by_reason) == (2, {"broken characters": 1})
    json.dumps(prepared.dropped, ensure_ascii=False).encode()


def test_whole_characters_written_in_halves_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", '{"question": "\\ud83d\\ude00?", "answer": "2"}\n')
    assert pairs(prepare(read(path))) == [("\U0001f600?", "2")]


@pytest.mark.parametrize(
    ("source", "name"),
    [("a/rows.jsonl", "rows"), ("a/rows/test.jsonl", "rows"), ("a/rows/*.parquet", "rows"), ("a/test-*.csv", "test")],
)
def test_the_held_out_set_has_a_name_that_can_be_a_file(source: str, name: str) -> None:
    assert held_out_name(load_recipe("demo", {"data.test_path": source})) == name


# What the user's settings are about


def test_named_columns_are_those_of_the_users_files() -> None:
    named = {"prompt_field": "instruction", "answer_field": "Final Answer"}
    data = DataRecipe(train_path="mine.jsonl", test_path="theirs.jsonl", **named)
    own, usual = {"instruction": "1 + 1?", "Final Answer": "2"}, ROWS[0]
    assert fields_for(data, "train", [usual]) == fields_for(data, "test", [own]) == ("instruction", "Final Answer")
    assert fields_for(data, "test", [{"x": 1}]) == ("instruction", "Final Answer")
    assert fields_for(data, "test", [usual]) == (None, None)
    made = DataRecipe(train_path="testbed", test_path="demo", **named)
    assert fields_for(made, "train", [usual]) == fields_for(made, "test", [own]) == (None, None)


@pytest.mark.parametrize("key", ["model.name", "data.train_path", "data.train_split"])
@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_path_or_name_is_refused(key: str, value: str) -> None:
    with pytest.raises(RecipeError, match=rf"{key} is empty; expected a path or a name"):
        load_recipe("demo", {key: value})


@pytest.mark.parametrize("name", ["r.json", "r.json.gz"])
def test_rows_in_one_line_around_them(tmp_path: Path, name: str) -> None:
    def wrapped(value: Any) -> list[dict[str, Any]]:
        data = json.dumps(value).encode()
        return read(write(tmp_path / name, gzip.compress(data) if name.endswith(".gz") else data))

    assert wrapped({"version": 1, "data": ROWS}) == ROWS
    for row in (
        {"prompt": [{"role": "user", "content": "1 + 1?"}], "answer": "2"},
        {"query": [{"role": "user", "content": "1 + 1?"}], "gold": "2"},
        {"question": "x", "choices": [{"label": "A", "text": "4"}], "answer": "A"},
        {"question": "x", "answer": ["4"]},
    ):
        assert wrapped(row) == [row]


def test_a_table_that_excel_wrote_is_read_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "r.csv", "question,answer\nCafé € 1 + 1?,2\n".encode("cp1252"))
    assert [read(path)[0]["question"] for _ in range(2)] == ["Café € 1 + 1?"] * 2
    assert capsys.readouterr().err.count("is not UTF-8 and is read as cp1252") == 1
    with pytest.raises(DataError, match="it is not UTF-8"):
        read(write(tmp_path / "r.jsonl", '{"question": "é", "answer": "2"}\n'.encode("cp1252")))


def test_too_few_prompts_say_what_was_left_out() -> None:
    with pytest.raises(RecipeError, match=r"the pool has 34 .* 9 rows of the file were left out, .*: 5 no answer, 4 d"):
        check_n(64, 34, {"duplicate": 4, "no answer": 5})


# Options


def choice(columns: dict[str, Any], answer: Any, question: str = "Which is prime?") -> dict[str, Any]:
    return {"question": question, **columns, "answer": answer}


@pytest.mark.parametrize(
    "names",
    [
        "A B C D",
        "opa opb opc opd",
        "option_a option_b option_c option_d",
        "optionA optionB optionC",
        "Option A|Option B",
    ],
)
@pytest.mark.parametrize("answer", ["B", "7", 1])
def test_options_in_columns_are_listed(names: str, answer: Any) -> None:
    columns = dict(zip(names.split("|") if "|" in names else names.split(), ("4", "7", "9", None)))
    filled = [text for text in columns.values() if text is not None]
    lines = "\n".join(f"{letter}. {text}" for letter, text in zip("ABC", filled))
    rows = [choice(columns, answer), choice(columns, 0, "Which is even?")]
    assert pairs(prepare(rows))[0] == (f"Which is prime?\n\n{lines}\n\n{ASKED_FOR}", "B")


def test_numbered_columns_are_labels_unless_places_are_counted_from_0() -> None:
    columns = {"choice1": "4", "choice2": "7", "choice3": "9"}
    assert pairs(prepare([choice(columns, 2)])) == [(f"Which is prime?\n\n1. 4\n2. 7\n3. 9\n\n{ASKED_FOR_NUMBER}", "2")]
    assert [gold for _, gold in pairs(prepare([choice(columns, "1"), choice(columns, "0", "y")]))] == ["2", "1"]


@pytest.mark.parametrize(
    "columns",
    [{"a": "4", "b": "7"}, {"A": "4"}, {"A": ["4"], "B": ["7"]}, {"B": "4", "C": "7"}, {"op": "4", "opx": "5"}],
)
def test_other_columns_are_no_options(columns: dict[str, Any]) -> None:
    assert pairs(prepare([choice(columns, "11", "Sum?")])) == [("Sum?", "11")]


def test_a_gap_among_the_options_drops_the_row() -> None:
    prepared = prepare([*ROWS, choice({"A": "4", "B": None, "C": "9"}, "A")])
    assert prepared.dropped_by_reason == {"gold is none of the options": 1}
    assert "no text in the column 'B'" in prepared.dropped[0]["reason"]


def test_letters_without_options_are_dropped_with_the_reason() -> None:
    rows = [{"question": f"Which of these {i}?", "answer": letter} for i, letter in enumerate("ABCD")]
    listed = {"question": "Which? (A) 4 (B) 7", "answer": "B"}
    prepared = prepare([*rows, listed])
    assert (len(prepared.prompts), prepared.dropped_by_reason) == (1, {"no options": 4})
    with pytest.raises(DataError, match="lists no options"):
        prepare(rows)
    assert len(prepare([*rows, *ROWS]).prompts) == 6  # a letter may be an answer


@pytest.mark.parametrize(
    ("answers", "golds", "said"),
    [
        ([3, 4], "CD", "counted from 1: one equals the number of its options"),
        (["3", "4"], "CD", "counted from 1"),
        ([3, 0], "DA", ""),
        ([3, 1], "DB", "counted from 0, although nothing in the file shows it"),
        ([3, 4, 5], "D", "counted from 0, although"),
        (["C", "D"], "CD", ""),
        (["9", 8], "CB", ""),
    ],
)
def test_the_file_shows_where_places_are_counted_from(
    answers: list[Any], golds: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": f"{i}?", "options": ["7", "8", "9", "10"], "answer": a} for i, a in enumerate(answers)]
    assert "".join(gold for _, gold in pairs(prepare(rows))) == golds
    err = capsys.readouterr().err
    assert (said in err, err.count("places of options")) == (True, bool(said))


def test_known_layouts_are_read_without_settings() -> None:
    arc = {"question": "x", "choices": {"text": ["p", "q"], "label": ["1", "2"]}, "answerKey": "2"}
    assert pairs(prepare([arc])) == [(f"x\n\n1. p\n2. q\n\n{ASKED_FOR_NUMBER}", "2")]
    med = {"question": "x", "opa": "p", "opb": "q", "opc": "r", "opd": "s", "cop": 0, "exp": "long"}
    assert pairs(prepare([med, {**med, "question": "y", "cop": 3}]))[1][1] == "D"
