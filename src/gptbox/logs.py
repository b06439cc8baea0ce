"""Logs: one line an event, as text for people or as JSON for programs (LOG_FORMAT). Facts are given as `extra`."""

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
"""Takes a terminal's line away: the live one, which its owner draws again below (gptbox.train.progress)."""

log = logging.getLogger("gptbox")

_ATTRIBUTES = {*vars(logging.makeLogRecord({})), "message", "asctime"}
"""What every record has; the rest are facts."""


def is_terminal(stream: TextIO) -> bool:
    """Whether lines can be rewritten in place."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


class TextFormatter(logging.Formatter):
    """The message alone: who and when is added by Compose (`logs --timestamps`), journald and their kin."""

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self._before = CLEAR_LINE if terminal else ""

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return f"{self._before}{level}{super().format(record)}"


class JsonFormatter(logging.Formatter):
    """An object with time, level, message, and the facts under their own names."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        entry |= {name: value for name, value in vars(record).items() if name not in _ATTRIBUTES}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure(log_format: str, stream: TextIO) -> None:
    """Send to `stream` what gptbox, its libraries and Python's warnings say; as JSON also what nobody caught."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter(is_terminal(stream)))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    warnings.formatwarning = _warning
    if log_format == "json":  # Python's own tracebacks are text
        sys.excepthook = _uncaught
        threading.excepthook = _uncaught_in_thread
        sys.unraisablehook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def is_json() -> bool:
    """Whether this process was configured to log JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"{category.__name__}: {message} ({filename}:{lineno})"


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    log.critical("%s was not caught", kind.__name__, exc_info=(kind, error or kind(), trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:  # by which a thread may end
        _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
