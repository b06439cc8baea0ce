"""/tokenize and /detokenize, compatible with vLLM: text to token ids and back."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gptbox.errors import RequestError
from gptbox.web.api.chat_request import Messages, format_play
from gptbox.web.api.completion_request import validate_prompt
from gptbox.web.api.reply import unknown_character_warnings, validate_ids
from gptbox.web.api.sampling_fields import MAX_PROMPT_BYTES
from gptbox.web.api.unsupported_fields import unsupported_warnings
from gptbox.web.json import read_json_object, validate
from gptbox.web.service import get_service

_TEXT_SCHEMA = {"type": "string", "maxLength": MAX_PROMPT_BYTES}


def _parse_prompt(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("it must be a string")
    return validate_prompt(value)


class _ModelField(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = Field(None, description="As in completions.")


class TokenizeRequest(_ModelField):
    """Either `prompt`, a text, or `messages`, formatted as a play as in /v1/chat/completions."""

    prompt: Annotated[str, BeforeValidator(_parse_prompt), WithJsonSchema(_TEXT_SCHEMA)] | None = None
    messages: Messages | None = None
    add_generation_prompt: bool | None = Field(
        None, description="End the play with the assistant's name. Default true."
    )
    continue_final_message: bool | None = Field(None, description="End the play with the last message. Default false.")
    add_special_tokens: bool | None = Field(None, description="No effect: no special tokens are added.")
    return_token_strs: bool | None = Field(None, description="Return each token's text, too.")

    @property
    def text(self) -> str:
        """The prompt, or the messages as a play.

        Raises RequestError for contradictory fields, neither a prompt nor messages, or a play that is too long.
        """
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
        return format_play(self.messages, self.add_generation_prompt is not False and not self.continue_final_message)


class DetokenizeRequest(_ModelField):
    """Token ids to decode."""

    tokens: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_PROMPT_BYTES)]


async def tokenize(request: Request) -> Response:
    body = await read_json_object(request)
    fields = validate(TokenizeRequest, body)
    text = fields.text
    model = await get_service(request).live_model.resolve(fields.model)
    tokens = model.tokenizer.encode(text).tolist()
    return JSONResponse(
        {
            "count": len(tokens),
            "max_model_len": model.gpt.config.context_length,
            "tokens": tokens,
            "token_strs": [model.tokenizer.token_text(i) for i in tokens] if fields.return_token_strs else None,
            "warnings": [*unknown_character_warnings(text, model), *unsupported_warnings(body)],
        }
    )


async def detokenize(request: Request) -> Response:
    fields = validate(DetokenizeRequest, await read_json_object(request))
    model = await get_service(request).live_model.resolve(fields.model)
    return JSONResponse({"prompt": model.tokenizer.decode(validate_ids(fields.tokens, model, "tokens").tolist())})
