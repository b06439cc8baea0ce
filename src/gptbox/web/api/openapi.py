"""/openapi.json: the API's description, with request schemas from the pydantic models that validate them."""

from functools import cache
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gptbox import __version__
from gptbox.web.api.chat_request import ChatRequest
from gptbox.web.api.completion_request import CompletionRequest
from gptbox.web.api.tokenization import DetokenizeRequest, TokenizeRequest

_STRING: dict[str, Any] = {"type": "string"}
_INTEGER: dict[str, Any] = {"type": "integer"}
_NUMBER: dict[str, Any] = {"type": "number"}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": required | (optional or {}), "required": list(required)}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_FINISH = {"enum": ["stop", "length"]}
_USAGE = _object({"prompt_tokens": _INTEGER, "completion_tokens": _INTEGER, "total_tokens": _INTEGER})
_ERROR = _object(
    {"error": _object({"message": _STRING, "type": _STRING, "param": _or_null(_STRING), "code": _or_null(_STRING)})}
)
_LOGPROBS = _object(
    {
        "tokens": _list(_STRING),
        "token_logprobs": _list(_or_null(_NUMBER)),
        "top_logprobs": _list(_or_null({"type": "object", "additionalProperties": _NUMBER})),
        "text_offset": _list(_INTEGER),
    }
)
_TOKEN = {"token": _STRING, "logprob": _NUMBER, "bytes": _list(_INTEGER)}
_CHAT_LOGPROBS = _object(
    {"content": _list(_object(_TOKEN | {"top_logprobs": _list(_object(_TOKEN))})), "refusal": {"type": "null"}}
)


def _reply(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    choice |= {"index": _INTEGER, "finish_reason": _FINISH}
    return _object(
        {
            "id": _STRING, "object": {"const": kind}, "created": _INTEGER, "model": _STRING,
            "system_fingerprint": _STRING, "choices": _list(_object(choice)), "usage": _ref("Usage"),
            "warnings": _list(_STRING),
        }
    )  # fmt: skip


_MODEL = _object(
    {
        "id": _STRING, "object": {"const": "model"}, "created": _INTEGER, "owned_by": _STRING, "root": _STRING,
        "max_model_len": _or_null(_INTEGER),
    }
)  # fmt: skip
_TOKENS = _object(
    {
        "count": _INTEGER, "max_model_len": _INTEGER, "tokens": _list(_INTEGER),
        "token_strs": _or_null(_list(_STRING)), "warnings": _list(_STRING),
    }
)  # fmt: skip
_SCHEMAS = {
    "Usage": _USAGE,
    "Error": _ERROR,
    "Model": _MODEL,
    "Tokens": _TOKENS,
    "Detokenized": _object({"prompt": _STRING}),
    "Completion": _reply("text_completion", {"text": _STRING, "logprobs": _or_null(_LOGPROBS)}),
    "ChatCompletion": _reply(
        "chat.completion",
        {
            "message": _object({"role": {"const": "assistant"}, "content": _STRING, "refusal": {"type": "null"}}),
            "logprobs": _or_null(_CHAT_LOGPROBS),
        },
    ),
}
_API_KEY_SECURITY: dict[str, Any] = {"security": [{}, {"key": []}]}
_ERROR_DESCRIPTIONS = {
    400: "A field is invalid; `param` names it.",
    401: "The API key is missing or wrong, if one is required.",
    403: "A page of another site sent the request.",
    404: "The model does not exist.",
    413: "The body is larger than 1 MiB.",
    429: "The queue is full; Retry-After says when to try again.",
    500: "A server error, or the model's folder is damaged.",
    503: "There is no model yet, or the server is stopping; Retry-After says when to try again.",
}


def _content(schema: dict[str, Any], media_type: str = "application/json") -> dict[str, Any]:
    return {"content": {media_type: {"schema": schema}}}


def _responses(description: str, content: dict[str, Any], errors: tuple[int, ...]) -> dict[str, Any]:
    failures = {
        str(status): {"description": _ERROR_DESCRIPTIONS[status], **_content(_ref("Error"))} for status in errors
    }
    return {"200": {"description": description, **content}, **failures}


def _post(
    summary: str, request: dict[str, Any], description: str, content: dict[str, Any], *errors: int
) -> dict[str, Any]:
    return {
        "summary": summary,
        **_API_KEY_SECURITY,
        "requestBody": {"required": True, **_content(request)},
        "responses": _responses(description, content, (400, 401, 403, 404, 413, *errors, 500, 503)),
    }


def _generation(summary: str, request: str, reply: str) -> dict[str, Any]:
    both = _content(_ref(reply))["content"] | _content(_STRING, "text/event-stream")["content"]
    description = "The texts; with `stream` as server-sent events that end with [DONE]."
    return _post(summary, _ref(request), description, {"content": both}, 429)


@cache
def description() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    schemas = dict(_SCHEMAS)
    requests: tuple[type[BaseModel], ...] = (
        CompletionRequest, ChatRequest, TokenizeRequest, DetokenizeRequest,
    )  # fmt: skip
    for model in requests:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gptbox",
            "version": __version__,
            "description": "An OpenAI-compatible API for the GPT trained on this machine.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": {
            "/v1/completions": {"post": _generation("Complete texts", "CompletionRequest", "Completion")},
            "/v1/chat/completions": {
                "post": _generation("Complete a chat, written as a play", "ChatRequest", "ChatCompletion")
            },
            "/tokenize": {
                "post": _post(
                    "Convert text to token ids", _ref("TokenizeRequest"), "The tokens.", _content(_ref("Tokens"))
                )
            },
            "/detokenize": {
                "post": _post(
                    "Convert token ids to text", _ref("DetokenizeRequest"), "The text.", _content(_ref("Detokenized"))
                )
            },
            "/v1/models": {
                "get": {
                    "summary": "List every run and snapshot",
                    **_API_KEY_SECURITY,
                    "responses": _responses(
                        "The models.",
                        _content(_object({"object": {"const": "list"}, "data": _list(_ref("Model"))})),
                        (401,),
                    ),
                }
            },
            "/v1/models/{model}": {
                "get": {
                    "summary": "Look up a model",
                    **_API_KEY_SECURITY,
                    "parameters": [
                        {"name": "model", "in": "path", "required": True, "schema": _STRING | {"minLength": 1}}
                    ],
                    "responses": _responses("The model.", _content(_ref("Model")), (401, 404)),
                }
            },
        },
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


async def openapi(request: Request) -> Response:
    return JSONResponse(description())
