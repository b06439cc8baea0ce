"""Pages of other sites cannot let a visitor's browser spend the engine's time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from gptbox.web.cross_site import is_same_host

POSTS = [
    ("/v1/completions", {"max_tokens": 1}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}),
    ("/tokenize", {"prompt": "x"}),
    ("/detokenize", {"tokens": [1]}),
]
HOST = {"Host": "gptbox.test:8000"}
OWN = {"Origin": "http://gptbox.test:8000"}


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://gptbox.test", "gptbox.test"),
        ("http://gptbox.test:8000", "gptbox.test:8000"),
        ("http://GPTBOX.test:8000", "gptbox.TEST:8000"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://[::1]", "[::1]"),
        ("http://gptbox.test", "gptbox.test:80"),
        ("http://gptbox.test:443", "gptbox.test:443"),
        # behind a proxy that ends TLS
        ("https://gptbox.test", "gptbox.test"),
        ("https://gptbox.test", "gptbox.test:443"),
        ("https://gptbox.test", "gptbox.test:80"),
        ("https://gptbox.test:8443", "gptbox.test:8443"),
    ],
)
def test_the_same_host(origin: str, host: str) -> None:
    assert is_same_host(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("null", "gptbox.test"),
        ("", ""),
        ("http://evil.test", "gptbox.test"),
        ("http://gptbox.test.evil.test", "gptbox.test"),
        ("http://evil.gptbox.test", "gptbox.test"),
        ("http://gptbox.test@evil.test", "gptbox.test"),
        ("http://gptbox.test:8001", "gptbox.test:8000"),
        ("http://gptbox.test", "gptbox.test:8000"),
        ("http://gptbox.test:8000", "gptbox.test"),
        ("http://gptbox.test:443", "gptbox.test"),
        ("https://gptbox.test:80", "gptbox.test"),
        ("http://localhost:8000", "127.0.0.1:8000"),
        ("http://[::1]:8000", "[::2]:8000"),
        ("file://", "gptbox.test"),
        ("file://gptbox.test", "gptbox.test"),
        ("chrome-extension://gptbox.test", "gptbox.test"),
        ("http://gptbox.test http://evil.test", "gptbox.test"),
        ("http://gptbox.test:x", "gptbox.test:x"),
        ("http://[", "["),
        ("http://", ""),
        ("gptbox.test", "gptbox.test"),
    ],
)
def test_another_one(origin: str, host: str) -> None:
    assert not is_same_host(origin, host)


def spent(client: TestClient) -> int:
    return int(client.app.state.service.scheduler.tokens)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("path", "body"), POSTS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
        {"Origin": "http://evil.test", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://gptbox.test:8001", "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {**OWN, "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_post_from_another_site_is_refused_and_spends_nothing(
    client: TestClient, path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    response = client.post(path, json=body, headers={**HOST, **headers})
    assert response.status_code == 403
    error = response.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "cross_site_request", None)
    if headers.get("Origin") == "http://evil.test":
        assert "'http://evil.test'" in error["message"]
        assert "'gptbox.test:8000'" in error["message"]
    assert "access-control-allow-origin" not in response.headers
    assert response.headers["x-request-id"]
    assert spent(client) == 0


@pytest.mark.parametrize(("path", "body"), POSTS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        OWN,
        {**OWN, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-site"},
        {"Referer": "http://evil.test/"},
    ],
)
def test_the_page_and_programs_are_served(
    client: TestClient, path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    assert client.post(path, json=body, headers={**HOST, **headers}).status_code == 200


def test_a_plain_text_body_as_forms_send_it_is_refused_too(client: TestClient) -> None:
    headers = {**HOST, "Origin": "http://evil.test", "Content-Type": "text/plain"}
    assert client.post("/v1/completions", content=b'{"max_tokens": 1}', headers=headers).status_code == 403
    bare = {**HOST, "Content-Type": "application/x-www-form-urlencoded"}  # curl -d
    assert client.post("/v1/completions", content=b'{"max_tokens": 1}', headers=bare).status_code == 200


def test_the_right_key_does_not_help(tiny_run: Path, client_for: Callable[..., TestClient]) -> None:
    client = client_for(tiny_run, api_key="sesame")
    headers = {**HOST, "Origin": "http://evil.test", "Authorization": "Bearer sesame"}
    assert client.post("/v1/completions", json={"max_tokens": 1}, headers=headers).status_code == 403
    assert client.post("/v1/completions", json={}, headers={**headers, **OWN}).status_code == 200


def test_reading_stays_open_and_no_other_site_is_invited(client: TestClient) -> None:
    headers = {**HOST, "Origin": "http://evil.test", "Sec-Fetch-Site": "cross-site"}
    for path in ("/", "/api/status", "/v1/models", "/cgi-bin/test", "/healthz"):
        assert client.get(path, headers=headers).status_code == 200
    asks = {**headers, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = client.options("/v1/completions", headers=asks)
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control-")]
