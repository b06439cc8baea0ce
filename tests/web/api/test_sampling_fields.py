"""Fields that completions and chat completions share."""

from typing import Any

import pytest

from gptbox.errors import RequestError
from gptbox.web.api.completion_request import CompletionRequest


def parse(**body: Any) -> CompletionRequest:
    return CompletionRequest.parse(body, max_tokens=100)


@pytest.mark.parametrize(
    ("biases", "message"),
    [
        ({"17": 1, "Romeo": 1}, "the key 'Romeo'"),
        ({"-1": 1}, "the key '-1'"),
        ({"x" * 500: 1}, "the key 'xxxxxxxxxxxxxxxxxxx..."),
        ({"17": 101}, "token id 17 is 101"),
        ({"17": "1"}, 'token id 17 is "1"'),
    ],
)
def test_the_error_names_an_invalid_bias(biases: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as error:
        parse(logit_bias=biases)
    assert message in str(error.value)
    assert error.value.param == "logit_bias"


def test_the_error_names_a_biased_id_outside_the_vocabulary() -> None:
    for token in (65, 10**17):
        with pytest.raises(RequestError, match=f"token id {token}; .* 65 tokens, 0 to 64") as error:
            parse(logit_bias={str(token): 1}).sampling_params(0, 1, 65, None, None)
        assert error.value.param == "logit_bias"


def test_top_k_is_off_for_minus_1_and_0() -> None:
    assert [parse(top_k=k).sampling_params(0, 1, 65, None, None).top_k for k in (None, 0, -1, 5, 100)] == [
        0,
        0,
        0,
        5,
        65,
    ]


def test_stream_options_require_stream() -> None:
    assert parse(stream=True, stream_options={"include_usage": True, "other": 1}).include_usage
    assert not parse(stream=True, stream_options={}).include_usage
    with pytest.raises(RequestError) as error:
        parse(stream=True, stream_options={"include_usage": "yes"})
    assert error.value.param == "stream_options.include_usage"
