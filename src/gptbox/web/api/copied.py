"""/api/copied: which spans of a text stand verbatim in the training text."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gptbox.web.api.sampling_fields import MAX_PROMPT_BYTES, well_formed
from gptbox.web.json import read_json_object, validate
from gptbox.web.service import get_service


def _parse_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("it must be a string")
    text = well_formed(value)
    if len(text.encode()) > MAX_PROMPT_BYTES:
        raise ValueError(f"it has more than {MAX_PROMPT_BYTES:,} bytes of UTF-8")
    return text


class CopiedRequest(BaseModel):
    """A text, and the model in whose training text to look."""

    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = Field(None, description="As in completions. All snapshots of a run have the same text.")
    text: Annotated[
        str, BeforeValidator(_parse_text), WithJsonSchema({"type": "string", "maxLength": MAX_PROMPT_BYTES})
    ]


async def copied(request: Request) -> Response:
    fields = validate(CopiedRequest, await read_json_object(request))
    service = get_service(request)
    run = await service.live_model.find_run(fields.model)
    client = request.client.host if request.client is not None else ""
    return JSONResponse(await service.text_index.find_copied(run, fields.text, client))
