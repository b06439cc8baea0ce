"""Streamed texts and events through Apache."""

import io
import json
import time
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import httpx
import openai
import pytest

Until = Callable[..., Any]


def arrivals(response: httpx.Response) -> tuple[list[float], str]:
    """The arrival times of the chunks, in seconds since the first, and the whole body as received."""
    times, pieces = [], []
    for piece in response.iter_raw():
        times.append(time.monotonic())
        pieces.append(piece)
    return [moment - times[0] for moment in times], b"".join(pieces).decode()


@pytest.mark.parametrize("encoding", ["identity", "gzip, deflate, br"])
def test_a_streamed_completion_is_neither_buffered_nor_compressed(serving: Any, encoding: str) -> None:
    # Long enough to measure: a fast machine generates four texts of 2,000 tokens in 0.03 s.
    body = {"model": "little", "prompt": "the", "max_tokens": 2000, "n": 16, "stream": True, "seed": 1}

    def longest_pause() -> float:
        """Between chunks, or after the last, as a fraction of the whole time."""
        started = time.monotonic()
        with serving.http.stream(
            "POST", "/v1/completions", json=body, headers={"Accept-Encoding": encoding}
        ) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            assert "content-encoding" not in response.headers
            times, text = arrivals(response)
        whole = time.monotonic() - started
        events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        written = "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1])
        assert len(written) == 16 * 2000
        # A buffered stream would be one chunk, or many at the same moment.
        assert len(times) >= 20
        return max(later - earlier for earlier, later in pairwise([*times, whole])) / whole

    # Other work on the machine can stop a stream of a third of a second, but hardly three of them.
    assert any(longest_pause() < 0.5 for _ in range(3))


def test_a_model_is_downloaded_whole(serving: Any) -> None:
    head = serving.http.head("/api/models/little.zip")
    response = serving.http.get("/api/models/little.zip", headers={"Accept-Encoding": "gzip"})
    assert response.status_code == head.status_code == 200
    assert "content-encoding" not in response.headers
    assert int(response.headers["content-length"]) == int(head.headers["content-length"]) == len(response.content)
    assert response.headers["content-disposition"].startswith('attachment; filename="little-step-')
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert "model.safetensors" in {name.partition("/")[2] for name in archive.namelist()}


def test_scores_come_snapshot_by_snapshot(serving: Any) -> None:
    body = {"model": "little", "text": "the", "snapshots": "all", "stream": True}
    with serving.http.stream("POST", "/api/scores", json=body, headers={"Accept-Encoding": "gzip"}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in response.headers
        _, text = arrivals(response)
    *events, done = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert done == "[DONE]"
    steps = [score["step"] for event in events for score in json.loads(event)["scores"]]
    assert steps == sorted(set(steps))
    assert all(len(score["logprobs"]) == 3 for event in events for score in json.loads(event)["scores"])


def test_the_openai_package_streams(serving: Any) -> None:
    with openai.OpenAI(base_url=f"{serving.url}/v1", api_key="unused", max_retries=0) as client:
        assert any(model.id == "little" for model in client.models.list())
        stream = client.completions.create(model="little", prompt="of", max_tokens=40, seed=7, stream=True)
        streamed = "".join(chunk.choices[0].text for chunk in stream)
        whole = client.completions.create(model="little", prompt="of", max_tokens=40, seed=7).choices[0].text
    assert len(whole) == 40
    assert streamed == whole


def test_the_cgi_address_gives_a_new_sample_each_time(serving: Any) -> None:
    first, second = (serving.http.get("/cgi-bin/test") for _ in range(2))
    for reply in (first, second):
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/plain")
        assert reply.text.startswith("Generating shakespeare...\nwherefore art thou")
        assert len(reply.text) > 400
    assert first.text != second.text


def test_a_client_that_disconnects_frees_its_places(serving: Any, until: Until) -> None:
    until(lambda: serving.status()["server"]["active"] == 0, within=10, what="a quiet engine")
    body = {"model": "little", "prompt": "the", "max_tokens": 2000, "n": 16, "stream": True}
    with ExitStack() as streams:
        # One request of 16 texts can be over before the status is read: it takes a tenth of a second.
        for _ in range(4):
            visitor = streams.enter_context(httpx.Client(base_url=serving.url, timeout=30))
            response = streams.enter_context(visitor.stream("POST", "/v1/completions", json=body))
        next(response.iter_raw())
        assert serving.status()["server"]["active"] > 0
        left = time.monotonic()
    assert response.is_closed
    until(lambda: serving.status()["server"]["active"] == 0, within=5, every=0.02, what="the end of the texts")
    assert time.monotonic() - left < 2


def test_events_come_at_once(serving: Any) -> None:
    started = time.monotonic()
    with serving.http.stream("GET", "/api/events", headers={"Accept-Encoding": "gzip"}, timeout=40) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in response.headers
        first = next(response.iter_raw()).decode()
    assert time.monotonic() - started < 5
    assert '"server"' in first


@pytest.mark.acceptance
def test_an_idle_event_stream_stays_open(serving: Any) -> None:
    """Pings keep the stream open for longer than a minute, a common proxy timeout."""
    started, came = time.monotonic(), 0
    with serving.http.stream("GET", "/api/events", timeout=40) as response:
        pieces = response.iter_raw()
        while time.monotonic() - started < 75:
            assert next(pieces)
            came += 1
    assert came >= 4


def test_many_event_streams_do_not_block_other_requests(serving: Any) -> None:
    clients = []
    try:
        for _ in range(40):
            client = httpx.Client(base_url=serving.url, timeout=20)
            request = client.build_request("GET", "/api/events")
            clients.append((client, client.send(request, stream=True)))
        assert {response.status_code for _, response in clients} == {200}
        started = time.monotonic()
        assert serving.http.get("/openapi.json").status_code == 200
        assert time.monotonic() - started < 2
    finally:
        for client, response in clients:
            response.close()
            client.close()
