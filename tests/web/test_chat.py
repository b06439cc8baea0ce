"""/v1/chat/completions: messages as a play."""

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from starlette.testclient import TestClient

from gptbox.errors import RequestError
from gptbox.web.chat_request import ChatRequest

HELLO = [{"role": "user", "content": "Who goes there?"}]


def parse(**body: Any) -> ChatRequest:
    return ChatRequest.parse({"messages": HELLO, **body}, max_tokens=1000)


def chat(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/chat/completions", json={"messages": HELLO, **body})
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_messages_become_speeches() -> None:
    asked = parse(
        messages=[
            {"role": "system", "content": "A street in Verona."},
            {"role": "user", "content": [{"type": "text", "text": "Who goes "}, {"type": "text", "text": "there?"}]},
            {"role": "assistant", "content": "A friend."},
            {"role": "user", "name": "Romeo  Montague", "content": "Stay!"},
        ]
    )
    assert asked.play() == (
        "A street in Verona.\n\nUSER:\nWho goes there?\n\nASSISTANT:\nA friend.\n\n"
        "ROMEO MONTAGUE:\nStay!\n\nASSISTANT:\n"
    )


def test_a_speech_that_was_begun_is_gone_on_with() -> None:
    asked = parse(messages=[*HELLO, {"role": "assistant", "name": "Juliet", "content": "It is"}])
    assert asked.play() == "USER:\nWho goes there?\n\nJULIET:\nIt is"


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def test_a_history_with_tools_is_read_and_calls_are_no_speeches(client: TestClient) -> None:
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "Nobody."}]},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL]},
        {"role": "assistant", "content": None, "function_call": CALL["function"]},
        {"role": "function", "name": "look", "content": "A ghost."},
    ]
    assert parse(messages=messages, tools=[TOOL], tool_choice="none").play() == (
        "USER:\nWho goes there?\n\nTOOL:\nNobody.\n\nASSISTANT:\nLet me see.\n\nLOOK:\nA ghost.\n\nASSISTANT:\n"
    )
    assert parse(messages=messages[:2]).play() == "USER:\nWho goes there?\n\nASSISTANT:\n"
    assert parse(messages=messages[1:2]).play() == "ASSISTANT:\n"
    assert parse(functions=[TOOL["function"]], function_call="none").play() == parse().play()
    reply = chat(client, messages=messages, tools=[TOOL], tool_choice="none", max_tokens=3)
    assert len(reply["choices"][0]["message"]["content"]) == 3


def test_the_reply_is_that_of_the_same_completion(client: TestClient) -> None:
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
    line_break = "0"  # the first of the characters
    reply = chat(client, max_tokens=100, logit_bias={line_break: 100})
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["choices"][0]["message"]["content"] == ""


def test_logprobs_have_their_own_shape(client: TestClient) -> None:
    [choice] = chat(client, max_tokens=60, seed=1, logprobs=True, top_logprobs=2)["choices"]
    told = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in told) == choice["message"]["content"]
    for token in told:
        assert token["bytes"] == list(token["token"].encode())
        top = token["top_logprobs"]
        own = {key: token[key] for key in ("token", "logprob", "bytes")}
        assert len(top) == (2 if own in top[:2] else 3)
        assert own in top
        assert [each["logprob"] for each in top] == sorted((each["logprob"] for each in top), reverse=True)
    assert {len(token["top_logprobs"]) for token in told} == {2, 3}


def test_without_top_logprobs_there_is_the_token_alone(client: TestClient) -> None:
    for asked in ({}, {"top_logprobs": 0}):
        [choice] = chat(client, max_tokens=10, seed=1, logprobs=True, **asked)["choices"]
        assert [token["top_logprobs"] for token in choice["logprobs"]["content"]] == [[]] * 10


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "villain", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
        ({"messages": [*HELLO, *HELLO, {"role": "user", "content": [{"type": "text"}]}]}, "messages.2.content"),
        ({"messages": [*HELLO, {"role": "user", "content": 5}]}, "messages.1.content"),
        ({"messages": [{"role": "user", "content": "x" * 70_000}]}, "messages"),
        ({"max_completion_tokens": 1001}, "max_completion_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"tools": [{}]}, "tools"),
        ({"tools": [{}], "tool_choice": "auto"}, "tools"),
        ({"tools": [{}], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tools"),
        ({"functions": [{}], "tool_choice": "none"}, "functions"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"temperature": 3}, "temperature"),
        ({"stream_options": {}}, "stream_options"),
    ],
)
def test_what_cannot_be_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as error:
        parse(**body)
    assert error.value.param == param


@pytest.fixture
def talk(server: Any) -> Iterator[Callable[..., Any]]:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    yield client.chat.completions.create
    client.close()


def test_the_openai_package_whole_and_streamed(talk: Callable[..., Any]) -> None:
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


def test_no_chunk_has_an_empty_list_of_logprobs_and_the_last_token_s_has_the_reason(talk: Callable[..., Any]) -> None:
    asked = {"model": "tiny", "messages": HELLO, "seed": 2, "stream": True, "logprobs": True, "top_logprobs": 1}
    for length in (0, 1, 60):
        first, *chunks = [chunk.choices[0] for chunk in talk(**asked, max_completion_tokens=length, stop=["never"])]
        assert first.delta.role == "assistant"
        assert all(chunk.logprobs is None or chunk.logprobs.content for chunk in (first, *chunks))
        assert chunks[-1].finish_reason == "length"
        assert bool(chunks[-1].delta.content) == bool(chunks[-1].logprobs) == (length > 0)
