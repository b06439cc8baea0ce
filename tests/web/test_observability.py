"""Metrics, request ids and the log: what operators see, and what they must not."""

import json
import logging
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from gptbox.logs import JsonFormatter

SECRET = "a prompt that nobody else may read"


def values(client: TestClient) -> dict[str, float]:
    reply = client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    return {
        sample.name + "".join(f",{key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


def test_metrics_count_requests_tokens_and_times(client: TestClient) -> None:
    before = values(client)
    for _ in range(3):
        client.post("/v1/completions", json={"prompt": "HELLO", "max_tokens": 20, "n": 2})
    client.post("/v1/completions", json={"temperature": 9})
    client.get("/no/such/page")
    after = values(client)

    def more(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert more("gptbox_requests_total,path=/v1/completions,status=200") == 3
    assert more("gptbox_requests_total,path=/v1/completions,status=400") == 1
    assert more("gptbox_requests_total,path=other,status=404") == 1
    assert more("gptbox_generated_tokens_total") == 3 * 2 * 20
    assert more("gptbox_prompt_tokens_total") == 3 * 2 * 5
    assert 3 * 20 <= more("gptbox_steps_total") <= 3 * 30  # two texts in each step
    assert more("gptbox_time_to_first_token_seconds_count") == 3
    assert more("gptbox_time_per_token_seconds_count") == 3
    assert after["gptbox_active_sequences"] == after["gptbox_queued_sequences"] == 0
    assert after["gptbox_loaded_models"] == 1
    assert after["process_resident_memory_bytes"] > 1e7


def test_metrics_name_the_model_and_its_loss(client: TestClient) -> None:
    found = values(client)
    assert any(name.startswith("gptbox_info,model=tiny@step-000250,version=") for name in found)
    assert "gptbox_model_loss,model=tiny@step-000250" in found


def test_a_proxy_s_request_id_is_kept_and_a_missing_or_odd_one_is_made(client: TestClient) -> None:
    assert client.get("/", headers={"X-Request-ID": "aZ9@-_.:"}).headers["x-request-id"] == "aZ9@-_.:"
    seen = {client.get("/").headers["x-request-id"] for _ in range(3)}
    seen |= {client.get("/", headers={"X-Request-ID": odd}).headers["x-request-id"] for odd in ("", "a b", "x" * 65)}
    assert len(seen) == 6
    assert all(re.fullmatch("[0-9a-f]{24}", each) for each in seen)
    assert client.get("/no/such/page").headers["x-request-id"]


def entries(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The log's lines about requests, as LOG_FORMAT=json has them."""
    return [json.loads(JsonFormatter().format(each)) for each in caplog.records if each.name == "gptbox.requests"]


def test_a_visit_is_a_line_without_its_prompt(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    body = {"prompt": SECRET, "max_tokens": 7}
    client.post("/v1/completions", json=body, headers={"X-Request-ID": "one"})
    client.get("/cgi-bin/test", params={"start": SECRET})
    client.post("/v1/completions", json={"prompt": SECRET, "n": 99})
    client.get("/", params={"start": SECRET})
    first, lesson, refused, page = entries(caplog)
    ms = first.pop("ms")
    assert ms >= 0
    assert first.pop("first_token_ms") >= 0
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info", "message": f"testclient POST /v1/completions 200 · 7 tokens · {ms:.0f} ms · one",
        "request_id": "one", "client": "testclient", "method": "POST", "path": "/v1/completions", "status": 200,
        "prompt_tokens": len(SECRET), "completion_tokens": 7,
    }  # fmt: skip
    assert lesson["path"] == "/cgi-bin/test"
    assert lesson["completion_tokens"] == 500
    assert refused["status"] == 400
    assert (page["path"], page["status"]) == ("/", 200)
    assert SECRET not in caplog.text


def test_what_a_page_and_machines_fetch_has_no_line(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    quiet = ("/static/main.js", "/static/gone.js", "/api/status", "/api/history", "/v1/models", "/openapi.json",
             "/healthz", "/health", "/readyz", "/metrics")  # fmt: skip
    for path in quiet:
        client.get(path)
    client.post("/tokenize", json={"prompt": "a"})
    assert entries(caplog) == []


def test_readiness_that_is_missing_has_no_line_either(
    models: Path, client_for: Callable[..., TestClient], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    assert client_for(models).get("/readyz").status_code == 503
    assert entries(caplog) == []


def test_failures_have_a_line(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    client.get("/no/such/page")
    client.get("/v1/models/no-such-model")
    client.put("/")
    assert [(entry["path"], entry["status"]) for entry in entries(caplog)] == [
        ("/no/such/page", 404), ("/v1/models/no-such-model", 404), ("/", 405),
    ]  # fmt: skip


def test_a_path_cannot_forge_lines_or_move_the_cursor(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    client.get("/%0d%0aerror: forged%1b[2K%c3%bc" + "a" * 5000)
    (entry,) = entries(caplog)
    assert entry["path"].startswith("/%0D%0Aerror%3A%20forged%1B%5B2K%C3%BCaaa")
    assert len(entry["path"]) == 200
    assert entry["message"].isprintable()


def test_a_client_that_leaves_before_the_reply_has_its_line(
    server: Any, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., None]
) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    body = b'{"max_tokens": 100000}'
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)
        wait_until(server.busy)
    wait_until(lambda: entries(caplog))
    (entry,) = entries(caplog)
    assert entry["status"] == 499
    assert entry["prompt_tokens"] == 1


def test_a_stream_is_logged_when_it_ends(
    server: Any, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., None]
) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    with httpx.stream("POST", f"{server.url}/v1/completions", json={"stream": True, "max_tokens": 40}) as response:
        response.read()
    wait_until(lambda: entries(caplog))
    [entry] = entries(caplog)
    assert entry["completion_tokens"] == 40
