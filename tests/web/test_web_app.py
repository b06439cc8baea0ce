"""What holds for the whole application: health, headers, errors nobody foresaw, and silence about prompts."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient


def test_health_and_readiness(
    models: Path, publish: Callable[..., Path], client_for: Callable[..., TestClient]
) -> None:
    empty = client_for(models)
    for path in ("/healthz", "/health"):
        assert empty.get(path).status_code == 200
        assert empty.get(path).text == "ok\n"
    response = empty.get("/readyz")
    assert response.status_code == 503
    assert "retry-after" in response.headers
    assert response.text.startswith("There is no model yet")
    publish(1)
    assert client_for(models).get("/readyz").status_code == 200


def test_every_reply_forbids_guessing_its_type_and_none_invites_other_sites(client: TestClient) -> None:
    for path in ("/", "/static/x", "/v1/models", "/v1/x", "/api/status", "/cgi-bin/test", "/healthz", "/x"):
        response = client.get(path, headers={"Origin": "https://elsewhere.example"})
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in response.headers
        assert response.headers["cache-control"] in ("no-cache", "no-store")


@pytest.mark.parametrize(("path", "json"), [("/api/status", True), ("/v1/models", True), ("/healthz", False)])
def test_an_error_that_nobody_foresaw_is_a_500_without_its_message(
    client: TestClient, path: str, json: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prompt = "a prompt of somebody"

    def broken(_: object) -> Any:
        raise ValueError(prompt)

    for module in ("status", "models", "health"):
        monkeypatch.setattr(f"gptbox.web.{module}.service_of", broken)
    if path == "/healthz":
        path = "/readyz"
    response = client.get(path)
    assert response.status_code == 500
    assert "a prompt" not in response.text
    if json:
        assert response.json()["error"]["code"] == "internal_error"
    else:
        assert response.text == "Something went wrong on the server.\n"
    [record] = [record for record in caplog.records if record.name.startswith("gptbox")]
    assert "ValueError" in record.getMessage()
    assert "service_of" in record.getMessage()
    assert "a prompt" not in record.getMessage()


def test_no_prompt_is_logged(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    secret = "wherefore-secret"
    with caplog.at_level(logging.DEBUG):
        for body in ({"prompt": secret}, {"prompt": [secret, 1]}, {"prompt": secret, "stream": True},
                     {"prompt": secret, "model": "nobody"}, {"prompt": secret, "n": 99}):  # fmt: skip
            httpx.post(f"{server.url}/v1/completions", json=body)
        httpx.get(f"{server.url}/cgi-bin/test?start={secret}")
        httpx.get(f"{server.url}/cgi-bin/test?start={secret}&seed=x")
        httpx.post(f"{server.url}/v1/completions", content=f'{{"prompt": "{secret}"')
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert [record for record in ours if secret in record.getMessage()] == []
    assert not any(record.levelno >= logging.WARNING for record in ours)
