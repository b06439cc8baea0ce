from typing import Any

import pytest

from gptbox.engine.sampling_params import SamplingParams
from gptbox.errors import EngineError


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"min_p": float("nan")}, "min_p is nan"),
        ({"max_tokens": -1}, "max_tokens is -1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"presence_penalty": float("nan")}, "presence_penalty is nan"),
        ({"logprobs": 21}, "logprobs is 21"),
        ({"logit_bias": dict.fromkeys(range(301), 1.0)}, "logit_bias has 301"),
    ],
)
def test_an_error_names_the_invalid_parameter_and_its_value(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        SamplingParams(**bad)
