"""Reading a request's JSON body, bounded and strict."""

import json
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from gptbox.errors import RequestError, RequestTooLargeError

M = TypeVar("M", bound=BaseModel)

MAX_BYTES = 2**20
_DRAINED_BYTES = 16 * 2**20
"""A body somewhat too long is read to its end: a client that is still sending would not see the reply otherwise."""


async def read_body(request: Request) -> bytes:
    """The whole body.

    Raises RequestTooLargeError above MAX_BYTES.
    """
    too_large = RequestTooLargeError(f"The request's body is longer than {MAX_BYTES:,} bytes.")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > _DRAINED_BYTES:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > _DRAINED_BYTES:
            break
        if size <= MAX_BYTES:
            chunks.append(chunk)
    if size > MAX_BYTES:
        raise too_large
    return b"".join(chunks)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


async def read_json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object; NaN and Infinity are no JSON.

    Raises RequestError or RequestTooLargeError.
    """
    body = await read_body(request)
    try:
        content = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise RequestError(f"The request's body is not valid JSON{where}.") from None
    if not isinstance(content, dict):
        raise RequestError('The request\'s body is not a JSON object, such as {"prompt": "ROMEO:"}.')
    return content


def checked(kind: type[M], body: dict[str, Any]) -> M:
    """The body's fields, in their ranges.

    Raises RequestError naming the first field at fault.
    """
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    message = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    raise RequestError(f"{field}: {message[0].lower()}{message[1:]}.", field)
