"""Request bodies: JSON objects of limited size."""

import json

from starlette.testclient import TestClient


def test_a_body_that_is_not_a_json_object_is_rejected(client: TestClient) -> None:
    for body in (
        b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe\xfa", b'{"temperature": NaN}', b'{"a": Infinity}', b"[" * 100_000,
        b"prompt=x", b'{"prompt": "\xe9"}', b'{"seed": ' + b"9" * 5000 + b"}",
    ):  # fmt: skip
        response = client.post("/v1/completions", content=body)
        assert response.status_code == 400, body[:50]
        assert response.json()["error"]["type"] == "invalid_request_error"


def test_a_body_above_one_mebibyte_is_rejected(client: TestClient) -> None:
    body = json.dumps({"prompt": "x", "user": "y" * 2**20}).encode()
    response = client.post("/v1/completions", content=body)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"
    assert client.post("/v1/completions", content=b'{"user": "' + b"y" * (2**20 - 12) + b'"}').status_code == 200
