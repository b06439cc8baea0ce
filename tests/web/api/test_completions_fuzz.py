"""Any JSON sent to /v1/completions is answered, or rejected with OpenAI's error object."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
# fmt: off
FIELDS = [
    "model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "n", "stop", "seed", "echo", "stream",
    "stream_options", "best_of", "logprobs", "suffix", "logit_bias", "presence_penalty", "frequency_penalty", "user",
    "min_tokens", "response_format", "stop_token_ids", "ignore_eos",
]
# fmt: on
LIKELY = {
    "model": st.sampled_from([None, "tiny", "tiny@best", "tiny@step-000250", "nobody"]),
    "prompt": st.text(st.characters(), max_size=40)
    | st.lists(st.text(max_size=4), max_size=18)
    | st.lists(st.integers(-1, 66), max_size=5)
    | st.lists(st.lists(st.integers(0, 64), max_size=3), max_size=3),
    "max_tokens": st.integers(-1, 40),
    "temperature": st.floats(-0.1, 2.1),
    "top_p": st.floats(0, 1),
    "top_k": st.integers(-1, 100),
    "n": st.integers(0, 4),
    "stop": st.text(st.characters(), max_size=2) | st.lists(st.text("abc \n", min_size=1, max_size=2), max_size=5),
    "stop_token_ids": st.lists(st.integers(-1, 66) | st.integers(0, 64), max_size=66),
    "min_tokens": st.integers(-1, 40),
    "ignore_eos": st.booleans(),
    "seed": st.integers(),
    "echo": st.booleans(),
    "stream": st.booleans(),
}
BODIES = (
    JSON
    | st.dictionaries(st.sampled_from(FIELDS), JSON)
    | st.fixed_dictionaries({}, optional={name: values | st.none() for name, values in LIKELY.items()})
)


def test_any_json_is_answered_or_rejected(tiny_run: Path, client_for: Callable[..., TestClient]) -> None:
    client = client_for(tiny_run, max_tokens=30)

    @settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(body=BODIES)
    def check(body: Any) -> None:
        response = client.post("/v1/completions", content=json.dumps(body))
        if response.status_code != 200:
            assert response.status_code in (400, 404)
            error = response.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert isinstance(error["message"], str)
        elif response.headers["content-type"].startswith("text/event-stream"):
            *events, end = response.text.removesuffix("\n\n").split("\n\n")
            assert end == "data: [DONE]"
            finishes = [choice["finish_reason"] for event in events for choice in json.loads(event[6:])["choices"]]
            assert set(finishes) <= {None, "stop", "length"}
            assert finishes[-1] is not None
        else:
            assert all(choice["finish_reason"] in ("stop", "length") for choice in response.json()["choices"])

    check()
