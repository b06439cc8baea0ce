"""Routes: methods, unknown paths and HEAD."""

from collections.abc import Callable
from typing import Any

import httpx
from starlette.testclient import TestClient


def test_wrong_methods_are_405_and_unknown_paths_404(client: TestClient) -> None:
    for method, path, status in (("GET", "/v1/completions", 405), ("PUT", "/v1/models", 405), ("GET", "/v1/x", 404),
                                 ("POST", "/v1", 404), ("POST", "/v1/completions/", 404)):  # fmt: skip
        response = client.request(method, path)
        assert response.status_code == status
        assert response.json()["error"]["type"] == "invalid_request_error"
    assert "POST" in client.get("/v1/completions").headers["allow"]


def test_head_responses_have_no_body(server: Any, wait_until: Callable[..., None]) -> None:
    for path in ("/", "/api/status", "/api/history", "/api/events", "/healthz", "/v1/models", "/cgi-bin/test"):
        response = httpx.head(f"{server.url}{path}")
        assert response.status_code == 200, path
        assert response.content == b""
        assert httpx.post(f"{server.url}{path}").status_code == 405
    wait_until(lambda: server.busy() == 0 and server.service.feed.subscribers == 0, timeout=1)
