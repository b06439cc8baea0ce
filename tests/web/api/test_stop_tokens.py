"""Stop tokens, min_tokens and the tokenizer's EOS, as in vLLM: in completions and chats, whole and streamed."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.eos_tokenizer import load_with_eos
from tests.web.helpers import complete, joined, texts, whole

Stream = Callable[..., Iterator[Any]]

BODY: dict[str, Any] = {"prompt": "HELLO", "seed": 4, "max_tokens": 60}
SOME = "AIJUWX"
"""Characters that any text soon has."""
HELLO = [{"role": "user", "content": "Who goes there?"}]


def token_id(character: str) -> int:
    """Its id in the model of the fixtures."""
    return 0 if character == "\n" else ord(character) - 31


def before(text: str, characters: str, min_tokens: int = 0) -> str:
    """The text before the first of these characters that comes after its first `min_tokens`."""
    return text[: next((i for i in range(min_tokens, len(text)) if text[i] in characters), len(text))]


def late(text: str, start: int = 10) -> str:
    """A character that the text has only from index `start` on."""
    return next(character for i, character in enumerate(text) if i >= start and character not in text[:i])


def test_a_text_ends_before_its_first_stop_token(client: TestClient) -> None:
    [text] = texts(client, **BODY)
    for stops in (late(text), late(text) + late(text, 20), text[0], text[-1]):
        expected = before(text, stops)
        reply = complete(client, **BODY, stop_token_ids=[token_id(each) for each in stops])
        reason = token_id(text[len(expected)])
        assert reply["choices"] == [
            {"index": 0, "text": expected, "logprobs": None, "finish_reason": "stop", "stop_reason": reason}
        ]
        assert reply["usage"]["completion_tokens"] == len(expected) + 1
        assert reply["warnings"] == []


def test_a_stop_token_may_be_the_last_that_max_tokens_allows(client: TestClient) -> None:
    [text] = texts(client, **BODY)
    stop = late(text)
    count, body = text.index(stop) + 1, BODY | {"stop_token_ids": [token_id(stop)]}
    [choice] = complete(client, **body | {"max_tokens": count})["choices"]
    assert (choice["text"], choice["finish_reason"]) == (text[: count - 1], "stop")
    [choice] = complete(client, **body | {"max_tokens": count - 1})["choices"]
    assert choice == {
        "index": 0, "text": text[: count - 1], "logprobs": None, "finish_reason": "length", "stop_reason": None
    }  # fmt: skip


def test_each_text_of_a_request_ends_at_its_own_stop_token(client: TestClient) -> None:
    body = BODY | {"prompt": ["HELLO", "A"], "n": 3, "echo": True}
    reply = complete(client, **body, stop_token_ids=[token_id(each) for each in SOME])
    expected = [
        prompt + before(text.removeprefix(prompt), SOME)
        for prompt, text in zip(["HELLO"] * 3 + ["A"] * 3, texts(client, **body), strict=True)
    ]
    assert [choice["text"] for choice in reply["choices"]] == expected
    lengths = [len(text) - len(prompt) for prompt, text in zip(["HELLO"] * 3 + ["A"] * 3, expected, strict=True)]
    assert len(set(lengths)) > 2
    assert reply["usage"]["completion_tokens"] == sum(min(60, length + 1) for length in lengths)


@pytest.mark.parametrize("logprobs", [None, 1])
@pytest.mark.parametrize("echo", [False, True])
def test_a_stream_is_the_whole_reply(server: Any, stream: Stream, echo: bool, logprobs: int | None) -> None:
    body = BODY | {"n": 2, "echo": echo, "logprobs": logprobs, "stop_token_ids": [token_id(each) for each in SOME]}
    reply = whole(server, **body)
    *events, last, _ = list(stream(server.url, body | {"stream_options": {"include_usage": True}}))
    assert last["usage"] == reply["usage"]
    for i, expected in enumerate(reply["choices"]):
        *parts, end = [choice for event in events for choice in event["choices"] if choice["index"] == i]
        assert joined(events, i) == expected["text"]
        assert (end["finish_reason"], end["stop_reason"]) == ("stop", expected["stop_reason"])
        assert all(part["finish_reason"] is None and "stop_reason" not in part for part in parts)
        if logprobs is not None:
            for key, values in expected["logprobs"].items():
                assert [each for part in (*parts, end) for each in (part["logprobs"] or {key: []})[key]] == values


def test_the_log_probabilities_include_the_stop_token(client: TestClient) -> None:
    body = BODY | {"echo": True, "logprobs": 2}
    [text], [unstopped] = texts(client, **BODY), complete(client, **body)["choices"]
    stop = late(text)
    [choice] = complete(client, **body, stop_token_ids=[token_id(stop)])["choices"]
    length = len("HELLO") + text.index(stop) + 1
    assert choice["logprobs"] == {key: values[:length] for key, values in unstopped["logprobs"].items()}
    assert choice["logprobs"]["tokens"][-1] == stop
    assert choice["logprobs"]["text_offset"][-1] == len(choice["text"])
    ranked = complete(client, **BODY, best_of=3, stop_token_ids=[token_id(stop)])
    assert ranked["choices"][0]["text"] in texts(client, **BODY, n=3, stop_token_ids=[token_id(stop)])


def test_no_stop_token_is_generated_before_min_tokens(client: TestClient) -> None:
    [text] = texts(client, **BODY)
    stop = [token_id(each) for each in SOME]
    short = before(text, SOME)
    assert len(short) < 30
    reply = complete(client, **BODY, stop_token_ids=stop, min_tokens=30, logprobs=0)
    [choice] = reply["choices"]
    assert choice["text"].startswith(short)
    assert 30 <= len(choice["text"]) < 60
    assert not set(choice["text"]) & set(SOME)
    assert choice["stop_reason"] in stop
    assert texts(client, **BODY | {"n": 2, "seed": 3}, stop_token_ids=stop, min_tokens=30)[1] == choice["text"]


def test_a_stop_string_is_ignored_within_min_tokens(client: TestClient) -> None:
    [text] = texts(client, **BODY)
    stop = late(text)
    index = text.index(stop)
    for min_tokens, expected in ((index, text[:index]), (index + 1, before(text, stop, index + 1))):
        [choice] = complete(client, **BODY, stop=stop, min_tokens=min_tokens)["choices"]
        assert choice["text"] == expected
        assert choice["stop_reason"] == (stop if len(expected) < 60 else None)


def test_the_stop_reason_of_a_stop_string_is_the_string(client: TestClient) -> None:
    [text] = texts(client, **BODY)
    [choice] = complete(client, **BODY, stop=["never in it", text[20:24]])["choices"]
    assert choice["stop_reason"] == text[20:24]
    first, second = late(text), late(text, 30)
    for stops in ((first, second), (second, first)):
        [choice] = complete(client, **BODY, stop=stops[0], stop_token_ids=[token_id(stops[1])])["choices"]
        assert choice["text"] == before(text, first)
        assert choice["stop_reason"] == (first if stops[0] == first else token_id(first))


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"stop_token_ids": [3, 65]}, "stop_token_ids", "token id 65; .* 0 to 64"),
        ({"stop_token_ids": [-1]}, "stop_token_ids", "token id -1; .* 0 to 64"),
        ({"stop_token_ids": [10**30]}, "stop_token_ids", "token id 10000000000000000000..."),
        ({"stop_token_ids": [*range(65)]}, "stop_token_ids", "64"),
        ({"stop_token_ids": 5}, "stop_token_ids", "list"),
        ({"stop_token_ids": [True]}, "stop_token_ids.0", "integer"),
        ({"min_tokens": -1}, "min_tokens", "0"),
        ({"min_tokens": 17}, "min_tokens", "min_tokens is 17; .* 16 tokens"),
        ({"min_tokens": 6, "max_tokens": 5}, "min_tokens", "min_tokens is 6; .* 5 tokens"),
        ({"ignore_eos": "yes"}, "ignore_eos", "boolean"),
    ],
)
def test_an_invalid_field_is_named(client: TestClient, fields: dict[str, Any], param: str, message: str) -> None:
    for path, prompt in (("completions", {"prompt": "A"}), ("chat/completions", {"messages": HELLO})):
        response = client.post(f"/v1/{path}", json={"max_tokens": 16, **prompt, **fields})
        assert response.status_code == 400
        error = response.json()["error"]
        assert error["param"] == param
        assert re.search(message, error["message"])


def chat(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/chat/completions", json={"messages": HELLO, "seed": 3, "max_tokens": 60, **body})
    assert response.status_code == 200, response.text
    return dict(response.json()["choices"][0])


def test_a_chat_ends_at_a_stop_token(client: TestClient) -> None:
    text = chat(client)["message"]["content"]
    stop = late(text)
    choice = chat(client, stop_token_ids=[token_id(stop)], logprobs=True)
    assert choice["message"]["content"] == before(text, stop)
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", token_id(stop))
    assert [token["token"] for token in choice["logprobs"]["content"]] == [*before(text, stop), stop]


def test_the_end_of_a_speech_is_only_a_stop_reason_where_it_was_asked_for(client: TestClient) -> None:
    line_breaks = {"max_tokens": 100, "logit_bias": {"0": 100}}
    assert chat(client, **line_breaks)["stop_reason"] is None
    assert chat(client, **line_breaks, stop=["\n\n"])["stop_reason"] == "\n\n"
    choice = chat(client, **line_breaks, min_tokens=10)
    assert choice["message"]["content"] == "\n" * 9  # the eleventh token is the first that may complete an empty line
    assert choice["finish_reason"] == "stop"


@pytest.fixture
def eos_client(
    client: TestClient, tiny_run: Path, client_for: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> tuple[TestClient, str, str]:
    """A client of a model with an EOS, the text of BODY without it, and the character that is the EOS."""
    [text] = texts(client, **BODY)
    load_with_eos(monkeypatch, late(text))
    return client_for(tiny_run), text, late(text)


def test_a_text_ends_at_the_eos(eos_client: tuple[TestClient, str, str]) -> None:
    client, text, eos = eos_client
    expected = before(text, eos)
    for more in ({}, {"stop_token_ids": [token_id(eos)]}):
        reply = complete(client, **BODY, **more, logprobs=0)
        [choice] = reply["choices"]
        assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (expected, "stop", None)
        assert choice["logprobs"]["tokens"] == [*expected, "<|endoftext|>"]
        assert choice["logprobs"]["text_offset"] == [*range(len(expected) + 1)]
        assert reply["usage"]["completion_tokens"] == len(expected) + 1


def test_ignore_eos_lets_the_text_go_on(eos_client: tuple[TestClient, str, str]) -> None:
    client, text, eos = eos_client
    [choice] = complete(client, **BODY, ignore_eos=True, logprobs=0)["choices"]
    assert choice["text"] == text.replace(eos, "")
    assert len(choice["logprobs"]["tokens"]) == 60
    assert (choice["finish_reason"], choice["stop_reason"]) == ("length", None)
    [choice] = complete(client, **BODY, ignore_eos=True, stop_token_ids=[token_id(eos)])["choices"]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (
        before(text, eos),
        "stop",
        token_id(eos),
    )


def test_min_tokens_holds_for_the_eos(eos_client: tuple[TestClient, str, str]) -> None:
    client, text, eos = eos_client
    count = len(before(text, eos))
    assert texts(client, **BODY, min_tokens=count) == [text[:count]]
    [longer] = texts(client, **BODY, min_tokens=count + 1)
    assert longer.startswith(text[:count])
    assert len(longer) > count


def test_a_scored_prompt_has_the_log_probability_of_the_eos_after_it(eos_client: tuple[TestClient, str, str]) -> None:
    client, text, eos = eos_client
    prompt = "HELLO" + before(text, eos)
    bias = {str(token_id(eos)): 100}
    [choice] = complete(client, prompt=prompt, max_tokens=1, echo=True, logprobs=1, logit_bias=bias)["choices"]
    assert choice["text"] == prompt
    assert choice["logprobs"]["tokens"] == [*prompt, "<|endoftext|>"]
    assert choice["finish_reason"] == "stop"
