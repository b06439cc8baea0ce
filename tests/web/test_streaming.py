"""Streaming responses: headers, and clients that stall or disconnect."""

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
from tests.web.helpers import joined, whole

Stream = Callable[..., Iterator[Any]]


def test_headers_disable_buffering_in_proxies(server: Any) -> None:
    with httpx.stream("POST", f"{server.url}/v1/completions", json={"stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert "server" not in response.headers
        raw = response.read()
    assert raw.endswith(b"data: [DONE]\n\n")
    assert raw.isascii()


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_disconnects_frees_its_places(
    server: Any, wait_until: Callable[..., None], streamed: bool
) -> None:
    body = json.dumps({"max_tokens": 10_000_000, "n": 4, "stream": streamed}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        wait_until(lambda: server.service.scheduler.active == 4)
    wait_until(lambda: server.busy() == 0, timeout=1)
    assert not server.service._generations


def test_a_queued_client_that_disconnects_leaves_the_queue(
    server: Any, stream: Stream, wait_until: Callable[..., None]
) -> None:
    server.service.scheduler.max_active = 1
    first = stream(server.url, {"max_tokens": 10_000_000})
    next(first)
    with contextlib.suppress(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/completions", json={"n": 3, "stream": True}, timeout=0.3)
    wait_until(lambda: server.busy() == 1, timeout=1)


def test_a_stalled_client_delays_nobody(
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
        # The engine finishes the texts of the stalled client, although nobody reads them.
        wait_until(lambda: server.busy() == 0, timeout=60)
        [generation] = server.service._generations
        assert generation.completion_tokens < 16_000
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += connection.recv(65536)
    events = [json.loads(line[6:]) for line in received.split(b"\n") if line.startswith(b"data: {")]
    assert [len(joined(events, i)) for i in range(16)] == [1000] * 16
    # What had accumulated came in one delta per text.
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
