"""The request body of /v1/completions."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from gptbox.errors import RequestError
from gptbox.web.api.sampling_fields import MAX_PROMPT_BYTES, MAX_TEXTS, SamplingFields, well_formed

DEFAULT_MAX_TOKENS = 16
MAX_LOGPROBS = 5
MAX_SCORED_PROMPTS = 64
"""Most prompts in a request that only scores them."""

_PROMPT_LIMITS = (
    f"a request may generate at most {MAX_TEXTS} texts, or score at most {MAX_SCORED_PROMPTS} prompts "
    "(with echo, logprobs, and max_tokens 0 or 1)"
)

PromptInput = str | list[int]
"""A prompt as text or as token ids."""


def _is_id_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


def validate_prompt(value: Any) -> Any:
    """A prompt as well-formed text, or its ids unchanged.

    Raises ValueError if it is too long.
    """
    size = len(value)
    if isinstance(value, str):
        value = well_formed(value)
        size = len(value.encode())
    if size > MAX_PROMPT_BYTES:
        raise ValueError(f"a prompt has more than {MAX_PROMPT_BYTES:,} bytes of UTF-8, or token ids")
    return value


def _parse_prompts(value: Any) -> list[PromptInput]:
    if value is None:
        return [""]
    if isinstance(value, str) or _is_id_list(value):
        return [validate_prompt(value)]
    if isinstance(value, list) and value:
        if len(value) > MAX_SCORED_PROMPTS:
            raise ValueError(f"there are {len(value)} prompts; {_PROMPT_LIMITS}")
        if all(isinstance(item, str) for item in value) or all(_is_id_list(item) for item in value):
            return [validate_prompt(item) for item in value]
    raise ValueError("it must be a string, a list of strings, a list of token ids, or a list of such lists, none empty")


_ID_LIST_SCHEMA = {
    "type": "array",
    "minItems": 1,
    "maxItems": MAX_PROMPT_BYTES,
    "items": {"type": "integer", "minimum": 0},
}
_PROMPT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "null"},
        {"type": "string", "maxLength": MAX_PROMPT_BYTES},
        {"type": "array", "minItems": 1, "maxItems": MAX_SCORED_PROMPTS, "items": {"type": "string"}},
        _ID_LIST_SCHEMA,
        {"type": "array", "minItems": 1, "maxItems": MAX_SCORED_PROMPTS, "items": _ID_LIST_SCHEMA},
    ],
    "default": "",
    "description": f"Up to {MAX_TEXTS} prompts, as texts or as token ids; an empty text starts from a line break. "
    f"Up to {MAX_SCORED_PROMPTS} if they are only scored: echo, logprobs, and max_tokens 0 or 1.",
}


class CompletionRequest(SamplingFields):
    """A validated request. None means the default."""

    prompt: Annotated[list[PromptInput], BeforeValidator(_parse_prompts), WithJsonSchema(_PROMPT_SCHEMA)] = Field([""])
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="Tokens per text. Default 16.")
    echo: bool | None = Field(None, description="Start each text with its prompt.")
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = Field(
        None, description="Return the log-probabilities of each token and of the logprobs most probable tokens."
    )
    best_of: Annotated[int, Field(ge=1, le=MAX_TEXTS)] | None = Field(
        None,
        description="Generate this many texts per prompt and return the n with the highest mean log-probability.",
    )
    suffix: str | None = Field(None, description="Not supported: only an empty string is accepted.")

    def check(self, max_tokens: int) -> None:
        self.check_max_tokens("max_tokens", max_tokens)
        prompts, texts = len(self.prompt), self.texts_per_prompt * len(self.prompt)
        if prompts > MAX_TEXTS and self.texts_per_prompt == 1 and not self.only_scores:
            raise RequestError(f"prompt: there are {prompts} prompts; {_PROMPT_LIMITS}.", "prompt")
        if texts > MAX_TEXTS and not self.only_scores:
            field = "n" if self.best_of is None else "best_of"
            raise RequestError(
                f"{field} is {self.texts_per_prompt} for {prompts} prompts: {texts} texts; "
                f"at most {MAX_TEXTS} are allowed.",
                field,
            )
        if self.texts_per_prompt < (self.n or 1):
            raise RequestError(f"best_of is {self.best_of}, which is less than n.", "best_of")
        if self.stream and self.texts_per_prompt > (self.n or 1):
            raise RequestError("best_of cannot be streamed, unless it is the same as n.", "best_of")
        self.reject("suffix")

    @property
    def texts_per_prompt(self) -> int:
        """How many texts are generated for each prompt."""
        return self.best_of or self.n or 1

    @property
    def only_scores(self) -> bool:
        """Whether the request only scores its prompts, as evaluation harnesses do."""
        one_text = self.texts_per_prompt == 1
        return bool(self.echo) and self.logprobs is not None and self.max_tokens in (0, 1) and one_text

    @property
    def num_choices(self) -> int:
        """How many texts the reply has."""
        return (self.n or 1) * len(self.prompt)
