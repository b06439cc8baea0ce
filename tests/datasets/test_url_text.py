"""DATASET_URL: downloaded once from a real server, verified, kept, and read as the user's own files are."""

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.datasets.conftest import not_root
from tests.datasets.http_server import Server, redirects, refuses, sends

from gptbox.datasets import find_dataset, text_file
from gptbox.datasets.downloaded_text import FOLDER
from gptbox.datasets.prepared import prepare
from gptbox.datasets.text_file import TextFile
from gptbox.datasets.url_text import UrlText
from gptbox.errors import DatasetError, DownloadError, RunError
from gptbox.models.runs import RunFolder

TEXT = "the quick brown fox\n" * 10
SHA256 = hashlib.sha256(TEXT.encode()).hexdigest()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def text_at(url: str, models: Path, **limits: float) -> UrlText:
    return UrlText("fox", url, models, retry_delays_s=(0.01,), **limits)  # type: ignore[arg-type]


def everything(*folders: Path) -> list[str]:
    """The names of all files in the folders, except locks."""
    return sorted(
        path.name for folder in folders for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    )


def refusal(text: UrlText, data: Path, models: Path) -> str:
    before = everything(data, models)
    with pytest.raises(DatasetError) as error:
        text.read(data)
    assert everything(data, models) == before, "nothing half-written"
    assert "\n" not in str(error.value)
    return str(error.value)


class TestForms:
    def zipped(self) -> bytes:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as file:
            file.writestr("fox.txt", TEXT)
        return content.getvalue()

    @pytest.mark.parametrize(
        "name", ["fox.txt", "fox.md", "fox.txt.gz", "fox.gz", "fox.jsonl", "fox.zip", "FOX.TXT?a=b.c/d"]
    )
    def test_the_name_in_the_address_tells_the_form(
        self, serve: Callable[..., Server], data: Path, models: Path, name: str
    ) -> None:
        content = TEXT.encode()
        if "gz" in name:
            content = gzip.compress(content)
        elif "zip" in name:
            content = self.zipped()
        elif "jsonl" in name:
            content = json.dumps({"text": TEXT}).encode()
        server = serve(sends(content))
        corpus = text_at(server.at(name), models).read(data)
        assert corpus.text == TEXT
        assert corpus.source == f"the text fox ({name.partition('?')[0]} from 127.0.0.1)"
        sha256 = hashlib.sha256(content).hexdigest()
        assert corpus.notes == (f"{server.at(name.partition('?')[0])}: {len(content):,} bytes, SHA-256 {sha256}.",)

    def test_a_redirect_may_tell_the_form(self, serve: Callable[..., Server], data: Path, models: Path) -> None:
        server = serve(redirects("/cache/pg100.txt"), sends(TEXT.encode()))
        corpus = text_at(server.at("ebooks/100.txt.utf-8"), models).read(data)
        assert corpus.text == TEXT
        assert "(pg100.txt from 127.0.0.1)" in corpus.source

    @pytest.mark.parametrize("name", ["fox.pdf", "fox", "", "fox.tar"])
    def test_another_kind_of_file_is_refused(
        self, serve: Callable[..., Server], data: Path, models: Path, name: str
    ) -> None:
        message = refusal(text_at(serve(sends(b"x")).at(name), models), data, models)
        assert f"is not the address of a text: its name, {name or '(none)'}, is not that of" in message

    def test_no_name_leads_out_of_the_folder(self, serve: Callable[..., Server], data: Path, models: Path) -> None:
        text_at(serve(sends(TEXT.encode())).at("a/%2e%2e%2f%2e%2e%2f.evil.txt"), models).read(data)
        assert everything(data / FOLDER) == ["download.json", "evil.txt"]


