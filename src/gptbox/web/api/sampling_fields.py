"""Fields that completions and chat completions share: OpenAI's, with its defaults and ranges, and gptbox's own."""

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, WithJsonSchema

from gptbox.engine.sampling_params import MAX_BIASES, MAX_STOP_TOKENS, SamplingParams
from gptbox.errors import RequestError
from gptbox.web.api.unsupported_fields import unsupported_warnings
from gptbox.web.json import validate

MAX_TEXTS = 16
MAX_STOPS = 32
MAX_PROMPT_BYTES = 64 * 1024
"""Per prompt, in UTF-8; the same number of ids for a prompt given as ids."""


def well_formed(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot encode, replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def abbreviate(value: object) -> str:
    """A client's value as text, short enough for an error message."""
    text = str(value)
    return text if len(text) <= 20 else f"{text[:20]}..."


def _parse_stop(value: Any) -> list[str]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise ValueError("it must be a string or a list of strings, none of them empty")
    if len(stops) > MAX_STOPS:
        raise ValueError(f"there are {len(stops)} stop strings; at most {MAX_STOPS} are allowed")
    return [well_formed(stop) for stop in stops]


def _parse_logit_bias(value: Any) -> dict[int, float]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_BIASES:
        raise ValueError(f"it must be an object of at most {MAX_BIASES} token ids")
    biases = {}
    for token, bias in value.items():
        if not (token.isascii() and token.isdecimal() and len(token) <= 18):
            raise ValueError(f'it has the key {abbreviate(repr(token))}; its keys must be token ids, such as "17"')
        if type(bias) not in (int, float) or not -100 <= bias <= 100:
            value_text = abbreviate(json.dumps(bias))
            raise ValueError(f"its value for the token id {token} is {value_text}; it must be from -100 to 100")
        biases[int(token)] = float(bias)
    return biases


_STOP_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "null"},
        {"type": "string", "minLength": 1},
        {"type": "array", "maxItems": MAX_STOPS, "items": {"type": "string", "minLength": 1}},
    ],
    "default": None,
    "description": f"Up to {MAX_STOPS} strings; the text ends before the first of them.",
}
_BIAS_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "null"},
        {
            "type": "object",
            "maxProperties": MAX_BIASES,
            "propertyNames": {"pattern": "^[0-9]{1,18}$"},
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        },
    ],
    "default": None,
    "description": "Values added to the logits, by token id: -100 all but forbids a token, 100 all but forces it.",
}


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    include_usage: bool | None = Field(None, description="Send the token counts in an extra event at the end.")


