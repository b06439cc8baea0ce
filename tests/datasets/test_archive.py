"""Archives: read as if they were folders; harmful and damaged ones are refused in one line."""

import gzip
import io
import json
import stat
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptbox.datasets import archive
from gptbox.datasets.text_file import TextFile, TextFiles
from gptbox.datasets.text_folder import TextFolder
from gptbox.errors import DatasetError


def write_zip(path: Path, members: dict[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def documents(*paths: Path) -> list[tuple[str, str]]:
    return [(document.name, "".join(document.blocks)) for document in TextFiles(paths).documents()]


def refusal(path: Path) -> str:
    """The message of the one error; nothing may be left beside the file."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(DatasetError) as error:
        documents(path)
    assert sorted(path.parent.iterdir()) == before
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.fixture
def bomb(tmp_path: Path) -> Path:
    """100 MB of text in a .zip of 100 kB."""
    return write_zip(tmp_path / "bomb.zip", {"a.txt": b"all work and no play \n" * 5_000_000})


class TestZip:
    def test_its_texts_are_documents_in_the_order_of_their_paths(self, tmp_path: Path) -> None:
        path = write_zip(
            tmp_path / "a.zip",
            {
                "b.txt": "second",
                "a/z.md": "first\r\n",
                "./c.jsonl": json.dumps({"text": "third"}) + "\n" + json.dumps({"text": "fourth"}),
                "empty.txt": "",
                ".hidden.txt": "x",
                "__MACOSX/._b.txt": "x",
                "a/picture.png": b"\x89PNG",
                "folder.txt/": "",
                "README.md": "zeroth",
            },
        )
        file = TextFile(path)
        assert [(document.name, "".join(document.blocks)) for document in file.documents()] == [
            ("a.zip/README.md", "zeroth\n"),
            ("a.zip/a/z.md", "first\n"),
            ("a.zip/b.txt", "second\n"),
            ("a.zip/c.jsonl, line 1", "third\n"),
            ("a.zip/c.jsonl, line 2", "fourth"),
        ]
        assert file.notes == ["a.zip/a/z.md: 1 Windows line endings (CR LF) became LF."]

    def test_a_member_may_be_in_another_encoding(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", {"a.txt": "Grüße".encode("utf-16")})
        assert documents(path) == [("a.zip/a.txt", "Grüße")]

    def test_a_single_file_needs_no_ending(self, tmp_path: Path) -> None:
        assert documents(write_zip(tmp_path / "text8.zip", {"text8": "anarchism"})) == [
            ("text8.zip/text8", "anarchism")
        ]

    def test_many_members(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", {f"{i:05}.txt": f"text {i}" for i in range(5000)})
        assert "".join(text for _, text in documents(path)) == "\n".join(f"text {i}" for i in range(5000))

    @pytest.mark.parametrize(
        "name", ["../a.txt", "a/../../b.txt", "/etc/a.txt", "C:\\a.txt", "..\\a.txt", "../../x.png"]
    )
    def test_a_path_that_leads_out_is_refused(self, tmp_path: Path, name: str) -> None:
        path = write_zip(tmp_path / "a.zip", {"good.txt": "x", name: "evil"})
        assert "is not safe: its member" in refusal(path)

    def test_a_link_is_refused(self, tmp_path: Path) -> None:
        info = zipfile.ZipInfo("a.txt")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            file.writestr(info, "/etc/passwd")
        assert "its member a.txt is a link" in refusal(tmp_path / "a.zip")

    def test_a_bomb_is_refused_before_anything_is_unpacked(self, bomb: Path) -> None:
        assert "looks like a zip bomb: " in refusal(bomb)

    def test_a_bomb_of_many_members_is_refused(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", {f"{i}.txt": b"x" * 1_000_000 for i in range(30)})
        assert "unpack to 30,000,000 or more, over 200 times as many" in refusal(path)

    def test_a_bomb_that_lies_about_its_size_is_refused(self, bomb: Path) -> None:
        content = bytearray(bomb.read_bytes())
        for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
            struct.pack_into("<I", content, content.index(signature) + offset, 1000)
        bomb.write_bytes(content)
        assert "is damaged or incomplete: Bad CRC-32" in refusal(bomb)

    def test_a_short_repetitive_text_is_no_bomb(self, tmp_path: Path) -> None:
        text = "green bottles\n" * 500_000
        assert documents(write_zip(tmp_path / "a.zip", {"a.txt": text})) == [("a.zip/a.txt", text)]

    def test_too_large_a_text_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive, "MAX_UNPACKED", 1 << 30)
        path = write_zip(tmp_path / "a.zip", {"a.txt": "x"})
        content = bytearray(path.read_bytes())
        struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, 3 << 30)
        path.write_bytes(content)
        assert "unpacks to more than 1 GiB" in refusal(path)

    def test_too_many_members_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive, "MAX_MEMBERS", 10)
        path = write_zip(tmp_path / "a.zip", {f"{i}.txt": "x" for i in range(11)})
        assert "has 11 members, more than 10" in refusal(path)

    def test_a_huge_list_of_members_is_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "a.zip"
        with path.open("wb") as file:
            file.truncate(1 << 30)
            file.seek(0, io.SEEK_END)
            file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65_535, 65_535, 1 << 30, 0, 0))
        assert "has a list of members of 1,073,741,824 bytes" in refusal(path)

    @pytest.mark.parametrize("name", ["inner.zip", "inner.tar.gz", "a/inner.GZ", "inner.7z"])
    def test_an_archive_inside_is_refused(self, tmp_path: Path, name: str) -> None:
        path = write_zip(tmp_path / "a.zip", {"a.txt": "x", name: "x"})
        assert f"contains an archive, {name}, which is not read" in refusal(path)

    def test_an_encrypted_one_is_refused(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", {"a.txt": "secret"})
        content = bytearray(path.read_bytes())
        for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            content[content.index(signature) + offset] |= 1
        path.write_bytes(content)
        assert "is encrypted: a.txt needs a password" in refusal(path)

    @pytest.mark.parametrize(
        ("offset", "byte", "problem"),
        [
            (6, 99, "zip file version 9.9"),
            (8, 0x20, "compressed patched data"),
            (46, 0xFF, "codec can't decode byte 0xff"),
        ],
    )
    def test_an_unusual_one_is_refused(self, tmp_path: Path, offset: int, byte: int, problem: str) -> None:
        path = write_zip(tmp_path / "a.zip", {"ü.txt": "some text"})
        content = bytearray(path.read_bytes())
        content[content.index(b"PK\x01\x02") + offset] = byte
        path.write_bytes(content)
        message = refusal(path)
        assert "is damaged or incomplete: " in message
        assert problem in message

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_another_method_is_refused(self, tmp_path: Path, method: int) -> None:
        path = write_zip(tmp_path / "a.zip", {"a.txt": "x" * 1000}, method)
        assert "another method than deflate (a.txt)" in refusal(path)

    @pytest.mark.parametrize("keep", [0, 10, 100, 200])
    def test_a_truncated_one_is_refused(self, tmp_path: Path, keep: int) -> None:
        path = write_zip(tmp_path / "a.zip", {"a.txt": bytes(range(32, 127)) * 100, "b.txt": "x" * 5000})
        path.write_bytes(path.read_bytes()[:keep])
        assert "is damaged or incomplete: File is not a zip file. Copy or download it again." in refusal(path)

    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_a_damaged_member_is_refused(self, tmp_path: Path, method: int) -> None:
        path = write_zip(tmp_path / "a.zip", {"a.txt": "a text of some length, to be damaged"}, method)
        content = bytearray(path.read_bytes())
        content[45] ^= 0x1F
        path.write_bytes(content)
        assert "is damaged or incomplete" in refusal(path)

    @pytest.mark.parametrize("members", [{}, {"a.png": "x"}, {"a.txt": ""}, {".a.txt": "x"}, {"a": "x", "b": "y"}])
    def test_one_without_text_is_refused(self, tmp_path: Path, members: dict[str, str | bytes]) -> None:
        assert "contains no text" in refusal(write_zip(tmp_path / "a.zip", members))

    def test_a_member_at_fault_is_named(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", {"a/b.txt": b"x\xff", "c.jsonl": "{}"})
        assert refusal(path).startswith(f"{path}/a/b.txt is not UTF-8: invalid byte 0xff at offset 1 ")
        path = write_zip(tmp_path / "b.zip", {"c.jsonl": '{"text": "x"}\n{}'})
        assert refusal(path).startswith(f"{path}/c.jsonl, line 2, is without a field 'text'")

    def test_a_name_with_control_characters_stays_on_one_line(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", {"a\n\x1b[31m.txt": b"x\xff"})
        assert "a.zip/a\\n\\x1b[31m.txt is not UTF-8" in refusal(path)

    def test_a_name_that_occurs_twice_is_read_twice(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file.writestr("a.txt", "one\n")
            file.writestr("a.txt", "two\n")
        assert [text for _, text in documents(tmp_path / "a.zip")] == ["one\n", "two\n"]


class TestGzip:
    def test_a_text_and_json_lines(self, tmp_path: Path) -> None:
        for name, content in {
            "a.txt.gz": "one",
            "b.jsonl.gz": '{"text": "two"}\n',
            "c.gz": "three",
            "d.md.gz": "four",
        }.items():
            (tmp_path / name).write_bytes(gzip.compress(content.encode()))
        assert documents(*sorted(tmp_path.iterdir())) == [
            ("a.txt.gz", "one\n"), ("b.jsonl.gz, line 1", "two\n"), ("c.gz", "three\n"), ("d.md.gz", "four"),
        ]  # fmt: skip

    def test_several_streams_in_one_file_are_one_text(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one ") + gzip.compress(b"two"))
        assert documents(tmp_path / "a.txt.gz") == [("a.txt.gz", "one two")]

    @pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
    def test_a_truncated_one_is_refused(self, tmp_path: Path, keep: float) -> None:
        content = gzip.compress("".join(f"{n} green bottles\n" for n in range(10_000)).encode())
        path = tmp_path / "a.txt.gz"
        path.write_bytes(content[: int(len(content) * keep)])
        assert refusal(path) == (
            f"{path} is damaged or incomplete: Compressed file ended before the end-of-stream marker was reached. "
            "Copy or download it again."
        )

    def damaged(self) -> list[Callable[[bytes], bytes]]:
        return [
            lambda content: b"not gzip",
            lambda content: content[:30] + bytes(20) + content[50:],
            lambda content: content[:-8] + bytes(8),  # the checksum
        ]

    @pytest.mark.parametrize("index", range(3))
    def test_a_damaged_one_is_refused(self, tmp_path: Path, index: int) -> None:
        path = tmp_path / "a.txt.gz"
        path.write_bytes(self.damaged()[index](gzip.compress("".join(map(chr, range(32, 1000))).encode())))
        assert "is damaged or incomplete" in refusal(path) or "is not UTF-8" in refusal(path)

    def test_an_empty_one_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b""))
        assert "is empty or has only white space" in refusal(tmp_path / "a.txt.gz")

    @pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.zip.gz", "a.txt.gz.gz"])
    def test_an_archive_inside_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(gzip.compress(b"x"))
        assert "is an archive in a .gz file, which is not read" in refusal(tmp_path / name)

    def test_a_bomb_is_refused_in_bounded_memory(self, tmp_path: Path) -> None:
        """330 MB of text in less than 1 MB, of which a block at a time is in memory."""
        path = tmp_path / "bomb.txt.gz"
        compress = zlib.compressobj(9, wbits=31)
        chunk = b"all work and no play \n" * 50_000
        path.write_bytes(b"".join(compress.compress(chunk) for _ in range(300)) + compress.flush())
        assert path.stat().st_size < 1_000_000
        code = (
            "import resource, sys; from pathlib import Path\n"
            "from gptbox.datasets.text_file import TextFiles\n"
            "from gptbox.errors import DatasetError\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "try:\n"
            "    for document in TextFiles([Path(sys.argv[1])]).documents():\n"
            "        for block in document.blocks: pass\n"
            "except DatasetError as error:\n"
            "    print(error)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
        message, kibibytes = done.stdout.splitlines()
        assert "looks like a zip bomb" in message
        assert int(kibibytes) < 20_000


def contents() -> dict[str, bytes]:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.txt", "some words\n" * 20)
        file.writestr("ü/b.jsonl", '{"text": "a line"}\n' * 3)
    with zipfile.ZipFile(zipped, "a", zipfile.ZIP_STORED) as file:
        file.writestr("c.md", "# words")
        file.comment = b"a comment"
    return {"a.zip": zipped.getvalue(), "a.txt.gz": gzip.compress(b"some words\n" * 20)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=1000, deadline=None)
@given(
    name=st.sampled_from(sorted(contents())),
    changes=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 2), st.binary(max_size=3)), min_size=1, max_size=3),
)
def test_any_damage_is_refused_in_one_line_or_harmless(
    tmp_path: Path, name: str, changes: list[tuple[int, int, bytes]]
) -> None:
    content = contents()[name]
    for offset, deleted, inserted in changes:
        start = offset % (len(content) + 1)
        content = content[:start] + inserted + content[start + deleted :]
    (tmp_path / name).write_bytes(content)
    message = ""
    try:
        documents(tmp_path / name)
    except DatasetError as error:
        message = str(error)
    assert "\n" not in message


class TestInAFolder:
    def test_files_of_all_kinds_are_one_corpus(self, tmp_path: Path) -> None:
        folder = tmp_path / "letters"
        (folder / "more").mkdir(parents=True)
        (folder / "a.txt").write_text("a")
        write_zip(folder / "b.zip", {"x.txt": "b1", "y.txt": "b2"})
        (folder / "more" / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "c1"}\n{"text": "c2"}\n'))
        (folder / "z.md").write_text("z")
        corpus = TextFolder("letters").read(tmp_path)
        assert corpus.text == "a\nb1\nb2\nc1\nc2\nz"
        assert corpus.summary.documents == 6
        assert corpus.source == "the text letters (4 files)"
        assert corpus.text == corpus.text

    def test_progress_is_that_of_the_files_on_the_disk(self, tmp_path: Path) -> None:
        (tmp_path / "letters").mkdir()
        (tmp_path / "letters" / "a.txt.gz").write_bytes(gzip.compress(("line\n" * 1_000_000).encode(), 1))
        write_zip(tmp_path / "letters" / "b.zip", {"b.txt": "line\n" * 1_000_000}, zipfile.ZIP_STORED)
        reports: list[tuple[int, int]] = []
        TextFolder("letters").read(tmp_path, lambda operation, done, total: reports.append((done, total)))
        done = [report[0] for report in reports]
        total = sum(path.stat().st_size for path in (tmp_path / "letters").iterdir())
        assert {report[1] for report in reports} == {total}
        assert done == sorted(done)
        assert 0 < done[0] <= done[-1] <= total
