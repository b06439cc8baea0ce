"""The response to an unexpected exception."""

from typing import Any

import pytest
from starlette.testclient import TestClient


@pytest.mark.parametrize(("path", "json"), [("/api/status", True), ("/v1/models", True), ("/healthz", False)])
def test_an_unexpected_error_is_a_500_without_its_message(
    client: TestClient, path: str, json: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prompt = "a prompt of somebody"

    def broken(_: object) -> Any:
        raise ValueError(prompt)

    for module in ("page.status", "api.models"):
        monkeypatch.setattr(f"gptbox.web.{module}.get_service", broken)
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
    assert "get_service" in record.getMessage()
    assert "a prompt" not in record.getMessage()
