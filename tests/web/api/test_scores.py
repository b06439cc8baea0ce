"""/api/scores: what a text's tokens score with each snapshot, and that it is what generation sees."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from tests.web.helpers import complete, damage

from gptbox.errors import ModelNotFoundError
from gptbox.models.runs import RunFolder
from gptbox.web.api.scores import choose_snapshots
from gptbox.web.live_model import LiveModel

Publish = Callable[..., Path]


@pytest.fixture
def snapshots(publish: Publish) -> Callable[[], list[Path]]:
    """The run `tiny` with the snapshots 250, 500 and 750, of which 500 is the best."""

    def make() -> list[Path]:
        return [publish(step, best=step <= 500) for step in (250, 500, 750)]

    return make


@pytest.fixture
def run_client(snapshots: Callable[[], list[Path]], models: Path, client_for: Callable[..., TestClient]) -> TestClient:
    snapshots()
    return client_for(models)


def score(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/api/scores", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def refusal(client: TestClient, status: int, **body: Any) -> dict[str, Any]:
    response = client.post("/api/scores", json=body)
    assert response.status_code == status, response.text
    return dict(response.json()["error"])


def events(response: Any) -> list[Any]:
    """The data of a stream's events."""
    data = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


# What a score is


@pytest.mark.parametrize("prompt", ["", "HELLO", "abcdefgh" * 9])
@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_a_generated_text_scores_as_the_sampler_saw_it(
    tiny_run: Path, client_for: Callable[..., TestClient], prompt: str, quantize: str
) -> None:
    """Beyond the context of 32 tokens, too, where the window slides several times."""
    client = client_for(tiny_run, quantize=quantize)
    [choice] = complete(client, prompt=prompt, max_tokens=150, seed=3, logprobs=5)["choices"]
    reply = score(client, prompt=prompt, text=choice["text"], top_logprobs=5)
    logprobs = choice["logprobs"]
    assert reply["tokens"] == logprobs["tokens"] == list(choice["text"])
    [scored] = reply["scores"]
    assert scored["logprobs"] == pytest.approx(logprobs["token_logprobs"], abs=1e-5)
    for pairs, expected in zip(scored["top_logprobs"], logprobs["top_logprobs"], strict=True):
        assert {pair["token"]: pair["logprob"] for pair in pairs} == pytest.approx(expected, abs=1e-5)


def test_by_default_a_text_begins_a_line(client: TestClient) -> None:
    alone, after_break = score(client, text="HELLO"), score(client, prompt="\n", text="HELLO")
    assert alone["scores"] == after_break["scores"]
    [choice] = complete(client, prompt="\nHELLO", max_tokens=0, echo=True, logprobs=0)["choices"]
    assert alone["scores"][0]["logprobs"] == pytest.approx(choice["logprobs"]["token_logprobs"][1:], abs=1e-5)


def test_the_reply_says_what_was_scored_and_with_what(tiny_run: Path, client: TestClient) -> None:
    reply = score(client, text="HELLO")
    fingerprint = client.get("/api/status").json()["server"]["system_fingerprint"]
    [scored] = reply.pop("scores")
    ids = client.post("/tokenize", json={"prompt": "HELLO"}).json()["tokens"]
    validation = reply.pop("validation")
    assert reply == {
        "object": "scores", "run": "tiny", "system_fingerprint": fingerprint, "tokens": list("HELLO"),
        "token_ids": ids, "text_offset": [0, 1, 2, 3, 4], "warnings": [],
    }  # fmt: skip
    assert set(scored) == {"model", "step", "logprobs", "bits_per_character"}
    assert (scored["model"], scored["step"]) == ("tiny@step-000250", 250)
    assert scored["bits_per_character"] == pytest.approx(-sum(scored["logprobs"]) / math.log(2) / 5)
    assert validation == {"bits_per_character": pytest.approx(2.1 / math.log(2))}


def test_tokens_that_are_parts_of_characters_have_their_bytes(byte_client: TestClient) -> None:
    reply = score(byte_client, text="aé€")
    assert reply["tokens"] == ["a", r"bytes:\xc3", r"bytes:\xa9", r"bytes:\xe2", r"bytes:\x82", r"bytes:\xac"]
    assert reply["text_offset"] == [0, 1, 1, 2, 2, 2]
    [scored] = reply["scores"]
    assert scored["bits_per_character"] == pytest.approx(-sum(scored["logprobs"]) / math.log(2) / 3)
    assert reply["validation"] is None  # the run does not say how many characters a token has


