"""Places are shared by address: however many requests one sends, others are served. Over real connections."""

import asyncio
import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

GREEDY, VISITOR = "127.0.0.2", "127.0.0.3"


class Load:
    """`at_once` concurrent requests from one address, each repeated as soon as it ends. Collects the replies."""

    def __init__(self, port: int, request: bytes, at_once: int) -> None:
        self.replies: list[bytes] = []
        self._port, self._request, self._at_once = port, request, at_once
        self._ended = False

    def run(self) -> None:
        asyncio.run(self._all())

    def end(self) -> None:
        self._ended = True

    async def _all(self) -> None:
        await asyncio.gather(*(self._loop() for _ in range(self._at_once)))

    async def _loop(self) -> None:
        while not self._ended:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(GREEDY, 0))
            writer.write(self._request)
            reply = asyncio.create_task(reader.read())
            while not reply.done() and not self._ended:
                await asyncio.wait([reply], timeout=0.1)
            if reply.done():
                self.replies.append(reply.result())
            reply.cancel()
            writer.close()
            await asyncio.sleep(0.05 if reply.done() and b" 429 " in self.replies[-1][:20] else 0)


def post(body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


STREAM = post({"stream": True, "max_tokens": 2000})
WHOLE = post({"n": 16, "max_tokens": 500})
SAMPLES = b"GET /cgi-bin/test?num_samples=16 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture
def load() -> Callable[..., AbstractContextManager[Load]]:
    """load(server, request, at_once): a context manager that keeps up a load from one address."""

    @contextlib.contextmanager
    def load(server: Any, request: bytes, at_once: int) -> Iterator[Load]:
        sent = Load(server.port, request, at_once)
        thread = threading.Thread(target=sent.run)
        thread.start()
        try:
            yield sent
        finally:
            sent.end()
            thread.join()

    return load


@pytest.fixture
def visitor() -> Iterator[httpx.Client]:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=VISITOR), timeout=60) as client:
        yield client


@pytest.mark.parametrize(
    ("request_", "at_once"),
    [pytest.param(STREAM, 200, marks=pytest.mark.acceptance), (SAMPLES, 10), (WHOLE, 10)],
    ids=["streams", "samples", "whole"],
)
def test_one_address_cannot_lock_out_another(
    tiny_run: Path, server_for: Callable[..., Any], load: Callable[..., AbstractContextManager[Load]],
    visitor: httpx.Client, wait_until: Callable[..., None], request_: bytes, at_once: int,
) -> None:  # fmt: skip
    server = server_for(tiny_run)
    with load(server, request_, at_once) as sent:
        statuses = []
        for i in range(8):
            texts = 1 if request_ is STREAM else 16
            wait_until(lambda free=texts: server.busy() > 128 - free, timeout=60)  # no place is free
            if i % 2:
                statuses.append(visitor.get(f"{server.url}/cgi-bin/test?num_samples={texts}").status_code)
            else:
                body = {"max_tokens": 5, "n": texts, "stream": i % 4 == 0}
                statuses.append(visitor.post(f"{server.url}/v1/completions", json=body).status_code)
    assert statuses == [200] * 8
    heads = Counter(reply.split(b" ", 2)[1] for reply in sent.replies)
    assert set(heads) <= {b"200", b"429"}
    for reply in sent.replies:
        head, _, body = reply.partition(b"\r\n\r\n")
        if b" 429 " in head:
            assert b"retry-after: 5" in head.lower()
        elif request_ is STREAM:
            # A text that has started is finished; a stream that only got queue positions may end with an error.
            assert body.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") or (b"queue_full" in body and b'"text"' not in body)
        elif request_ is SAMPLES:
            assert body.count(b"---------------") == 16


def test_a_request_evicted_before_its_response_gets_429(
    tiny_run: Path,
    server_for: Callable[..., Any],
    visitor: httpx.Client,
    wait_until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = server_for(tiny_run, max_tokens=1_000_000, max_queue=3)
    scheduler = server.service.scheduler
    scheduler.max_active = 1
    url, responses = f"{server.url}/v1/completions", {}
    endless = {"stream": True, "max_tokens": 1_000_000}

    def ask(name: str, client: httpx.Client, **body: Any) -> threading.Thread:
        def run() -> None:
            responses[name] = client.post(url, json={"max_tokens": 5, **body})

        thread = threading.Thread(target=run)
        before = server.busy()
        thread.start()
        wait_until(lambda: server.busy() > before)
        return thread

    with contextlib.ExitStack() as stack:
        client = stack.enter_context(httpx.Client(transport=httpx.HTTPTransport(local_address=GREEDY), timeout=60))
        running = stack.enter_context(client.stream("POST", url, json=endless))
        wait_until(lambda: scheduler.active == 1)
        # The only client has no more than its share, so it gets queue positions.
        first = stack.enter_context(client.stream("POST", url, json={"stream": True, "max_tokens": 5}))
        first_lines = first.iter_lines()
        assert next(first_lines) == ": queued 1"
        # However slow the machine is, the second stream has sent nothing when the other client's request arrives.
        monkeypatch.setattr("gptbox.web.api.reply._QUEUE_POSITION_INTERVAL_S", 60)
        second, third = ask("second", client, stream=True), ask("third", client)
        other = threading.Thread(
            target=lambda: responses.update(other=visitor.post(url, json={"max_tokens": 5, "n": 2}))
        )
        other.start()
        third.join(10)
        second.join(10)
        running.close()
        rest = [line for line in first_lines if line]
        other.join(10)
    assert responses["third"].status_code == responses["second"].status_code == 429
    for name in ("second", "third"):
        assert responses[name].headers["retry-after"] == "5"
        assert responses[name].json()["error"]["code"] == "queue_full"
        assert "has made way for another visitor's" in responses[name].json()["error"]["message"]
    assert responses["other"].status_code == 200
    assert first.status_code == 200
    assert rest[-1] == "data: [DONE]"


def test_a_stream_evicted_after_a_queue_position_gets_an_error_event(
    tiny_run: Path, server_for: Callable[..., Any], visitor: httpx.Client, wait_until: Callable[..., None]
) -> None:
    server = server_for(tiny_run, max_tokens=1_000_000, max_queue=1)
    scheduler = server.service.scheduler
    scheduler.max_active = 1
    url, endless = f"{server.url}/v1/completions", {"stream": True, "max_tokens": 1_000_000}
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(httpx.Client(transport=httpx.HTTPTransport(local_address=GREEDY), timeout=60))
        running = stack.enter_context(client.stream("POST", url, json=endless))
        wait_until(lambda: scheduler.active == 1)
        lines = stack.enter_context(client.stream("POST", url, json=endless)).iter_lines()
        assert next(lines) == ": queued 1"
        body = {"stream": True, "max_tokens": 5}
        other: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: other.append(visitor.post(url, json=body)))
        thread.start()
        rest = [line for line in lines if line]
        running.close()
        thread.join(10)
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "queue_full"
    assert set(rest[:-1]) <= {": queued 1"}
    assert other[0].text.endswith("data: [DONE]\n\n")
