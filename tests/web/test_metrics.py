"""/metrics: requests, tokens, latencies and the served model."""

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient


def values(client: TestClient) -> dict[str, float]:
    reply = client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    return {
        sample.name + "".join(f",{key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


def test_metrics_count_requests_tokens_and_latencies(client: TestClient) -> None:
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
    assert 3 * 20 <= more("gptbox_steps_total") <= 3 * 30  # two texts per step
    assert more("gptbox_time_to_first_token_seconds_count") == 3
    assert more("gptbox_time_per_token_seconds_count") == 3
    assert after["gptbox_active_sequences"] == after["gptbox_queued_sequences"] == 0
    assert after["gptbox_loaded_models"] == 1
    assert after["process_resident_memory_bytes"] > 1e7


def test_metrics_name_the_model_and_its_loss(client: TestClient) -> None:
    names = values(client)
    assert any(name.startswith("gptbox_info,model=tiny@step-000250,version=") for name in names)
    assert "gptbox_model_loss,model=tiny@step-000250" in names
