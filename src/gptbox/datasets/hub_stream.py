"""Writes the texts of a dataset on the Hugging Face Hub to a .jsonl file: `python -m gptbox.datasets.hub_stream`.

Arguments: the file, a folder for the cache, a StreamRequest as JSON. Standard input is a pipe; the process ends when
the other end of it is closed. Standard output has a JSON object per line:

    {"done": 10, "total": 200}      often; total is 0 if it is not known
    {"is_missing": true}            at the end: the package `datasets` is not installed,
    {"problem": "...", "is_permanent": true}    or the texts cannot be read,
    {"size": 99, "sha256": "...", "texts": 2, "split": "train", "is_cut": false}    or the file is complete
"""

import errno
import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gptbox.datasets.json_lines import FIELD, MAX_LINE

_BATCH = 1000  # texts in memory at once
_REPORT_INTERVAL_S = 0.2
_TIMEOUT_S = 10.0  # of the first request
_MAX_NAMED = 20  # columns, splits or configurations in a message
_MAX_PROBLEM = 500  # characters; some errors quote a whole answer of the server
_MAX_OVERHEAD = 4
"""Largest size of the file, as a multiple of the limit for the texts in it: each line takes 13 bytes more than its
text, and a control character takes 6."""


@dataclass(frozen=True)
class StreamRequest:
    """What to read, and how."""

    path: str
    """OWNER/NAME, or the NAME of a dataset without an owner."""
    configuration: str | None
    split: str | None
    """None takes `train`, or the only split."""
    column: str
    size: int | None
    """Bytes of text after which to stop; None reads all texts and fails above `max_bytes`.

    The file may have _MAX_OVERHEAD times as many.
    """
    max_bytes: int
    attempts: int
    """At each request that fails."""
    retry_delay_s: float


class _Refused(Exception):  # noqa: N818  (its message is the problem)
    """The dataset cannot be used; another attempt would fail in the same way."""


class _StorageError(Exception):
    """The file cannot be written."""


def public_text(text: str) -> str:
    """One line of printable characters, without what may be secret in addresses: user, password, query and fragment."""
    return _one_line(" ".join(map(_public_word, text.split())))


def _public_word(word: str) -> str:
    place, *query = re.split("[?#]", word, maxsplit=1)
    if "/" not in place:
        return word
    # What ends a sentence or a quotation does not belong to the address.
    end = word[len(word.rstrip(".,:;!?'\")>]}")) :] if query else ""
    return re.sub("//[^/]*@", "//", place) + end


def _one_line(text: str) -> str:
    line = "".join(character for character in " ".join(text.split()) if character.isprintable())
    return line if len(line) <= _MAX_PROBLEM else line[: _MAX_PROBLEM - 1] + "…"


