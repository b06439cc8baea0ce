"""Request ids and log, default headers, cross-site requests and the API key."""

import json
import logging
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from gptbox.system.logs import JsonFormatter
from gptbox.web.middleware import is_same_host

SECRET = "a prompt that nobody else may read"


def test_a_valid_request_id_is_kept_and_any_other_is_replaced(client: TestClient) -> None:
    assert client.get("/", headers={"X-Request-ID": "aZ9@-_.:"}).headers["x-request-id"] == "aZ9@-_.:"
    seen = {client.get("/").headers["x-request-id"] for _ in range(3)}
    seen |= {client.get("/", headers={"X-Request-ID": odd}).headers["x-request-id"] for odd in ("", "a b", "x" * 65)}
    assert len(seen) == 6
    assert all(re.fullmatch("[0-9a-f]{24}", each) for each in seen)
    assert client.get("/no/such/page").headers["x-request-id"]


def entries(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The log records of requests, as formatted by LOG_FORMAT=json."""
    return [json.loads(JsonFormatter().format(each)) for each in caplog.records if each.name == "gptbox.requests"]


def test_a_visit_is_logged_without_its_prompt(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    body = {"prompt": SECRET, "max_tokens": 7}
    client.post("/v1/completions", json=body, headers={"X-Request-ID": "one"})
    client.get("/cgi-bin/test", params={"start": SECRET})
    client.post("/v1/completions", json={"prompt": SECRET, "n": 99})
    client.get("/", params={"start": SECRET})
    first, lesson, refused, page = entries(caplog)
    ms = first.pop("ms")
    assert ms >= 0
    assert first.pop("first_token_ms") >= 0
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info", "message": f"testclient POST /v1/completions 200 · 7 tokens · {ms:.0f} ms · one",
        "request_id": "one", "client": "testclient", "method": "POST", "path": "/v1/completions", "status": 200,
        "prompt_tokens": len(SECRET), "completion_tokens": 7,
    }  # fmt: skip
    assert lesson["path"] == "/cgi-bin/test"
    assert lesson["completion_tokens"] == 500
    assert refused["status"] == 400
    assert (page["path"], page["status"]) == ("/", 200)
    assert SECRET not in caplog.text


def test_probes_and_requests_of_the_page_are_not_logged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    quiet = ("/static/main.js", "/static/gone.js", "/api/status", "/api/history", "/v1/models", "/openapi.json",
             "/healthz", "/health", "/readyz", "/metrics")  # fmt: skip
    for path in quiet:
        client.get(path)
    client.post("/tokenize", json={"prompt": "a"})
    assert entries(caplog) == []


def test_a_failed_readiness_probe_is_not_logged(
    models: Path, client_for: Callable[..., TestClient], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    assert client_for(models).get("/readyz").status_code == 503
    assert entries(caplog) == []


def test_failures_are_logged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    client.get("/no/such/page")
    client.get("/v1/models/no-such-model")
    client.put("/")
    assert [(entry["path"], entry["status"]) for entry in entries(caplog)] == [
        ("/no/such/page", 404), ("/v1/models/no-such-model", 404), ("/", 405),
    ]  # fmt: skip


def test_a_logged_path_cannot_forge_lines_or_move_the_cursor(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    client.get("/%0d%0aerror: forged%1b[2K%c3%bc" + "a" * 5000)
    (entry,) = entries(caplog)
    assert entry["path"].startswith("/%0D%0Aerror%3A%20forged%1B%5B2K%C3%BCaaa")
    assert len(entry["path"]) == 200
    assert entry["message"].isprintable()


def test_a_client_that_disconnects_before_the_response_is_logged(
    server: Any, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., None]
) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    body = b'{"max_tokens": 100000}'
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)
        wait_until(server.busy)
    wait_until(lambda: entries(caplog))
    (entry,) = entries(caplog)
    assert entry["status"] == 499
    assert entry["prompt_tokens"] == 1


def test_a_stream_is_logged_when_it_ends(
    server: Any, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., None]
) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    with httpx.stream("POST", f"{server.url}/v1/completions", json={"stream": True, "max_tokens": 40}) as response:
        response.read()
    wait_until(lambda: entries(caplog))
    [entry] = entries(caplog)
    assert entry["completion_tokens"] == 40


def test_every_response_has_nosniff_and_cache_control_and_no_cors_headers(client: TestClient) -> None:
    for path in ("/", "/static/x", "/v1/models", "/v1/x", "/api/status", "/cgi-bin/test", "/healthz", "/x"):
        response = client.get(path, headers={"Origin": "https://elsewhere.example"})
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in response.headers
        assert response.headers["cache-control"] in ("no-cache", "no-store")


def test_no_prompt_is_logged(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    secret = "wherefore-secret"
    with caplog.at_level(logging.DEBUG):
        for body in ({"prompt": secret}, {"prompt": [secret, 1]}, {"prompt": secret, "stream": True},
                     {"prompt": secret, "model": "nobody"}, {"prompt": secret, "n": 99}):  # fmt: skip
            httpx.post(f"{server.url}/v1/completions", json=body)
        httpx.get(f"{server.url}/cgi-bin/test?start={secret}")
        httpx.get(f"{server.url}/cgi-bin/test?start={secret}&seed=x")
        httpx.post(f"{server.url}/v1/completions", content=f'{{"prompt": "{secret}"')
    own_records = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert [record for record in own_records if secret in record.getMessage()] == []
    assert not any(record.levelno >= logging.WARNING for record in own_records)


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
        # behind a proxy that terminates TLS
        ("https://gptbox.test", "gptbox.test"),
        ("https://gptbox.test", "gptbox.test:443"),
        ("https://gptbox.test", "gptbox.test:80"),
        ("https://gptbox.test:8443", "gptbox.test:8443"),
    ],
)
def test_is_same_host(origin: str, host: str) -> None:
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
def test_is_not_same_host(origin: str, host: str) -> None:
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
def test_a_post_from_another_site_is_refused_and_generates_nothing(
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
def test_requests_of_the_page_and_of_programs_are_served(
    client: TestClient, path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    assert client.post(path, json=body, headers={**HOST, **headers}).status_code == 200


def test_cross_site_forms_are_refused(client: TestClient) -> None:
    headers = {**HOST, "Origin": "http://evil.test", "Content-Type": "text/plain"}
    assert client.post("/v1/completions", content=b'{"max_tokens": 1}', headers=headers).status_code == 403
    bare = {**HOST, "Content-Type": "application/x-www-form-urlencoded"}  # curl -d
    assert client.post("/v1/completions", content=b'{"max_tokens": 1}', headers=bare).status_code == 200


def test_the_api_key_does_not_allow_cross_site_requests(tiny_run: Path, client_for: Callable[..., TestClient]) -> None:
    client = client_for(tiny_run, api_key="sesame")
    headers = {**HOST, "Origin": "http://evil.test", "Authorization": "Bearer sesame"}
    assert client.post("/v1/completions", json={"max_tokens": 1}, headers=headers).status_code == 403
    assert client.post("/v1/completions", json={}, headers={**headers, **OWN}).status_code == 200


def test_safe_methods_are_allowed_without_cors_headers(client: TestClient) -> None:
    headers = {**HOST, "Origin": "http://evil.test", "Sec-Fetch-Site": "cross-site"}
    for path in ("/", "/api/status", "/v1/models", "/cgi-bin/test", "/healthz"):
        assert client.get(path, headers=headers).status_code == 200
    asks = {**headers, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = client.options("/v1/completions", headers=asks)
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control-")]


KEY = "s\u00e9same 1"


@pytest.fixture
def locked(tiny_run: Path, client_for: Callable[..., TestClient]) -> TestClient:
    return client_for(tiny_run, api_key=KEY)


WRONG = [None, b"", b"Bearer", b"Bearer ", b"Bearer wrong", b"Basic " + KEY.encode(), KEY.encode(), b"Bearer \xff"]


def test_the_api_requires_the_key(locked: TestClient) -> None:
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


def test_the_api_accepts_the_key(locked: TestClient) -> None:
    for scheme in (b"Bearer", b"bearer", b"BEARER"):
        headers = [(b"Authorization", scheme + b" " + KEY.encode())]
        assert locked.post("/v1/completions", json={}, headers=headers).status_code == 200
        assert locked.get("/v1/models", headers=headers).status_code == 200
        assert locked.post("/tokenize", json={"prompt": "x"}, headers=headers).status_code == 200
        assert locked.post("/detokenize", json={"tokens": [1]}, headers=headers).status_code == 200


def test_other_paths_require_no_key(locked: TestClient) -> None:
    for path in ("/", "/api/status", "/api/history", "/healthz", "/health", "/readyz", "/cgi-bin/test"):
        assert locked.get(path).status_code == 200, path


def test_without_a_key_any_is_accepted(client: TestClient) -> None:
    assert client.get("/v1/models", headers={"Authorization": "Bearer anything"}).status_code == 200
    assert client.get("/api/status").json()["server"]["auth"] is False
