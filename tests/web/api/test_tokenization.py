"""/tokenize and /detokenize, as used by vLLM's clients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

HELLO = [{"role": "user", "content": "WHO GOES THERE?"}]


def tokens(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/tokenize", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def text(client: TestClient, **body: Any) -> str:
    response = client.post("/detokenize", json=body)
    assert response.status_code == 200, response.text
    assert set(response.json()) == {"prompt"}
    return str(response.json()["prompt"])


def refused(client: TestClient, path: str, status: int = 400, **body: Any) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    return dict(response.json()["error"])


def test_detokenize_inverts_tokenize(client: TestClient) -> None:
    reply = tokens(client, prompt="HELLO\n", add_special_tokens=False)
    assert reply == {
        "count": 6, "max_model_len": 32, "tokens": [41, 38, 45, 45, 48, 0], "token_strs": None, "warnings": [],
    }  # fmt: skip
    assert text(client, tokens=reply["tokens"]) == "HELLO\n"
    assert tokens(client, prompt="HI", return_token_strs=True)["token_strs"] == ["H", "I"]


def test_bytes_are_tokens_and_parts_of_a_character_are_written_as_bytes(byte_client: TestClient) -> None:
    reply = tokens(byte_client, prompt="aé🐎", return_token_strs=True)
    assert reply["tokens"] == list("aé🐎".encode())
    assert reply["count"] == 7
    assert reply["token_strs"][:3] == ["a", r"bytes:\xc3", r"bytes:\xa9"]
    assert reply["warnings"] == []
    assert text(byte_client, tokens=reply["tokens"]) == "aé🐎"
    assert text(byte_client, tokens=reply["tokens"][:2]) == "a\ufffd"
    assert "0 to 255" in refused(byte_client, "/detokenize", tokens=[256])["message"]


def test_an_empty_text_has_no_tokens(client: TestClient) -> None:
    assert tokens(client, prompt="")["count"] == 0
    assert text(client, tokens=[]) == ""


def test_the_tokens_are_the_prompt_of_a_completion(client: TestClient) -> None:
    ids = tokens(client, model="tiny", prompt="HELLO")["tokens"]
    body = {"max_tokens": 20, "seed": 1}
    replies = [client.post("/v1/completions", json={**body, "prompt": prompt}).json() for prompt in (ids, "HELLO")]
    assert replies[0]["choices"] == replies[1]["choices"]


def test_messages_are_tokenized_as_a_play(client: TestClient) -> None:
    reply = tokens(client, messages=HELLO)
    assert text(client, tokens=reply["tokens"]) == "USER:\nWHO GOES THERE?\n\nASSISTANT:\n"
    usage = client.post("/v1/chat/completions", json={"messages": HELLO, "max_tokens": 1}).json()["usage"]
    assert usage["prompt_tokens"] == reply["count"]
    for option in ({"add_generation_prompt": False}, {"continue_final_message": True}):
        ids = tokens(client, messages=HELLO, **option)["tokens"]
        assert text(client, tokens=ids) == "USER:\nWHO GOES THERE?"


def test_unknown_characters_and_unsupported_fields_are_reported(client: TestClient) -> None:
    [warning] = tokens(client, prompt="caf\u00e9")["warnings"]
    assert "(space) for \u00e9" in warning
    [warning] = tokens(client, messages=HELLO, chat_template="{{ messages }}")["warnings"]
    assert "chat_template" in warning


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": None}, "prompt"),
        ("/tokenize", {"prompt": ["a"]}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": HELLO}, "messages"),
        ("/tokenize", {"prompt": "x" * 65_537}, "prompt"),
        ("/tokenize", {"prompt": "x", "return_token_strs": 1}, "return_token_strs"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": [*HELLO, {"role": "user", "content": 1}]}, "messages.1.content"),
        ("/tokenize", {"messages": [{"role": "user", "content": "x" * 70_000}]}, "messages"),
        (
            "/tokenize",
            {"messages": HELLO, "add_generation_prompt": True, "continue_final_message": True},
            "continue_final_message",
        ),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
        ("/detokenize", {"tokens": [0, -1]}, "tokens.1"),
        ("/detokenize", {"tokens": [0, 65]}, "tokens"),
        ("/detokenize", {"tokens": [0] * 65_537}, "tokens"),
        ("/detokenize", {"tokens": [10**400]}, "tokens"),
    ],
)
def test_an_invalid_field_is_named(client: TestClient, path: str, body: dict[str, Any], param: str) -> None:
    error = refused(client, path, **body)
    assert error["param"] == param
    assert len(error["message"]) < 300
    if body.get("tokens") == [0, 65]:
        assert "0 to 64" in error["message"]


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_errors_are_json_objects(
    client: TestClient, models: Path, tmp_path: Path, client_for: Callable[..., TestClient], path: str
) -> None:
    good = {"prompt": "a", "tokens": [1]}
    assert refused(client, path, 404, **good, model="nobody")["code"] == "model_not_found"
    assert client.post(path, content=b"{").json()["error"]["type"] == "invalid_request_error"
    assert client.get(path).status_code == 405
    assert client.get(path).json()["error"]["message"]
    (tmp_path / "empty").mkdir()
    assert refused(client_for(tmp_path / "empty"), path, 503, **good)["code"] == "no_model_yet"
