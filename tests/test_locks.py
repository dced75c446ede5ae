"""Who may work in a run folder, and what a refused start leaves."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lean_align.errors import MissingPackageError, StageError
from lean_align.pipeline import folder_locks
from lean_align.pipeline.folder_locks import RUN_LOCK, RUN_PROCESS, child_environment, run_lock, stage_lock
from lean_align.recipe import dump_recipe, load_recipe
from lean_align.stages import run, run_stage
from lean_align.store import StoreWriter

HOLDER = "4711 otherhost 2026-11-29 05:40:12"
ROOT = Path(__file__).parent.parent


@contextmanager
def held(run_dir: Path, kind: int, holder: str = HOLDER) -> Iterator[None]:
    """The lock of a run as another process holds it: a lock belongs to the open file, not to the process."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / RUN_LOCK).open("w") as file:
        fcntl.flock(file, kind)
        file.write(holder)
        file.flush()
        yield


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def slept(seconds: float) -> None:
        pytest.fail("it waited")

    monkeypatch.setattr(folder_locks.time, "sleep", slept)


@pytest.mark.usefixtures("no_waiting")
def test_a_second_run_is_refused_at_once_and_told_who_works_there(tmp_path: Path, fake_stages: list[Any]) -> None:
    who = r"process 4711 on otherhost .* since 2026-11-29 05:40:12\. Wait for it"
    with held(tmp_path / "run", fcntl.LOCK_EX), pytest.raises(StageError, match=who):
        run(load_recipe("demo"), tmp_path / "run")
    assert fake_stages == []
    assert not (tmp_path / "run" / "recipe.yaml").exists()


@pytest.mark.usefixtures("no_waiting")
def test_a_run_of_this_process_keeps_out_another(tmp_path: Path) -> None:
    who = f"process {os.getpid()} on .* has been working"
    with run_lock(tmp_path), pytest.raises(StageError, match=who), run_lock(tmp_path):
        pytest.fail("two runs in one folder")
    assert (tmp_path / RUN_LOCK).read_text() == ""
    with run_lock(tmp_path):
        pass


@pytest.mark.usefixtures("no_waiting")
def test_a_stage_by_itself_is_refused_where_a_run_works(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(load_recipe("demo")))
    with held(tmp_path, fcntl.LOCK_EX), pytest.raises(StageError, match="process 4711"), stage_lock(tmp_path):
        pytest.fail("a stage beside a run")
    with held(tmp_path, fcntl.LOCK_EX), pytest.raises(StageError, match="process 4711"):
        run_stage("prepare", tmp_path)
    assert not (tmp_path / "data.partial").exists()


@pytest.mark.usefixtures("no_waiting")
def test_the_stages_of_a_run_pass_in_its_process_and_in_those_that_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_lock(tmp_path):
        environment = child_environment(tmp_path)
        with stage_lock(tmp_path):
            pass
    with held(tmp_path, fcntl.LOCK_EX, environment[RUN_PROCESS]):
        monkeypatch.setenv(RUN_PROCESS, environment[RUN_PROCESS])
        with stage_lock(tmp_path):
            pass
        monkeypatch.setenv(RUN_PROCESS, "another one")
        with pytest.raises(StageError), stage_lock(tmp_path):
            pass


def test_a_run_is_refused_while_a_stage_by_itself_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_locks, "LOCK_SECONDS", 0.0)  # it waits for one that was killed and is about to go
    with stage_lock(tmp_path), pytest.raises(StageError, match=f"process {os.getpid()} on"), run_lock(tmp_path):
        pass
    with run_lock(tmp_path):
        pass


def test_workers_on_rows_of_their_own_work_side_by_side_and_no_other_stage_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_locks, "LOCK_SECONDS", 0.0)
    with (
        stage_lock(tmp_path, shared=True),
        stage_lock(tmp_path, shared=True),
        pytest.raises(StageError, match="is working in"),
        stage_lock(tmp_path),
    ):
        pytest.fail("a stage beside workers")


def test_the_lock_of_a_killed_run_is_gone(tmp_path: Path) -> None:
    code = (
        "import signal, sys; from pathlib import Path; from lean_align.pipeline.folder_locks import run_lock\n"
        "with run_lock(Path(sys.argv[1])): print('held', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(StageError, match=f"process {process.pid} on"), run_lock(tmp_path):
            pass
        process.kill()
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_and_the_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    def none(*_: Any) -> None:
        raise OSError(code, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    monkeypatch.setattr(fcntl, "fcntl", none)
    with run_lock(tmp_path), stage_lock(tmp_path):
        pass
    with StoreWriter.open(tmp_path / "gradients", ["a"], 2) as writer:
        writer.write(0, [3.0, 4.0])  # type: ignore[arg-type]
    said = capsys.readouterr().err
    assert said.count("cannot be locked (No locks available)") == 3
    assert str(tmp_path / "gradients") in said


def test_another_error_of_a_lock_is_no_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output"), run_lock(tmp_path):
        pass


def test_a_refused_start_leaves_no_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_stages: list[Any]
) -> None:
    def refuse(*_: Any) -> None:
        raise MissingPackageError("vllm is not installed.")

    monkeypatch.setattr(sys.modules["lean_align.pipeline.execution"], "_check_packages", refuse)
    (tmp_path / "mine").mkdir()
    for run_dir in (tmp_path / "runs" / "deep" / "run", tmp_path / "mine"):
        with pytest.raises(MissingPackageError):
            run(load_recipe("demo"), run_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_stage_of_a_run_is_told_whose_it_is_and_how_its_threads_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, str]] = []

    def started(command: list[str], env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        seen.append(env)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(subprocess, "run", started)
    assert run(load_recipe("demo"), tmp_path / "run", "prepare")["finished"] == ["data"]
    assert seen[0]["OMP_WAIT_POLICY"] == "PASSIVE"
    assert seen[0][RUN_PROCESS].startswith(f"{os.getpid()} ")
