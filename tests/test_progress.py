"""Progress bars: drawn together on a terminal, and nowhere else."""

from __future__ import annotations

import io
import re
import sys

import pytest

from reid import progress
from reid.errors import InputError
from reid.errors.command import run_command
from reid.progress import Bar, format_seconds, progress_bar, track

COLOR = re.compile(r"\x1b\[[0-9;]*m")
CURSOR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """Everything that was ever drawn, without what moves the cursor."""
        return [line.rstrip() for line in CURSOR.sub("\n", COLOR.sub("", self.getvalue())).split("\n") if line.strip()]


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """stdout and stderr in one, 80 columns wide, with bars that are drawn at every step.

    Not a fixture: pytest sets both streams again between the fixtures and the test.
    """
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_bars_share_the_display_with_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with progress_bar("stage 1 of 2", 2, unit="epochs") as whole:
        for _ in track(range(4), "step0 epoch 1/2", unit="batches"):
            pass
        print("a row of the table")
        whole.advance(note="loss 1.2")
    lines = terminal.lines()
    assert any(re.fullmatch(r"step0 epoch 1/2 +━+.* 3/4 batches, 0:00 left", line) for line in lines)
    assert any(re.fullmatch(r"stage 1 of 2 +━+.* 1/2 epochs, loss 1.2, 0:00 left", line) for line in lines)
    assert "a row of the table" in lines
    assert max(map(len, lines)) <= 80
    assert "\x1b[?25l" not in terminal.getvalue()  # a killed process would leave the terminal without a cursor
    assert sys.stdout is terminal and progress._display is None and not progress._bars


def test_nothing_is_drawn_where_no_one_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    for _ in track(range(3), "hidden", shown=False):
        pass
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # a pipe to tee, which writes to the same terminal
    for _ in track(range(3), "piped"):
        pass
    assert terminal.getvalue() == ""


def test_a_short_job_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    monkeypatch.setattr(progress, "DELAY", 60.0)
    for _ in track(range(3), "short"):
        pass
    assert terminal.getvalue() == ""


def test_an_error_does_not_share_a_line_with_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)

    def main() -> None:
        for number in track([1, 2], "work", unit="images"):
            if number == 2:
                raise InputError("bad")

    assert run_command(main) == 2
    assert any("1/2 images" in line for line in terminal.lines())
    assert terminal.lines()[-1] == "error: bad" and terminal.getvalue().endswith("error: bad\n")


def test_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    bar = Bar("", total=10, done=4)  # four were finished by an interrupted run, in a time that is unknown
    assert bar.seconds_left() is None
    now = 120.0
    bar.advance(2)
    assert bar.seconds_left() == 40
    now = 125.0
    assert bar.seconds_left() == 35
    assert [format_seconds(s) for s in (5, 65.4, 7380)] == ["0:05", "1:05", "2:03:00"]
