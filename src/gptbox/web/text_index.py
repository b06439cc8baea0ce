"""The indexes of the runs' training texts, and the search for copied words in them."""

import logging
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter, to_thread

from gptbox.errors import DamagedIndexError, NoIndexError, QueueFullError
from gptbox.models.copied_spans import CopiedSpan, find_copied
from gptbox.models.ngram_index import FILE_NAME, PASSAGE, Layout, NgramIndex
from gptbox.models.runs import RunFolder

log = logging.getLogger(__name__)

MAX_WAITING = 32
MAX_WAITING_PER_CLIENT = 4
"""Texts that wait to be searched, or are: one takes milliseconds, 64 KiB may take a second."""
CONTEXT = 40
"""Characters shown before and after a copied span's place in the training text."""

Version = tuple[int, int, int]
"""Inode, modification time and size of a file."""


class TextIndex:
    """Opens an index for each request: that takes no time, and none stays open when a run is deleted."""

    def __init__(self) -> None:
        # A search keeps a processor busy: more at a time would only slow down the texts that are being generated.
        self._limiter = CapacityLimiter(1)
        self._waiting: Counter[str] = Counter()
        """Texts by client."""
        self._damaged: set[tuple[Path, Version]] = set()

    def exists(self, run: RunFolder) -> bool:
        """Whether the run has a complete index. Reads files; a damaged index is logged once."""
        file = run.dataset / FILE_NAME
        version = _version(file)
        if version is None or (file, version) in self._damaged:
            return False
        try:
            _check(file, version)
        except DamagedIndexError as error:
            self._mark_damaged(file, version, str(error))
            return False
        except NoIndexError:  # deleted meanwhile
            return False
        return True

    def _mark_damaged(self, file: Path, version: Version, problem: str) -> None:
        if (file, version) not in self._damaged:
            self._damaged.add((file, version))
            log.warning("%s Copied words are not shown for this run.", problem)

    async def find_copied(self, run: RunFolder, text: str, client: str = "") -> dict[str, Any]:
        """The reply of /api/copied: which spans of a text stand in the run's training text, and where.

        Raises NoIndexError if the run has no index, or none that can be read, QueueFullError if many texts wait, or
        several of the same client.
        """
        if self._waiting[client] >= MAX_WAITING_PER_CLIENT or self._waiting.total() >= MAX_WAITING:
            raise QueueFullError("Several texts are waiting to be searched for copied words. Try again in a moment.")
        self._waiting[client] += 1
        try:
            return await to_thread.run_sync(self._find_copied, run, text, limiter=self._limiter)
        finally:
            self._waiting -= Counter({client: 1})  # without clients that have none

    def _find_copied(self, run: RunFolder, text: str) -> dict[str, Any]:
        file = run.dataset / FILE_NAME
        version = _version(file)
        if version is None or not self.exists(run):
            raise _no_index(run)
        try:
            index = NgramIndex(file)
            spans = [_describe(index, span) for span in find_copied(index, text)]
        except NoIndexError:  # deleted meanwhile
            raise _no_index(run) from None
        except (OSError, ValueError, IndexError) as error:
            self._mark_damaged(file, version, f"{file} is damaged ({type(error).__name__}).")
            raise _no_index(run) from None
        copied = sum(span["end"] - span["start"] for span in spans)
        return {
            "object": "copied",
            "run": run.name,
            "min_characters": PASSAGE,
            "characters": len(text),
            "copied_characters": copied,
            "share": copied / len(text) if text else 0.0,
            "spans": spans,
        }


def _describe(index: NgramIndex, span: CopiedSpan) -> dict[str, Any]:
    position, line = index.locate(span.place)
    before, after = index.context(span.place, span.place + span.num_bytes, CONTEXT)
    source = {"position": position, "line": line, "before": before, "after": after}
    return {"start": span.start, "end": span.end, "source": source}


def _no_index(run: RunFolder) -> NoIndexError:
    return NoIndexError(
        f"The run {run.name!r} has no index of its training text, so that copied words cannot be found. To get one, "
        f"prepare the text again: gptbox prepare DATASET --run {run.name}"
    )


def _version(file: Path) -> Version | None:
    try:
        info = file.stat()
    except OSError:
        return None
    return info.st_ino, info.st_mtime_ns, info.st_size


@lru_cache(maxsize=256)
def _check(file: Path, version: Version) -> None:
    """Read the header, once for each version of the file. Raises as Layout.read."""
    Layout.read(file)
