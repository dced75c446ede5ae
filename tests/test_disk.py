"""A full disk in the words of each library, and paths in advice as a shell takes them."""

from __future__ import annotations

import errno
import shlex
from pathlib import Path

import pytest

from lean_align.advice import made_anew, quoted, removal
from lean_align.disk import disk_errors, is_disk_full
from lean_align.errors import DiskFullError, StoreError

SAID = {
    "safetensors": Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    "tokenizers": Exception("No space left on device (os error 28)"),
    "torch": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    "numpy": OSError("1000000 requested and 38384 written"),
    "pyarrow": OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left on device"),
    "quota": Exception("I/O error: Disk quota exceeded (os error 122)"),
}


@pytest.mark.parametrize("library", SAID)
def test_a_full_disk_is_known_in_the_words_of_each_library(library: str, tmp_path: Path) -> None:
    full = r"is full \(.* free\)\. Everything written so far is kept"
    with pytest.raises(DiskFullError, match=full), disk_errors(tmp_path / "not there" / "adapter"):
        raise SAID[library]


def test_an_error_that_came_of_a_full_disk_is_one(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError), disk_errors(tmp_path):
        raise StoreError("the store cannot be written") from OSError(errno.EDQUOT, "quota")


@pytest.mark.parametrize("error", [ValueError("os error 2"), OSError(errno.EACCES, "no"), KeyError("space")])
def test_other_errors_are_none(error: Exception, tmp_path: Path) -> None:
    assert not is_disk_full(error)
    with pytest.raises(type(error)), disk_errors(tmp_path):
        raise error


@pytest.mark.parametrize("name", ["my run", "it's", "$HOME", "a;b", 'x"y', "-rf", "plain", "ä\nb"])
def test_a_shell_takes_advice_as_it_is_meant(name: str) -> None:
    path = Path(name)
    program, option, word = shlex.split(removal(path))
    assert (program, option, Path(word)) == ("rm", "-r", path)
    assert not word.startswith("-")
    last = made_anew(path / "data").split("\n", 1)[1]
    assert shlex.split(last) == ["rm", "-r", *shlex.split(quoted(path / "data"))]


def test_a_plain_path_stays_as_it_is() -> None:
    assert removal(Path("runs/demo/data"), Path("/x/y")) == "rm -r runs/demo/data /x/y"


def test_a_link_is_deleted_with_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to("home")
    assert removal(tmp_path / "link") == f"rm -r {tmp_path / 'link'} {(tmp_path / 'home').resolve()}"
