"""The page's files under addresses that change with their contents, so that browsers can keep them for good.

`static/main.js` is served as `static/FINGERPRINT/main.js`. There is one fingerprint for the whole folder: modules
import each other by relative addresses, which stay valid, and only index.html names it, which has none itself.

    python assets.py STATIC SITE    writes the folder SITE, which Apache serves without web: see apache/Dockerfile

Standard library only: the build of Apache's image runs this file without the rest of gptbox.
"""

import gzip
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

INDEX = "index.html"
_FINGERPRINT = re.compile(r"[0-9a-f]{12}")
_REFERENCE = re.compile(rb'\b(href|src)="static/')
_COMMENT_LINES = re.compile(rb"^[ \t]*(?://[^\n]*|/\*(?:(?!\*/).)*\*/[ \t]*)\n", re.MULTILINE | re.DOTALL)
"""Comments that have lines of their own, in scripts and style sheets."""
_MAX_COMPRESSED_SHARE = 0.9
"""A file that gzip makes hardly smaller, such as an image, is served as it is."""


@dataclass(frozen=True)
class Page:
    fingerprint: str
    """The first 12 digits of a SHA-256 over the names and contents of all files but index.html."""
    index: bytes
    """index.html, referring to files below the fingerprint."""
    etag: str
    """Of `index`, as a header's value."""


class Assets:
    """The page's files in a folder that may be edited at any time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state: list[tuple[str, int, int]] = []
        self._page: Page | None = None

    def page(self) -> Page:
        """The page as the files are now: computed again if a name, a size or a time of modification has changed."""
        state = sorted(_scan(self.folder))
        if self._page is None or state != self._state:
            self._page = _read_page(self.folder, [name for name, _, _ in state])
            self._state = state
        return self._page


def split_fingerprint(path: str) -> tuple[str | None, str]:
    """`FINGERPRINT/main.js` as fingerprint and file; the fingerprint is None if the path does not begin with one."""
    first, _, rest = path.replace(os.sep, "/").partition("/")
    return (first, rest) if rest and _FINGERPRINT.fullmatch(first) else (None, path)


def write_site(folder: Path, site: Path) -> None:
    """Write index.html and static/FINGERPRINT/*, each beside a copy compressed with gzip where that is smaller.

    Scripts and style sheets go without their comments, a fifth of what a visitor would download.
    """
    page = Assets(folder).page()
    _write(site / INDEX, page.index)
    for name, _, _ in _scan(folder):
        if name != INDEX:
            _write(site / "static" / page.fingerprint / name, minified(folder, name))


def minified(folder: Path, name: str) -> bytes:
    """The content of a file as the site has it: without lines of comments, if it is a script or a style sheet."""
    content = (folder / name).read_bytes()
    return _COMMENT_LINES.sub(b"", content) if name.endswith((".js", ".css")) else content


def _scan(folder: Path, below: str = "") -> Iterator[tuple[str, int, int]]:
    """Each file's path below the folder, with slashes, its time of modification in ns, and its size."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _scan(Path(entry.path), f"{below}{entry.name}/")
            elif entry.is_file():
                stat = entry.stat()
                yield f"{below}{entry.name}", stat.st_mtime_ns, stat.st_size


def _read_page(folder: Path, names: list[str]) -> Page:
    # The lines that `sha256sum` prints.
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names if name != INDEX]
    fingerprint = hashlib.sha256("".join(lines).encode()).hexdigest()[:12]
    index = _REFERENCE.sub(rb'\1="static/%s/' % fingerprint.encode(), (folder / INDEX).read_bytes())
    return Page(fingerprint, index, f'"{hashlib.sha256(index).hexdigest()[:16]}"')


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    compressed = gzip.compress(content, 9, mtime=0)
    if len(compressed) < _MAX_COMPRESSED_SHARE * len(content):
        path.with_name(f"{path.name}.gz").write_bytes(compressed)


if __name__ == "__main__":
    write_site(Path(sys.argv[1]), Path(sys.argv[2]))
