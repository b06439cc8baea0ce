"""The request body of /v1/chat/completions, and its messages formatted as a play.

The models are not assistants: they continue a text. So the messages become the speeches of a play, one per message
under its role's name, and the model writes the assistant's next speech:

    {"role": "system", "content": "A street in Verona."}      A street in Verona.
    {"role": "user", "content": "Who goes there?"}
                                                              USER:
                                                              Who goes there?

                                                              ASSISTANT:

A message's `name` replaces its role: {"role": "user", "name": "Romeo"} speaks as ROMEO. A tool's result is a speech of
TOOL. Tool calls are omitted, and so is a message that has nothing else.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from gptbox.errors import RequestError
from gptbox.web.api.sampling_fields import MAX_PROMPT_BYTES, SamplingFields, well_formed

DEFAULT_MAX_TOKENS = 500
END_OF_SPEECH = "\n\n"
"""An empty line separates speeches in all of gptbox's built-in plays."""


def _parse_content(value: Any) -> str:
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
    """A message of a chat."""

    model_config = ConfigDict(strict=True, extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[str, BeforeValidator(_parse_content), WithJsonSchema(_CONTENT_SCHEMA)] = ""
    name: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        None, description="The speaker's name, in place of the role."
    )
    tool_calls: list[Any] | None = Field(None, description="Accepted in a chat's history, but not part of the play.")
    function_call: Any = Field(None, description="OpenAI's former tool_calls.")

    @property
    def is_spoken(self) -> bool:
        """Whether the message becomes a speech."""
        return bool(self.content or not (self.tool_calls or self.function_call))

    @property
    def speech(self) -> str:
        """The message as a speech, or as a stage direction, which has no speaker."""
        if self.role in ("system", "developer") and self.name is None:
            return self.content
        speaker = " ".join(well_formed(self.name or self.role).upper().split())
        return f"{speaker}:\n{self.content}"


Messages = Annotated[list[Message], Field(min_length=1, max_length=1000)]


def format_play(messages: list[Message], add_generation_prompt: bool = True) -> str:
    """The messages as a play.

    `add_generation_prompt` adds the assistant's name, unless the last speech is already the assistant's. Raises
    RequestError if the play is too long for a prompt.
    """
    spoken = [message for message in messages if message.is_spoken]
    parts = [message.speech for message in spoken]
    if add_generation_prompt and not (spoken and spoken[-1].role == "assistant"):
        parts.append("ASSISTANT:\n")
    text = END_OF_SPEECH.join(parts)
    if len(text.encode()) > MAX_PROMPT_BYTES:
        raise RequestError(f"messages: together they are longer than {MAX_PROMPT_BYTES:,} bytes.", "messages")
    return text


class ResponseFormat(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    type: Literal["text"]


class ChatRequest(SamplingFields):
    """A validated request. None means the default."""

    messages: Messages
    max_completion_tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="Tokens per text. Default 500.")
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(
        None, description="OpenAI's former name for max_completion_tokens."
    )
    logprobs: bool | None = Field(None, description="Return each token's log-probability.")
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(
        None, description="Also return the log-probabilities of the top_logprobs most probable tokens."
    )
    response_format: ResponseFormat | None = None
    tools: list[Any] | None = Field(None, description='Not supported: must be empty unless tool_choice is "none".')
    tool_choice: Any = None
    functions: list[Any] | None = Field(
        None, description='Not supported: must be empty unless function_call is "none".'
    )
    function_call: Any = None

    def check(self, max_tokens: int) -> None:
        self.check_max_tokens("max_tokens", max_tokens)
        self.check_max_tokens("max_completion_tokens", max_tokens)
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError("top_logprobs is only allowed with logprobs set to true.", "top_logprobs")
        for tools, choice in (("tools", "tool_choice"), ("functions", "function_call")):
            if getattr(self, tools) and getattr(self, choice) != "none":
                raise RequestError(f'{tools} are not supported. Leave them out, or set {choice} to "none".', tools)
        self.prompt()

    @property
    def requested_max_tokens(self) -> int | None:
        """Tokens per text; None if the request sets no limit."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def prompt(self) -> str:
        """The messages as a play.

        Raises RequestError if it is too long.
        """
        return format_play(self.messages)