def test_the_validation_text_is_compared_per_character(byte_run: Path, byte_client: TestClient) -> None:
    status = {"run": "bytes", "phase": "finished", "characters_per_token": 0.8}
    for characters, expected in ((0.8, 2.1 / 0.8 / math.log(2)), (0, None), ("x", None)):
        (byte_run / "bytes" / "status.json").write_text(json.dumps(status | {"characters_per_token": characters}))
        validation = score(byte_client, text="A")["validation"]
        assert validation == (None if expected is None else {"bits_per_character": pytest.approx(expected)})


def test_unknown_characters_are_named_and_the_characters_read_instead_scored(client: TestClient) -> None:
    body = json.dumps({"text": "CAF\u00e9\ud800", "prompt": "\u2019"})
    reply = client.post("/api/scores", content=body).json()
    [warning] = reply["warnings"]
    assert "(space) for é" in warning
    assert "' for \u2019" in warning
    assert reply["tokens"] == list("CAF  ")


def test_the_texts_own_token_is_among_the_alternatives(client: TestClient) -> None:
    reply = score(client, text="HELLO WORLD", top_logprobs=3)
    [scored] = reply["scores"]
    for i, value, pairs in zip(reply["token_ids"], scored["logprobs"], scored["top_logprobs"], strict=True):
        assert len(pairs) in (3, 4)
        assert next(pair["logprob"] for pair in pairs if pair["id"] == i) == value
        assert sorted((pair["logprob"] for pair in pairs), reverse=True) == [pair["logprob"] for pair in pairs]


# Snapshots


def test_snapshots_are_scored_in_the_order_of_their_steps(run_client: TestClient) -> None:
    text = "To be, or not to be"
    everything = score(run_client, text=text, snapshots="all")
    assert [scored["step"] for scored in everything["scores"]] == [250, 500, 750]
    for scored in everything["scores"]:
        assert score(run_client, model=scored["model"], text=text)["scores"] == [scored]
    assert len({scored["bits_per_character"] for scored in everything["scores"]}) == 3
    some = score(run_client, model="tiny", text=text, snapshots=["step-000750", "step-000250", "step-000250"])
    assert some["scores"] == [everything["scores"][0], everything["scores"][2]]
    named = score(run_client, text=text, snapshots=["latest", "best"])
    assert named["scores"] == everything["scores"][1:]
    assert score(run_client, text=text)["scores"] == [everything["scores"][1]]
    assert len(run_client.app.state.service.live_model.cache) <= 4  # type: ignore[attr-defined]


