"""The run folder: atomic files, fingerprints, and the life of a stage's folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from lean_align.artifacts import (
    FORMAT_VERSION,
    canonical_json,
    changes,
    check_inputs,
    check_outputs,
    disk_errors,
    file_hash,
    folder_hash,
    outputs_fingerprint,
    read_json,
    read_jsonl,
    read_manifest,
    stage_folder,
    text_hash,
    write_json,
    write_jsonl,
    write_text,
)
from lean_align.errors import DiskFullError, LeanAlignError, StageError, StaleStageError

INPUTS = {"recipe": {"seed": 0, "data": {"limit": 64}}, "stages": {}}


class Stop(Exception):
    """Stands for whatever ends a stage early."""


def fill(run_dir: Path, stage: str = "data", inputs: dict[str, Any] = INPUTS, text: str = "one\n") -> Path:
    """A finished stage with one file."""
    with stage_folder(run_dir, stage, inputs) as folder:
        write_text(folder.path / "rows.txt", text)
        folder.counts["n"] = 1
    return run_dir / stage


def start(run_dir: Path, ending: BaseException, seconds: float = 0.0) -> None:
    """A stage that writes a file, works for so long, and is ended by an exception."""
    with stage_folder(run_dir, "data", INPUTS) as folder:
        folder.started -= seconds
        write_text(folder.path / "half.txt", "kept")
        raise ending


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_finished_stage_has_a_manifest_and_no_partial_folder(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    manifest = read_manifest(folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "rows.txt"]
    assert manifest is not None
    assert manifest["format_version"] == FORMAT_VERSION == 2
    assert manifest["inputs"] == INPUTS
    assert manifest["outputs"] == {"rows.txt": hashlib.sha256(b"one\n").hexdigest()}
    assert manifest["counts"] == {"n": 1}
    assert manifest["wall_seconds"] >= 0
    assert manifest["peak_rss_bytes"] > 2**20


def test_files_in_subfolders_are_outputs_too(tmp_path: Path) -> None:
    with stage_folder(tmp_path, "training", INPUTS) as folder:
        (folder.path / "adapter").mkdir()
        write_text(folder.path / "adapter" / "weights", "w")
    assert list(read_manifest(tmp_path / "training")["outputs"]) == ["adapter/weights"]


def test_an_unfinished_stage_has_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        start(tmp_path, Stop())
    assert read_manifest(tmp_path / "data") is None
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("ending", [Stop, KeyboardInterrupt, SystemExit])
def test_an_exception_keeps_the_work_and_what_it_was_made_from(tmp_path: Path, ending: type[BaseException]) -> None:
    with pytest.raises(ending):
        start(tmp_path, ending())
    assert (tmp_path / "data.partial" / "half.txt").read_text() == "kept"
    assert read_json(tmp_path / "data.partial" / "inputs.json")["inputs"] == INPUTS
    with stage_folder(tmp_path, "data", INPUTS) as folder:
        assert (folder.path / "half.txt").read_text() == "kept"
    assert (tmp_path / "data" / "half.txt").exists()


@pytest.mark.parametrize("ending", [Stop, KeyboardInterrupt])
def test_time_of_an_earlier_attempt_counts(tmp_path: Path, ending: type[BaseException]) -> None:
    """10 s of a broken attempt and 5 s of the next are 15 s."""
    with pytest.raises(ending):
        start(tmp_path, ending(), seconds=10)
    with stage_folder(tmp_path, "data", INPUTS) as folder:
        folder.started -= 5
    assert 15 <= read_manifest(tmp_path / "data")["wall_seconds"] < 16


def test_work_without_known_inputs_is_thrown_away(tmp_path: Path) -> None:
    """`inputs.json` is the first file of a stage: without it nobody knows what the rest was made from."""
    (tmp_path / "data.partial").mkdir()
    (tmp_path / "data.partial" / "stray.txt").write_text("from where?")
    fill(tmp_path)
    assert not (tmp_path / "data" / "stray.txt").exists()


def test_unfinished_work_from_other_inputs_is_refused_with_what_changed(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        start(tmp_path, Stop())
    other = {"recipe": {"seed": 1, "data": {"limit": 64}}, "stages": {"warmup": "ab"}}
    with pytest.raises(StaleStageError) as caught, stage_folder(tmp_path, "data", other):
        pytest.fail("the block must not run")
    assert "recipe.seed: 0 -> 1" in str(caught.value)
    assert "stages.warmup: not recorded -> 'ab'" in str(caught.value)
    assert "limit" not in str(caught.value)
    assert "choose another folder" in str(caught.value)
    assert read_json(tmp_path / "data.partial" / "inputs.json")["inputs"] == INPUTS


def test_a_kill_while_the_folder_gets_its_name_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours of rollouts must survive a kill between the manifest and the rename."""
    rename = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if self.is_dir():
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path)
    monkeypatch.setattr(Path, "replace", rename)
    with stage_folder(tmp_path, "data", INPUTS) as folder:
        assert (folder.path / "rows.txt").exists()
    check_outputs(tmp_path / "data", read_manifest(tmp_path / "data") or {})


