"""What requests for texts and for chats have in common: OpenAI's fields, defaults and ranges, and our own."""

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, WithJsonSchema

from gptbox.engine.sampling import MOST_BIASES, SamplingParams
from gptbox.errors import RequestError
from gptbox.web.body import checked
from gptbox.web.unsupported import unsupported

MAX_TEXTS = 16
MAX_STOPS = 32
MAX_PROMPT_BYTES = 64 * 1024
"""Of one prompt in UTF-8; as many ids where it is given in ids."""


def well_formed(text: str) -> str:
    """The text with half surrogate pairs, which no UTF-8 can hold, replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _cut(text: str) -> str:
    """A client's text, short enough for a sentence."""
    return text if len(text) <= 20 else f"{text[:20]}..."


def shown(number: int) -> str:
    """A client's number, short enough for a sentence."""
    return _cut(str(number))


def _stops(value: Any) -> list[str]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise ValueError("it must be a string or a list of strings, none of them empty")
    if len(stops) > MAX_STOPS:
        raise ValueError(f"there are {len(stops)} stop strings; at most {MAX_STOPS} are possible")
    return [well_formed(stop) for stop in stops]


def _biases(value: Any) -> dict[int, float]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MOST_BIASES:
        raise ValueError(f"it must be an object of at most {MOST_BIASES} token ids")
    found = {}
    for token, bias in value.items():
        if not (token.isascii() and token.isdecimal() and len(token) <= 18):
            raise ValueError(f'it has the key {_cut(repr(token))}; its keys must be token ids, such as "17"')
        if type(bias) not in (int, float) or not -100 <= bias <= 100:
            said = _cut(json.dumps(bias))
            raise ValueError(f"its value for the token id {token} is {said}; it must be from -100 to 100")
        found[int(token)] = float(bias)
    return found


_STOP_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "null"},
        {"type": "string", "minLength": 1},
        {"type": "array", "maxItems": MAX_STOPS, "items": {"type": "string", "minLength": 1}},
    ],
    "default": None,
    "description": "The text ends before the first of these.",
}
_BIAS_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "null"},
        {
            "type": "object",
            "maxProperties": MOST_BIASES,
            "propertyNames": {"pattern": "^[0-9]{1,18}$"},
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        },
    ],
    "default": None,
    "description": "Added to the logits of these token ids; -100 all but forbids, 100 all but demands.",
}


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    include_usage: bool | None = Field(None, description="A last event with the counts of tokens.")


class SamplingFields(BaseModel):
    """A checked request. None always means the default."""

    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = Field(None, description="RUN, RUN@best, RUN@latest or RUN@step-000250; none is the live one.")
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = Field(
        None, description="Divides the logits; 0 always takes the most probable token. Default 1."
    )
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="Sample among the most probable tokens that together reach this. Default 1."
    )
    top_k: Annotated[int, Field(ge=-1)] | None = Field(
        None, description="gptbox's own: sample among the k most probable tokens; 0 and -1 among all."
    )
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="gptbox's own: only tokens at least this share as probable as the most probable one."
    )
    repetition_penalty: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = Field(
        None, description="gptbox's own: above 1, tokens of the prompt and the text become less probable."
    )
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = Field(
        None, description="Taken from the logits of tokens that the text has."
    )
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = Field(
        None, description="Taken from a token's logit each time that the text has it."
    )
    logit_bias: Annotated[dict[int, float], BeforeValidator(_biases), WithJsonSchema(_BIAS_SCHEMA)] = {}
    n: Annotated[int, Field(ge=1, le=MAX_TEXTS)] | None = Field(None, description="Texts for each prompt. Default 1.")
    stop: Annotated[list[str], BeforeValidator(_stops), WithJsonSchema(_STOP_SCHEMA)] = []
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = Field(
        None, description="Text i of the reply, counted over all prompts, is drawn with seed + i."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Any = Field(None, description="Accepted, and not used.")
    _unsupported: list[str] = PrivateAttr(default_factory=list)

    @classmethod
    def parse(cls, body: dict[str, Any], max_tokens: int) -> Self:
        """Check a request's JSON object; `max_tokens` is the most that this server gives.

        Raises RequestError naming the field at fault.
        """
        request = checked(cls, body)
        request._unsupported = unsupported(body)
        if request.stream_options is not None and not request.stream:
            raise RequestError("stream_options is only possible with stream set to true.", "stream_options")
        request.check(max_tokens)
        return request

    def check(self, max_tokens: int) -> None:
        """What no single field says.

        Raises RequestError.
        """

    @property
    def unsupported(self) -> list[str]:
        """Warnings of fields that gptbox lacks."""
        return self._unsupported

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def check_length(self, field: str, max_tokens: int) -> None:
        """Raises RequestError where a field asks for more tokens than there are to have."""
        asked = getattr(self, field)
        if asked is not None and asked > max_tokens:
            raise RequestError(f"{field} is {shown(asked)}; this server gives at most {max_tokens}.", field)

    def refuse(self, *fields: str) -> None:
        """Raises RequestError where one of these, which gptbox does not have, asks for anything."""
        for field in fields:
            if getattr(self, field):
                raise RequestError(f"{field} is not supported. Leave it out.", field)

    def params(self, i: int, max_tokens: int, vocabulary: int, logprobs: int | None) -> SamplingParams:
        """Those of text i of the reply.

        Raises RequestError where logit_bias names an id that the model lacks.
        """
        for token in self.logit_bias:
            if token >= vocabulary:
                raise RequestError(
                    f"logit_bias has the token id {token}; this model's vocabulary has {vocabulary} tokens, "
                    f"0 to {vocabulary - 1}.",
                    "logit_bias",
                )

        def given(value: float | None, default: float) -> float:
            return default if value is None else value

        return SamplingParams(
            max_tokens=max_tokens,
            temperature=given(self.temperature, 1.0),
            top_k=min(max(0, self.top_k or 0), vocabulary),
            top_p=given(self.top_p, 1.0),
            min_p=given(self.min_p, 0.0),
            repetition_penalty=given(self.repetition_penalty, 1.0),
            presence_penalty=given(self.presence_penalty, 0.0),
            frequency_penalty=given(self.frequency_penalty, 0.0),
            logit_bias=self.logit_bias,
            logprobs=None if logprobs is None else min(logprobs, vocabulary),
            seed=None if self.seed is None else self.seed + i,
        )