def test_a_stream_has_an_event_per_snapshot(run_client: TestClient) -> None:
    body = {"text": "caf\u00e9", "snapshots": "all", "top_logprobs": 2}
    whole = score(run_client, **body)
    response = run_client.post("/api/scores", json={**body, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    first, second, third, done = events(response)
    assert done == "[DONE]"
    assert {**first, "scores": [event["scores"][0] for event in (first, second, third)]} == whole
    assert set(second) == set(third) == {"object", "run", "warnings", "scores"}
    assert second["warnings"] == []


@pytest.mark.parametrize("model", [None, "tiny"])
def test_a_snapshot_that_is_not_kept_is_a_404_that_names_the_nearest(run_client: TestClient, model: str | None) -> None:
    error = refusal(run_client, 404, model=model, text="A", snapshots=["step-000250", "step-000600"])
    assert "'step-000600'" in error["message"]
    assert "'step-000500'" in error["message"]
    assert error["code"] == "model_not_found"
    for missing in ("tiny@step-000600", "tiny@step-000600x", "nobody"):
        for path, field in (("/api/scores", "text"), ("/v1/completions", "prompt")):
            response = run_client.post(path, json={"model": missing, field: "a"})
            assert response.status_code == 404
            message = response.json()["error"]["message"]
            assert ("'step-000500'" in message) is (missing == "tiny@step-000600")
            assert "GET /v1/models" in message
            assert str(run_client.app.state.service.settings.models) not in message  # type: ignore[attr-defined]


def test_a_snapshot_that_training_thins_out_meanwhile_is_left_out(
    run_client: TestClient, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = LiveModel.resolve

    async def vanishing(self: LiveModel, name: str | None = None) -> Any:
        if name == "tiny@step-000250":
            raise ModelNotFoundError("It is gone.")
        return await resolve(self, name)

    monkeypatch.setattr(LiveModel, "resolve", vanishing)
    everything = score(run_client, text="A", snapshots="all")
    assert [scored["step"] for scored in everything["scores"]] == [500, 750]
    assert everything["tokens"] == ["A"]
    assert refusal(run_client, 404, text="A", snapshots=["step-000250"])["message"] == "It is gone."
    streamed = run_client.post(
        "/api/scores", json={"text": "A", "stream": True, "snapshots": ["step-000250", "step-000750"]}
    )
    assert streamed.status_code == 404  # nothing was sent before


def test_a_damaged_snapshot_is_left_out_of_all_and_else_an_error(
    snapshots: Callable[[], list[Path]], models: Path, client_for: Callable[..., TestClient]
) -> None:
    damage(snapshots()[2])
    client = client_for(models)
    for stream in (False, True):
        response = client.post("/api/scores", json={"text": "A", "snapshots": "all", "stream": stream})
        parts = events(response)[:-1] if stream else [response.json()]
        assert [scored["step"] for part in parts for scored in part["scores"]] == [250, 500]
        assert [warning for part in parts for warning in part["warnings"]] == [
            "step-000750 is left out: its folder is damaged."
        ]
    body = {"text": "A", "snapshots": ["step-000250", "step-000750"]}
    assert refusal(client, 500, **body)["code"] == "model_damaged"
    first, error = events(client.post("/api/scores", json={**body, "stream": True}))
    assert first["scores"][0]["step"] == 250
    assert error["error"]["code"] == "model_damaged"


def test_a_run_that_was_deleted_is_scored_with_the_model_in_memory(run_client: TestClient, models: Path) -> None:
    RunFolder(models, "tiny").delete()
    assert [scored["step"] for scored in score(run_client, text="A", snapshots="all")["scores"]] == [500]


def test_of_large_models_all_are_a_selection(models: Path) -> None:
    run = RunFolder(models, "large")
    for step in range(40):
        run.snapshot(step).mkdir(parents=True)
        (run.snapshot(step) / "model.safetensors").write_bytes(b"x" * 10)
    run.update_link("best", run.snapshot(37))
    run.update_link("latest", run.snapshot(39))
    assert choose_snapshots(run, "all", max_bytes=10) == [path.name for path in run.snapshots()]
    chosen = [int(name[5:]) for name in choose_snapshots(run, "all", max_bytes=9)]
    assert len(chosen) == 10
    assert chosen[0] == 0
    assert chosen[-2:] == [37, 39]
    assert {b - a for a, b in pairwise(chosen[:8])} <= {4, 5}
    assert len(choose_snapshots(run, ["step-000001", "best"], max_bytes=9)) == 2


# Bounds and places


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": None}, "text"),
        ({"text": ["a"]}, "text"),
        ({"text": "é" * 4097}, "text"),
        ({"text": "A", "prompt": 1}, "prompt"),
        ({"text": "A", "prompt": "x" * 65_537}, "prompt"),
        ({"text": "A", "snapshots": []}, "snapshots"),
        ({"text": "A", "snapshots": "some"}, "snapshots"),
        ({"text": "A", "snapshots": [1]}, "snapshots"),
        ({"text": "A", "snapshots": [str(i) for i in range(1001)]}, "snapshots"),
        ({"text": "A", "top_logprobs": 21}, "top_logprobs"),
        ({"text": "A", "top_logprobs": -1}, "top_logprobs"),
        ({"text": "A", "top_logprobs": True}, "top_logprobs"),
        ({"text": "A", "stream": 1}, "stream"),
        ({"text": "A", "model": 1}, "model"),
    ],
)
def test_bad_fields_are_named(client: TestClient, body: dict[str, Any], field: str) -> None:
    error = refusal(client, 400, **body)
    assert error["param"] == field
    assert error["message"].startswith(f"{field}: ")


def test_tokens_times_snapshots_are_bounded(
    models: Path, publish: Publish, client_for: Callable[..., TestClient]
) -> None:
    for step in range(9):
        publish(step, seed=0)
    client = client_for(models)
    error = refusal(client, 400, text="A" * 8192, snapshots="all")
    assert error["param"] == "snapshots"
    assert "9 snapshots times 8,192 tokens are 73,728" in error["message"]
    error = refusal(client, 400, text="A" * 4200, snapshots=["step-000001", "step-000002", "best"], top_logprobs=20)
    assert error["param"] == "top_logprobs"
    assert len(score(client, text="A" * 8192, top_logprobs=20)["scores"][0]["top_logprobs"]) == 8192


def test_the_key_is_required_if_one_is_set(tiny_run: Path, client_for: Callable[..., TestClient]) -> None:
    client = client_for(tiny_run, api_key="sesame")
    assert refusal(client, 401, text="A")["code"] == "invalid_api_key"
    headers = {"Authorization": "Bearer sesame"}
    assert client.post("/api/scores", json={"text": "A"}, headers=headers).status_code == 200


def test_without_a_model_the_reason_is_given(models: Path, client_for: Callable[..., TestClient]) -> None:
    assert refusal(client_for(models), 503, text="A")["code"] == "no_model_yet"


@pytest.mark.parametrize("stream_it", [False, True])
def test_a_full_queue_is_a_429(
    tiny_run: Path, server_for: Callable[..., Any], stream: Callable[..., Iterator[Any]], stream_it: bool
) -> None:
    server = server_for(tiny_run, max_queue=0, max_tokens=10_000_000)
    server.service.scheduler.max_active = 1
    running = stream(server.url, {"max_tokens": 10_000_000})
    next(running)
    response = httpx.post(f"{server.url}/api/scores", json={"text": "A", "stream": stream_it}, timeout=30)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "5"
    assert response.json()["error"]["code"] == "queue_full"


def test_a_client_that_goes_away_frees_its_place(
    server: Any, stream: Callable[..., Iterator[Any]], wait_until: Callable[..., None]
) -> None:
    server.service.scheduler.max_active = 1
    running = stream(server.url, {"max_tokens": 10_000_000})
    next(running)

    def give_up() -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/api/scores", json={"text": "A" * 100}, timeout=2)

    waiting = threading.Thread(target=give_up)
    waiting.start()
    wait_until(lambda: server.service.scheduler.queued == 1)  # one place for all windows of the text
    waiting.join()
    wait_until(lambda: server.busy() == 1)
    assert not [each for each in server.service._generations if each.queue_position]


def test_prompts_and_texts_are_not_logged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    score(client, text="SECRET", prompt="HIDDEN")
    refusal(client, 400, text="SECRET" * 2000)
    messages = [f"{record.getMessage()} {vars(record)}" for record in caplog.records if "gptbox" in record.name]
    assert any("'scored_tokens': 6" in message for message in messages)
    assert not any("SECRET" in message or "HIDDEN" in message for message in messages)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
LIKELY = {
    "text": st.text(st.characters(), max_size=70),
    "prompt": st.text(st.characters(), max_size=70),
    "model": st.sampled_from(["tiny", "tiny@best", "tiny@step-000250", "tiny@step-1", "nobody"]),
    "snapshots": st.just("all") | st.lists(st.sampled_from(["step-000250", "best", "step-000001", "../x", ""])),
    "top_logprobs": st.integers(-1, 21),
    "stream": st.booleans(),
}
BODIES = (
    JSON
    | st.dictionaries(st.sampled_from(sorted(LIKELY)), JSON)
    | st.fixed_dictionaries({}, optional={name: values | st.none() for name, values in LIKELY.items()})
)


def test_any_json_is_answered_or_rejected(client: TestClient) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(body=BODIES)
    def check(body: Any) -> None:
        response = client.post("/api/scores", content=json.dumps(body))
        if response.status_code != 200:
            assert response.status_code in (400, 404)
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}
            return
        replies = events(response) if body.get("stream") else [response.json(), "[DONE]"]
        assert replies.pop() == "[DONE]"
        for scored in [scored for reply in replies for scored in reply["scores"]]:
            assert len(scored["logprobs"]) == len(replies[0]["tokens"])
            assert all(value <= 0 for value in scored["logprobs"])

    check()
