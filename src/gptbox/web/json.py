"""JSON in requests and responses: read within a size limit and strictly, written compactly and without NaN."""

import json
import math
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from gptbox.errors import RequestError, RequestTooLargeError

M = TypeVar("M", bound=BaseModel)

MAX_BODY_BYTES = 2**20
_MAX_DRAINED_BYTES = 16 * 2**20
"""A body that is too large is read up to this size: a client that is still sending would not read the error."""


async def read_body(request: Request) -> bytes:
    """The whole request body.

    Raises RequestTooLargeError above MAX_BODY_BYTES.
    """
    too_large = RequestTooLargeError(f"The request's body is longer than {MAX_BODY_BYTES:,} bytes.")
    content_length = request.headers.get("content-length", "")
    if content_length.isdecimal() and int(content_length) > _MAX_DRAINED_BYTES:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > _MAX_DRAINED_BYTES:
            break
        if size <= MAX_BODY_BYTES:
            chunks.append(chunk)
    if size > MAX_BODY_BYTES:
        raise too_large
    return b"".join(chunks)


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


async def read_json_object(request: Request) -> dict[str, Any]:
    """The request body as a JSON object; NaN and Infinity are rejected.

    Raises RequestError or RequestTooLargeError.
    """
    body = await read_body(request)
    try:
        content = json.loads(body, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise RequestError(f"The request's body is not valid JSON{where}.") from None
    if not isinstance(content, dict):
        raise RequestError('The request\'s body is not a JSON object, such as {"prompt": "ROMEO:"}.')
    return content


def validate(model: type[M], body: dict[str, Any]) -> M:
    """The body as an instance of a pydantic model.

    Raises RequestError naming the first invalid field.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    message = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    raise RequestError(f"{field}: {message[0].lower()}{message[1:]}.", field)


def compact_json(data: Any) -> str:
    """JSON as one line of ASCII: some clients end a line of an event stream at Unicode line separators.

    Raises ValueError for NaN and infinity.
    """
    return json.dumps(data, allow_nan=False, separators=(",", ":"))


def replace_non_finite(value: Any) -> Any:
    """The value with each NaN and infinity replaced by None: JSON has neither, but files edited by hand may."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: replace_non_finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [replace_non_finite(item) for item in value]
    return value
