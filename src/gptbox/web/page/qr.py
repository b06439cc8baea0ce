"""/api/qr: a QR code as an SVG image, for permalinks. These have prompts, so they come in a body: none is logged."""

import io
from typing import Annotated, Any

import segno
from anyio import to_thread
from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from gptbox.web.json import read_json_object, validate

MAX_TEXT_BYTES = 2000
"""In UTF-8. The largest symbol holds 2,953 bytes at error correction level L."""
QUIET_ZONE = 4
"""Modules of white around the symbol: the standard's."""


def _parse_text(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        raise ValueError("it must be a text of at least one character")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError("it has half of a surrogate pair; send whole characters") from None
    if size > MAX_TEXT_BYTES:
        raise ValueError(f"it has {size:,} bytes of UTF-8; at most {MAX_TEXT_BYTES:,} fit a code that can be scanned")
    return value


class QrRequest(BaseModel):
    """What the code says."""

    model_config = ConfigDict(strict=True, extra="ignore")

    text: Annotated[
        str,
        BeforeValidator(_parse_text),
        WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_TEXT_BYTES}),
    ]


def qr_svg(text: str) -> bytes:
    """The SVG image of the smallest symbol for a text, with the best error correction that fits it, L or better.

    Black on white, one unit per module, without script, style, class or size.
    """
    symbol = segno.make(text, error="l", boost_error=True, micro=False, encoding="utf-8")
    image = io.BytesIO()
    symbol.save(
        image, kind="svg", border=QUIET_ZONE, dark="#000", light="#fff", xmldecl=False, omitsize=True, svgclass=None,
        lineclass=None,
    )  # fmt: skip
    return image.getvalue()


async def qr(request: Request) -> Response:
    fields = validate(QrRequest, await read_json_object(request))
    return Response(await to_thread.run_sync(qr_svg, fields.text), media_type="image/svg+xml")
