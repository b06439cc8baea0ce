"""The optional API key."""

from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

KEY = "s\u00e9same 1"


@pytest.fixture
def locked(tiny_run: Path, client_for: Callable[..., TestClient]) -> TestClient:
    return client_for(tiny_run, api_key=KEY)


WRONG = [None, b"", b"Bearer", b"Bearer ", b"Bearer wrong", b"Basic " + KEY.encode(), KEY.encode(), b"Bearer \xff"]


def test_programs_need_the_key(locked: TestClient) -> None:
    requests = [
        ("POST", "/v1/completions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/tiny"),
        ("GET", "/v1/nothing"),
        ("PUT", "/v1/models"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
    ]
    for method, path in requests:
        for header in WRONG:
            headers = [] if header is None else [(b"Authorization", header)]
            response = locked.request(method, path, headers=headers)
            assert response.status_code == 401, (method, path, header)
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]["code"] == "invalid_api_key"
            assert KEY not in response.text


def test_the_key_opens(locked: TestClient) -> None:
    for scheme in (b"Bearer", b"bearer", b"BEARER"):
        headers = [(b"Authorization", scheme + b" " + KEY.encode())]
        assert locked.post("/v1/completions", json={}, headers=headers).status_code == 200
        assert locked.get("/v1/models", headers=headers).status_code == 200
        assert locked.post("/tokenize", json={"prompt": "x"}, headers=headers).status_code == 200
        assert locked.post("/detokenize", json={"tokens": [1]}, headers=headers).status_code == 200


def test_all_else_is_open(locked: TestClient) -> None:
    for path in ("/", "/api/status", "/api/history", "/healthz", "/health", "/readyz", "/cgi-bin/test"):
        assert locked.get(path).status_code == 200, path


def test_without_a_key_any_is_welcome(client: TestClient) -> None:
    assert client.get("/v1/models", headers={"Authorization": "Bearer anything"}).status_code == 200
    assert client.get("/api/status").json()["server"]["auth"] is False
