"""Compressed files, read as streams: nothing is unpacked to the disk, and what a file unpacks to is bounded."""

import gzip
import io
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, BinaryIO, NamedTuple, cast

from gptbox.datasets.text_form import TextForm, is_archive, printable_name
from gptbox.errors import DatasetError

MAX_MEMBERS = 50_000
MAX_UNPACKED = 1 << 34  # 16 GiB
MAX_RATIO = 200
"""Largest ratio of unpacked to packed size. Text has about 3, the most repetitive logs 100, a zip bomb 1,000."""

_FREE_BYTES = 1 << 24  # may be unpacked from a file of any size: a short repetitive text has a large ratio
_MAX_DIRECTORY_BYTES = 1 << 24  # of a zip's list of members, which is read at once
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the memory that others need is up to the file


def check_size(label: str, unpacked: int, packed: int) -> None:
    """Raises DatasetError if a file of `packed` bytes unpacks to too many bytes."""
    if unpacked > MAX_UNPACKED:
        raise DatasetError(f"{label} unpacks to more than {MAX_UNPACKED >> 30} GiB. Unpack it and take a part of it.")
    if unpacked > max(_FREE_BYTES, MAX_RATIO * packed):
        raise DatasetError(
            f"{label} looks like a zip bomb: {packed:,} bytes unpack to {unpacked:,} or more, over {MAX_RATIO} times "
            "as many. If it is a text, unpack it yourself."
        )


class GzipStream:
    """The content of a .gz file. Reading raises DatasetError, gzip's errors, EOFError or zlib.error."""

    def __init__(self, file: BinaryIO, label: str, packed: int) -> None:
        self._file = gzip.GzipFile(fileobj=file, mode="rb")
        self._label, self._packed, self._unpacked = label, packed, 0

    def read(self, size: int, /) -> bytes:
        content = self._file.read(size)
        self._unpacked += len(content)
        check_size(self._label, self._unpacked, self._packed)
        return content


class Member(NamedTuple):
    """A text in a .zip file."""

    name: str
    """For messages."""
    form: TextForm
    info: zipfile.ZipInfo


class ZipArchive:
    """The texts in a .zip file, sorted by path; hidden members and those of other kinds are left out."""

    def __init__(self, file: BinaryIO, label: str, packed: int) -> None:
        """Raises DatasetError, which names the member at fault, or zipfile.BadZipFile."""
        self._label = label
        with _reported_as_bad():
            self._zip = zipfile.ZipFile(cast(IO[bytes], _BoundedReads(file, label)))
        members = self._zip.infolist()
        if len(members) > MAX_MEMBERS:
            raise DatasetError(f"{label} has {len(members):,} members, more than {MAX_MEMBERS:,}. Join its texts.")
        self.members: list[Member] = []
        """Those with text, of a supported kind."""
        files = [info for info in members if not info.filename.endswith("/") and not _is_hidden(info.filename)]
        for info in sorted(files, key=lambda info: PurePosixPath(info.filename)):
            name = printable_name(str(PurePosixPath(info.filename)))
            self._check_path(info, name)
            form = TextForm.of(name)
            if is_archive(name):
                raise DatasetError(f"{label} contains an archive, {name}, which is not read. Unpack {label} yourself.")
            if len(files) == 1 and not PurePosixPath(name).suffix:
                form = TextForm("text")  # such as enwik8 in enwik8.zip
            if form is not None and info.file_size > 0:
                self._check_readable(info, name)
                self.members.append(Member(name, form, info))
        check_size(label, sum(member.info.file_size for member in self.members), packed)
        if not self.members:
            raise DatasetError(f"{label} contains no text: no .txt, .md or .jsonl file.")

    def _check_path(self, info: zipfile.ZipInfo, name: str) -> None:
        path = info.filename.replace("\\", "/")
        if path.startswith("/") or path[1:2] == ":" or ".." in path.split("/"):
            raise DatasetError(f"{self._label} is not safe: its member {name} has a path that leads out of it.")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DatasetError(f"{self._label} is not safe: its member {name} is a link.")

    def _check_readable(self, info: zipfile.ZipInfo, name: str) -> None:
        if info.flag_bits & 0x1:
            raise DatasetError(f"{self._label} is encrypted: {name} needs a password. Unpack it yourself.")
        if info.compress_type not in _METHODS:
            raise DatasetError(
                f"{self._label} is compressed by another method than deflate ({name}). Unpack it yourself."
            )

    def open(self, member: Member) -> IO[bytes]:
        """The content of a member. This and reading it raise zipfile.BadZipFile, EOFError or zlib.error."""
        with _reported_as_bad():
            return self._zip.open(member.info)


@contextmanager
def _reported_as_bad() -> Iterator[None]:
    """Turns zipfile's other errors, for features that it lacks and for some damages, into BadZipFile."""
    try:
        yield
    except (NotImplementedError, RuntimeError, ValueError, struct.error) as error:
        raise zipfile.BadZipFile(str(error)) from None


class _BoundedReads(io.BufferedIOBase):
    """A file that refuses to read very much at once, which ZipFile does only for the list of members."""

    def __init__(self, file: BinaryIO, label: str) -> None:
        self._file, self._label = file, label

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_DIRECTORY_BYTES:
            raise DatasetError(f"{self._label} has a list of members of {size:,} bytes: too many. Unpack it yourself.")
        return self._file.read(-1 if size is None else size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in path.replace("\\", "/").split("/"))
