"""Replies: warnings, numbering of choices, usage, and errors in streams."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from tests.web.helpers import complete, texts


def test_the_choices_are_numbered_over_all_prompts(client: TestClient) -> None:
    reply = complete(client, prompt=["A", "B", "C"], n=2, max_tokens=3)
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3, 4, 5]
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 18, "total_tokens": 21}


def test_unknown_characters_are_replaced_and_named(client: TestClient) -> None:
    reply = complete(client, prompt="café \U0001f600 na\u2019ve", seed=1)
    [warning] = reply["warnings"]
    for named in ("(space) for é", "(space) for \U0001f600", "' for \u2019"):
        assert named in warning
    assert reply["choices"][0]["text"] == texts(client, prompt="caf    na've", seed=1)[0]
    assert texts(client, prompt="café", echo=True, max_tokens=0) == ["café"]


def test_a_lone_surrogate_is_an_unknown_character(client: TestClient) -> None:
    body = json.dumps({"prompt": "x\ud800", "echo": True, "max_tokens": 1})
    response = client.post("/v1/completions", content=body)
    assert response.status_code == 200
    assert response.json()["choices"][0]["text"].startswith("x\ufffd")
    assert "(space) for \ufffd" in response.json()["warnings"][0]


def test_hundreds_of_unknown_characters_give_one_short_warning(client: TestClient) -> None:
    [warning] = complete(client, prompt="".join(map(chr, range(0x4E00, 0x5000))))["warnings"][:1]
    assert "(space) for \u4e00" in warning
    assert "and 412 more" in warning


def test_a_prompt_longer_than_the_context_is_accepted_and_the_model_sees_its_end(client: TestClient) -> None:
    assert complete(client, prompt="A" * 32)["warnings"] == []
    reply = complete(client, prompt="B" * 100 + "A" * 32, seed=2)
    [warning] = reply["warnings"]
    assert "132" in warning
    assert "32 at once" in warning
    assert reply["usage"]["prompt_tokens"] == 132
    assert reply["choices"][0]["text"] == texts(client, prompt="A" * 32, seed=2)[0]
    complete(client, prompt="x" * 65_536, max_tokens=1)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_replies_and_each_event_of_a_stream_carry_the_system_fingerprint_of_the_status(
    tiny_run: Path, client_for: Callable[..., TestClient], path: str
) -> None:
    seen = set()
    for quantize in ("none", "int8"):
        client = client_for(tiny_run, quantize=quantize)
        expected = client.get("/api/status").json()["server"]["system_fingerprint"]
        body = {"prompt": "HELLO", "messages": [{"role": "user", "content": "HELLO"}], "max_tokens": 5}
        assert client.post(path, json=body).json()["system_fingerprint"] == expected
        body["stream"], body["stream_options"] = True, {"include_usage": True}
        lines = client.post(path, json=body).text.split("\n\n")
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        assert {event["system_fingerprint"] for event in events} == {expected}
        seen.add(expected)
    assert len(seen) == 2  # int8 weights may give other texts


Stream = Callable[..., Iterator[Any]]


def test_usage_comes_last_if_requested(server: Any, stream: Stream) -> None:
    body = {"prompt": "HELLO", "max_tokens": 20, "n": 2, "stream_options": {"include_usage": True}}
    *events, last, end = list(stream(server.url, body))
    assert end == "[DONE]"
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 5, "completion_tokens": 40, "total_tokens": 45}
    assert all(event["usage"] is None for event in events)


def test_errors_before_the_first_event_are_ordinary_responses(server: Any) -> None:
    for body, status in (({"stream": True, "n": 0}, 400), ({"stream": True, "model": "x"}, 404)):
        response = httpx.post(f"{server.url}/v1/completions", json=body)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/json"


def test_an_engine_failure_is_reported_in_the_stream(
    server: Any, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "a text that nobody else may see"
    events = stream(server.url, {"max_tokens": 10_000_000, "prompt": secret})
    next(events)

    def broken(*_: object, **__: object) -> None:
        raise ValueError(secret)

    monkeypatch.setattr("gptbox.engine.native.decode_steps", broken)
    last = list(events)[-1]
    assert last["error"]["type"] == "server_error"
    assert secret not in last["error"]["message"]
    for body in ({}, {"stream": True}):  # nothing has been sent yet
        response = httpx.post(f"{server.url}/v1/completions", json=body)
        assert response.status_code == 500
        assert response.json()["error"]["message"] == "Something went wrong on the server."


def test_a_queued_stream_gets_its_queue_position_in_comments(server: Any, wait_until: Callable[..., None]) -> None:
    server.service.scheduler.max_active = 1
    url = f"{server.url}/v1/completions"
    endless = {"stream": True, "max_tokens": 10_000_000}
    with contextlib.ExitStack() as streams:
        first = streams.enter_context(httpx.stream("POST", url, json=endless))
        wait_until(lambda: server.busy() == 1)
        second = streams.enter_context(httpx.stream("POST", url, json=endless))
        third = streams.enter_context(httpx.stream("POST", url, json={"stream": True, "max_tokens": 5}))
        lines = third.iter_lines()
        assert next(lines) == ": queued 2"
        first.close()
        second.close()
        rest = [line for line in lines if line]
    assert {line for line in rest if line.startswith(":")} <= {": queued 1", ": queued 2"}
    assert rest[-1] == "data: [DONE]"
