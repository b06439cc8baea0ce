"""Metrics, request ids and the log: what operators see, and what they must not."""

import json
import logging
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

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
    return [json.loads(record.message) for record in caplog.records if record.name == "gptbox.requests"]


def test_each_request_is_a_line_of_json_without_its_prompt(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    body = {"prompt": SECRET, "max_tokens": 7}
    client.post("/v1/completions", json=body, headers={"X-Request-ID": "one"})
    client.get("/cgi-bin/test", params={"start": SECRET})
    for path in ("/healthz", "/health"):
        client.get(path)
    client.post("/v1/completions", json={"prompt": SECRET, "n": 99})
    first, lesson, refused = entries(caplog)
    assert first.pop("ms") >= 0
    assert first.pop("first_token_ms") >= 0
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "request_id": "one", "method": "POST", "path": "/v1/completions", "status": 200,
        "prompt_tokens": len(SECRET), "completion_tokens": 7,
    }  # fmt: skip
    assert lesson["path"] == "/cgi-bin/test"
    assert lesson["completion_tokens"] == 500
    assert refused["status"] == 400
    assert SECRET not in caplog.text


def test_a_stream_is_logged_when_it_ends(
    server: Any, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., None]
) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    with httpx.stream("POST", f"{server.url}/v1/completions", json={"stream": True, "max_tokens": 40}) as response:
        response.read()
    wait_until(lambda: entries(caplog))
    [entry] = entries(caplog)
    assert entry["completion_tokens"] == 40
