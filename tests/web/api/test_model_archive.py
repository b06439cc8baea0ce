"""/api/models/RUN@SNAPSHOT.zip: a whole model folder, whatever happens to the folder meanwhile."""

import io
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from gptbox.errors import ModelNotFoundError
from gptbox.models import folder as model_folder
from gptbox.models.runs import RunFolder
from gptbox.web.api import model_archive
from gptbox.web.api.model_archive import CHUNK_BYTES, ModelArchive

Publish = Callable[..., Path]


def num_open_files(folder: Path) -> int:
    """Files and folders below `folder` that this process has open, deleted ones included."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            count += str(link.readlink()).startswith(str(folder))
        except OSError:
            continue
    return count


def memory_bytes() -> int:
    """The memory that this process, which is also the server's, takes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def large_run(tiny_run: Path) -> Path:
    """`tiny_run`, whose snapshot has a file of 100 MB in addition."""
    with (RunFolder(tiny_run, "tiny").snapshot(250) / "more.bin").open("wb") as file:
        file.truncate(100_000_000)
    return tiny_run


@pytest.fixture
def download() -> Iterator[Callable[..., httpx.Response]]:
    """download(url): a response whose body has not been read."""
    with httpx.Client(timeout=30) as client:
        responses: list[httpx.Response] = []

        def start(url: str) -> httpx.Response:
            responses.append(client.send(client.build_request("GET", url), stream=True))
            return responses[-1]

        yield start
        for response in responses:
            response.close()


def test_the_archive_is_the_model_folder(server: Any, tiny_run: Path, tmp_path: Path) -> None:
    response = httpx.get(f"{server.url}/api/models/tiny@step-000250.zip")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/zip"
    assert response.headers["content-disposition"] == 'attachment; filename="tiny-step-000250.zip"'
    assert int(response.headers["content-length"]) == len(response.content)
    assert "transfer-encoding" not in response.headers
    snapshot = RunFolder(tiny_run, "tiny").snapshot(250)
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        archive.extractall(tmp_path)
    unpacked = tmp_path / "tiny-step-000250"
    assert {path.name: path.read_bytes() for path in unpacked.iterdir()} == {
        path.name: path.read_bytes() for path in snapshot.iterdir()
    }
    expected, loaded = model_folder.load(snapshot), model_folder.load(unpacked)
    assert loaded.config == expected.config
    assert all(np.array_equal(loaded.weights[name], value) for name, value in expected.weights.items())


@pytest.mark.parametrize(
    ("name", "step"), [("tiny", 250), ("tiny@best", 250), ("tiny@latest", 500), ("tiny%40step-000500", 500)]
)
def test_names_are_those_of_models(
    publish: Publish, models: Path, client_for: Callable[..., TestClient], name: str, step: int
) -> None:
    publish(250)
    publish(500, best=False)
    response = client_for(models).get(f"/api/models/{name}.zip")
    assert response.headers["content-disposition"] == f'attachment; filename="tiny-step-{step:06d}.zip"'


def test_head_has_the_headers_of_get(server: Any, large_run: Path) -> None:
    head = httpx.head(f"{server.url}/api/models/tiny.zip")
    assert head.status_code == 200
    assert head.content == b""
    assert int(head.headers["content-length"]) > 100_000_000
    get = httpx.get(f"{server.url}/api/models/tiny.zip", timeout=60)
    assert len(get.content) == int(head.headers["content-length"])
    for name in ("content-length", "content-disposition", "content-type"):
        assert head.headers[name] == get.headers[name]
    assert num_open_files(large_run) == 0
    assert server.service.num_downloads == 0


@pytest.mark.parametrize("name", ["nobody", "tiny@step-000600", "tiny@", "..", "%2e%2e%2fx", "tiny@..%2f..%2fx", ""])
def test_an_unknown_model_is_a_404(client: TestClient, name: str) -> None:
    response = client.get(f"/api/models/{name}.zip")
    if name == "tiny@":
        assert response.status_code == 200  # as elsewhere, the best
        return
    assert response.status_code == 404
    assert response.json()["error"]["message"]
    assert ("'step-000250'" in response.json()["error"]["message"]) is (name == "tiny@step-000600")


def test_before_a_model_is_published_the_reason_is_given(models: Path, client_for: Callable[..., TestClient]) -> None:
    response = client_for(models).get("/api/models/tiny.zip")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "no_model_yet")


def test_downloads_can_be_turned_off(tiny_run: Path, client_for: Callable[..., TestClient]) -> None:
    client = client_for(tiny_run, downloads="off")
    for name in ("tiny", "nobody"):
        response = client.get(f"/api/models/{name}.zip")
        assert response.status_code == 403
        assert response.json()["error"]["code"] == "downloads_off"
        assert "DOWNLOADS=off" in response.json()["error"]["message"]
    assert client.get("/api/status").json()["server"]["downloads"] is False


def test_the_key_is_required_if_one_is_set(tiny_run: Path, client_for: Callable[..., TestClient]) -> None:
    client = client_for(tiny_run, api_key="sesame")
    path = "/api/models/tiny.zip"
    assert client.get(path).status_code == client.get(f"{path}?api_key=sesame").status_code == 401
    assert client.get(path, headers={"Authorization": "Bearer sesame"}).status_code == 200