class TestStored:
    def test_it_is_downloaded_once(self, serve: Callable[..., Server], data: Path, models: Path) -> None:
        server = serve(sends(TEXT.encode()))
        first = text_at(server.at("a.txt"), models).read(data)
        second = text_at(server.at("a.txt"), models).read(data)
        assert first == second
        assert len(server.requests) == 1
        assert everything(data / FOLDER) == ["a.txt", "download.json"]
        assert not models.exists()

    def test_another_name_of_the_text_needs_no_other_download(
        self, serve: Callable[..., Server], data: Path, models: Path
    ) -> None:
        server = serve(sends(TEXT.encode()))
        for name in ("fox", "dog"):
            assert UrlText(name, server.at("a.txt"), models).read(data).text == TEXT
        assert len(server.requests) == 1

    def test_another_address_is_another_download(self, serve: Callable[..., Server], data: Path, models: Path) -> None:
        server = serve(sends(b"one"), sends(b"two"))
        assert text_at(server.at("a.txt?v=1"), models).read(data).text == "one"
        assert text_at(server.at("a.txt?v=2"), models).read(data).text == "two"

    @pytest.mark.parametrize("kind", ["read-only", "read-only inside", "absent"])
    def test_it_is_in_the_models_folder_if_the_data_folder_cannot_be_written(
        self, serve: Callable[..., Server], open_folder: Path, kind: str
    ) -> None:
        data, models = open_folder / "data", open_folder / "models"
        if kind != "absent":
            data.mkdir()
        if kind == "read-only inside":
            (data / FOLDER).mkdir()
        open_folder.chmod(0o777)
        server = serve(sends(TEXT.encode()))
        with not_root():
            for _ in range(2):
                assert text_at(server.at("a.txt"), models).read(data).text == TEXT
        assert len(server.requests) == 1
        assert everything(models / FOLDER) == ["a.txt", "download.json"]
        assert everything(data) == []

    def test_without_a_place_the_error_names_it(self, tmp_path: Path) -> None:
        (tmp_path / "models").touch()
        with pytest.raises(
            DatasetError, match=r"There is no place for the text fox: .*models/\.downloads cannot be written"
        ):
            text_at("http://127.0.0.1:9/a.txt", tmp_path / "models").read(tmp_path / "nowhere")

    @pytest.mark.parametrize(
        "damage",
        [
            lambda stored: shutil.rmtree(stored.parent),
            lambda stored: stored.unlink(),
            lambda stored: stored.write_text("cut"),
            lambda stored: (stored.parent / "download.json").write_text("[]"),
            lambda stored: (stored.parent / "download.json").unlink(),
        ],
    )
    def test_a_damaged_one_is_downloaded_again(
        self, serve: Callable[..., Server], data: Path, models: Path, damage: Callable[[Path], object]
    ) -> None:
        server = serve(sends(TEXT.encode()))
        text_at(server.at("a.txt"), models).read(data)
        [stored] = (data / FOLDER).rglob("a.txt")
        damage(stored)
        assert text_at(server.at("a.txt"), models).read_user_files(data) is None
        assert text_at(server.at("a.txt"), models).read(data).text == TEXT
        assert len(server.requests) == 2

    def test_what_a_killed_download_left_is_removed(
        self, serve: Callable[..., Server], data: Path, models: Path
    ) -> None:
        server = serve(sends(b"x" * 1000, promised=1 << 20))
        code = (
            "import sys; from pathlib import Path; from gptbox.datasets.url_text import UrlText\n"
            "UrlText('fox', sys.argv[1], Path(sys.argv[2])).read(Path(sys.argv[3]))"
        )
        with subprocess.Popen([sys.executable, "-c", code, server.at("a.txt"), models, data]) as process:
            while not any((data / FOLDER).glob(".*.tmp/download")):
                assert process.poll() is None
            process.kill()
        assert any((data / FOLDER).glob(".*.tmp"))
        text_at(serve(sends(TEXT.encode())).at("b.txt"), models).read(data)
        assert not any((data / FOLDER).glob(".*.tmp"))

    def test_it_is_no_dataset_of_its_own(self, serve: Callable[..., Server], data: Path, models: Path) -> None:
        text_at(serve(sends(TEXT.encode())).at("a.txt"), models).read(data)
        with pytest.raises(DatasetError, match=r"There are: shakespeare_char, plays, letters\. "):
            find_dataset("fox", data)


