"""Log-probabilities, biases, penalties and best_of, as clients see them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from gptbox import model_folder
from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.model_config import ModelConfig
from gptbox.tokenizers.char import CharTokenizer


def choices(client: TestClient, **body: Any) -> list[dict[str, Any]]:
    response = client.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    return list(response.json()["choices"])


def exact(models: Path, text: str) -> tuple[list[float], list[str]]:
    """What the model gives each character of a text after those before it, and the most probable one in its place."""
    folder = model_folder.load(models / "tiny" / "best")
    ids = folder.tokenizer.encode(text).astype(np.int64)
    logits = GPT(folder.config, folder.weights).forward(ids[None, :-1], KVCache(folder.config, 1))[0].astype(np.float64)
    table = (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )
    return table[np.arange(len(ids) - 1), ids[1:]].tolist(), [folder.tokenizer.decode([i]) for i in table.argmax(-1)]


@pytest.mark.parametrize("echo", [False, True])
def test_logprobs_are_the_model_s_own_whatever_the_rules(client: TestClient, tiny_run: Path, echo: bool) -> None:
    [choice] = choices(
        client, prompt="HELLO", max_tokens=12, logprobs=3, echo=echo, seed=2, temperature=1.7, top_k=5
    )  # fmt: skip
    told, text = choice["logprobs"], choice["text"]
    assert set(told) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    whole = text if echo else f"HELLO{text}"
    values, best = exact(tiny_run, whole)
    if echo:
        assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
        told = {key: items[1:] for key, items in told.items()}
        text = text[1:]
    else:
        values, best = values[4:], best[4:]
    assert told["tokens"] == list(text)
    assert told["text_offset"] == list(range(int(echo), int(echo) + len(text)))
    np.testing.assert_allclose(told["token_logprobs"], values, atol=1e-4)
    for token, value, pairs, likeliest in zip(
        told["tokens"], told["token_logprobs"], told["top_logprobs"], best, strict=True
    ):
        assert pairs[token] == value
        assert len(pairs) == (3 if value >= sorted(pairs.values())[-3] else 4)
        assert max(pairs, key=lambda token: pairs[token]) == likeliest
        assert sum(map(math.exp, pairs.values())) <= 1.0001


def test_a_text_can_be_scored_and_nothing_written(client: TestClient, tiny_run: Path) -> None:
    """What evaluation harnesses do."""
    [choice] = choices(client, prompt="HELLO WORLD", max_tokens=0, logprobs=0, echo=True)
    assert choice["text"] == "HELLO WORLD"
    told = choice["logprobs"]["token_logprobs"]
    np.testing.assert_allclose(told[1:], exact(tiny_run, "HELLO WORLD")[0], atol=1e-4)
    of_the_tokens = [{token: value} for token, value in zip("HELLO WORLD", told, strict=True)]
    assert choice["logprobs"]["top_logprobs"] == [None, *of_the_tokens[1:]]


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("asked", range(6))
def test_the_text_s_own_token_is_among_the_top_ones(client: TestClient, asked: int, echo: bool) -> None:
    """OpenAI: "there may be up to logprobs+1 elements"."""
    [choice] = choices(client, prompt="HELLO", max_tokens=60, temperature=2, seed=1, logprobs=asked, echo=echo)
    told = choice["logprobs"]
    seen = list(zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True))[int(echo) :]
    assert all(pairs[token] == value for token, value, pairs in seen)
    assert {len(pairs) for _, _, pairs in seen} == ({1} if asked == 0 else {asked, asked + 1})


def test_of_tokens_with_the_same_text_none_is_lost(
    tiny_run: Path, client_for: Callable[..., TestClient], config: ModelConfig, make_weights: Callable[..., Any]
) -> None:
    """All ids that the tokenizer lacks, where a model was padded, are U+FFFD."""
    info = model_folder.load(tiny_run / "tiny" / "best").info
    assert info is not None
    target = tiny_run / "padded" / "snapshots" / "step-000001"
    model_folder.write(target, config, make_weights(config), CharTokenizer(list("\nab")), info, "# a test\n")
    body = {"model": "padded", "prompt": "a", "max_tokens": 60, "temperature": 2, "seed": 1, "logprobs": 5}
    [choice] = choices(client_for(tiny_run), **body)
    told = choice["logprobs"]
    for token, value, pairs in zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True):
        assert pairs[token] == value
        assert len(pairs) == (5 if value >= sorted(pairs.values())[-5] else 6)
        assert all(name in ("\n", "a", "b", "\ufffd") or name.startswith("token_id:") for name in pairs)
    assert "\ufffd" in told["tokens"]


def test_of_a_prompt_longer_than_the_context_only_what_was_seen_has_logprobs(client: TestClient) -> None:
    prompt = "abcdefghij" * 5  # the context is 32
    [choice] = choices(client, prompt=prompt, max_tokens=1, logprobs=0, echo=True)
    told = choice["logprobs"]["token_logprobs"]
    assert told[:19] == [None] * 19
    assert all(value is not None for value in told[19:])
    assert len(told) == 51


def test_streamed_logprobs_are_those_of_the_whole(server: Any, stream: Any) -> None:
    import httpx

    body = {"prompt": ["HELLO", "B"], "max_tokens": 30, "logprobs": 2, "seed": 4, "stop": ["e"], "echo": True}
    expected = httpx.post(f"{server.url}/v1/completions", json=body).json()["choices"]
    *events, _ = list(stream(server.url, body))
    for index, whole in enumerate(expected):
        found: dict[str, list[Any]] = {key: [] for key in whole["logprobs"]}
        for event in events:
            [choice] = event["choices"]
            if choice["index"] == index:
                for key, items in choice["logprobs"].items():
                    found[key] += items
        assert found == whole["logprobs"]
        assert "".join(found["tokens"]) == whole["text"]


def test_a_stop_string_ends_the_logprobs_with_the_text(client: TestClient) -> None:
    [free] = choices(client, prompt="HELLO", max_tokens=60, seed=1)
    stop = free["text"][20:22]
    [choice] = choices(client, prompt="HELLO", max_tokens=60, seed=1, logprobs=0, stop=stop)
    assert choice["finish_reason"] == "stop"
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]


def test_biases_forbid_and_demand(client: TestClient, tiny_run: Path) -> None:
    tokenizer = model_folder.load(tiny_run / "tiny" / "best").tokenizer
    [free] = choices(client, prompt="x", max_tokens=200, seed=1)
    letter = free["text"][100]
    e = tokenizer.encode(letter)[0]
    [always] = choices(client, prompt="x", max_tokens=20, logit_bias={str(e): 100})
    assert always["text"] == letter * 20
    [never] = choices(client, prompt="x", max_tokens=200, seed=1, logit_bias={str(e): -100})
    assert letter not in never["text"]
    response = client.post("/v1/completions", json={"logit_bias": {"65": 1}})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "logit_bias"
    assert "65 tokens, 0 to 64" in response.json()["error"]["message"]


def test_penalties_make_texts_more_varied(client: TestClient) -> None:
    body = {"prompt": "x", "max_tokens": 60, "temperature": 0}
    [plain] = choices(client, **body)
    for penalty in ({"frequency_penalty": 2}, {"presence_penalty": 2}, {"repetition_penalty": 5}):
        [varied] = choices(client, **body, **penalty)
        assert len(set(varied["text"])) > len(set(plain["text"]))


def test_min_p_of_1_takes_the_most_probable(client: TestClient) -> None:
    greedy = choices(client, prompt="x", max_tokens=40, temperature=0)
    assert choices(client, prompt="x", max_tokens=40, min_p=1, seed=1) == greedy


def test_best_of_gives_the_most_probable_of_many(client: TestClient) -> None:
    body = {"prompt": ["A", "B"], "max_tokens": 20, "seed": 5}
    response = client.post("/v1/completions", json={**body, "n": 2, "best_of": 6}).json()
    assert [choice["index"] for choice in response["choices"]] == [0, 1, 2, 3]
    assert all(choice["logprobs"] is None for choice in response["choices"])
    assert response["usage"]["completion_tokens"] == 2 * 6 * 20
    everything = choices(client, **body, n=6, logprobs=0)
    for first, group in ((0, everything[:6]), (2, everything[6:])):
        ranked = sorted(group, key=lambda choice: -np.mean(choice["logprobs"]["token_logprobs"]))
        assert [c["text"] for c in response["choices"][first : first + 2]] == [c["text"] for c in ranked[:2]]
