from typing import Any

import numpy as np
import pytest

from gptbox.engine.sampling_params import MAX_BIASES, MAX_STOP_TOKENS, SAMPLING_DTYPE, SamplingParams
from gptbox.errors import EngineError


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": 2**63}, "top_k is 9223372036854775808"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"min_p": float("nan")}, "min_p is nan"),
        ({"max_tokens": -1}, "max_tokens is -1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"presence_penalty": float("nan")}, "presence_penalty is nan"),
        ({"logprobs": 21}, "logprobs is 21"),
        ({"logit_bias": dict.fromkeys(range(301), 1.0)}, "logit_bias has 301"),
        ({"min_tokens": -1}, "min_tokens is -1"),
        ({"min_tokens": 4, "max_tokens": 3}, "min_tokens is 4; it must be between 0 and max_tokens, 3"),
        ({"stop_token_ids": tuple(range(65))}, "stop_token_ids has 65"),
    ],
)
def test_an_error_names_the_invalid_parameter_and_its_value(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        SamplingParams(**bad)


def test_a_record_has_every_number_by_its_name() -> None:
    numbers: dict[str, Any] = {
        "temperature": 0.5, "top_k": 2**63 - 1, "top_p": 0.25, "min_p": 0.125, "repetition_penalty": 1.5,
        "presence_penalty": -0.5, "frequency_penalty": float("inf"),
    }  # fmt: skip
    records = np.zeros(2, SAMPLING_DTYPE)
    SamplingParams(**numbers, max_tokens=10**30, seed=10**30, logprobs=3).fill(records[1])
    assert {name: records[1][name] for name in numbers} == numbers
    assert records[1]["num_alternatives"] == 3
    assert records[0] == np.zeros((), SAMPLING_DTYPE)


def test_a_record_can_be_filled_again() -> None:
    record = np.zeros(1, SAMPLING_DTYPE)[0]
    SamplingParams(logit_bias={i: i / 2 for i in range(MAX_BIASES)}, logprobs=0).fill(record)
    assert record["num_biases"] == MAX_BIASES
    assert record["num_alternatives"] == 0
    SamplingParams(logit_bias={7: 1.5, 3: -2.5}).fill(record)
    assert record["num_biases"] == 2
    assert record["bias_tokens"][:2].tolist() == [7, 3]
    assert record["bias_values"][:2].tolist() == [1.5, -2.5]
    assert record["num_alternatives"] == -1


def test_the_eos_is_a_stop_token_unless_it_is_ignored() -> None:
    params = SamplingParams(stop_token_ids=(5, 3, 5), eos_token_id=9)
    assert params.ending_token_ids == params.all_stop_token_ids == {3, 5, 9}
    params = SamplingParams(stop_token_ids=(5, 3), eos_token_id=9, ignore_eos=True)
    assert (params.ending_token_ids, params.all_stop_token_ids) == ({3, 5}, {3, 5, 9})
    params = SamplingParams(stop_token_ids=(5, 9), eos_token_id=9, ignore_eos=True)
    assert params.ending_token_ids == {5, 9}
    assert SamplingParams().ending_token_ids == SamplingParams().all_stop_token_ids == frozenset()


def test_a_record_has_room_for_the_most_stop_tokens_and_the_eos() -> None:
    record = np.zeros(1, SAMPLING_DTYPE)[0]
    SamplingParams(min_tokens=2, stop_token_ids=tuple(range(MAX_STOP_TOKENS)), eos_token_id=64).fill(record)
    assert (record["min_tokens"], record["num_stop_tokens"]) == (2, 65)
    assert record["stop_tokens"].tolist() == list(range(65))
    SamplingParams(stop_token_ids=(7, 7)).fill(record)
    assert (record["min_tokens"], record["num_stop_tokens"], record["stop_tokens"][0]) == (0, 1, 7)
