"""Progress is reported for long texts only."""

import io
import sys
import time

import pytest

from gptbox.datasets import progress
from gptbox.datasets.progress import ProgressBar, ProgressLines, show_progress


def test_progress_lines_come_at_intervals() -> None:
    said: list[str] = []
    now = 0.0
    lines = ProgressLines(said.append, lambda: now)
    for second in range(31):
        now = float(second)
        lines("Reading letters", second, 30)
    assert said == ["Reading letters: 6 %, about 28 s left", "Reading letters: 40 %, about 18 s left",
                    "Reading letters: 73 %, about 8 s left"]  # fmt: skip


def test_the_delay_starts_anew_with_each_operation() -> None:
    said: list[str] = []
    now = 0.0
    lines = ProgressLines(said.append, lambda: now)
    for operation in ("Reading", "Writing", "Writing"):
        for done, pause in enumerate((0.1, 0.9, 0.9)):
            now += pause
            lines(operation, done, 100)
    assert said == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(progress, "DELAY_S", 0.05)
    monkeypatch.setenv("TERM", "xterm")
    with show_progress() as on_progress:
        assert isinstance(on_progress, ProgressBar)
        on_progress("Reading letters", 1, 10)
        assert terminal.getvalue() == ""
        time.sleep(0.06)
        on_progress("Reading letters", 2, 10)
        on_progress("Reading letters", 10, 10)
        on_progress("Writing", 3, 10)
    assert "Reading letters" in terminal.getvalue()
    assert "Writing" in terminal.getvalue()


def test_progress_is_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with show_progress() as on_progress:
        assert isinstance(on_progress, ProgressLines)
