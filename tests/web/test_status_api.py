"""/api/status and /api/events."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from gptbox import __version__
from gptbox.errors import EngineError
from gptbox.run_folder import RunFolder, Status
from gptbox.web.status_feed import StatusFeed


def test_before_there_is_anything(models: Path, client_for: Callable[..., TestClient]) -> None:
    status = client_for(models).get("/api/status").json()
    assert status["training"] is None
    assert status["server"]["ready"] is False
    assert status["server"]["model"] is None


def test_a_models_folder_that_is_not_there_yet_is_an_empty_one(
    tmp_path: Path, client_for: Callable[..., TestClient]
) -> None:
    client = client_for(tmp_path / "nowhere")
    assert client.get("/api/status").json()["training"] is None
    assert client.get("/v1/models").json()["data"] == []


def test_training_is_the_newest_runs_status(tiny_run: Path, client_for: Callable[..., TestClient]) -> None:
    client = client_for(tiny_run, max_tokens=99, api_key="k")
    expected = Status(run="tiny", phase="training", step=5, steps=90, val_loss=2.5, eta_s=12.0, message="Going well.")
    written = RunFolder(tiny_run, "tiny").write_status(expected)
    status = client.get("/api/status").json()
    assert set(status) == {"training", "server"}
    assert status["training"] == vars(written)
    server = status["server"]
    assert 0 <= server.pop("uptime_s") < 60
    assert server == {
        "ready": True, "model": "tiny@step-000250", "active": 0, "queued": 0, "tokens_per_s": 0.0, "problem": None,
        "version": __version__, "auth": True, "max_tokens": 99,
    }  # fmt: skip


def test_a_trainer_that_was_killed_has_stopped(tiny_run: Path, client: TestClient) -> None:
    run = RunFolder(tiny_run, "tiny")
    with run.lock():
        written = run.write_status(Status(run="tiny", phase="training", step=1234, eta_s=50.0, message="Going well."))
        assert client.get("/api/status").json()["training"] == vars(written)
    training = client.get("/api/status").json()["training"]
    assert (training["phase"], training["step"], training["eta_s"]) == ("stopped", 1234, None)
    assert training["message"].startswith("Training ended without a word at step 1,234: its process was killed")
    with run.lock():  # the next start: the lock first, then the status
        training = client.get("/api/status").json()["training"]
        assert training["phase"] == "training"


def test_the_training_of_the_newest_run_is_shown_beside_the_model_of_another(
    tiny_run: Path, client: TestClient
) -> None:
    RunFolder(tiny_run, "new").write_status(Status(run="new", phase="failed", message="Too short."))
    status = client.get("/api/status").json()
    assert status["training"]["run"] == "new"
    assert status["server"]["model"] == "tiny@step-000250"


def test_what_json_cannot_hold_is_null(tiny_run: Path, client: TestClient) -> None:
    (tiny_run / "tiny" / "status.json").write_text('{"run": "tiny", "phase": "failed", "train_loss": NaN}')
    assert client.get("/api/status").json()["training"]["train_loss"] is None


def test_a_damaged_status_is_none(tiny_run: Path, client: TestClient) -> None:
    (tiny_run / "tiny" / "status.json").write_text("{")
    assert client.get("/api/status").json()["training"] is None


def test_the_engines_load_is_shown(
    server: Any, stream: Callable[..., Iterator[Any]], wait_until: Callable[..., None]
) -> None:
    server.service.scheduler.max_active = 2
    events = stream(server.url, {"n": 5, "max_tokens": 10_000_000})
    next(events)
    wait_until(lambda: server.busy() == 5)
    status = httpx.get(f"{server.url}/api/status").json()["server"]
    assert (status["active"], status["queued"]) == (2, 3)
    wait_until(lambda: httpx.get(f"{server.url}/api/status").json()["server"]["tokens_per_s"] > 0)


Events = Iterator[tuple[str, Any]]


@pytest.fixture
def watch() -> Iterator[Callable[[str], Events]]:
    """watch(url): each line of /api/events that says something, as (event, data), or (":", comment)."""
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


def test_the_status_comes_at_once_and_then_when_it_changes(
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


def test_silence_is_broken_by_pings_only(server: Any, watch: Callable[[str], Events]) -> None:
    assert server.service.feed.ping_s == 15
    server.service.feed.ping_s = 0.3
    events = watch(server.url)
    assert next(events)[0] == "status"
    start = time.monotonic()
    assert [next(events) for _ in range(3)] == [(":", "ping")] * 3
    assert 0.8 < time.monotonic() - start < 3


def test_changes_do_not_put_pings_off(server: Any, tiny_run: Path, watch: Callable[[str], Events]) -> None:
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


def test_all_watchers_share_one_look(
    server: Any, tiny_run: Path, watch: Callable[[str], Events], monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = server.service.feed
    streams = [watch(server.url) for _ in range(6)]
    for stream in streams:
        next(stream)
    assert feed.watchers == 6
    looks = []
    read = feed._read
    monkeypatch.setattr(feed, "_read", lambda: looks.append(1) or read())
    time.sleep(1.2)
    assert 1 <= len(looks) <= 4
    RunFolder(tiny_run, "tiny").write_status(Status(run="tiny", phase="finished"))
    assert [next(stream)[1]["training"]["phase"] for stream in streams] == ["finished"] * 6


def test_nobody_watching_costs_nothing(
    server: Any, watch: Callable[[str], Events], wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = server.service.feed
    with httpx.stream("GET", f"{server.url}/api/events") as response:
        next(response.iter_lines())
    wait_until(lambda: feed.watchers == 0)
    time.sleep(feed.poll_s + 0.1)
    looks: list[int] = []
    monkeypatch.setattr(feed, "_read", lambda: looks.append(1))
    time.sleep(feed.poll_s * 2)
    assert looks == []


def test_watchers_are_bounded(server: Any, watch: Callable[[str], Events]) -> None:
    server.service.feed.max_watchers = 1
    events = watch(server.url)
    next(events)
    response = httpx.get(f"{server.url}/api/events")
    assert response.status_code == 503
    assert "retry-after" in response.headers
    assert response.json()["error"]["message"].startswith("Too many pages")


def test_a_look_that_fails_is_made_up_for() -> None:
    status: dict[str, Any] = {"training": 0, "server": {"uptime_s": 0}}
    answers: list[Any] = [status, OSError("disk"), {**status, "training": 1}]

    def read() -> Any:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def watch() -> list[bytes]:
        feed = StatusFeed(read, poll_s=0.01, max_watchers=1)
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


def test_head_answers_without_a_body(server: Any, wait_until: Callable[..., None]) -> None:
    for path in ("/", "/api/status", "/api/history", "/api/events", "/healthz", "/v1/models", "/cgi-bin/test"):
        response = httpx.head(f"{server.url}{path}")
        assert response.status_code == 200, path
        assert response.content == b""
        assert httpx.post(f"{server.url}{path}").status_code == 405
    wait_until(lambda: server.busy() == 0 and server.service.feed.watchers == 0, timeout=1)
