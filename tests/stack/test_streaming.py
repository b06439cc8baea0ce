"""Texts and events as they come, through Apache."""

import json
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import httpx
import openai
import pytest

Until = Callable[..., Any]


def arrivals(response: httpx.Response) -> tuple[list[float], str]:
    """When each piece came, in seconds from the first, and the whole text as it crossed the wire."""
    times, pieces = [], []
    for piece in response.iter_raw():
        times.append(time.monotonic())
        pieces.append(piece)
    return [moment - times[0] for moment in times], b"".join(pieces).decode()


@pytest.mark.parametrize("encoding", ["identity", "gzip, deflate, br"])
def test_a_completion_arrives_spread_in_time_and_uncompressed(serving: Any, encoding: str) -> None:
    # As long as it takes to see: a fast machine writes four texts of 2,000 tokens in 0.03 s.
    body = {"model": "little", "prompt": "the", "max_tokens": 2000, "n": 16, "stream": True, "seed": 1}
    started = time.monotonic()
    with serving.http.stream("POST", "/v1/completions", json=body, headers={"Accept-Encoding": encoding}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in response.headers
        times, text = arrivals(response)
    whole = time.monotonic() - started
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    written = "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1])
    assert len(written) == 16 * 2000
    # All at the end would be one piece, or many at one moment.
    assert len(times) >= 20
    assert times[-1] > whole / 2
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert max(pauses) < whole / 2


def test_openais_own_client_streams(serving: Any) -> None:
    with openai.OpenAI(base_url=f"{serving.url}/v1", api_key="unused", max_retries=0) as client:
        assert any(model.id == "little" for model in client.models.list())
        stream = client.completions.create(model="little", prompt="of", max_tokens=40, seed=7, stream=True)
        streamed = "".join(chunk.choices[0].text for chunk in stream)
        whole = client.completions.create(model="little", prompt="of", max_tokens=40, seed=7).choices[0].text
    assert len(whole) == 40
    assert streamed == whole


def test_the_lessons_address_gives_a_fresh_sample_each_time(serving: Any) -> None:
    first, second = (serving.http.get("/cgi-bin/test") for _ in range(2))
    for reply in (first, second):
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/plain")
        assert reply.text.startswith("Generating shakespeare...\nwherefore art thou")
        assert len(reply.text) > 400
    assert first.text != second.text


def test_a_visitor_who_leaves_frees_the_place(serving: Any, until: Until) -> None:
    until(lambda: serving.status()["server"]["active"] == 0, within=10, what="a quiet engine")
    body = {"model": "little", "prompt": "the", "max_tokens": 2000, "n": 16, "stream": True}
    with httpx.Client(base_url=serving.url, timeout=30) as visitor:
        with visitor.stream("POST", "/v1/completions", json=body) as response:
            next(response.iter_raw())
            assert serving.status()["server"]["active"] > 0
            left = time.monotonic()
        assert response.is_closed
    until(lambda: serving.status()["server"]["active"] == 0, within=5, every=0.02, what="the end of the text")
    # What sixteen texts of 2,000 tokens take to be written is what it would have lasted else.
    assert time.monotonic() - left < 2


def test_events_come_at_once_and_an_idle_stream_lives_on(serving: Any) -> None:
    """Longer than a minute, the time-out that proxies are wont to have; pings keep it open."""
    with serving.http.stream("GET", "/api/events", headers={"Accept-Encoding": "gzip"}, timeout=40) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in response.headers
        pieces = response.iter_raw()
        started = time.monotonic()
        first = next(pieces).decode()
        assert time.monotonic() - started < 5
        assert '"server"' in first
        came = 0
        while time.monotonic() - started < 75:
            assert next(pieces)
            came += 1
    assert came >= 3


def test_many_watchers_leave_room_for_visitors(serving: Any) -> None:
    clients = []
    try:
        for _ in range(40):
            client = httpx.Client(base_url=serving.url, timeout=20)
            request = client.build_request("GET", "/api/events")
            clients.append((client, client.send(request, stream=True)))
        assert {response.status_code for _, response in clients} == {200}
        started = time.monotonic()
        assert serving.http.get("/").status_code == 200
        assert time.monotonic() - started < 2
    finally:
        for client, response in clients:
            response.close()
            client.close()