def test_an_interruption_leaves_no_trace_in_the_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later stages depend on the hash of the outputs: it must not tell how often the disk was full."""
    once, twice = tmp_path / "once", tmp_path / "twice"
    for run_dir in (once, twice):
        with pytest.raises(Stop):
            start(run_dir, Stop())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(DiskFullError):
            fill(twice)
    assert outputs_fingerprint(fill(once)) == outputs_fingerprint(fill(twice))


def test_equal_inputs_are_accepted() -> None:
    check_inputs(Path("data"), json.loads(json.dumps(INPUTS)), INPUTS)


def test_a_stale_link_is_to_be_deleted_without_what_it_leads_to(tmp_path: Path) -> None:
    """The stage of another run, which another recipe wants as it is."""
    fill(tmp_path / "other")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data").symlink_to(tmp_path / "other" / "data")
    with pytest.raises(StaleStageError, match=rf"\n  rm -r {tmp_path / 'mine' / 'data'}$"):
        check_inputs(tmp_path / "mine" / "data", INPUTS, {"recipe": {"seed": 7}})


def test_changes_are_listed_key_by_key() -> None:
    old = {"a": 1, "b": {"c": [1, 2], "d": "x"}, "e": None}
    new = {"a": 1, "b": {"c": [1, 3], "d": "x", "f": 2.5}, "e": {"g": 1}}
    assert changes(old, new) == ["b.c: [1, 2] -> [1, 3]", "b.f: not recorded -> 2.5", "e: None -> {'g': 1}"]
    assert changes(new, new) == []


def test_unchanged_outputs_are_accepted(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    check_outputs(folder, read_manifest(folder) or {})


def test_a_changed_output_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    (folder / "rows.txt").write_text("two\n")
    with pytest.raises(StaleStageError, match=r"rows\.txt was changed after it was written\. Delete"):
        check_outputs(folder, read_manifest(folder) or {})


def test_a_missing_output_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    (folder / "rows.txt").unlink()
    with pytest.raises(StaleStageError, match=r"rows\.txt is missing\. Delete"):
        check_outputs(folder, read_manifest(folder) or {})


def test_no_letter_or_digit_of_a_manifest_changes_unseen(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    text = (folder / "manifest.json").read_text()
    for i in (i for i, letter in enumerate(text) if letter.isalnum()):
        (folder / "manifest.json").write_text(text[:i] + ("7" if text[i] != "7" else "8") + text[i + 1 :])
        with pytest.raises(StaleStageError, match=rf"\n  rm -r {folder}$"):
            check_outputs(folder, read_manifest(folder) or {})


def test_a_manifest_of_the_version_before_has_no_seal(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    old = {key: value for key, value in read_json(folder / "manifest.json").items() if key not in ("seal", "beside")}
    check_outputs(folder, old)
    with pytest.raises(StaleStageError, match="changed"):
        check_outputs(folder, old | {"sea1": "0"})


def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    """safetensors writes through a private temporary file."""
    before = os.umask(0o027)
    try:
        with stage_folder(tmp_path, "training", INPUTS) as folder:
            (folder.path / "adapter").mkdir()
            for name in ("log.jsonl", "adapter/weights"):
                (folder.path / name).touch(0o600)
    finally:
        os.umask(before)
    files = [p for p in (tmp_path / "training").rglob("*") if p.is_file()]
    assert [oct(p.stat().st_mode & 0o777) for p in files] == ["0o640"] * 3


def test_fingerprint_of_outputs_follows_content_only(tmp_path: Path) -> None:
    one, same, other = fill(tmp_path / "a"), fill(tmp_path / "b"), fill(tmp_path / "c", text="two\n")
    write_json(same / "manifest.json", {**read_json(same / "manifest.json"), "wall_seconds": 99.0, "peak_rss_bytes": 1})
    assert outputs_fingerprint(one) == outputs_fingerprint(same) != outputs_fingerprint(other)


def test_fingerprint_of_an_unfinished_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="data has not finished"):
        outputs_fingerprint(tmp_path / "data")


def test_a_full_disk_in_a_stage_keeps_the_work_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="Everything written so far is kept") as caught:
        start(tmp_path, OSError(errno.ENOSPC, "no space"))
    assert str(tmp_path) in str(caught.value)
    assert isinstance(caught.value, OSError)
    assert (tmp_path / "data.partial" / "half.txt").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_and_no_quota_are_the_same_error(tmp_path: Path, code: int) -> None:
    with pytest.raises(DiskFullError, match="free"), disk_errors(tmp_path / "file"):
        raise OSError(code, "no")


def test_other_errors_of_the_system_pass(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_writing_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"old": 1})
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DiskFullError):
        write_json(path, {"new": 2})
    assert read_json(path) == {"old": 1}


def test_writing_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "long text")
    write_text(path, "ü")
    assert path.read_bytes() == "ü".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_json_round_trips(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, True], "a": "ü\u2028\n"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert (tmp_path / "a.json").read_text(encoding="utf-8").startswith('{\n  "b"')


def test_rows_round_trip_a_line_each(tmp_path: Path) -> None:
    rows = [{"prompt": "ü\nline\u2028separator\r"}, {}, {"x": 1e-5}]
    write_jsonl(tmp_path / "a.jsonl", iter(rows))
    assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == 3
    assert read_jsonl(tmp_path / "a.jsonl") == rows


@pytest.mark.parametrize("read", [read_json, read_jsonl])
def test_a_missing_file_is_named(tmp_path: Path, read: Any) -> None:
    with pytest.raises(StageError, match=r"gone\.json is missing"):
        read(tmp_path / "gone.json")


@pytest.mark.parametrize("read", [read_json, read_jsonl])
@pytest.mark.parametrize("content", [b'{"a": 1}\n{"a": ', b'{"a": "\xff"}'])
def test_a_damaged_file_is_named(tmp_path: Path, read: Any, content: bytes) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(LeanAlignError, match=r"rows\.json"):
        read(path)


def test_canonical_json_does_not_depend_on_order() -> None:
    assert canonical_json({"b": 1, "a": [1, "ü"]}) == canonical_json({"a": [1, "ü"], "b": 1}) == '{"a":[1,"ü"],"b":1}'


def test_hashes_are_sha256(tmp_path: Path) -> None:
    """SHA-256 of "abc" is the first example of FIPS 180-2."""
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "a").write_bytes(b"abc")
    assert text_hash("abc") == file_hash(tmp_path / "a") == digest


def model_folder(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "weights").write_bytes(b"\x00\x01")
    return folder


def test_folder_hash_does_not_depend_on_place_or_time(tmp_path: Path) -> None:
    one, two = model_folder(tmp_path / "one"), model_folder(tmp_path / "two")
    os.utime(two / "config.json", (1, 1))
    assert folder_hash(one) == folder_hash(two)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "config.json").write_text("{ }"),
        lambda folder: (folder / "sub" / "weights").rename(folder / "weights"),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "new").touch(),
    ],
    ids=["content", "name", "removed", "added"],
)
def test_folder_hash_follows_names_and_content(tmp_path: Path, change: Any) -> None:
    folder = model_folder(tmp_path / "model")
    before = folder_hash(folder)
    change(folder)
    assert folder_hash(folder) != before


def test_folder_hash_leaves_hidden_files_out(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    before = folder_hash(folder)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "lock").touch()
    (folder / "sub" / ".gitattributes").touch()
    assert folder_hash(folder) == before
