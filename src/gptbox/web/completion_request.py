"""What a client may ask of /v1/completions: OpenAI's fields, defaults and ranges, and our top_k."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gptbox.errors import RequestError

MAX_TEXTS = 16
MAX_STOPS = 4
MAX_PROMPT_BYTES = 64 * 1024
"""Of one prompt in UTF-8; as many ids where it is given in ids."""
DEFAULT_MAX_TOKENS = 16

Prompt = str | list[int]


def well_formed(text: str) -> str:
    """The text with half surrogate pairs, which no UTF-8 can hold, replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def shown(number: int) -> str:
    """A client's number as it can stand in a sentence, however long it is."""
    digits = str(number)
    return digits if len(digits) <= 20 else f"{digits[:20]}..."


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


def _one_prompt(value: Any) -> Prompt:
    size = len(value)
    if isinstance(value, str):
        value = well_formed(value)
        size = len(value.encode())
    if size > MAX_PROMPT_BYTES:
        raise ValueError(f"a prompt is longer than {MAX_PROMPT_BYTES:,} bytes of UTF-8, or ids")
    prompt: Prompt = value
    return prompt


def _prompts(value: Any) -> list[Prompt]:
    if value is None:
        return [""]
    if isinstance(value, str) or _is_ids(value):
        return [_one_prompt(value)]
    if isinstance(value, list) and value:
        if len(value) > MAX_TEXTS:
            raise ValueError(f"there are {len(value)} prompts; at most {MAX_TEXTS} texts are written at once")
        if all(isinstance(item, str) for item in value) or all(_is_ids(item) for item in value):
            return [_one_prompt(item) for item in value]
    raise ValueError("it must be a string, a list of strings, a list of token ids, or a list of such lists, none empty")


def _stops(value: Any) -> list[str]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise ValueError("it must be a string or a list of strings, none of them empty")
    if len(stops) > MAX_STOPS:
        raise ValueError(f"there are {len(stops)} stop strings; at most {MAX_STOPS} are possible")
    return [well_formed(stop) for stop in stops]


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    include_usage: bool | None = None


class CompletionRequest(BaseModel):
    """A checked request. None always means the default."""

    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = None
    """None is the live model."""
    prompt: Annotated[list[Prompt], BeforeValidator(_prompts)] = [""]
    """One or more; an empty string starts from a line break."""
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    """Our extension: sample among the k most probable tokens; 0 among all."""
    n: Annotated[int, Field(ge=1, le=MAX_TEXTS)] | None = None
    stop: Annotated[list[str], BeforeValidator(_stops)] = []
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Text i of the reply, counted over all prompts, is drawn with seed + i."""
    echo: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    # What OpenAI has and gptbox has not: accepted where it asks for nothing.
    best_of: int | None = None
    logprobs: int | None = None
    suffix: str | None = None
    logit_bias: dict[str, Any] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None

    @classmethod
    def parse(cls, body: dict[str, Any], max_tokens: int) -> Self:
        """Check a request's JSON object; `max_tokens` is the most that this server gives.

        Raises RequestError naming the field at fault.
        """
        try:
            request = cls.model_validate(body)
        except ValidationError as error:
            raise _request_error(error) from None
        request._check(max_tokens)
        return request

    def _check(self, max_tokens: int) -> None:
        texts = self.choices
        if self.max_tokens is not None and self.max_tokens > max_tokens:
            raise RequestError(
                f"max_tokens is {shown(self.max_tokens)}; this server gives at most {max_tokens}.", "max_tokens"
            )
        if texts > MAX_TEXTS:
            prompts = len(self.prompt)
            raise RequestError(
                f"n is {self.n} for {prompts} prompts: {texts} texts; at most {MAX_TEXTS} are written.", "n"
            )
        if self.stream_options is not None and not self.stream:
            raise RequestError("stream_options is only possible with stream set to true.", "stream_options")
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise RequestError("best_of is not supported, unless it is the same as n.", "best_of")
        if self.logprobs is not None:
            raise RequestError("logprobs is not there yet. Leave it out.", "logprobs")
        for field in ("suffix", "logit_bias", "presence_penalty", "frequency_penalty"):
            if getattr(self, field):
                raise RequestError(f"{field} is not supported. Leave it out.", field)

    @property
    def choices(self) -> int:
        """How many texts the reply has."""
        return (self.n or 1) * len(self.prompt)

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


def _request_error(error: ValidationError) -> RequestError:
    """The first fault, in one sentence."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"][:2])
    message = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    return RequestError(f"{field}: {message[0].lower()}{message[1:]}.", field)
