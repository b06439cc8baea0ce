"""/tokenize and /detokenize, in vLLM's shape: text to token ids and back."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gptbox.errors import RequestError
from gptbox.web.body import checked, read_json_object
from gptbox.web.chat_request import Messages, play
from gptbox.web.completion_request import one_prompt
from gptbox.web.reply import checked_ids, unknown_characters
from gptbox.web.sampling_fields import MAX_PROMPT_BYTES
from gptbox.web.service import service_of
from gptbox.web.unsupported import unsupported

_TEXT_SCHEMA = {"type": "string", "maxLength": MAX_PROMPT_BYTES}


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("it must be a string")
    return one_prompt(value)


class _Fields(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = Field(None, description="As for completions.")


class TokenizeRequest(_Fields):
    """Either `prompt`, a text, or `messages`, the play that /v1/chat/completions makes of them."""

    prompt: Annotated[str, BeforeValidator(_text), WithJsonSchema(_TEXT_SCHEMA)] | None = None
    messages: Messages | None = None
    add_generation_prompt: bool | None = Field(None, description="End a play with the assistant's line. Default true.")
    continue_final_message: bool | None = Field(None, description="End it with the last message. Default false.")
    add_special_tokens: bool | None = Field(None, description="Without effect: the models have no special tokens.")
    return_token_strs: bool | None = Field(None, description="Each token's text, too.")

    @property
    def text(self) -> str:
        """Raises RequestError."""
        if self.prompt is not None and self.messages is not None:
            raise RequestError("prompt and messages cannot both be given.", "messages")
        if self.prompt is not None:
            return self.prompt
        if self.messages is None:
            raise RequestError("prompt is missing: give a text, or messages.", "prompt")
        if self.continue_final_message and self.add_generation_prompt:
            raise RequestError(
                "continue_final_message and add_generation_prompt cannot both be true.", "continue_final_message"
            )
        return play(self.messages, self.add_generation_prompt is not False and not self.continue_final_message)


class DetokenizeRequest(_Fields):
    """Text of tokens."""

    tokens: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_PROMPT_BYTES)]


async def tokenize(request: Request) -> Response:
    body = await read_json_object(request)
    asked = checked(TokenizeRequest, body)
    text = asked.text
    model = await service_of(request).models.resolve(asked.model)
    tokens = model.tokenizer.encode(text).tolist()
    return JSONResponse(
        {
            "count": len(tokens),
            "max_model_len": model.gpt.config.context_length,
            "tokens": tokens,
            "token_strs": [model.tokenizer.decode((i,)) for i in tokens] if asked.return_token_strs else None,
            "warnings": [*unknown_characters(text, model), *unsupported(body)],
        }
    )


async def detokenize(request: Request) -> Response:
    asked = checked(DetokenizeRequest, await read_json_object(request))
    model = await service_of(request).models.resolve(asked.model)
    return JSONResponse({"prompt": model.tokenizer.decode(checked_ids(asked.tokens, model, "tokens").tolist())})
