"""Data files and settings that failed once, where their folder is on this machine; test_data_forms has its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lean_align.data import PreparedPrompts, PromptRules, load_rows, prepare_prompts
from lean_align.errors import DataError
from lean_align.recipe import DataRecipe, load_recipe
from lean_align.verify import parse_gold, verify

PLAIN = ["7", "7", "18", "5"]
LETTERS = "Answer with the letter of the right option."
GOLDS: dict[str, list[str]] = {
    "asdiv.jsonl": ["9", "3", "1"],
    "mcq.jsonl": ["C", "B"],
    "mcq_letters.jsonl": ["B", "B"],
    "numina15.jsonl": ["7", "5"],
    "prompt_json_string.jsonl": PLAIN,
    "math_lighteval_long.jsonl": PLAIN,
    "bom.jsonl": PLAIN,
    "content_parts.jsonl": PLAIN,
    "rm_string.jsonl": PLAIN,
    "answer_null.jsonl": ["7", "5"],
    "rows.csv": PLAIN,
    "shards": [],
    "conflict_units.jsonl": ["7", "0.5", "5"],
    "two_fields.jsonl": PLAIN,
}
NAMED = {
    "metamath.jsonl": ("query", "response"),
    "final_answer.jsonl": (None, "final_answer"),
    "expected_answer.jsonl": ("problem", "expected_answer"),
}


@pytest.fixture(scope="module")
def cases(shared_data: Path) -> Path:
    folder = shared_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip("the failing inputs are not on this machine")
    return folder


def prepared(path: Path, **keys: Any) -> PreparedPrompts:
    data = DataRecipe(train_path=str(path), **keys)
    rules = PromptRules(data.prompt_field, data.answer_field)
    return prepare_prompts(load_rows(data, "train"), "train", str(path), parse_gold, lambda prompt: True, rules)


@pytest.mark.parametrize("name", GOLDS)
def test_the_file_is_read(cases: Path, name: str) -> None:
    found = prepared(cases / "files" / name)
    golds = [prompt.answer for prompt in found.prompts]
    assert golds == GOLDS[name] or (name == "shards" and len(golds) > 1)
    assert all(verify(gold, f"The answer is {gold}.") == 1.0 for gold in golds)
    assert not any(prompt.prompt.startswith("[") for prompt in found.prompts)


@pytest.mark.parametrize("name", NAMED)
def test_its_columns_can_be_named(cases: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"data\.(prompt|answer)_field"):
        prepared(cases / "files" / name)
    prompt_field, answer_field = NAMED[name]
    found = prepared(cases / "files" / name, prompt_field=prompt_field, answer_field=answer_field)
    assert [prompt.answer for prompt in found.prompts] == PLAIN


def test_nothing_that_a_question_needs_is_passed_over(cases: Path) -> None:
    texts = [prompt.prompt for prompt in prepared(cases / "files" / "asdiv.jsonl").prompts]
    assert texts[0] == "Seven red plums and two green plums lie in a bowl.\nHow many plums lie in the bowl?"
    options = [prompt.prompt for prompt in prepared(cases / "files" / "mcq_letters.jsonl").prompts]
    assert options[0] == f"Which is prime?\n\nA. 4\nB. 7\n\n{LETTERS}"


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("numina15.jsonl", {"unreadable answer": 2}), ("answer_null.jsonl", {"no answer": 2}), ("asdiv.jsonl", {})],
)
def test_what_cannot_be_used_is_dropped_with_its_reason(cases: Path, name: str, kinds: dict[str, int]) -> None:
    found = prepared(cases / "files" / name)
    assert found.dropped_by_reason == kinds
    assert all(len(row["reason"]) > 20 for row in found.dropped)


def test_settings_are_taken_as_they_are(cases: Path) -> None:
    rows = [json.loads(line) for line in (cases / "other.jsonl").read_text(encoding="utf-8").splitlines()]
    settings = [row for row in rows if "--set '" in row["input"]]
    for row in settings:
        key, _, text = row["input"].partition("--set '")[2].rstrip("'").partition("=")
        if key == "data.system_prompt":
            assert load_recipe(cases / "files" / "tiny.yaml", {key: text}).data.system_prompt == row["expected"]
    assert settings
