"""/v1/completions as a stream, over a real connection: order, endings, and clients that stall or go away."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gptbox.web.generation import _Text

Stream = Callable[..., Iterator[Any]]


def whole(server: Any, **body: Any) -> Any:
    return httpx.post(f"{server.url}/v1/completions", json=body, timeout=30).json()


def joined(events: list[Any], index: int = 0) -> str:
    choices = [choice for event in events if event != "[DONE]" for choice in event["choices"]]
    return "".join(choice["text"] for choice in choices if choice["index"] == index)


def test_the_pieces_are_the_text(server: Any, stream: Stream) -> None:
    body = {"prompt": ["HELLO", "B"], "n": 2, "max_tokens": 60, "seed": 3, "echo": True}
    *events, end = list(stream(server.url, body))
    assert end == "[DONE]"
    expected = whole(server, **body)["choices"]
    assert [joined(events, i) for i in range(4)] == [choice["text"] for choice in expected]
    assert len({event["id"] for event in events}) == 1
    for event in events:
        assert event["object"] == "text_completion"
        assert event["model"] == "tiny@step-000250"
        assert "usage" not in event
        for choice in event["choices"]:
            assert set(choice) == {"text", "index", "logprobs", "finish_reason"}
    finishes = [(c["index"], c["finish_reason"]) for e in events for c in e["choices"] if c["finish_reason"]]
    assert sorted(finishes) == [(i, "length") for i in range(4)]


def test_headers_tell_proxies_to_pass_it_on(server: Any) -> None:
    with httpx.stream("POST", f"{server.url}/v1/completions", json={"stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert "server" not in response.headers
        raw = response.read()
    assert raw.endswith(b"data: [DONE]\n\n")
    assert raw.isascii()


def test_the_text_comes_while_it_is_written(server: Any, stream: Stream) -> None:
    events = stream(server.url, {"max_tokens": 20_000})
    for _ in range(3):
        next(events)
    assert server.busy() == 1
    times = [time.monotonic() for _ in events]
    assert len(times) > 50
    assert times[-1] - times[0] > 0.05


def test_echo_comes_first_and_warnings_with_the_first_piece(server: Any, stream: Stream) -> None:
    first, *rest = list(stream(server.url, {"prompt": "caf\u00e9", "echo": True, "max_tokens": 5}))
    assert first["choices"][0]["text"] == "caf\u00e9"
    assert "(space) for \u00e9" in first["warnings"][0]
    assert all("warnings" not in event for event in rest)
    first, *_ = list(stream(server.url, {"prompt": "HELLO", "max_tokens": 5}))
    assert first["warnings"] == []


@pytest.fixture
def late_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine says that a text has ended only a while after its last token."""
    end = _Text.end

    def late(text: _Text, error: Exception | None) -> None:
        time.sleep(0.05)
        end(text, error)

    monkeypatch.setattr(_Text, "end", late)


@pytest.mark.parametrize(
    "extra", [{}, {"logprobs": 2}, {"n": 3, "logprobs": 0}, {"echo": True, "logprobs": 1}, {"stop": ["never in it"]}]
)
def test_the_last_token_s_event_says_why_the_text_ends(
    server: Any, stream: Stream, late_end: None, extra: dict[str, Any]
) -> None:
    body = {"prompt": "A", "seed": 4, "max_tokens": 40, **extra}
    if "stop" in extra:
        body["stop"] = [whole(server, **body)["choices"][0]["text"][-2:] + "more"]  # its end is held back
    *events, _ = list(stream(server.url, body))
    for index in range(extra.get("n", 1)):
        *before, last = [choice for event in events for choice in event["choices"] if choice["index"] == index]
        assert last["finish_reason"] == "length"
        assert last["text"]
        assert all(choice["finish_reason"] is None and choice["text"] for choice in before)
        assert all(bool(choice["logprobs"]) == ("logprobs" in extra) for choice in (*before, last))


@pytest.mark.parametrize("echo", [False, True])
def test_no_event_has_empty_lists_of_logprobs(server: Any, stream: Stream, echo: bool) -> None:
    text = whole(server, prompt="A", seed=4, max_tokens=60)["choices"][0]["text"]
    bodies = [
        {"max_tokens": 0},
        {"max_tokens": 60, "stop": text[:2]},
        {"max_tokens": 60, "stop": text[30:32]},
        {"max_tokens": 60, "stop": [f"{text[i : i + 3]}~" for i in range(30)]},
    ]
    for body in bodies:
        *events, _ = list(stream(server.url, {"prompt": "A", "seed": 4, "logprobs": 1, "echo": echo, **body}))
        for event in events:
            [choice] = event["choices"]
            assert choice["logprobs"] is None or all(choice["logprobs"].values()), body


def test_a_prompt_and_no_text_is_one_event(server: Any, stream: Stream) -> None:
    for logprobs in (None, 1):
        body = {"prompt": "HELLO", "echo": True, "max_tokens": 0, "logprobs": logprobs}
        [event, _] = list(stream(server.url, body))
        [choice] = event["choices"]
        assert (choice["text"], choice["finish_reason"]) == ("HELLO", "length")
        assert (choice["logprobs"] is None) == (logprobs is None)


