"""A long text says how it goes; a short one says nothing."""

import io
import sys
import time

import pytest

from gptbox.datasets import progress
from gptbox.datasets.progress import Bar, Lines, shown


def test_a_log_gets_a_line_now_and_then() -> None:
    said: list[str] = []
    now = 0.0
    lines = Lines(said.append, lambda: now)
    for second in range(31):
        now = float(second)
        lines("Reading letters", second, 30)
    assert said == ["Reading letters: 6 %, about 28 s left", "Reading letters: 40 %, about 18 s left",
                    "Reading letters: 73 %, about 8 s left"]  # fmt: skip


def test_each_thing_that_is_done_has_its_own_two_seconds() -> None:
    said: list[str] = []
    now = 0.0
    lines = Lines(said.append, lambda: now)
    for what in ("Reading", "Writing", "Writing"):
        for done, pause in enumerate((0.1, 0.9, 0.9)):
            now += pause
            lines(what, done, 100)
    assert said == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(progress, "QUIET_S", 0.05)
    monkeypatch.setenv("TERM", "xterm")
    with shown() as watch:
        assert isinstance(watch, Bar)
        watch("Reading letters", 1, 10)
        assert terminal.getvalue() == ""
        time.sleep(0.06)
        watch("Reading letters", 2, 10)
        watch("Reading letters", 10, 10)
        watch("Writing", 3, 10)
    assert "Reading letters" in terminal.getvalue()
    assert "Writing" in terminal.getvalue()


def test_a_log_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with shown() as watch:
        assert isinstance(watch, Lines)
