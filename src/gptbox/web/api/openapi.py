"""/openapi.json: the API's description, from the table of endpoints and the pydantic models that validate requests."""

from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path

from gptbox import __version__
from gptbox.web.endpoint import Endpoint, Operation

_STRING: dict[str, Any] = {"type": "string"}
_INTEGER: dict[str, Any] = {"type": "integer"}
_NUMBER: dict[str, Any] = {"type": "number"}


def object_schema(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": required | (optional or {}), "required": list(required)}


def array_schema(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def schema_ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


BINARY_SCHEMA: dict[str, Any] = {"type": "string", "format": "binary"}
_FINISH = {"enum": ["stop", "length"]}
_STOP_REASON = {"anyOf": [_INTEGER, _STRING, {"type": "null"}]}
_USAGE = object_schema({"prompt_tokens": _INTEGER, "completion_tokens": _INTEGER, "total_tokens": _INTEGER})
_ERROR = object_schema(
    {
        "error": object_schema(
            {"message": _STRING, "type": _STRING, "param": _or_null(_STRING), "code": _or_null(_STRING)}
        )
    }
)
_LOGPROBS = object_schema(
    {
        "tokens": array_schema(_STRING),
        "token_logprobs": array_schema(_or_null(_NUMBER)),
        "top_logprobs": array_schema(_or_null({"type": "object", "additionalProperties": _NUMBER})),
        "text_offset": array_schema(_INTEGER),
    }
)
_TOKEN = {"token": _STRING, "logprob": _NUMBER, "bytes": array_schema(_INTEGER)}
_CHAT_LOGPROBS = object_schema(
    {
        "content": array_schema(object_schema(_TOKEN | {"top_logprobs": array_schema(object_schema(_TOKEN))})),
        "refusal": {"type": "null"},
    }
)


def _reply(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    choice |= {"index": _INTEGER, "finish_reason": _FINISH, "stop_reason": _STOP_REASON}
    return object_schema(
        {
            "id": _STRING, "object": {"const": kind}, "created": _INTEGER, "model": _STRING,
            "system_fingerprint": _STRING, "choices": array_schema(object_schema(choice)), "usage": schema_ref("Usage"),
            "warnings": array_schema(_STRING),
        }
    )  # fmt: skip


_MODEL = object_schema(
    {
        "id": _STRING, "object": {"const": "model"}, "created": _INTEGER, "owned_by": _STRING, "root": _STRING,
        "max_model_len": _or_null(_INTEGER),
    }
)  # fmt: skip
_TOKENS = object_schema(
    {
        "count": _INTEGER, "max_model_len": _INTEGER, "tokens": array_schema(_INTEGER),
        "token_strs": _or_null(array_schema(_STRING)), "warnings": array_schema(_STRING),
    }
)  # fmt: skip
_SOURCE = object_schema({"position": _INTEGER, "line": _INTEGER, "before": _STRING, "after": _STRING})
_COPIED = object_schema(
    {
        "object": {"const": "copied"}, "run": _STRING, "min_characters": _INTEGER, "characters": _INTEGER,
        "copied_characters": _INTEGER, "share": _NUMBER,
        "spans": array_schema(object_schema({"start": _INTEGER, "end": _INTEGER, "source": _SOURCE})),
    }
)  # fmt: skip
_SCORE = object_schema(
    {"model": _STRING, "step": _INTEGER, "logprobs": array_schema(_NUMBER), "bits_per_character": _NUMBER},
    {
        "top_logprobs": array_schema(
            array_schema(object_schema({"token": _STRING, "id": _INTEGER, "logprob": _NUMBER}))
        ),
    },
)
_SCORES = object_schema(
    {
        "object": {"const": "scores"}, "run": _STRING, "system_fingerprint": _STRING, "tokens": array_schema(_STRING),
        "token_ids": array_schema(_INTEGER), "text_offset": array_schema(_INTEGER), "warnings": array_schema(_STRING),
        "scores": array_schema(_SCORE), "validation": _or_null(object_schema({"bits_per_character": _NUMBER})),
    }
)  # fmt: skip
_SCHEMAS = {
    "Usage": _USAGE,
    "Error": _ERROR,
    "Copied": _COPIED,
    "Model": _MODEL,
    "Scores": _SCORES,
    "Tokens": _TOKENS,
    "Detokenized": object_schema({"prompt": _STRING}),
    "Completion": _reply("text_completion", {"text": _STRING, "logprobs": _or_null(_LOGPROBS)}),
    "ChatCompletion": _reply(
        "chat.completion",
        {
            "message": object_schema({"role": {"const": "assistant"}, "content": _STRING, "refusal": {"type": "null"}}),
            "logprobs": _or_null(_CHAT_LOGPROBS),
        },
    ),
}
_API_KEY_SECURITY: dict[str, Any] = {"security": [{}, {"key": []}]}
_ERROR_DESCRIPTIONS = {
    400: "A field is invalid; `param` names it.",
    401: "The API key is missing or wrong, if one is required.",
    403: "A page of another site sent the request, or this server does not offer it.",
    404: "The model does not exist, or lacks what the request needs.",
    413: "The body is larger than 1 MiB.",
    429: "The queue is full; Retry-After says when to try again.",
    500: "A server error, or the model's folder is damaged.",
    503: "No model can be served, or the server is stopping; Retry-After, if present, says when to try again.",
}


def _content(schema: dict[str, Any], media_type: str = "application/json") -> dict[str, Any]:
    return {"content": {media_type: {"schema": schema}}}


def _operation(endpoint: Endpoint, operation: Operation) -> dict[str, Any]:
    """OpenAPI's operation object."""
    described: dict[str, Any] = {"summary": operation.summary}
    errors = set(operation.errors)
    if endpoint.requires_key:
        described |= _API_KEY_SECURITY
        errors.add(401)
    if path_parameters := compile_path(endpoint.path)[2]:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": _STRING | {"minLength": 1}}
            for name in path_parameters
        ]
    if operation.request is not None:
        described["requestBody"] = {"required": True, **_content(schema_ref(operation.request.__name__))}
        errors |= {400, 403, 413}
    media = _content(operation.reply, operation.media_type)["content"]
    if operation.streams:
        media |= _content(_STRING, "text/event-stream")["content"]
    responses = {"200": {"description": operation.reply_description, "content": media}}
    for status in sorted(errors):
        responses[str(status)] = {"description": _ERROR_DESCRIPTIONS[status], **_content(schema_ref("Error"))}
    return described | {"responses": responses}


@cache
def describe(endpoints: tuple[Endpoint, ...]) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    schemas = dict(_SCHEMAS)
    for endpoint in endpoints:
        if endpoint.operation is None:
            continue
        path = compile_path(endpoint.path)[1]
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, endpoint.operation)
        if (request := endpoint.operation.request) is not None:
            schema = request.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {})
            schemas[request.__name__] = schema
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gptbox",
            "version": __version__,
            "description": "An OpenAI-compatible API for the GPT trained on this machine.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


async def openapi(request: Request) -> Response:
    return JSONResponse(describe(request.app.state.endpoints))
