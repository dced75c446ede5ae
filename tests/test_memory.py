"""What an out-of-memory error says, in the words of torch and NumPy, and what the allocator is told."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bench.child import status_bytes
from lean_align import memory
from lean_align.cli.common import Group
from lean_align.errors import LeanAlignError, OutOfMemoryError
from lean_align.memory import Shortage, allocator_environment, out_of_memory, process_environment, shortage_of

CARD = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 23.64 GiB of which 15.50 MiB is "
    "free. Including non-PyTorch memory, this process has 23.61 GiB memory in use."
)


def test_a_full_card():
    assert shortage_of(torch.OutOfMemoryError(CARD)) == Shortage(20 * 2**20, 15 * 2**20 + 2**19)


def test_torch_itself_on_a_cpu():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    shortage = shortage_of(caught.value)
    assert shortage.needed_bytes == 2**50
    assert shortage.free_bytes > 0


def test_numpy_itself():
    with pytest.raises(MemoryError) as caught:
        np.empty(2**50, np.uint8)
    assert shortage_of(caught.value).needed_bytes == 2**50  # it says 1.00 PiB


def test_our_own_error_is_one_too():
    assert shortage_of(OutOfMemoryError("no memory for a gradient")) is not None


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("not enough memory"), KeyError("x")])
def test_other_errors_are_none(error):
    assert shortage_of(error) is None


def test_what_is_not_known_is_said():
    assert str(Shortage(None, 3 * 2**30)) == "unknown more needed, 3.0 GiB free"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("ft2font.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        SystemError("error return without exception set"),
    ],
)
def test_an_address_space_that_is_used_up_is_said_in_a_sentence(error, monkeypatch):
    monkeypatch.setattr(memory, "address_space_limit", lambda: 2**30)
    found = out_of_memory(error)
    assert isinstance(found, LeanAlignError)
    assert "limited to 1.0 GiB (ulimit -v): raise the limit, then run the same command again" in str(found)
    wrapped = ValueError("a plot failed")
    wrapped.__cause__ = error
    assert out_of_memory(wrapped) is not None


def test_other_errors_are_no_lack_of_memory(monkeypatch):
    assert out_of_memory(ValueError("3")) is None
    assert out_of_memory(SystemError("a bug")) is None  # without a limit
    assert "End other programs" in str(out_of_memory(MemoryError()))
    own = OutOfMemoryError("no memory for the training")
    assert out_of_memory(own) is own


def test_a_command_that_runs_out_of_memory_ends_with_one_line(monkeypatch):
    def lacking():
        raise ImportError("libarrow.so: failed to map segment from shared object")

    command = Group("lean-align", commands={"x": click.Command("x", callback=lacking)})
    done = CliRunner().invoke(command, ["x"])
    assert done.exit_code == 1
    assert "Error: out of memory: " in done.output
    assert "Traceback" not in done.output


def test_the_allocator_is_told_to_keep_no_freed_blocks_apart(monkeypatch):
    monkeypatch.setattr(memory, "_has_glibc", lambda: True)
    told = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"
    assert allocator_environment({"A": "b"}) == {"A": "b", "GLIBC_TUNABLES": told}
    assert allocator_environment({"GLIBC_TUNABLES": told}) == {"GLIBC_TUNABLES": told}
    own = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=3"}
    assert allocator_environment(own) == {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=3:glibc.malloc.mxfast=0"}
    assert own == {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=3"}


@pytest.mark.parametrize("own", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_waiting_threads_do_not_spin_unless_the_user_says_how_they_wait(own):
    assert process_environment({"A": "b"})["OMP_WAIT_POLICY"] == "PASSIVE"
    told = process_environment({own: "7"})
    assert {name: told.get(name) for name in memory._WAITING if name in told} == {own: "7"}


def test_another_c_library_is_told_nothing(monkeypatch):
    monkeypatch.setattr(memory, "_has_glibc", lambda: False)
    assert allocator_environment({"A": "b"}) == {"A": "b"}


def test_the_command_restarts_with_it_once(tmp_path):
    """Its arguments, and what Python itself was given, come along."""
    code = (
        "import json, os, sys; from lean_align import __main__ as command, cli; "
        "cli.main = lambda: print(json.dumps([os.getpid(), sys.argv[1:], sys.flags.dev_mode, dict(os.environ)])); "
        "command.start()"
    )
    plain = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-X", "dev", "-W", "ignore", "-c", code, "a b", "--c"]
    process = subprocess.Popen(command, env=plain, stdout=subprocess.PIPE, text=True)
    pid, arguments, dev_mode, environment = json.loads(process.communicate()[0])
    assert (pid, arguments, dev_mode) == (process.pid, ["a b", "--c"], True)
    assert environment == process_environment(plain)


@pytest.mark.skipif(not memory._MAPPINGS.exists(), reason="Linux tells of its mappings")
def test_pages_of_a_mapped_file_that_were_only_read_are_given_back_and_come_again(tmp_path):
    """Two files of 32 MiB: one is read, of the other a page is written, which must not be lost."""
    arrays = []
    for name in ("read", "written"):
        np.full(32 * 2**20, 7, np.uint8).tofile(tmp_path / f"{name}.weights")
        arrays.append(np.memmap(tmp_path / f"{name}.weights", np.uint8, mode="c"))
    read, written = arrays
    written[5] = 9
    assert int(read.sum()) == int(written.sum()) - 2

    before = status_bytes("RssFile")
    memory.forget_mapped_files(".weights")
    assert 30 * 2**20 < before - status_bytes("RssFile") < 40 * 2**20
    assert written[5] == 9
    assert int(read.sum()) == 32 * 2**20 * 7