class SamplingFields(BaseModel):
    """The fields of a request, validated. None means the default."""

    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = Field(
        None, description="RUN, RUN@best, RUN@latest or RUN@step-000250. Default: the model that is served now."
    )
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = Field(
        None, description="Divides the logits; 0 always takes the most probable token. Default 1."
    )
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="Sample from the most probable tokens whose probabilities sum to at least top_p. Default 1."
    )
    top_k: Annotated[int, Field(ge=-1)] | None = Field(
        None, description="gptbox's own: sample from the k most probable tokens; 0 and -1 mean all tokens."
    )
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="gptbox's own: sample from tokens with at least min_p times the highest probability."
    )
    repetition_penalty: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = Field(
        None,
        description="gptbox's own: above 1, tokens that occur in the prompt or the text get less probable. Default 1.",
    )
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = Field(
        None, description="Subtracted from the logits of tokens that occur in the text. Default 0."
    )
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = Field(
        None, description="Subtracted from a token's logit for each occurrence in the text. Default 0."
    )
    logit_bias: Annotated[dict[int, float], BeforeValidator(_parse_logit_bias), WithJsonSchema(_BIAS_SCHEMA)] = {}
    n: Annotated[int, Field(ge=1, le=MAX_TEXTS)] | None = Field(None, description="Texts per prompt. Default 1.")
    stop: Annotated[list[str], BeforeValidator(_parse_stop), WithJsonSchema(_STOP_SCHEMA)] = []
    stop_token_ids: Annotated[list[int], Field(max_length=MAX_STOP_TOKENS)] | None = Field(
        None, description="As in vLLM: the text ends before the first of these tokens."
    )
    ignore_eos: bool | None = Field(None, description="As in vLLM: go on after the tokenizer's end-of-text token.")
    min_tokens: Annotated[int, Field(ge=0)] | None = Field(
        None, description="As in vLLM: no stop token, and no stop string, ends the text within its first min_tokens."
    )
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = Field(
        None, description="Text i of the reply, counted over all prompts, is sampled with seed + i."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Any = Field(None, description="Accepted, but has no effect.")
    _warnings: list[str] = PrivateAttr(default_factory=list)

    @classmethod
    def parse(cls, body: dict[str, Any], max_tokens: int) -> Self:
        """Validate a request's JSON object; `max_tokens` is the server's limit.

        Raises RequestError naming the invalid field.
        """
        fields = validate(cls, body)
        fields._warnings = unsupported_warnings(body)
        if fields.stream_options is not None and not fields.stream:
            raise RequestError("stream_options is only allowed with stream set to true.", "stream_options")
        fields.check(max_tokens)
        return fields

    def check(self, max_tokens: int) -> None:
        """Validate what depends on several fields or on the server's limit.

        Raises RequestError.
        """

    @property
    def warnings(self) -> list[str]:
        """Warnings about unsupported fields."""
        return self._warnings

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def check_max_tokens(self, field: str, max_tokens: int) -> None:
        """Raises RequestError if `field` exceeds the server's limit."""
        requested = getattr(self, field)
        if requested is not None and requested > max_tokens:
            raise RequestError(f"{field} is {abbreviate(requested)}; the limit of this server is {max_tokens}.", field)

    def reject(self, *fields: str) -> None:
        """Raises RequestError if one of these unsupported fields is set."""
        for field in fields:
            if getattr(self, field):
                raise RequestError(f"{field} is not supported. Leave it out.", field)

    def sampling_params(
        self, i: int, max_tokens: int, vocab_size: int, eos_id: int | None, logprobs: int | None
    ) -> SamplingParams:
        """The engine's parameters for text i of the reply; `eos_id` is the tokenizer's.

        Raises RequestError if logit_bias or stop_token_ids has an id outside the vocabulary, or for a min_tokens that
        cannot be reached.
        """
        stop_token_ids = tuple(dict.fromkeys(self.stop_token_ids or ()))
        for field, tokens in (("logit_bias", self.logit_bias), ("stop_token_ids", stop_token_ids)):
            for token in tokens:
                if not 0 <= token < vocab_size:
                    raise RequestError(
                        f"{field} has the token id {abbreviate(token)}; this model's vocabulary has {vocab_size} "
                        f"tokens, 0 to {vocab_size - 1}.",
                        field,
                    )
        min_tokens = self.min_tokens or 0
        if min_tokens > max_tokens:
            raise RequestError(
                f"min_tokens is {abbreviate(min_tokens)}; it can be at most the text's maximum of {max_tokens} tokens.",
                "min_tokens",
            )
        if min_tokens and len({*stop_token_ids, eos_id} - {None}) == vocab_size:
            raise RequestError(
                "stop_token_ids has every token of this model, so that min_tokens leaves none to generate.",
                "stop_token_ids",
            )

        def or_default(value: float | None, default: float) -> float:
            return default if value is None else value

        return SamplingParams(
            max_tokens=max_tokens,
            min_tokens=min_tokens,
            stop_token_ids=stop_token_ids,
            eos_token_id=eos_id,
            ignore_eos=bool(self.ignore_eos),
            temperature=or_default(self.temperature, 1.0),
            top_k=min(max(0, self.top_k or 0), vocab_size),
            top_p=or_default(self.top_p, 1.0),
            min_p=or_default(self.min_p, 0.0),
            repetition_penalty=or_default(self.repetition_penalty, 1.0),
            presence_penalty=or_default(self.presence_penalty, 0.0),
            frequency_penalty=or_default(self.frequency_penalty, 0.0),
            logit_bias=self.logit_bias,
            logprobs=None if logprobs is None else min(logprobs, vocab_size),
            seed=None if self.seed is None else self.seed + i,
        )
