"""What a client may ask of /v1/chat/completions, and how it becomes a play.

The models are no assistants: they go on with a text. So messages are written as a play has them, a speaker's line for
each role, and the model goes on from the speaker's line of the assistant up to the end of that speech:

    {"role": "system", "content": "A street in Verona."}      A street in Verona.
    {"role": "user", "content": "Who goes there?"}
                                                              USER:
                                                              Who goes there?

                                                              ASSISTANT:

A message's `name` takes the place of its role: {"role": "user", "name": "Romeo"} speaks as ROMEO. A tool's result is
spoken by TOOL. Tool calls are not spoken: a message with nothing else is left out.
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
    """One of a chat."""

    model_config = ConfigDict(strict=True, extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[str, BeforeValidator(_content), WithJsonSchema(_CONTENT_SCHEMA)] = ""
    name: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(None, description="Who speaks.")
    tool_calls: list[Any] | None = Field(None, description="Accepted in a history; not part of the play.")
    function_call: Any = Field(None, description="The former name of the same.")

    @property
    def spoken(self) -> bool:
        """Whether it has a part in the play."""
        return bool(self.content or not (self.tool_calls or self.function_call))

    @property
    def speech(self) -> str:
        """Its part in the play; a stage direction has no speaker."""
        if self.role in ("system", "developer") and self.name is None:
            return self.content
        speaker = " ".join(well_formed(self.name or self.role).upper().split())
        return f"{speaker}:\n{self.content}"


Messages = Annotated[list[Message], Field(min_length=1, max_length=1000)]


def play(messages: list[Message], prompted: bool = True) -> str:
    """The messages as a play. `prompted` adds the assistant's line, unless the last speech is the assistant's already.

    Raises RequestError where the play is too long for a prompt.
    """
    spoken = [message for message in messages if message.spoken]
    parts = [message.speech for message in spoken]
    if prompted and not (spoken and spoken[-1].role == "assistant"):
        parts.append("ASSISTANT:\n")
    text = END_OF_SPEECH.join(parts)
    if len(text.encode()) > MAX_PROMPT_BYTES:
        raise RequestError(f"messages: together they are longer than {MAX_PROMPT_BYTES:,} bytes.", "messages")
    return text


class ResponseFormat(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    type: Literal["text"]


class ChatRequest(SamplingFields):
    """A checked request. None always means the default."""

    messages: Messages
    max_completion_tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="Default 500.")
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="The former name of the same.")
    logprobs: bool | None = Field(None, description="Each token's log-probability.")
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(None, description="And of so many others.")
    response_format: ResponseFormat | None = None
    tools: list[Any] | None = Field(None, description='Not supported: none, or with tool_choice "none".')
    tool_choice: Any = None
    functions: list[Any] | None = Field(None, description='Not supported: none, or with function_call "none".')
    function_call: Any = None

    def check(self, max_tokens: int) -> None:
        self.check_length("max_tokens", max_tokens)
        self.check_length("max_completion_tokens", max_tokens)
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError("top_logprobs is only possible with logprobs set to true.", "top_logprobs")
        for tools, choice in (("tools", "tool_choice"), ("functions", "function_call")):
            if getattr(self, tools) and getattr(self, choice) != "none":
                raise RequestError(f'{tools} are not supported. Leave them out, or set {choice} to "none".', tools)
        self.play()

    @property
    def length(self) -> int | None:
        """Tokens a reply, where it was said."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def play(self) -> str:
        """The prompt.

        Raises RequestError.
        """
        return play(self.messages)
