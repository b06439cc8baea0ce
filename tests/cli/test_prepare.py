"""`gptbox prepare`."""

import io
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.cli.process import gptbox
from tests.datasets.hub_server import HubServer


def test_prepare_describes_the_text(home: Path) -> None:
    text = (home / "data" / "bottles" / "text.txt").read_text()
    done = gptbox(home, "prepare", "bottles", "--run", "only-prepared")
    assert done.returncode == 0, done.stderr
    assert f"{len(text):,} characters" in done.stdout
    assert "vocabulary: 29 characters: " in done.stdout
    assert (home / "models" / "only-prepared" / "dataset" / "train.bin").stat().st_size == int(len(text) * 0.9) * 2


def test_prepare_with_bytes_as_tokens(home: Path, tmp_path: Path) -> None:
    models = {"GPTBOX_MODELS": str(tmp_path)}
    done = gptbox(home, "prepare", "bottles", "--tokenizer", "byte", **models)
    assert done.returncode == 0, done.stderr
    assert "vocabulary: 256 bytes, of which" in done.stdout
    again = gptbox(home, "prepare", "bottles", **models)
    assert again.stdout == done.stdout


@pytest.fixture
def address() -> Iterator[str]:
    """The address of a folder of files on a real server, which has texts/fox.zip."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("fox.txt", "".join(f"{n} quick brown foxes jump\n" for n in range(300)))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/texts/fox.zip":
                self.send_response(200)
                self.send_header("Content-Length", str(len(content.getvalue())))
                self.end_headers()
                self.wfile.write(content.getvalue())
            else:
                self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/texts"
        server.shutdown()
        thread.join()


def test_a_text_from_an_address_is_named_after_its_file(address: str, tmp_path: Path) -> None:
    done = gptbox(tmp_path, "prepare", DATASET_URL=f"{address}/fox.zip")
    assert done.returncode == 0, done.stderr
    assert "fox: the text fox (fox.zip from 127.0.0.1)" in done.stdout
    assert re.search(rf"note: {address}/fox\.zip: [\d,]+ bytes, SHA-256 [0-9a-f]{{64}}\.", done.stdout)
    assert [path.name for path in (tmp_path / "models").iterdir() if path.name[0] != "."] == ["fox"]
    assert gptbox(tmp_path, "prepare", "mine", DATASET_URL=f"{address}/fox.zip").returncode == 0
    assert (tmp_path / "models" / "mine" / "dataset" / "meta.json").exists()


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        ("/gone.txt", "could not be downloaded from"),
        ("/fox.zip#sha256=" + 64 * "0", "its SHA-256 is"),
        ("/fox.zip#sha256=0", "is not an http or https address"),
    ],
)
def test_a_wrong_address_is_one_line_and_leaves_nothing(address: str, tmp_path: Path, end: str, problem: str) -> None:
    done = gptbox(tmp_path, "prepare", DATASET_URL=address + end)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"] == []


def test_a_text_from_the_hugging_face_hub(tmp_path: Path) -> None:
    rows = "".join(f'{{"text": "{n} quick brown foxes jump"}}\n' for n in range(300))
    with closing(HubServer()) as hub:
        hub.datasets["me/foxes"] = {"train.jsonl": rows.encode()}
        done = gptbox(tmp_path, "prepare", DATASET_URL="hf:me/foxes?size=5KB", HF_ENDPOINT=hub.endpoint, HF_HOME="hf")
    assert done.returncode == 0, done.stderr
    assert "foxes: the text foxes (me/foxes from the Hugging Face Hub)\n" in done.stdout
    assert "note: hf:me/foxes?size=5KB: split train, column text: the first 197 texts, " in done.stdout
    again = gptbox(tmp_path, "prepare", DATASET_URL="hf:me/foxes?size=5KB", HF_ENDPOINT=hub.endpoint, HF_HOME="hf")
    assert done.stdout.endswith(again.stdout), "but for the progress of a slow download"


def test_a_hub_that_cannot_be_reached_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = gptbox(tmp_path, "prepare", DATASET_URL="hf:me/foxes", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME="hf")
    assert (done.returncode, done.stdout) == (2, "")
    assert "The text foxes could not be downloaded from hf:me/foxes: the Hub cannot be reached" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"] == []
