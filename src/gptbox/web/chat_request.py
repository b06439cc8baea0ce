"""What a client may ask of /v1/chat/completions, and how it becomes a play.

The models are no assistants: they go on with a text. So messages are written as a play has them, a speaker's line for
each role, and the model goes on from the speaker's line of the assistant up to the end of that speech:

    {"role": "system", "content": "A street in Verona."}      A street in Verona.
    {"role": "user", "content": "Who goes there?"}
                                                              USER:
                                                              Who goes there?

                                                              ASSISTANT:

A message's `name` takes the place of its role: {"role": "user", "name": "Romeo"} speaks as ROMEO.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from gptbox.errors import RequestError
from gptbox.web.sampling_fields import MAX_PROMPT_BYTES, SamplingFields, well_formed

DEFAULT_MAX_TOKENS = 500
END_OF_SPEECH = "\n\n"
"""A line without words stands between speeches, in every play that gptbox trains on by itself."""


def _content(value: Any) -> str:
    parts = [value] if isinstance(value, str) else [] if value is None else value
    if isinstance(parts, list):
        texts: list[Any] = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else part
            for part in parts
        ]  # fmt: skip
        if all(isinstance(text, str) for text in texts):
            return well_formed("".join(texts))
    raise ValueError("it must be a string, or a list of parts of type text")


_CONTENT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "null"},
        {"type": "string"},
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                "required": ["type", "text"],
            },
        },
    ],
    "default": "",
}


class Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_content), WithJsonSchema(_CONTENT_SCHEMA)] = ""
    name: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(None, description="Who speaks.")

    @property
    def speaker(self) -> str:
        return " ".join(well_formed(self.name or self.role).upper().split())


class ResponseFormat(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    type: Literal["text"]


class ChatRequest(SamplingFields):
    """A checked request. None always means the default."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="Default 500.")
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="The former name of the same.")
    logprobs: bool | None = Field(None, description="Each token's log-probability.")
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(None, description="And of so many others.")
    response_format: ResponseFormat | None = None
    tools: list[Any] | None = Field(None, description="Not supported: only an empty list is accepted.")
    functions: list[Any] | None = Field(None, description="Not supported: only an empty list is accepted.")

    def check(self, max_tokens: int) -> None:
        self.check_length("max_tokens", max_tokens)
        self.check_length("max_completion_tokens", max_tokens)
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError("top_logprobs is only possible with logprobs set to true.", "top_logprobs")
        self.refuse("tools", "functions")
        if len(self.play().encode()) > MAX_PROMPT_BYTES:
            raise RequestError(f"messages: together they are longer than {MAX_PROMPT_BYTES:,} bytes.", "messages")

    @property
    def length(self) -> int | None:
        """Tokens a reply, where it was said."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def play(self) -> str:
        """The prompt. A last message of the assistant is gone on with."""
        *_, last = self.messages
        parts = []
        for message in self.messages:
            stage = message.role in ("system", "developer") and message.name is None
            parts.append(message.content if stage else f"{message.speaker}:\n{message.content}")
        if last.role != "assistant":
            parts.append("ASSISTANT:\n")
        return END_OF_SPEECH.join(parts)
