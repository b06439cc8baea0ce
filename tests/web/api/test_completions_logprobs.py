"""Log-probabilities, biases, penalties and best_of, as clients see them."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.models import folder as model_folder
from gptbox.models.config import ModelConfig
from gptbox.tokenizers.char import CharTokenizer


def choices(client: TestClient, **body: Any) -> list[dict[str, Any]]:
    response = client.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    return list(response.json()["choices"])


def exact(models: Path, text: str) -> tuple[list[float], list[str]]:
    """The log-probability of each character but the first, and the most probable character in its place."""
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
def test_logprobs_are_the_models_own_whatever_the_sampling_parameters(
    client: TestClient, tiny_run: Path, echo: bool
) -> None:
    [choice] = choices(
        client, prompt="HELLO", max_tokens=12, logprobs=3, echo=echo, seed=2, temperature=1.7, top_k=5
    )  # fmt: skip
    logprobs, text = choice["logprobs"], choice["text"]
    assert set(logprobs) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    whole = text if echo else f"HELLO{text}"
    values, best = exact(tiny_run, whole)
    if echo:
        assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
        logprobs = {key: items[1:] for key, items in logprobs.items()}
        text = text[1:]
    else:
        values, best = values[4:], best[4:]
    assert logprobs["tokens"] == list(text)
    assert logprobs["text_offset"] == list(range(int(echo), int(echo) + len(text)))
    np.testing.assert_allclose(logprobs["token_logprobs"], values, atol=1e-4)
    for token, value, pairs, likeliest in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], best, strict=True
    ):
        assert pairs[token] == value
        assert len(pairs) == (3 if value >= sorted(pairs.values())[-3] else 4)
        assert max(pairs, key=lambda token: pairs[token]) == likeliest
        assert sum(map(math.exp, pairs.values())) <= 1.0001


def test_a_prompt_can_be_scored_without_generating(client: TestClient, tiny_run: Path) -> None:
    """As evaluation harnesses do."""
    [choice] = choices(client, prompt="HELLO WORLD", max_tokens=0, logprobs=0, echo=True)
    assert choice["text"] == "HELLO WORLD"
    logprobs = choice["logprobs"]["token_logprobs"]
    np.testing.assert_allclose(logprobs[1:], exact(tiny_run, "HELLO WORLD")[0], atol=1e-4)
    own = [{token: value} for token, value in zip("HELLO WORLD", logprobs, strict=True)]
    assert choice["logprobs"]["top_logprobs"] == [None, *own[1:]]


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("requested", range(6))
def test_the_sampled_token_is_among_the_top_logprobs(client: TestClient, requested: int, echo: bool) -> None:
    """OpenAI: "there may be up to logprobs+1 elements"."""
    [choice] = choices(client, prompt="HELLO", max_tokens=60, temperature=2, seed=1, logprobs=requested, echo=echo)
    logprobs = choice["logprobs"]
    seen = list(zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True))[int(echo) :]
    assert all(pairs[token] == value for token, value, pairs in seen)
    assert {len(pairs) for _, _, pairs in seen} == ({1} if requested == 0 else {requested, requested + 1})


def test_tokens_with_the_same_text_are_all_returned(
    tiny_run: Path, client_for: Callable[..., TestClient], config: ModelConfig, make_weights: Callable[..., Any]
) -> None:
    """In a model with a padded vocabulary, all ids unknown to the tokenizer decode to U+FFFD."""
    info = model_folder.load(tiny_run / "tiny" / "best").info
    assert info is not None
    target = tiny_run / "padded" / "snapshots" / "step-000001"
    model_folder.write(target, config, make_weights(config), CharTokenizer(list("\nab")), info, "# a test\n")
    body = {"model": "padded", "prompt": "a", "max_tokens": 60, "temperature": 2, "seed": 1, "logprobs": 5}
    [choice] = choices(client_for(tiny_run), **body)
    logprobs = choice["logprobs"]
    rows = zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
    for token, value, pairs in rows:
        assert pairs[token] == value
        assert len(pairs) == (5 if value >= sorted(pairs.values())[-5] else 6)
        assert all(name in ("\n", "a", "b", "\ufffd") or name.startswith("token_id:") for name in pairs)
    assert "\ufffd" in logprobs["tokens"]


def test_a_byte_that_is_not_a_character_has_its_own_key(byte_client: TestClient) -> None:
    ids = [*"aé".encode(), 0xE2]
    body = {"prompt": ids, "max_tokens": 40, "temperature": 2, "seed": 1, "logprobs": 5, "echo": True}
    [choice] = choices(byte_client, **body)
    logprobs = choice["logprobs"]
    assert logprobs["tokens"][:4] == ["a", r"bytes:\xc3", r"bytes:\xa9", r"bytes:\xe2"]
    # Both bytes of a character begin where it does.
    assert logprobs["text_offset"][:4] == [0, 1, 1, 2]
    for token, value, pairs in zip(
        logprobs["tokens"][1:], logprobs["token_logprobs"][1:], logprobs["top_logprobs"][1:], strict=True
    ):
        assert pairs[token] == value
        assert len(pairs) in (5, 6)
        assert all(len(name) == 1 or re.fullmatch(r"bytes:\\x[0-9a-f]{2}", name) for name in pairs)
    assert any(token.startswith("bytes:") for token in logprobs["tokens"][4:])
    assert "\ufffd" not in logprobs["tokens"]


def test_a_prompt_may_end_within_a_character(byte_client: TestClient) -> None:
    """The text begins with that character; an echo is the prompt up to it."""
    *prompt, last = b"a\xe2\x82\xac"
    body = {"prompt": prompt, "max_tokens": 1, "logit_bias": {str(last): 100}, "logprobs": 0}
    [alone], [echoed] = choices(byte_client, **body), choices(byte_client, **body, echo=True)
    assert (alone["text"], echoed["text"]) == ("\u20ac", "a\u20ac")
    assert alone["logprobs"]["text_offset"] == [0]
    assert echoed["logprobs"]["text_offset"] == [0, 1, 1, 1]
    [scored] = choices(byte_client, prompt=prompt, max_tokens=0, echo=True, logprobs=0)
    assert scored["text"] == "a"
    assert scored["logprobs"]["text_offset"] == [0, 1, 1]


def test_no_bias_breaks_a_character(byte_client: TestClient) -> None:
    body = {"prompt": [*b"a\xe2\x82"], "max_tokens": 3, "logit_bias": {"98": 100, "255": 100}, "logprobs": 0}
    [choice] = choices(byte_client, **body)
    assert re.fullmatch(r"[\u2080-\u20bf]bb", choice["text"])
    assert choice["logprobs"]["text_offset"] == [0, 1, 2]


def test_only_the_prompt_tokens_within_the_context_have_logprobs(client: TestClient) -> None:
    prompt = "abcdefghij" * 5  # the context has 32 tokens
    [choice] = choices(client, prompt=prompt, max_tokens=1, logprobs=0, echo=True)
    logprobs = choice["logprobs"]["token_logprobs"]
    assert logprobs[:19] == [None] * 19
    assert all(value is not None for value in logprobs[19:])
    assert len(logprobs) == 51


def test_streamed_logprobs_equal_those_of_the_whole_reply(server: Any, stream: Any) -> None:
    import httpx

    body = {"prompt": ["HELLO", "B"], "max_tokens": 30, "logprobs": 2, "seed": 4, "stop": ["e"], "echo": True}
    expected = httpx.post(f"{server.url}/v1/completions", json=body).json()["choices"]
    *events, _ = list(stream(server.url, body))
    for index, whole in enumerate(expected):
        streamed: dict[str, list[Any]] = {key: [] for key in whole["logprobs"]}
        for event in events:
            [choice] = event["choices"]
            if choice["index"] == index:
                for key, items in choice["logprobs"].items():
                    streamed[key] += items
        assert streamed == whole["logprobs"]
        assert "".join(streamed["tokens"]) == whole["text"]


def test_a_stop_string_truncates_the_logprobs_with_the_text(client: TestClient) -> None:
    [free] = choices(client, prompt="HELLO", max_tokens=60, seed=1)
    stop = free["text"][20:22]
    [choice] = choices(client, prompt="HELLO", max_tokens=60, seed=1, logprobs=0, stop=stop)
    assert choice["finish_reason"] == "stop"
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]


def test_logit_biases_forbid_and_force_tokens(client: TestClient, tiny_run: Path) -> None:
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


def test_penalties_increase_variety(client: TestClient) -> None:
    body = {"prompt": "x", "max_tokens": 60, "temperature": 0}
    [plain] = choices(client, **body)
    for penalty in ({"frequency_penalty": 2}, {"presence_penalty": 2}, {"repetition_penalty": 5}):
        [varied] = choices(client, **body, **penalty)
        assert len(set(varied["text"])) > len(set(plain["text"]))


def test_min_p_of_1_takes_the_most_probable(client: TestClient) -> None:
    greedy = choices(client, prompt="x", max_tokens=40, temperature=0)
    assert choices(client, prompt="x", max_tokens=40, min_p=1, seed=1) == greedy


def test_best_of_returns_the_most_probable_texts(client: TestClient) -> None:
    body = {"prompt": ["A", "B"], "max_tokens": 20, "seed": 5}
    response = client.post("/v1/completions", json={**body, "n": 2, "best_of": 6}).json()
    assert [choice["index"] for choice in response["choices"]] == [0, 1, 2, 3]
    assert all(choice["logprobs"] is None for choice in response["choices"])
    assert response["usage"]["completion_tokens"] == 2 * 6 * 20
    everything = choices(client, **body, n=6, logprobs=0)
    for first, group in ((0, everything[:6]), (2, everything[6:])):
        ranked = sorted(group, key=lambda choice: -np.mean(choice["logprobs"]["token_logprobs"]))
        assert [c["text"] for c in response["choices"][first : first + 2]] == [c["text"] for c in ranked[:2]]
