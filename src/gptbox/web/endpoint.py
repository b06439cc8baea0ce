"""The description of an endpoint. `gptbox.web.endpoints` is the table of all endpoints."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles


@dataclass(frozen=True)
class Operation:
    """An endpoint's part of the OpenAPI document, except for what the fields of `Endpoint` imply."""

    summary: str
    reply_description: str
    reply: dict[str, Any]
    """The JSON schema of the reply."""
    request: type[BaseModel] | None = None
    """The model that validates the request's body."""
    media_type: str = "application/json"
    """Of the reply."""
    streams: bool = False
    """Whether the reply may be a stream of server-sent events instead."""
    errors: tuple[int, ...] = ()
    """Status codes of errors, except those implied: 401 by `requires_key`, and 400, 403 and 413 by `request`."""


@dataclass(frozen=True, eq=False)  # hashed by identity: a schema has no hash
class Endpoint:
    """A row of the table. Rows with the same first segment agree on `json_errors`."""

    method: str
    """GET includes HEAD."""
    path: str
    """With Starlette's parameters, as in `/v1/models/{model:path}`. Static files get every path that begins with it."""
    handler: Callable[[Request], Awaitable[Response]] | StaticFiles
    requires_key: bool = False
    """Whether a request needs the API key, if one is set.

    Unknown paths need it, too, where all rows with the same first segment do.
    """
    json_errors: bool = False
    """Whether errors are OpenAI's error objects, also of unknown paths with the same first segment. Otherwise an error
    is a line of text."""
    has_metric_label: bool = True
    """Whether requests are counted under the path, which must then have no parameters, rather than as `other`."""
    log: Literal["visits", "failures", "never"] = "failures"
    """Which requests are logged: all (`visits`), only failures and generations (`failures`), or none (`never`).

    The path of a `never` row is a prefix. apache/httpd.conf lists the same paths.
    """
    operation: Operation | None = None
    """None if the OpenAPI document leaves the endpoint out."""

    @property
    def first_segment(self) -> str:
        """`v1` of `/v1/models`."""
        return first_segment(self.path)


def first_segment(path: str) -> str:
    """The first segment of a path, whose leading slashes count as one."""
    return path.lstrip("/").partition("/")[0]
