"""The request body of /v1/completions: fields, types and ranges."""

from typing import Any

import pytest

from gptbox.errors import RequestError
from gptbox.web.api.completion_request import CompletionRequest

INF, NAN = float("inf"), float("nan")


def parse(**body: Any) -> CompletionRequest:
    return CompletionRequest.parse(body, max_tokens=100)


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ("a", ["a"]),
        (None, [""]),
        ("", [""]),
        (["a", ""], ["a", ""]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        ("\ud83d\ude00 \ud83d", ["\U0001f600 \ufffd"]),
        ("x" * 65_536, ["x" * 65_536]),
    ],
)
def test_all_forms_of_prompts(given: Any, prompts: list[Any]) -> None:
    assert parse(prompt=given).prompt == prompts
    assert CompletionRequest.parse({}, 100).prompt == [""]


@pytest.mark.parametrize(
    "prompt",
    [
        [], [[]], {}, 1, 1.5, True, [True], [1, True], [1.0], ["a", 1], [[1], "a"], [None], [[[1]]], ["a"] * 17,
        ["a"] * 65, "x" * 65_537, "é" * 32_769, [0] * 65_537,
    ],
)  # fmt: skip
def test_invalid_prompts_are_rejected(prompt: Any) -> None:
    with pytest.raises(RequestError) as error:
        parse(prompt=prompt)
    assert error.value.param == "prompt"


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("max_tokens", [None, 0, 1, 100], [-1, 101, 10**400, 1.0, "5", True, []]),
        ("temperature", [None, 0, 0.5, 2], [-0.1, 2.1, NAN, INF, -INF, "1", True, 10**400]),
        ("top_p", [None, 0, 0.5, 1], [-0.1, 1.1, NAN, "1", False]),
        ("top_k", [None, -1, 0, 1, 10**30], [-2, 1.5, "1", True]),
        ("n", [None, 1, 16], [0, 17, -1, 1.0, True, 10**400]),
        ("seed", [None, 0, -1, 2**63 - 1, -(2**63)], [2**63, 1.5, "1", True]),
        ("stop", [None, [], "a", ["a", "b", "c", "d"], ["a"] * 32], ["", [""], ["a"] * 33, 1, [1], {}, True]),
        ("echo", [None, True, False], [1, "true"]),
        ("stream", [None, True, False], [0, "false"]),
        ("stream_options", [None], [{}, {"include_usage": True}, [], 1]),  # without stream
        ("best_of", [None, 1, 2, 16], [0, 17, True]),
        ("logprobs", [None, 0, 1, 5], [6, -1, False, 1.0]),
        ("min_p", [None, 0, 0.05, 1], [-0.1, 1.1, NAN, "0"]),
        ("repetition_penalty", [None, 0.5, 1, 10], [0, -1, 10.1, NAN, True]),
        ("suffix", [None, ""], ["x", 1]),
        (
            "logit_bias",
            [None, {}, {"5": 1}, {"0": -100, "64": 99.5}, {"9" * 18: 1}],
            [
                [],
                {"a": 1},
                {"": 1},
                {"-1": 1},
                {"9" * 5000: 1},
                {"5": 101},
                {"5": "1"},
                {"5": NAN},
                {"5": True},
                {"5": None},
                {"5": [[]] * 500},
                {"\u0665": 1},
            ],
        ),
        ("stop_token_ids", [None, [], [0, 64], [5, 5]], [5, "5", ["5"], [True], [1.5], {}, [*range(65)]]),
        ("min_tokens", [None, 0, 5], [-1, 1.5, "1", True]),
        ("ignore_eos", [None, True, False], [0, "true"]),
        ("presence_penalty", [None, 0, 0.0, -2, 2], [2.1, NAN, INF, "0"]),
        ("frequency_penalty", [None, 0, -2, 1.5], [-2.1, True]),
        ("model", [None, "tiny@best"], [1, [], True]),
        ("user", [None, "me", 5, {}], []),
        ("never_heard_of", [None, 1, {"a": [NAN]}], []),
    ],
)
def test_each_field_accepts_its_range_and_nothing_else(field: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        parse(**{field: value})
    for value in bad:
        with pytest.raises(RequestError) as error:
            parse(**{field: value})
        assert error.value.param is not None
        assert error.value.param.split(".")[0] == field, value
        assert len(str(error.value)) < 300


SCORING = {"echo": True, "logprobs": 1, "max_tokens": 1}


def test_up_to_sixty_four_prompts_may_be_scored() -> None:
    for extra in ({}, {"max_tokens": 0, "logprobs": 0}, {"n": 1, "best_of": 1, "temperature": 0}):
        assert len(parse(prompt=["a"] * 64, **SCORING | extra).prompt) == 64
        with pytest.raises(RequestError) as error:
            parse(prompt=["a"] * 65, **SCORING | extra)
        assert error.value.param == "prompt"
    for extra, param in (
        ({"max_tokens": 2}, "prompt"), ({"max_tokens": None}, "prompt"), ({"echo": False}, "prompt"),
        ({"logprobs": None}, "prompt"), ({"n": 2}, "n"), ({"best_of": 2}, "best_of"),
    ):  # fmt: skip
        with pytest.raises(RequestError, match=r"17 prompts|34 texts") as error:
            parse(prompt=["a"] * 17, **SCORING | extra)
        assert error.value.param == param


def test_at_most_sixteen_texts_per_request() -> None:
    assert parse(prompt=["a", "b"], n=8).num_choices == 16
    with pytest.raises(RequestError, match="18 texts"):
        parse(prompt=["a", "b"], n=9)


def test_best_of_generates_more_than_it_returns_and_cannot_be_streamed() -> None:
    request = parse(best_of=8, n=3, prompt=["a", "b"])
    assert (request.texts_per_prompt, request.num_choices) == (8, 6)
    assert parse(best_of=3, n=3, stream=True).num_choices == 3
    for bad, message in (
        ({"best_of": 2, "n": 3}, "less than n"),
        ({"best_of": 2, "stream": True}, "cannot be streamed"),
        ({"best_of": 9, "prompt": ["a", "b"]}, "18 texts"),
    ):
        with pytest.raises(RequestError, match=message) as error:
            parse(**bad)
        assert error.value.param == "best_of"
