"""Fields of other servers that gptbox does not support have no effect, and a warning names them."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from gptbox.web.api.unsupported_fields import _NEUTRAL_VALUES, unsupported_warnings

SCHEMA = {"type": "object"}
ASKING = [
    ("min_new_tokens", 5), ("n_predict", 7), ("grammar", "root ::= [a-z]"), ("regex", "a+"),
    ("structured_outputs", {"choice": ["a", "b"]}), ("response_format", {"type": "json_object"}),
    ("guided_json", SCHEMA), ("json_schema", SCHEMA), ("length_penalty", 0), ("typical_p", 0.5), ("mirostat", 2),
    ("dry_multiplier", 0.8), ("bad_words", ["x"]), ("use_beam_search", True), ("truncate_prompt_tokens", 5),
]  # fmt: skip
NOTHING = [
    ("min_tokens", 0), ("ignore_eos", True), ("stop_token_ids", []), ("grammar", ""), ("grammar", None),
    ("response_format", {"type": "text"}), ("structured_outputs", {}), ("length_penalty", 1.0), ("typical_p", 1),
    ("mirostat", 0), ("dry_multiplier", 0.0), ("truncate_prompt_tokens", -1), ("top_k", -1), ("never_heard_of", 1),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), ASKING)
def test_fields_that_would_change_the_text_are_named(client: TestClient, field: str, value: Any) -> None:
    fields = {"prompt": "HELLO", "seed": 1, "max_tokens": 5}
    plain = client.post("/v1/completions", json=fields).json()
    reply = client.post("/v1/completions", json={**fields, field: value}).json()
    [warning] = reply["warnings"]
    assert field in warning
    assert reply["choices"] == plain["choices"]


@pytest.mark.parametrize(("field", "value"), NOTHING)
def test_fields_without_effect_are_not_named(client: TestClient, field: str, value: Any) -> None:
    body = {"prompt": "HELLO", "max_tokens": 1, field: value}
    assert client.post("/v1/completions", json=body).json()["warnings"] == []


def test_all_unsupported_fields_are_named_in_streams_and_chats(client: TestClient) -> None:
    fields = {"min_new_tokens": 5, "regex": "a+", "max_tokens": 1}
    messages = [{"role": "user", "content": "x"}]
    for path, body in (("completions", {"prompt": "\u00e9"}), ("chat/completions", {"messages": messages})):
        whole = client.post(f"/v1/{path}", json=body | fields).json()["warnings"]
        assert "regex, min_new_tokens" in whole[-1]
        events = client.post(f"/v1/{path}", json=body | fields | {"stream": True}).text
        assert json.loads(events.partition("\n")[0].removeprefix("data: "))["warnings"] == whole


def test_neutral_values_give_no_warning() -> None:
    for field, neutral in _NEUTRAL_VALUES.items():
        for value in (None, False, "", [], {}, *neutral):
            assert unsupported_warnings({field: value}) == [], (field, value)
        for value in (True, "x", [1], {"a": 1}, 7.5):
            if value not in neutral:
                assert field in unsupported_warnings({field: value})[0], (field, value)
