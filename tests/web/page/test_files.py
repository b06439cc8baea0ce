"""The page and its files."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from gptbox.web.page.files import STATIC_FOLDER

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def test_the_root_path_is_the_page(client: TestClient) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.content == (STATIC_FOLDER / "index.html").read_bytes()
    assert client.head("/").status_code == 200
    assert client.post("/").status_code == 405


def test_every_file_has_its_media_type_and_an_etag(client: TestClient) -> None:
    files = [path for path in STATIC_FOLDER.rglob("*") if path.is_file()]
    assert files
    for path in files:
        address = f"/static/{path.relative_to(STATIC_FOLDER).as_posix()}"
        response = client.get(address)
        assert response.status_code == 200, address
        assert response.content == path.read_bytes()
        if path.suffix in TYPES:
            assert response.headers["content-type"] == f"{TYPES[path.suffix]}; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache"
        again = client.get(address, headers={"If-None-Match": response.headers["etag"]})
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["etag"] == response.headers["etag"]
        assert again.headers["cache-control"] == "no-cache"


def test_no_other_file_is_served(client: TestClient) -> None:
    for address in (
        "/static/", "/static", "/static/nothing.js", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/index.html",
        "/static/%00", "/healthz/", "/docs", "/static/" + "x" * 5000,
    ):  # fmt: skip
        response = client.get(address)
        assert response.status_code == 404, address
        assert response.headers["content-type"] == "text/plain; charset=utf-8"


def test_a_changed_file_is_sent_again(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gptbox.web.page.files import files

    (tmp_path / "a.js").write_text("1")
    monkeypatch.setattr(files, "all_directories", [tmp_path])
    first = client.get("/static/a.js")
    (tmp_path / "a.js").write_text("22")
    second = client.get("/static/a.js", headers={"If-None-Match": first.headers["etag"]})
    assert second.status_code == 200
    assert second.text == "22"
