"""/api/events: the status as server-sent events."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gptbox.errors import EngineError
from gptbox.models.runs import RunFolder, Status
from gptbox.web.page.status_feed import StatusFeed

Events = Iterator[tuple[str, Any]]


@pytest.fixture
def watch() -> Iterator[Callable[[str], Events]]:
    """watch(url): iterate over /api/events as (event, data), and (":", comment) for comments."""
    with httpx.Client(timeout=10) as client:
        responses = []

        def start(url: str) -> Events:
            context = client.stream("GET", f"{url}/api/events")
            response = context.__enter__()
            responses.append(context)
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-cache"
            return lines(response)

        def lines(response: httpx.Response) -> Events:
            event = ""
            for line in response.iter_lines():
                if line.startswith("event: "):
                    event = line[7:]
                elif line.startswith("data: "):
                    yield event, json.loads(line[6:])
                elif line.startswith(":"):
                    yield ":", line[1:].strip()

        yield start
        for context in responses:
            context.__exit__(None, None, None)


def test_the_status_is_sent_at_once_and_after_each_change(
    server: Any, tiny_run: Path, watch: Callable[[str], Events]
) -> None:
    start = time.monotonic()
    events = watch(server.url)
    event, first = next(events)
    assert time.monotonic() - start < 1
    assert event == "status"
    assert first["server"]["model"] == "tiny@step-000250"
    run = RunFolder(tiny_run, "tiny")
    for step in (300, 301):
        run.write_status(Status(run="tiny", phase="training", step=step))
        event, data = next(events)
        assert (event, data["training"]["step"]) == ("status", step)
    status = httpx.get(f"{server.url}/api/status").json()
    assert set(data["server"]) == set(status["server"])
    assert data["training"] == status["training"]


def test_an_idle_stream_has_only_pings(server: Any, watch: Callable[[str], Events]) -> None:
    assert server.service.feed.ping_s == 15
    server.service.feed.ping_s = 0.3
    events = watch(server.url)
    assert next(events)[0] == "status"
    start = time.monotonic()
    assert [next(events) for _ in range(3)] == [(":", "ping")] * 3
    assert 0.8 < time.monotonic() - start < 3


def test_changes_do_not_delay_pings(server: Any, tiny_run: Path, watch: Callable[[str], Events]) -> None:
    server.service.feed.ping_s = 1.0
    server.service.feed.poll_s = 0.05
    events = watch(server.url)
    deadline = time.monotonic() + 3
    seen, step = set(), 0
    while ":" not in seen:
        assert time.monotonic() < deadline
        step += 1
        RunFolder(tiny_run, "tiny").write_status(Status(run="tiny", phase="training", step=step))
        seen.add(next(events)[0])


def test_one_poll_serves_all_subscribers(
    server: Any, tiny_run: Path, watch: Callable[[str], Events], monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = server.service.feed
    streams = [watch(server.url) for _ in range(6)]
    for stream in streams:
        next(stream)
    assert feed.subscribers == 6
    looks = []
    read = feed._read_status
    monkeypatch.setattr(feed, "_read_status", lambda: looks.append(1) or read())
    time.sleep(1.2)
    assert 1 <= len(looks) <= 4
    RunFolder(tiny_run, "tiny").write_status(Status(run="tiny", phase="finished"))
    assert [next(stream)[1]["training"]["phase"] for stream in streams] == ["finished"] * 6


def test_without_subscribers_nothing_is_polled(
    server: Any, watch: Callable[[str], Events], wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = server.service.feed
    with httpx.stream("GET", f"{server.url}/api/events") as response:
        next(response.iter_lines())
    wait_until(lambda: feed.subscribers == 0)
    time.sleep(feed.poll_s + 0.1)
    looks: list[int] = []
    monkeypatch.setattr(feed, "_read_status", lambda: looks.append(1))
    time.sleep(feed.poll_s * 2)
    assert looks == []


def test_the_number_of_subscribers_is_limited(server: Any, watch: Callable[[str], Events]) -> None:
    server.service.feed.max_subscribers = 1
    events = watch(server.url)
    next(events)
    response = httpx.get(f"{server.url}/api/events")
    assert response.status_code == 503
    assert "retry-after" in response.headers
    assert response.json()["error"]["message"].startswith("Too many pages")


def test_polling_continues_after_an_error() -> None:
    status: dict[str, Any] = {"training": 0, "server": {"uptime_s": 0}}
    results: list[Any] = [status, OSError("disk"), {**status, "training": 1}]

    def read() -> Any:
        result = results.pop(0) if len(results) > 1 else results[0]
        if isinstance(result, Exception):
            raise result
        return result

    async def watch() -> list[bytes]:
        feed = StatusFeed(read, poll_s=0.01, max_subscribers=1)
        async with feed.running():
            feed.subscribe()
            with pytest.raises(EngineError):
                feed.subscribe()
            events = feed.events()
            seen = [await anext(events), await anext(events)]
            await events.aclose()
            return seen

    first, second = asyncio.run(watch())
    assert b'"training":0' in first
    assert b'"training":1' in second