def main(path: str, cache: str, request: str) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Messages have the real standard output; whatever else is printed goes to standard error.
    with os.fdopen(os.dup(1), "w") as output:
        os.dup2(2, 1)
        for message in _messages(Path(path), Path(cache), StreamRequest(**json.loads(request))):
            print(json.dumps(message), file=output, flush=True)


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, even if that was killed.

    Otherwise it would go on to write to a folder that the next attempt has deleted.
    """
    while os.read(0, 1024):  # not sys.stdin, whose lock would be held at the interpreter's end
        pass
    os._exit(1)


def _messages(path: Path, cache: Path, request: StreamRequest) -> Iterator[dict[str, Any]]:
    try:
        _configure(cache, request)
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        yield {"is_missing": True}
        return
    try:
        file = _store(path.open, "wb")
        try:
            yield from _write(file, _Source(request), request)
        finally:
            with suppress(OSError):  # a complete file has been flushed
                file.close()
    except Exception as error:
        problem, is_permanent = _problem(error)
        yield {"problem": problem, "is_permanent": is_permanent}


def _configure(cache: Path, request: StreamRequest) -> None:
    """Import `datasets` with a temporary cache, short retries, and no requests to anyone but the Hub."""
    os.environ |= {
        "TMPDIR": str(cache),
        "HF_HUB_CACHE": str(cache / "hub"),
        "HF_DATASETS_CACHE": str(cache / "datasets"),
        "HF_MODULES_CACHE": str(cache / "modules"),
        "HF_XET_CACHE": str(cache / "xet"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    }
    import datasets

    datasets.config.USE_PARQUET_EXPORT = False
    for name in ("OPEN_MAX_RETRIES", "READ_MAX_RETRIES"):
        setattr(datasets.config, f"STREAMING_{name}", request.attempts)
    for name in ("OPEN_RETRY", "READ_RETRY", "READ_SERVER_UNAVAILABLE_RETRY"):
        setattr(datasets.config, f"STREAMING_{name}_INTERVAL", request.retry_delay_s)


class _Source:
    """The texts of a dataset, which are read as they arrive."""

    def __init__(self, request: StreamRequest) -> None:
        """Raises _Refused, and whatever `datasets` raises."""
        from datasets.packaged_modules.parquet.parquet import ParquetConfig

        self._column = request.column
        builder = _builder(_full_name(request), request)
        splits = builder.as_streaming_dataset()
        self.split = request.split or ("train" if len(splits) > 1 else next(iter(splits)))
        if self.split not in splits:
            raise _Refused(f"it has no split {self.split!r}; it has {_named(splits)}: name one with ?split=")
        info = (builder.info.splits or {}).get(self.split)
        self.num_bytes: int = (info and info.num_bytes) or 0
        """Size of the split with all its columns; 0 if it is not known."""
        self.num_texts: int = (info and info.num_examples) or 0
        """0 if it is not known."""
        self._dataset = splits[self.split]
        features = self._dataset.features
        if features is not None:
            self._check_column(features)
            if getattr(features[self._column], "dtype", None) not in ("string", "large_string", "string_view"):
                kind = getattr(features[self._column], "dtype", None) or type(features[self._column]).__name__
                raise _Refused(f"its column {self._column!r} holds {kind}, not text")
        if isinstance(builder.config, ParquetConfig):
            # Other columns are not even downloaded.
            builder.config.columns, builder.config.batch_size = [self._column], _BATCH
            self._dataset = builder.as_streaming_dataset(split=self.split)

    def __iter__(self) -> Iterator[str]:
        """The texts in order, "" for null. Raises _Refused, and whatever `datasets` raises."""
        for batch in self._dataset.iter(batch_size=_BATCH):
            self._check_column(batch)
            for text in batch[self._column]:
                if not isinstance(text, str | None):
                    raise _Refused(f"its column {self._column!r} holds {type(text).__name__}, not text")
                yield text or ""

    def _check_column(self, columns: Iterable[str]) -> None:
        if self._column not in columns:
            raise _Refused(f"it has no column {self._column!r}; it has {_named(columns)}: name one with ?text=")


def _full_name(request: StreamRequest) -> str:
    """OWNER/NAME; the Hub also knows some datasets by another name. Raises what a request to it raises."""
    from huggingface_hub import HfApi

    for attempt in range(request.attempts):
        if attempt:
            time.sleep(request.retry_delay_s)
        try:
            return HfApi().dataset_info(request.path, timeout=_TIMEOUT_S).id
        except Exception as error:
            if _status(error) and not _is_temporary(_status(error)):
                break  # `datasets` has better messages
            if attempt == request.attempts - 1:
                raise  # here, because `datasets` would go on for half a minute
    return request.path


def _builder(full_name: str, request: StreamRequest) -> Any:
    import datasets

    place = f"hf://datasets/{full_name}"  # never a local folder
    try:
        return datasets.load_dataset_builder(place, request.configuration)
    except ValueError:  # no such configuration, or several without a default
        names = datasets.get_dataset_config_names(place)
        if request.configuration in names or (request.configuration is None and len(names) < 2):
            raise
        problem = "it has several configurations"
        if request.configuration:
            problem = f"it has no configuration {request.configuration!r}; its configurations"
        raise _Refused(f"{problem}: {_named(names)}; name one, as in hf:{request.path}:{names[0]}") from None


def _write(file: BinaryIO, source: _Source, request: StreamRequest) -> Iterator[dict[str, Any]]:
    """Write the texts, report on them, and describe the complete file."""
    advice = f"take its beginning, as in hf:{request.path}?size=500MB, or name a larger size"
    if request.size is None and source.num_bytes > request.max_bytes:
        raise _Refused(f"it has {source.num_bytes:,} bytes, more than {request.max_bytes:,}; {advice}")
    yield {"done": 0, "total": 0}
    digest = hashlib.sha256()
    size = num_texts = num_bytes = 0
    is_cut = False
    next_report = 0.0
    for row, text in enumerate(source, 1):
        if request.size is not None and max(num_bytes, size // _MAX_OVERHEAD) >= request.size:
            is_cut = True
            break
        if text:
            line = json.dumps({FIELD: text}, ensure_ascii=False)
            if len(line) >= MAX_LINE:
                raise _Refused(f"the text in its row {row:,} is longer than {MAX_LINE:,} characters")
            content = line.encode() + b"\n"
            _store(file.write, content)
            digest.update(content)
            size += len(content)
            num_bytes += len(text.encode())
            num_texts += 1
        if request.size is None and num_bytes > request.max_bytes:
            raise _Refused(f"it has more than {request.max_bytes:,} bytes; {advice}")
        if request.size is None and size > _MAX_OVERHEAD * request.max_bytes:
            raise _Refused(f"it takes more than {_MAX_OVERHEAD * request.max_bytes:,} bytes as JSON Lines; {advice}")
        if (now := time.monotonic()) >= next_report:
            next_report = now + _REPORT_INTERVAL_S
            yield _progress(row, num_bytes, source.num_texts, request.size)
    _store(file.flush)  # whoever reads the last message may end this process
    if not num_bytes:
        raise _Refused(f"its column {request.column!r} is empty")
    yield {
        "size": size, "sha256": digest.hexdigest(), "texts": num_texts, "split": source.split, "is_cut": is_cut,
    }  # fmt: skip


def _store(operation: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return operation(*arguments)
    except OSError as error:
        raise _StorageError(error.strerror or str(error)) from None


def _progress(rows: int, num_bytes: int, all_rows: int, all_bytes: int | None) -> dict[str, int]:
    """Towards the end of the rows or the size, whichever is nearer; `all_rows` is 0 if it is not known."""
    if all_bytes and (not all_rows or num_bytes * all_rows >= rows * all_bytes):
        return {"done": num_bytes, "total": all_bytes}
    return {"done": rows, "total": all_rows}


def _named(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more


def _problem(error: Exception) -> tuple[str, bool]:
    """What an error says, as the end of a sentence, and whether another attempt would fail in the same way."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    if isinstance(error, _Refused):
        return _one_line(str(error)), True  # its addresses are advice
    if isinstance(error, _StorageError):
        return f"it cannot be stored: {error}", True
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):  # the library's cache
        return f"it cannot be stored: {error.strerror}", True
    for cause in _causes(error):
        if _is_temporary(status := _status(cause)):
            return f"the Hub answered {status}: {_text(cause)}", False
        if _is_network_error(cause):
            return f"the Hub cannot be reached ({_text(cause)})", False
    text = _text(error)
    if isinstance(error, DatasetNotFoundError):
        if "gated" in text:
            return "it is gated: accept its terms on its page and set HF_TOKEN", True
        return "there is no such dataset, or it is private: set HF_TOKEN to a token that may read it", True
    if status := _status(error):
        return f"the Hub answered {status}: {text}", True
    # Not any RuntimeError, because hf_xet raises it for faults of the network.
    is_script = isinstance(error, RuntimeError) and "scripts are no longer supported" in text
    wrong_data = (DatasetsError, FileNotFoundError, ValueError, TypeError, LookupError, NotImplementedError)
    return text, is_script or isinstance(error, wrong_data)


def _text(error: BaseException) -> str:
    return public_text(str(error)).rstrip(".") or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised for, also where `from None` hides it."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _status(error: BaseException) -> int:
    """The HTTP status that an error stands for; 0 if it stands for none."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def _is_temporary(status: int) -> bool:
    return status in (408, 425, 429) or status >= 500


def _is_network_error(error: BaseException) -> bool:
    # By name, because `datasets` uses one of several HTTP libraries, depending on its version.
    names = " ".join(kind.__name__ for kind in type(error).__mro__)
    return re.search("Connect|Timeout|TransportError|PayloadError", names) is not None


if __name__ == "__main__":
    main(*sys.argv[1:])
