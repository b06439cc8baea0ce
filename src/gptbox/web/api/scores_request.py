"""The request body of /api/scores."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from gptbox.engine.sampling_params import MAX_ALTERNATIVES
from gptbox.errors import RequestError
from gptbox.web.api.completion_request import validate_prompt
from gptbox.web.api.sampling_fields import MAX_PROMPT_BYTES, well_formed

MAX_TEXT_BYTES = 8 * 1024
"""In UTF-8."""
MAX_SNAPSHOTS = 1000
MAX_SCORED_TOKENS = 2**16
"""Tokens of the text times snapshots."""
MAX_VALUES = 2**18
"""Log-probabilities in a reply, alternatives included."""


def _parse_text(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        raise ValueError("it must be a text of at least one character")
    text = well_formed(value)
    if (size := len(text.encode())) > MAX_TEXT_BYTES:
        raise ValueError(f"it has {size:,} bytes of UTF-8; at most {MAX_TEXT_BYTES:,} are allowed")
    return text


def _parse_prompt(value: Any) -> Any:
    if value is not None and not isinstance(value, str):
        raise ValueError("it must be a string")
    return validate_prompt(value or "")


def _parse_snapshots(value: Any) -> Any:
    if value is None or value == "all":
        return value
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        if len(value) > MAX_SNAPSHOTS:
            raise ValueError(f"there are {len(value):,}; at most {MAX_SNAPSHOTS:,} are allowed")
        return list(dict.fromkeys(value))
    raise ValueError('it must be null, "all", or a list of snapshots such as "step-000250", not empty')


_SNAPSHOTS_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "null"},
        {"const": "all"},
        {"type": "array", "minItems": 1, "maxItems": MAX_SNAPSHOTS, "items": {"type": "string"}},
    ],
    "default": None,
    "description": "Snapshots of the model's run: all that are kept, or a list of names such as step-000250, best or "
    "latest. null scores the model alone.",
}


class ScoresRequest(BaseModel):
    """A validated request. None means the default."""

    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = Field(None, description="As in completions.")
    text: Annotated[
        str,
        BeforeValidator(_parse_text),
        WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_TEXT_BYTES}),
    ]
    prompt: Annotated[
        str,
        BeforeValidator(_parse_prompt),
        WithJsonSchema({"anyOf": [{"type": "null"}, {"type": "string", "maxLength": MAX_PROMPT_BYTES}]}),
    ] = Field("", description="What stands before the text and is not scored; by default a line break.")
    snapshots: Annotated[
        Literal["all"] | list[str] | None, BeforeValidator(_parse_snapshots), WithJsonSchema(_SNAPSHOTS_SCHEMA)
    ] = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_ALTERNATIVES)] | None = Field(
        None, description="Also return the top_logprobs most probable tokens in each place. Default 0."
    )
    stream: bool | None = Field(None, description="Send each snapshot's score as soon as it is there.")

    def check_size(self, num_tokens: int, num_snapshots: int) -> None:
        """Raises RequestError if the text's tokens times snapshots, or times alternatives, are too many."""
        scored = num_tokens * num_snapshots
        if scored > MAX_SCORED_TOKENS:
            raise RequestError(
                f"snapshots: {num_snapshots:,} snapshots times {num_tokens:,} tokens are {scored:,}; at most "
                f"{MAX_SCORED_TOKENS:,} are allowed. Score fewer snapshots, or a shorter text.",
                "snapshots",
            )
        values = scored * (1 + (self.top_logprobs or 0))
        if values > MAX_VALUES:
            raise RequestError(
                f"top_logprobs: the reply would have {values:,} log-probabilities; at most {MAX_VALUES:,} are allowed. "
                "Ask for fewer, or score fewer snapshots or a shorter text.",
                "top_logprobs",
            )
