"""Progress on a stderr that is a terminal, and on one that is not."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

import pytest

from lean_align.progress import PART_OF_MORE, Progress, duration, say


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_with_the_time_to_go() -> None:
    with redirect_stderr(Terminal()) as stderr, Progress("rollouts", 4, 1) as progress:
        for _ in range(3):
            progress.advance(1, "reward 0.50")
            progress._bar.refresh()
        say("a line between")
    shown = stderr.getvalue()
    assert "rollouts: continuing at 1 of 4\n" in shown
    assert "rollouts: 100%" in shown
    assert "4/4 [00:00<00:00" in shown  # passed and to go
    assert "reward 0.50" in shown
    assert "\ra line between\n" in shown  # the bar is taken away for it


def test_a_part_of_more_work_shows_no_time_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PART_OF_MORE, "1")
    with redirect_stderr(Terminal()) as stderr, Progress("rollouts", 2) as progress:
        progress.advance(2)
        progress._bar.refresh()
    assert "2/2" in stderr.getvalue()
    assert "<" not in stderr.getvalue()


def test_lines_go_on_where_a_bar_has_closed() -> None:
    with redirect_stderr(Terminal()) as stderr:
        with pytest.raises(RuntimeError), Progress("rollouts", 2):
            raise RuntimeError
        say("after")
    assert stderr.getvalue().endswith("\nafter\n")


def test_elsewhere_there_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("rollouts", 2, every_seconds=0.0) as progress:
        progress.advance()
        progress.advance(1, "reward 0.50, KL 0.0010")
    assert capsys.readouterr().err == "rollouts: 1/2\nrollouts: 2/2 reward 0.50, KL 0.0010\n"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (40, "40 s"), (1500, "25 min"), (4800, "1 h 20 min"), (7170, "2 h 0 min")]
)
def test_durations_are_said_roughly(seconds: float, words: str) -> None:
    assert duration(seconds) == words
