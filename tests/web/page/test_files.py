"""The page and its files."""

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from gptbox.web.page.assets import Assets
from gptbox.web.page.files import MEDIA_TYPES, STATIC_FOLDER, files

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
IMMUTABLE = "public, max-age=31536000, immutable"


def names() -> list[str]:
    """The files below static/: all but the page itself."""
    paths = [path.relative_to(STATIC_FOLDER).as_posix() for path in STATIC_FOLDER.rglob("*") if path.is_file()]
    return [path for path in paths if path != "index.html"]


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is served instead of the page's own."""
    (tmp_path / "index.html").write_text('<script src="static/a.js"></script>')
    (tmp_path / "a.js").write_text("1")
    monkeypatch.setattr(files, "all_directories", [tmp_path])
    monkeypatch.setattr(files, "assets", Assets(tmp_path))
    return tmp_path


def test_the_root_path_is_the_page(client: TestClient) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.content == Assets(STATIC_FOLDER).page().index
    head = client.head("/")
    assert head.status_code == 200
    assert head.headers["etag"] == response.headers["etag"]
    assert head.headers["content-length"] == str(len(response.content))
    assert client.post("/").status_code == 405


def test_the_page_is_revalidated(client: TestClient) -> None:
    etag = client.get("/").headers["etag"]
    for given in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        again = client.get("/", headers={"If-None-Match": given})
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["etag"] == etag
        assert again.headers["cache-control"] == "no-cache"
    assert client.get("/", headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_files_that_the_page_names_are_kept_for_good(client: TestClient) -> None:
    named = re.findall(r'(?:href|src)="(static/[^"]+)"', client.get("/").text)
    assert len(named) > 10
    for address in named:
        response = client.get(f"/{address}")
        assert response.status_code == 200, address
        assert response.headers["cache-control"] == IMMUTABLE
        assert response.content == (STATIC_FOLDER / address.split("/", 2)[2]).read_bytes()


def fingerprint() -> str:
    return files.assets.page().fingerprint


@pytest.mark.parametrize("below", ["", "0123456789ab/", "current"])
def test_every_file_has_its_media_type_and_an_etag(client: TestClient, below: str) -> None:
    """Below its fingerprint, and for pages of other versions below any other or none."""
    below, caching = (f"{fingerprint()}/", IMMUTABLE) if below == "current" else (below, "no-cache")
    assert names()
    for name in names():
        address = f"/static/{below}{name}"
        response = client.get(address)
        assert response.status_code == 200, address
        assert response.content == (STATIC_FOLDER / name).read_bytes()
        if (suffix := Path(name).suffix) in TYPES:
            assert response.headers["content-type"] == f"{TYPES[suffix]}; charset=utf-8"
        assert response.headers["cache-control"] == caching
        again = client.get(address, headers={"If-None-Match": response.headers["etag"]})
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["etag"] == response.headers["etag"]
        assert again.headers["cache-control"] == caching


def test_no_other_file_is_served(client: TestClient) -> None:
    current = fingerprint()
    for address in (
        "/static/", "/static", "/static/nothing.js", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/index.html",
        "/static/%00", "/healthz/", "/docs", "/static/" + "x" * 5000, "/static/index.html",
        f"/static/{current}", f"/static/{current}/", f"/static/{current}/nothing.js", f"/static/{current}/index.html",
        f"/static/{current}/..%2f..%2fapp.py", f"/static/{current}/%2e%2e/%2e%2e/app.py", f"/{current}/main.js",
        f"/static/{current}/{current}/main.js", f"/static/{current}/%00", f"/static/{current}//etc/passwd",
    ):  # fmt: skip
        response = client.get(address)
        assert response.status_code == 404, address
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.headers["cache-control"] == "no-store", address


def test_a_changed_file_is_sent_again(client: TestClient, edited: Path) -> None:
    first = client.get("/static/a.js")
    (edited / "a.js").write_text("22")
    second = client.get("/static/a.js", headers={"If-None-Match": first.headers["etag"]})
    assert second.status_code == 200
    assert second.text == "22"


def test_an_edit_shows_after_a_reload(client: TestClient, edited: Path) -> None:
    def reload() -> tuple[Any, Any]:
        page = client.get("/")
        (address,) = re.findall(r'src="([^"]+)"', page.text)
        return page, client.get(f"/{address}")

    page, script = reload()
    (edited / "a.js").write_text("22")
    assert client.get(script.url.path).headers["cache-control"] == "no-cache", "not the contents of that fingerprint"
    assert client.get("/", headers={"If-None-Match": page.headers["etag"]}).status_code == 200
    new_page, new_script = reload()
    assert new_script.url != script.url
    assert new_script.text == "22"
    assert new_script.headers["cache-control"] == IMMUTABLE
    assert client.get("/", headers={"If-None-Match": new_page.headers["etag"]}).status_code == 304


def test_apache_has_the_same_media_types() -> None:
    configuration = (Path(__file__).parents[3] / "apache" / "httpd.conf").read_text(encoding="utf-8")
    types = {suffix: media_type for media_type, suffix in re.findall(r"^ +AddType (\S+) (\S+)$", configuration, re.M)}
    (with_charset,) = re.findall(r"^ +AddCharset utf-8 (.+)$", configuration, re.M)
    assert types == MEDIA_TYPES
    assert set(with_charset.split()) == {
        suffix for suffix, media_type in types.items() if re.match(r"text/|.*(json|xml)$", media_type)
    }
