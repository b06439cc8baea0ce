"""The request body of /v1/chat/completions, and its play."""

from typing import Any

import pytest

from gptbox.errors import RequestError
from gptbox.web.api.chat_request import ChatRequest

HELLO = [{"role": "user", "content": "Who goes there?"}]


def parse(**body: Any) -> ChatRequest:
    return ChatRequest.parse({"messages": HELLO, **body}, max_tokens=1000)


def test_messages_become_speeches() -> None:
    request = parse(
        messages=[
            {"role": "system", "content": "A street in Verona."},
            {"role": "user", "content": [{"type": "text", "text": "Who goes "}, {"type": "text", "text": "there?"}]},
            {"role": "assistant", "content": "A friend."},
            {"role": "user", "name": "Romeo  Montague", "content": "Stay!"},
        ]
    )
    assert request.prompt() == (
        "A street in Verona.\n\nUSER:\nWho goes there?\n\nASSISTANT:\nA friend.\n\n"
        "ROMEO MONTAGUE:\nStay!\n\nASSISTANT:\n"
    )


def test_a_last_message_of_the_assistant_is_continued() -> None:
    request = parse(messages=[*HELLO, {"role": "assistant", "name": "Juliet", "content": "It is"}])
    assert request.prompt() == "USER:\nWho goes there?\n\nJULIET:\nIt is"


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
def test_an_invalid_field_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as error:
        parse(**body)
    assert error.value.param == param
