"""The `openai` package against the real server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

Connect = Callable[..., openai.OpenAI]


@pytest.fixture
def connect() -> Iterator[Connect]:
    clients = []

    def connect(server: Any, api_key: str = "none") -> openai.OpenAI:
        clients.append(openai.OpenAI(base_url=f"{server.url}/v1", api_key=api_key, max_retries=0))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def test_completions_whole_and_streamed(server: Any, connect: Connect) -> None:
    client = connect(server)
    whole = client.completions.create(model="tiny", prompt="HELLO", max_tokens=40, seed=1, temperature=0.8)
    assert whole.model == "tiny@step-000250"
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 40
    pieces = client.completions.create(
        model="tiny@latest", prompt="HELLO", max_tokens=40, seed=1, temperature=0.8, stream=True,
        stream_options={"include_usage": True}, extra_body={"top_k": 0},
    )  # fmt: skip
    *chunks, last = list(pieces)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert last.usage == whole.usage


def test_top_logprobs_include_the_sampled_token(server: Any, connect: Connect) -> None:
    client = connect(server)
    body: Any = {"model": "tiny", "prompt": "HELLO", "max_tokens": 40, "seed": 1, "temperature": 2, "echo": True}
    for requested in (0, 1, 5):
        logprobs = client.completions.create(**body, logprobs=requested).choices[0].logprobs
        assert logprobs is not None
        assert logprobs.tokens is not None
        assert logprobs.token_logprobs is not None
        assert logprobs.top_logprobs is not None
        assert logprobs.top_logprobs[0] is None
        seen = list(zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True))[1:]
        assert all(top[token] == value and len(top) in (requested, requested + 1) for token, value, top in seen)


def test_a_stream_ends_with_its_last_token(server: Any, connect: Connect) -> None:
    body: Any = {"model": "tiny", "prompt": "HELLO", "max_tokens": 40, "seed": 1, "logprobs": 1, "stream": True}
    for _ in range(20):
        *_, last = [chunk.choices[0] for chunk in connect(server).completions.create(**body)]
        assert last.text
        assert last.finish_reason == "length"
        assert last.logprobs is not None
        assert last.logprobs.tokens


def test_endpoints_and_fields_of_vllm(server: Any, connect: Connect) -> None:
    client = connect(server)
    [first, *_] = client.models.list()
    assert first.model_extra is not None
    assert first.model_extra["max_model_len"] == 32
    root = client.with_options(base_url=server.url)
    ids: Any = root.post("/tokenize", body={"prompt": "HELLO"}, cast_to=object)
    back: Any = root.post("/detokenize", body={"tokens": ids["tokens"]}, cast_to=object)
    assert back == {"prompt": "HELLO"}
    reply = client.completions.create(
        model="tiny", prompt="HELLO", max_tokens=3, extra_body={"top_k": -1, "regex": "a+"}
    )
    assert reply.model_extra is not None
    assert "regex" in reply.model_extra["warnings"][0]


def test_stop_tokens_and_min_tokens_of_vllm(server: Any, connect: Connect) -> None:
    client = connect(server)
    body: Any = {"model": "tiny", "prompt": "HELLO", "max_tokens": 60, "seed": 4}
    text = client.completions.create(**body).choices[0].text
    stop = text[20]
    [stop_id] = client.with_options(base_url=server.url).post("/tokenize", body={"prompt": stop}, cast_to=dict)[
        "tokens"
    ]
    reply = client.completions.create(**body, extra_body={"stop_token_ids": [stop_id]})
    [choice] = reply.choices
    assert (choice.text, choice.finish_reason) == (text[: text.index(stop)], "stop")
    assert choice.model_extra == {"stop_reason": stop_id}
    assert reply.usage is not None
    assert reply.usage.completion_tokens == text.index(stop) + 1
    longer = client.completions.create(**body, extra_body={"stop_token_ids": [stop_id], "min_tokens": 50}).choices[0]
    assert len(longer.text) >= 50
    assert stop not in longer.text
    chat = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Who?"}], seed=4, stream=True, max_tokens=60,
        extra_body={"stop_token_ids": [*range(1, 33)], "ignore_eos": True},
    )  # fmt: skip
    *_, last = [chunk.choices[0] for chunk in chat]
    assert last.finish_reason == "stop"
    assert last.model_extra is not None
    assert last.model_extra["stop_reason"] in range(1, 33)
    with pytest.raises(openai.BadRequestError) as bad:
        client.completions.create(**body, extra_body={"stop_token_ids": [65]})
    assert (bad.value.param, "token id 65" in bad.value.message) == ("stop_token_ids", True)


def test_models(server: Any, connect: Connect) -> None:
    client = connect(server)
    assert [model.id for model in client.models.list()] == ["tiny", "tiny@step-000250"]
    assert client.models.retrieve("tiny@best").id == "tiny@best"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_errors_raise_the_exceptions_of_the_package(
    tiny_run: Path, models: Path, server_for: Callable[..., Any], connect: Connect, tmp_path: Path
) -> None:
    server = server_for(tiny_run, max_queue=0, api_key="sesame")
    client = connect(server, "sesame")
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="gpt-4", prompt="x")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.completions.create(model="tiny", prompt="x", temperature=3)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        connect(server, "guess").completions.create(model="tiny", prompt="x")
    server.service.scheduler.max_active = 1
    with pytest.raises(openai.RateLimitError):
        client.completions.create(model="tiny", prompt="x", n=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(openai.InternalServerError) as early:
        connect(server_for(tmp_path / "empty")).completions.create(model="tiny", prompt="x")
    assert early.value.status_code == 503


def test_a_closed_stream_frees_the_engine(server: Any, connect: Connect, wait_until: Callable[..., None]) -> None:
    stream = connect(server).completions.create(model="tiny", prompt="x", max_tokens=10_000_000, stream=True)
    next(iter(stream))
    assert server.busy() == 1
    stream.close()
    wait_until(lambda: server.busy() == 0, timeout=1)
