"""The format of the logs: text for people, one JSON object per line for programs."""

import io
import json
import logging
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gptbox.system.logs import JsonFormatter, TextFormatter, is_terminal


def record(level: int = logging.INFO, message: str = "step %d", *arguments: object, **facts: Any) -> logging.LogRecord:
    logger = logging.Logger("gptbox.test")
    return logger.makeRecord(logger.name, level, __file__, 1, message, arguments or (7,), None, extra=facts)


def test_text_is_the_message_with_levels_from_warning_up() -> None:
    assert TextFormatter().format(record(step=7)) == "step 7"
    assert TextFormatter().format(record(logging.WARNING)) == "warning: step 7"
    assert TextFormatter().format(record(logging.ERROR)) == "error: step 7"


def test_a_line_on_a_terminal_replaces_the_progress_line() -> None:
    assert TextFormatter(terminal=True).format(record(logging.WARNING)) == "\r\x1b[2Kwarning: step 7"


def test_json_has_time_level_message_and_extra_fields() -> None:
    entry = json.loads(JsonFormatter().format(record(step=7, val_loss=None, path=Path("/tmp"))))
    age = datetime.now(UTC) - datetime.fromisoformat(entry.pop("time"))
    assert 0 <= age.total_seconds() < 60
    assert entry == {"level": "info", "message": "step 7", "step": 7, "val_loss": None, "path": "/tmp"}


def test_json_keeps_a_traceback_on_the_line() -> None:
    try:
        raise ValueError("gone wrong")
    except ValueError:
        failure = record(logging.ERROR)
        failure.exc_info = sys.exc_info()
    line = JsonFormatter().format(failure)
    assert "\n" not in line
    assert json.loads(line)["traceback"].endswith("ValueError: gone wrong")


@pytest.mark.parametrize(("name", "yes"), [("xterm-256color", True), ("dumb", False), ("", False)])
def test_only_capable_terminals_can_be_rewritten(name: str, yes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", name) if name else monkeypatch.delenv("TERM", raising=False)
    assert is_terminal(Terminal()) is yes
    assert is_terminal(io.StringIO()) is False


EVERYTHING = """
import logging, sys, threading, warnings
from gptbox.system import logs
logs.configure(sys.argv[1], sys.stderr)
logging.getLogger("gptbox.train").info("step %d", 7, extra={"step": 7})
logging.getLogger("gptbox.train").debug("unheard")
logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
logging.getLogger("uvicorn.error").info("unheard")
warnings.warn("is going\\naway", FutureWarning)
def fall(): raise OSError("in a thread")
thread = threading.Thread(target=fall)
thread.start()
thread.join()
thread = threading.Thread(target=sys.exit)
thread.start()
thread.join()
class Late:
    def __del__(self): raise LookupError("in a destructor")
late = Late()
del late
raise ValueError("at the end")
"""


def logged_lines(log_format: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", EVERYTHING, log_format], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_every_line_of_a_process_is_json() -> None:
    entries = [json.loads(line) for line in logged_lines("json")]
    assert all({"time", "level", "message"} <= set(entry) for entry in entries)
    step, uvicorn, warning, thread, destructor, end = entries
    assert (step["level"], step["message"], step["step"]) == ("info", "step 7", 7)
    assert (uvicorn["level"], uvicorn["message"]) == ("warning", "Invalid HTTP request received.")
    assert warning["level"] == "warning"
    assert warning["message"].startswith("FutureWarning: is going\naway (")
    for entry, name in ((thread, "OSError"), (destructor, "LookupError"), (end, "ValueError")):
        assert (entry["level"], entry["message"]) == ("critical", f"{name} was not caught")
        assert name in entry["traceback"]


def test_text_keeps_pythons_own_tracebacks() -> None:
    lines = logged_lines("text")
    assert lines[:2] == ["step 7", "warning: Invalid HTTP request received."]
    assert lines[2] == "warning: FutureWarning: is going"
    assert "OSError: in a thread" in lines
    assert lines[-1] == "ValueError: at the end"
    assert "unheard" not in " ".join(lines)