def test_usage_comes_last_where_it_is_asked_for(server: Any, stream: Stream) -> None:
    body = {"prompt": "HELLO", "max_tokens": 20, "n": 2, "stream_options": {"include_usage": True}}
    *events, last, end = list(stream(server.url, body))
    assert end == "[DONE]"
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 5, "completion_tokens": 40, "total_tokens": 45}
    assert all(event["usage"] is None for event in events)


def test_a_stop_string_ends_the_stream_and_frees_the_engine(
    server: Any, stream: Stream, wait_until: Callable[..., None]
) -> None:
    text = whole(server, prompt="A", seed=4, max_tokens=60)["choices"][0]["text"]
    *events, end = list(stream(server.url, {"prompt": "A", "seed": 4, "max_tokens": 100_000, "stop": text[30:34]}))
    assert end == "[DONE]"
    assert joined(events) == text[: text.find(text[30:34])]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    wait_until(lambda: server.busy() == 0, timeout=1)


def test_a_text_that_stopped_frees_its_slot_while_the_others_go_on(
    server: Any, stream: Stream, wait_until: Callable[..., None]
) -> None:
    first = whole(server, prompt="A", seed=4, max_tokens=60)["choices"][0]["text"]
    events = stream(server.url, {"prompt": "A", "seed": 4, "n": 2, "max_tokens": 100_000, "stop": first[40:47]})
    for event in events:
        if event["choices"][0]["finish_reason"] == "stop":
            assert event["choices"][0]["index"] == 0
            break
    wait_until(lambda: server.busy() == 1, timeout=1)


def test_errors_before_the_stream_are_plain_replies(server: Any) -> None:
    for body, status in (({"stream": True, "n": 0}, 400), ({"stream": True, "model": "x"}, 404)):
        response = httpx.post(f"{server.url}/v1/completions", json=body)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_goes_away_frees_all_its_slots(
    server: Any, wait_until: Callable[..., None], streamed: bool
) -> None:
    body = json.dumps({"max_tokens": 10_000_000, "n": 4, "stream": streamed}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        wait_until(lambda: server.service.scheduler.active == 4)
    wait_until(lambda: server.busy() == 0, timeout=1)
    assert not server.service._generations


def test_a_client_that_leaves_the_queue_frees_its_place(
    server: Any, stream: Stream, wait_until: Callable[..., None]
) -> None:
    server.service.scheduler.max_active = 1
    first = stream(server.url, {"max_tokens": 10_000_000})
    next(first)
    with contextlib.suppress(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/completions", json={"n": 3, "stream": True}, timeout=0.3)
    wait_until(lambda: server.busy() == 1, timeout=1)


def test_a_reader_that_stalls_holds_nobody(
    tiny_run: Path, server_for: Callable[..., Any], stream: Stream, wait_until: Callable[..., None]
) -> None:
    server = server_for(tiny_run, send_buffer=8192)
    body = json.dumps({"max_tokens": 1000, "n": 16, "stream": True}).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    with connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        wait_until(lambda: server.busy() == 16)
        assert list(stream(server.url, {"max_tokens": 20}))[-1] == "[DONE]"
        # The engine finishes the stalled reader's texts although nobody reads them.
        wait_until(lambda: server.busy() == 0, timeout=60)
        [generation] = server.service._generations
        assert generation.tokens < 16_000
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += connection.recv(65536)
    events = [json.loads(line[6:]) for line in received.split(b"\n") if line.startswith(b"data: {")]
    assert [len(joined(events, i)) for i in range(16)] == [1000] * 16
    # What had been waiting came in one piece a text.
    assert max(len(event["choices"][0]["text"]) for event in events) > 100


def test_a_long_stream_does_not_delay_others(server: Any, stream: Stream) -> None:
    long = stream(server.url, {"max_tokens": 10_000_000, "n": 8})
    next(long)
    thread = threading.Thread(target=lambda: [None for _ in zip(range(2000), long, strict=False)])
    thread.start()
    start = time.monotonic()
    assert httpx.get(f"{server.url}/healthz").status_code == 200
    assert len(whole(server, max_tokens=5)["choices"][0]["text"]) == 5
    assert time.monotonic() - start < 5
    thread.join()


def test_when_the_engine_fails_the_stream_says_so(server: Any, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "a text that nobody else may see"
    events = stream(server.url, {"max_tokens": 10_000_000, "prompt": secret})
    next(events)

    def broken(*_: object, **__: object) -> None:
        raise ValueError(secret)

    monkeypatch.setattr("gptbox.engine.native.burst", broken)
    last = list(events)[-1]
    assert last["error"]["type"] == "server_error"
    assert secret not in last["error"]["message"]
    for body in ({}, {"stream": True}):  # nothing of it has been sent
        response = httpx.post(f"{server.url}/v1/completions", json=body)
        assert response.status_code == 500
        assert response.json()["error"]["message"] == "Something went wrong on the server."


def test_who_waits_is_told_how_many_are_before_in_comments(server: Any, wait_until: Callable[..., None]) -> None:
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
