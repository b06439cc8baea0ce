"""/v1/completions as a stream of server-sent events."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.web.helpers import joined, whole

from gptbox.web.generation import _TextSink

Stream = Callable[..., Iterator[Any]]


def test_the_deltas_add_up_to_the_text(server: Any, stream: Stream) -> None:
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
            assert set(choice) - {"stop_reason"} == {"text", "index", "logprobs", "finish_reason"}
            assert ("stop_reason" in choice) == (choice["finish_reason"] is not None)
    finishes = [(c["index"], c["finish_reason"]) for e in events for c in e["choices"] if c["finish_reason"]]
    assert sorted(finishes) == [(i, "length") for i in range(4)]


def test_a_stream_of_bytes_adds_up_to_the_whole_text(
    byte_run: Path, server_for: Callable[..., Any], stream: Stream
) -> None:
    server = server_for(byte_run)
    body = {"prompt": "é", "max_tokens": 200, "seed": 3, "temperature": 2, "logprobs": 0, "stop": ["never"]}
    *events, _ = list(stream(server.url, body))
    [expected] = whole(server, **body)["choices"]
    assert joined(events) == expected["text"]
    tokens = [
        token
        for event in events
        for choice in event["choices"]
        for token in (choice["logprobs"] or {}).get("tokens", [])
    ]
    assert tokens == expected["logprobs"]["tokens"]
    assert len(tokens) == 200


@pytest.mark.parametrize("logprobs", [None, 0])
def test_a_stream_of_bytes_breaks_no_character(
    byte_run: Path, server_for: Callable[..., Any], stream: Stream, logprobs: int | None
) -> None:
    """Neither within the text nor where max_tokens ends it, although the model has learned nothing."""
    server = server_for(byte_run)
    for length in (1, 2, 3, 400):
        body = {"prompt": "日", "n": 8, "max_tokens": length, "seed": length, "temperature": 2, "logprobs": logprobs}
        *events, last, _ = list(stream(server.url, body | {"stream_options": {"include_usage": True}}))
        assert last["usage"]["completion_tokens"] == 8 * length
        written = [joined(events, i) for i in range(8)]
        assert not any("\ufffd" in text for text in written)
        if length == 400:
            assert all(len(text) < len(text.encode()) for text in written)
        else:
            assert any(len(text.encode()) < length for text in written)
        assert written == [choice["text"] for choice in whole(server, **body)["choices"]]
        if logprobs is not None:
            for i, text in enumerate(written):
                choices = [choice for event in events for choice in event["choices"] if choice["index"] == i]
                offsets = [at for choice in choices if choice["logprobs"] for at in choice["logprobs"]["text_offset"]]
                assert len(offsets) == length
                assert offsets == sorted(offsets)
                assert max(offsets) in (len(text) - 1, len(text))


def test_tokens_are_sent_as_they_are_generated(server: Any, stream: Stream) -> None:
    events = stream(server.url, {"max_tokens": 20_000})
    for _ in range(3):
        next(events)
    assert server.busy() == 1
    times = [time.monotonic() for _ in events]
    assert len(times) > 50
    assert times[-1] - times[0] > 0.05


def test_echo_and_warnings_come_with_the_first_event(server: Any, stream: Stream) -> None:
    first, *rest = list(stream(server.url, {"prompt": "caf\u00e9", "echo": True, "max_tokens": 5}))
    assert first["choices"][0]["text"] == "caf\u00e9"
    assert "(space) for \u00e9" in first["warnings"][0]
    assert all("warnings" not in event for event in rest)
    first, *_ = list(stream(server.url, {"prompt": "HELLO", "max_tokens": 5}))
    assert first["warnings"] == []


@pytest.fixture
def late_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the engine call `end` only a while after the last token."""
    end = _TextSink.end

    def late(text: _TextSink, error: Exception | None) -> None:
        time.sleep(0.05)
        end(text, error)

    monkeypatch.setattr(_TextSink, "end", late)


@pytest.mark.parametrize(
    "extra", [{}, {"logprobs": 2}, {"n": 3, "logprobs": 0}, {"echo": True, "logprobs": 1}, {"stop": ["never in it"]}]
)
def test_the_event_of_the_last_token_has_the_finish_reason(
    server: Any, stream: Stream, late_end: None, extra: dict[str, Any]
) -> None:
    body = {"prompt": "A", "seed": 4, "max_tokens": 40, **extra}
    if "stop" in extra:
        body["stop"] = [
            whole(server, **body)["choices"][0]["text"][-2:] + "more"
        ]  # the stop string holds back the end of the text
    *events, _ = list(stream(server.url, body))
    for index in range(extra.get("n", 1)):
        *before, last = [choice for event in events for choice in event["choices"] if choice["index"] == index]
        assert last["finish_reason"] == "length"
        assert last["text"]
        assert all(choice["finish_reason"] is None and choice["text"] for choice in before)
        assert all(bool(choice["logprobs"]) == ("logprobs" in extra) for choice in (*before, last))


@pytest.mark.parametrize("echo", [False, True])
def test_no_event_has_empty_logprobs(server: Any, stream: Stream, echo: bool) -> None:
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


def test_an_echo_without_a_text_is_one_event(server: Any, stream: Stream) -> None:
    for logprobs in (None, 1):
        body = {"prompt": "HELLO", "echo": True, "max_tokens": 0, "logprobs": logprobs}
        [event, _] = list(stream(server.url, body))
        [choice] = event["choices"]
        assert (choice["text"], choice["finish_reason"]) == ("HELLO", "length")
        assert (choice["logprobs"] is None) == (logprobs is None)


def test_a_stop_string_ends_the_stream_and_frees_the_engine(
    server: Any, stream: Stream, wait_until: Callable[..., None]
) -> None:
    text = whole(server, prompt="A", seed=4, max_tokens=60)["choices"][0]["text"]
    *events, end = list(stream(server.url, {"prompt": "A", "seed": 4, "max_tokens": 100_000, "stop": text[30:34]}))
    assert end == "[DONE]"
    assert joined(events) == text[: text.find(text[30:34])]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    wait_until(lambda: server.busy() == 0, timeout=1)


def test_a_stopped_text_frees_its_place_while_others_go_on(
    server: Any, stream: Stream, wait_until: Callable[..., None]
) -> None:
    first = whole(server, prompt="A", seed=4, max_tokens=60)["choices"][0]["text"]
    events = stream(server.url, {"prompt": "A", "seed": 4, "n": 2, "max_tokens": 100_000, "stop": first[40:47]})
    for event in events:
        if event["choices"][0]["finish_reason"] == "stop":
            assert event["choices"][0]["index"] == 0
            break
    wait_until(lambda: server.busy() == 1, timeout=1)
