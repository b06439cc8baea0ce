"""What a client may ask of /v1/completions."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from gptbox.errors import RequestError
from gptbox.web.sampling_fields import MAX_PROMPT_BYTES, MAX_TEXTS, SamplingFields, well_formed

DEFAULT_MAX_TOKENS = 16
MAX_LOGPROBS = 5
MAX_SCORED = 64
"""Prompts of a request that only scores them."""

_MOST_PROMPTS = (
    f"at most {MAX_TEXTS} texts are written at once, and {MAX_SCORED} prompts scored "
    "(with echo, logprobs, and max_tokens 0 or 1)"
)

Prompt = str | list[int]


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


def one_prompt(value: Any) -> Any:
    """A prompt's text, made well-formed, or its ids.

    Raises ValueError where it is too long.
    """
    size = len(value)
    if isinstance(value, str):
        value = well_formed(value)
        size = len(value.encode())
    if size > MAX_PROMPT_BYTES:
        raise ValueError(f"a prompt is longer than {MAX_PROMPT_BYTES:,} bytes of UTF-8, or ids")
    return value


def _prompts(value: Any) -> list[Prompt]:
    if value is None:
        return [""]
    if isinstance(value, str) or _is_ids(value):
        return [one_prompt(value)]
    if isinstance(value, list) and value:
        if len(value) > MAX_SCORED:
            raise ValueError(f"there are {len(value)} prompts; {_MOST_PROMPTS}")
        if all(isinstance(item, str) for item in value) or all(_is_ids(item) for item in value):
            return [one_prompt(item) for item in value]
    raise ValueError("it must be a string, a list of strings, a list of token ids, or a list of such lists, none empty")


_IDS = {"type": "array", "minItems": 1, "maxItems": MAX_PROMPT_BYTES, "items": {"type": "integer", "minimum": 0}}
_PROMPT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "null"},
        {"type": "string", "maxLength": MAX_PROMPT_BYTES},
        {"type": "array", "minItems": 1, "maxItems": MAX_SCORED, "items": {"type": "string"}},
        _IDS,
        {"type": "array", "minItems": 1, "maxItems": MAX_SCORED, "items": _IDS},
    ],
    "default": "",
    "description": f"Up to {MAX_TEXTS}, as texts or as token ids; an empty text starts from a line break. "
    f"{MAX_SCORED} where they are only scored: echo, logprobs, and max_tokens 0 or 1.",
}


class CompletionRequest(SamplingFields):
    """A checked request. None always means the default."""

    prompt: Annotated[list[Prompt], BeforeValidator(_prompts), WithJsonSchema(_PROMPT_SCHEMA)] = Field([""])
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="Tokens a text. Default 16.")
    echo: bool | None = Field(None, description="Begin each text with its prompt.")
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = Field(
        None, description="Each token's log-probability, and those of so many most probable ones."
    )
    best_of: Annotated[int, Field(ge=1, le=MAX_TEXTS)] | None = Field(
        None, description="Write so many texts for each prompt and give the n whose tokens are the most probable."
    )
    suffix: str | None = Field(None, description="Not supported: only an empty one is accepted.")

    def check(self, max_tokens: int) -> None:
        self.check_length("max_tokens", max_tokens)
        prompts, texts = len(self.prompt), self.written * len(self.prompt)
        if prompts > MAX_TEXTS and self.written == 1 and not self.scores:
            raise RequestError(f"prompt: there are {prompts} prompts; {_MOST_PROMPTS}.", "prompt")
        if texts > MAX_TEXTS and not self.scores:
            field = "n" if self.best_of is None else "best_of"
            raise RequestError(
                f"{field} is {self.written} for {prompts} prompts: {texts} texts; at most {MAX_TEXTS} are written.",
                field,
            )
        if self.written < (self.n or 1):
            raise RequestError(f"best_of is {self.best_of}, which is less than n.", "best_of")
        if self.stream and self.written > (self.n or 1):
            raise RequestError("best_of cannot be streamed, unless it is the same as n.", "best_of")
        self.refuse("suffix")

    @property
    def written(self) -> int:
        """How many texts are written for each prompt."""
        return self.best_of or self.n or 1

    @property
    def scores(self) -> bool:
        """Whether the request only scores its prompts, as evaluation harnesses do."""
        return bool(self.echo) and self.logprobs is not None and self.max_tokens in (0, 1) and self.written == 1

    @property
    def choices(self) -> int:
        """How many texts the reply has."""
        return (self.n or 1) * len(self.prompt)
