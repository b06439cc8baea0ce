"""/v1/chat/completions."""

import codecs
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from starlette.testclient import TestClient

from gptbox.web.api.chat_request import ChatRequest

HELLO = [{"role": "user", "content": "Who goes there?"}]


def parse(**body: Any) -> ChatRequest:
    return ChatRequest.parse({"messages": HELLO, **body}, max_tokens=1000)


def chat(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/chat/completions", json={"messages": HELLO, **body})
    assert response.status_code == 200, response.text
    return dict(response.json())


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def test_a_history_with_tools_is_accepted_and_calls_are_omitted(client: TestClient) -> None:
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "Nobody."}]},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL]},
        {"role": "assistant", "content": None, "function_call": CALL["function"]},
        {"role": "function", "name": "look", "content": "A ghost."},
    ]
    assert parse(messages=messages, tools=[TOOL], tool_choice="none").prompt() == (
        "USER:\nWho goes there?\n\nTOOL:\nNobody.\n\nASSISTANT:\nLet me see.\n\nLOOK:\nA ghost.\n\nASSISTANT:\n"
    )
    assert parse(messages=messages[:2]).prompt() == "USER:\nWho goes there?\n\nASSISTANT:\n"
    assert parse(messages=messages[1:2]).prompt() == "ASSISTANT:\n"
    assert parse(functions=[TOOL["function"]], function_call="none").prompt() == parse().prompt()
    reply = chat(client, messages=messages, tools=[TOOL], tool_choice="none", max_tokens=3)
    assert len(reply["choices"][0]["message"]["content"]) == 3


def test_the_reply_equals_the_completion_of_the_play(client: TestClient) -> None:
    reply = chat(client, seed=3, max_tokens=80, temperature=0.9)
    assert reply["id"].startswith("chatcmpl-")
    assert reply["object"] == "chat.completion"
    prompt = "USER:\nWho goes there?\n\nASSISTANT:\n"
    body = {"prompt": prompt, "seed": 3, "max_tokens": 80, "temperature": 0.9, "stop": "\n\n"}
    plain = client.post("/v1/completions", json=body).json()
    [choice], [expected] = reply["choices"], plain["choices"]
    assert choice["message"] == {"role": "assistant", "content": expected["text"], "refusal": None}
    assert choice["finish_reason"] == expected["finish_reason"]
    assert choice["logprobs"] is None
    assert reply["usage"] == plain["usage"]


def test_a_speech_ends_at_an_empty_line(client: TestClient) -> None:
    line_break = "0"  # the id of the first character
    reply = chat(client, max_tokens=100, logit_bias={line_break: 100})
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["choices"][0]["message"]["content"] == ""


def test_logprobs_have_the_fields_of_chat_completions(client: TestClient) -> None:
    [choice] = chat(client, max_tokens=60, seed=1, logprobs=True, top_logprobs=2)["choices"]
    tokens = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == choice["message"]["content"]
    for token in tokens:
        assert token["bytes"] == list(token["token"].encode())
        top = token["top_logprobs"]
        own = {key: token[key] for key in ("token", "logprob", "bytes")}
        assert len(top) == (2 if own in top[:2] else 3)
        assert own in top
        assert [each["logprob"] for each in top] == sorted((each["logprob"] for each in top), reverse=True)
    assert {len(token["top_logprobs"]) for token in tokens} == {2, 3}


def test_without_top_logprobs_only_the_token_is_returned(client: TestClient) -> None:
    for asked in ({}, {"top_logprobs": 0}):
        [choice] = chat(client, max_tokens=10, seed=1, logprobs=True, **asked)["choices"]
        assert [token["top_logprobs"] for token in choice["logprobs"]["content"]] == [[]] * 10


def test_the_bytes_of_tokens_are_those_of_the_text(byte_client: TestClient) -> None:
    [choice] = chat(byte_client, max_tokens=60, seed=1, temperature=2, logprobs=True, top_logprobs=2)["choices"]
    tokens = choice["logprobs"]["content"]
    content = bytes(byte for token in tokens for byte in token["bytes"])
    # Without a character that the end breaks off.
    assert codecs.getincrementaldecoder("utf-8")("strict").decode(content) == choice["message"]["content"]
    for each in [*tokens, *(top for token in tokens for top in token["top_logprobs"])]:
        [byte] = each["bytes"]
        assert each["token"] == (chr(byte) if byte < 128 else f"bytes:\\x{byte:02x}")
    assert any(token["token"].startswith("bytes:") for token in tokens)


@pytest.fixture
def talk(server: Any) -> Iterator[Callable[..., Any]]:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    yield client.chat.completions.create
    client.close()


def test_the_openai_package_reads_whole_and_streamed_replies(talk: Callable[..., Any]) -> None:
    asked = {"model": "tiny", "messages": HELLO, "seed": 2, "max_completion_tokens": 60}
    whole = talk(**asked, n=2)
    assert whole.usage.completion_tokens > 0
    *chunks, last = list(talk(**asked, n=2, stream=True, stream_options={"include_usage": True}))
    assert last.usage == whole.usage
    for i in range(2):
        deltas = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == i]
        assert deltas[0].delta.role == "assistant"
        assert "".join(delta.delta.content or "" for delta in deltas) == whole.choices[i].message.content
        assert deltas[-1].finish_reason == whole.choices[i].finish_reason


def test_no_chunk_has_empty_logprobs_and_the_last_token_has_the_finish_reason(talk: Callable[..., Any]) -> None:
    asked = {"model": "tiny", "messages": HELLO, "seed": 2, "stream": True, "logprobs": True, "top_logprobs": 1}
    for length in (0, 1, 60):
        first, *chunks = [chunk.choices[0] for chunk in talk(**asked, max_completion_tokens=length, stop=["never"])]
        assert first.delta.role == "assistant"
        assert all(chunk.logprobs is None or chunk.logprobs.content for chunk in (first, *chunks))
        assert chunks[-1].finish_reason == "length"
        assert bool(chunks[-1].delta.content) == bool(chunks[-1].logprobs) == (length > 0)