def test_a_snapshot_may_be_deleted_during_its_download(
    large_run: Path, server: Any, download: Callable[..., httpx.Response]
) -> None:
    response = download(f"{server.url}/api/models/tiny.zip")
    pieces = response.iter_raw()
    content = next(pieces)
    snapshot = RunFolder(large_run, "tiny").snapshot(250)
    weights = (snapshot / "model.safetensors").read_bytes()
    hidden = snapshot.rename(snapshot.with_name(".hidden"))  # as training does
    shutil.rmtree(hidden)
    content += b"".join(pieces)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.read("tiny-step-000250/model.safetensors") == weights
        assert archive.getinfo("tiny-step-000250/more.bin").file_size == 100_000_000


def test_a_snapshot_that_is_deleted_while_its_files_are_opened_is_a_404(
    tiny_run: Path, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = RunFolder(tiny_run, "tiny").snapshot(250)
    listdir = os.listdir

    def list_then_delete(folder: Any) -> list[str]:
        names = listdir(folder)
        if isinstance(folder, int) and snapshot.exists():
            shutil.rmtree(snapshot.rename(snapshot.with_name(".hidden")))
        return names

    monkeypatch.setattr(os, "listdir", list_then_delete)
    response = client.get("/api/models/tiny@step-000250.zip")
    assert response.status_code == 404
    assert "has just been deleted" in response.json()["error"]["message"]
    assert num_open_files(tiny_run) == 0


def test_a_snapshot_replaced_meanwhile_is_not_mixed_with_its_successor(tiny_run: Path, publish: Publish) -> None:
    snapshot = RunFolder(tiny_run, "tiny").snapshot(250)
    archive = ModelArchive(snapshot)
    expected = (snapshot / "model.safetensors").read_bytes()
    shutil.rmtree(snapshot)
    publish(250, seed=9)
    content = b"".join(archive)
    archive.close()
    assert (snapshot / "model.safetensors").read_bytes() != expected
    with zipfile.ZipFile(io.BytesIO(content)) as unpacked:
        assert unpacked.read("tiny-step-000250/model.safetensors") == expected


def test_it_is_not_buffered(large_run: Path, server: Any, download: Callable[..., httpx.Response]) -> None:
    """A client that does not read holds up the reading of the files: memory stays as it was."""
    before = memory_bytes()
    responses = [download(f"{server.url}/api/models/tiny.zip") for _ in range(3)]
    bodies = [response.iter_raw(1000) for response in responses]  # which close the responses when they are deleted
    for body in bodies:
        next(body)
    time.sleep(0.5)
    assert memory_bytes() - before < 50_000_000  # the files have 300 MB
    archive = ModelArchive(RunFolder(large_run, "tiny").snapshot(250))
    assert max(map(len, archive)) <= CHUNK_BYTES
    archive.close()


def test_a_client_that_goes_away_frees_its_place_and_files(
    large_run: Path, server: Any, download: Callable[..., httpx.Response], wait_until: Callable[..., None]
) -> None:
    response = download(f"{server.url}/api/models/tiny.zip")
    body = response.iter_raw(1000)  # closes the response when it is deleted
    next(body)
    assert server.service.num_downloads == 1
    assert num_open_files(large_run) > 0
    response.close()
    wait_until(lambda: server.service.num_downloads == 0 and num_open_files(large_run) == 0)


def test_more_downloads_than_places_are_a_429(
    large_run: Path, server: Any, download: Callable[..., httpx.Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_archive, "MAX_DOWNLOADS", 1)
    download(f"{server.url}/api/models/tiny.zip")
    refused = httpx.get(f"{server.url}/api/models/tiny.zip")
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "5"
    assert "content-disposition" not in refused.headers


def test_a_missing_snapshot_is_an_error_of_the_archive(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="step-000001"):
        ModelArchive(tmp_path / "run" / "snapshots" / "step-000001")


def test_a_folder_of_another_program_may_have_folders(tiny_run: Path) -> None:
    snapshot = RunFolder(tiny_run, "tiny").snapshot(250)
    (snapshot / "onnx").mkdir()
    archive = ModelArchive(snapshot)
    content = b"".join(archive)
    archive.close()
    assert len(content) == archive.size
    assert "tiny-step-000250/onnx" not in zipfile.ZipFile(io.BytesIO(content)).namelist()


@pytest.mark.acceptance
def test_beyond_4_gib_it_is_a_zip64(tiny_run: Path, tmp_path: Path) -> None:
    snapshot = RunFolder(tiny_run, "tiny").snapshot(250)
    with (snapshot / "a.bin").open("wb") as file:
        file.truncate(2**32 + 5)
    archive = ModelArchive(snapshot)
    target = tmp_path / "large.zip"
    with target.open("wb") as output:
        for chunk in archive:
            if chunk.count(0) == len(chunk):
                output.seek(len(chunk), os.SEEK_CUR)  # a hole
            else:
                output.write(chunk)
    archive.close()
    assert target.stat().st_size == archive.size
    with zipfile.ZipFile(target) as unpacked:
        assert unpacked.getinfo("tiny-step-000250/a.bin").file_size == 2**32 + 5
        assert unpacked.read("tiny-step-000250/config.json") == (snapshot / "config.json").read_bytes()
