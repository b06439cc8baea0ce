"""Logging: one line per event, as text for people or JSON for programs (LOG_FORMAT). `extra` becomes JSON fields."""

import json
import logging
import os
import sys
import threading
import warnings
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

FORMATS = ("text", "json")
CLEAR_LINE = "\r\x1b[2K"
"""Erases the terminal's current line: the progress line, which gptbox.train.reporter redraws below the new one."""

log = logging.getLogger("gptbox")

_STANDARD_ATTRIBUTES = {*vars(logging.makeLogRecord({})), "message", "asctime"}
"""Attributes of every record; all others come from `extra`."""


def is_terminal(stream: TextIO) -> bool:
    """Whether lines of the stream can be rewritten in place."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


class TextFormatter(logging.Formatter):
    """Level and message only: Compose (`logs --timestamps`) and journald add the service and the time."""

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self._prefix = CLEAR_LINE if terminal else ""

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return f"{self._prefix}{level}{super().format(record)}"


class JsonFormatter(logging.Formatter):
    """A JSON object with time, level, message and the fields given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        entry |= {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure(log_format: str, stream: TextIO) -> None:
    """Send the log records of gptbox and its libraries, and Python's warnings, to `stream`.

    If `log_format` is "json", uncaught exceptions are logged, too; any other value means text.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter(is_terminal(stream)))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    warnings.formatwarning = _format_warning
    if log_format == "json":  # Python prints tracebacks as text
        sys.excepthook = _log_uncaught
        threading.excepthook = _log_uncaught_in_thread
        sys.unraisablehook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def is_json() -> bool:
    """Whether this process logs JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"{category.__name__}: {message} ({filename}:{lineno})"


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    log.critical("%s was not caught", kind.__name__, exc_info=(kind, error or kind(), trace))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:  # a regular way to end a thread
        _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