class TestFaults:
    @pytest.mark.parametrize("upper", [False, True])
    def test_the_expected_hash_is_accepted(
        self, serve: Callable[..., Server], data: Path, models: Path, upper: bool
    ) -> None:
        pin = SHA256.upper() if upper else SHA256
        assert text_at(serve(sends(TEXT.encode())).at(f"a.txt#sha256={pin}"), models).read(data).text == TEXT

    def test_another_hash_is_refused_with_both(self, serve: Callable[..., Server], data: Path, models: Path) -> None:
        server = serve(sends(TEXT.encode()))
        message = refusal(text_at(server.at(f"a.txt#sha256={'0' * 64}"), models), data, models)
        assert f"its SHA-256 is {SHA256}, expected {'0' * 64}." in message
        assert len(server.requests) == 1

    def test_a_hash_is_compared_with_the_stored_file_too(
        self, serve: Callable[..., Server], data: Path, models: Path
    ) -> None:
        server = serve(sends(TEXT.encode()))
        text_at(server.at("a.txt"), models).read(data)
        assert text_at(server.at(f"a.txt#sha256={SHA256}"), models).read(data).text == TEXT
        message = refusal(text_at(server.at(f"a.txt#sha256={'0' * 64}"), models), data, models)
        assert f"has the SHA-256 {SHA256}, expected {'0' * 64}" in message
        assert len(server.requests) == 1

    def test_an_unreachable_address(self, data: Path, models: Path) -> None:
        message = refusal(text_at("http://127.0.0.1:9/a.txt", models), data, models)
        assert message == "The text fox could not be downloaded from http://127.0.0.1:9/a.txt: Connection refused."

    def test_an_unknown_host(self, data: Path, models: Path) -> None:
        assert "could not be downloaded from http://nowhere.invalid/a.txt: " in refusal(
            text_at("http://nowhere.invalid/a.txt", models), data, models
        )

    def test_a_file_that_does_not_exist(self, serve: Callable[..., Server], data: Path, models: Path) -> None:
        assert "the server answered 404 Not Found" in refusal(
            text_at(serve(refuses(404)).at("a.txt"), models), data, models
        )

    def test_a_large_file(self, serve: Callable[..., Server], data: Path, models: Path) -> None:
        text = text_at(serve(sends(TEXT.encode())).at("a.txt"), models, max_bytes=100)
        assert "it has 200 bytes, more than 100" in refusal(text, data, models)

    def test_a_user_and_a_password_are_refused_and_not_repeated(self, models: Path) -> None:
        with pytest.raises(DatasetError) as error:
            text_at("https://me:secret@example.org/a.txt", models)
        assert "https://example.org/a.txt has a user name or a password" in str(error.value)

    @pytest.mark.parametrize(
        ("name", "content", "problem"),
        [
            ("a.zip", b"not a zip", "a.zip is damaged or incomplete: File is not a zip file"),
            (
                "a.txt.gz",
                gzip.compress(b"some text " * 1000)[:40],
                "a.txt.gz is damaged or incomplete: Compressed file",
            ),
            ("a.jsonl", b'{"text": "x"}\n{"text": "y"', "a.jsonl, line 2, is not valid JSON"),
            ("a.txt", b"\x00\x01\x02", "a.txt looks like a binary file"),
            ("a.txt", b" \n", "a.txt is empty"),
        ],
    )
    def test_a_damaged_text_is_named(
        self, serve: Callable[..., Server], data: Path, models: Path, name: str, content: bytes, problem: str
    ) -> None:
        with pytest.raises(DatasetError) as error:
            text_at(serve(sends(content)).at(name), models).read(data)
        assert problem in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_name_like_a_built_in_one_is_refused(self, data: Path) -> None:
        with pytest.raises(DatasetError, match=r"cannot be called plays, like a built-in one\. Set DATASET"):
            find_dataset("plays", data, "http://127.0.0.1:9/plays.txt")

    def test_files_of_the_same_name_are_not_used_with_a_note(
        self, serve: Callable[..., Server], data: Path, models: Path
    ) -> None:
        (data / "fox").mkdir()
        (data / "fox" / "mine.txt").write_text("mine")
        corpus = text_at(serve(sends(TEXT.encode())).at("a.txt"), models).read(data)
        assert corpus.text == TEXT
        assert corpus.notes[1] == f"The files in {data / 'fox'} are not used, because DATASET_URL gives the text."


class TestPrepared:
    @pytest.fixture
    def server(self, serve: Callable[..., Server]) -> Server:
        return serve(sends(TEXT.encode()), sends(b"another text\n"))

    @pytest.fixture(autouse=True)
    def reads(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Names of the files read. Every file counts as old enough for its times to be reliable."""
        reads: list[str] = []

        def counted(file: TextFile) -> Iterator[str]:
            reads.append(file.name)
            return blocks(file)

        blocks = TextFile.blocks
        monkeypatch.setattr(TextFile, "blocks", counted)
        monkeypatch.setattr(text_file, "_SETTLE_TIME_NS", -1)
        return reads

    def test_a_second_start_needs_neither_network_nor_text(
        self, server: Server, data: Path, run: RunFolder, reads: list[str]
    ) -> None:
        url = server.at("a.txt")
        assert prepare("fox", run, data, url=url).characters == 200
        run.checkpoint.mkdir()
        assert prepare("fox", run, data, url=url).characters == 200
        assert (len(server.requests), reads) == (1, ["a.txt", "a.txt"])
        shutil.rmtree(data / FOLDER)
        assert prepare("fox", run, data, url=url).characters == 200
        assert prepare("fox", run, data).characters == 200
        assert len(server.requests) == 1

    def test_another_run_uses_the_stored_file(self, server: Server, data: Path, tmp_path: Path) -> None:
        for name in ("one", "two"):
            assert prepare("fox", RunFolder(tmp_path / "models", name), data, url=server.at("a.txt")).characters == 200
        assert len(server.requests) == 1

    def test_another_address_is_prepared_again_before_training(
        self, server: Server, data: Path, run: RunFolder
    ) -> None:
        prepare("fox", run, data, url=server.at("a.txt"))
        assert prepare("fox", run, data, url=server.at("b.txt")).characters == 13

    def test_another_address_is_an_error_once_training_has_begun(
        self, server: Server, data: Path, run: RunFolder
    ) -> None:
        prepare("fox", run, data, url=server.at("a.txt"))
        run.checkpoint.mkdir()
        with pytest.raises(RunError, match=r"another text called fox \(the text fox \(a\.txt from 127\.0\.0\.1\)\)"):
            prepare("fox", run, data, url=server.at("b.txt"))
        assert len(server.requests) == 1

    def test_a_failed_download_prepares_nothing(self, serve: Callable[..., Server], data: Path, run: RunFolder) -> None:
        with pytest.raises(DownloadError):
            prepare("fox", run, data, url=serve(refuses(404)).at("a.txt"))
        assert everything(data, run.path) == ["a.txt"]
