"""Maps exceptions to HTTP: status codes, OpenAI's error object, and the log entry of an unexpected error."""

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from gptbox.errors import (
    AccessDeniedError,
    CrossSiteError,
    DownloadsOffError,
    EngineError,
    GptboxError,
    ModelFolderError,
    ModelNotFoundError,
    ModelsDamagedError,
    NoIndexError,
    NoModelYetError,
    QueueFullError,
    RequestError,
    RequestTooLargeError,
)
from gptbox.web.endpoint import Endpoint, first_segment

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ErrorReply:
    """The status code and OpenAI's error fields for a class of exceptions."""

    status: int
    type: str
    code: str | None = None
    retry_after: int | None = None
    """Seconds, for the `Retry-After` header."""
    param: str | None = None


_ERROR_REPLIES: dict[type[Exception], ErrorReply] = {
    RequestError: ErrorReply(400, "invalid_request_error"),
    RequestTooLargeError: ErrorReply(413, "invalid_request_error", "request_too_large"),
    AccessDeniedError: ErrorReply(401, "invalid_request_error", "invalid_api_key"),
    CrossSiteError: ErrorReply(403, "invalid_request_error", "cross_site_request"),
    DownloadsOffError: ErrorReply(403, "invalid_request_error", "downloads_off"),
    ModelNotFoundError: ErrorReply(404, "invalid_request_error", "model_not_found", param="model"),
    NoIndexError: ErrorReply(404, "invalid_request_error", "no_index", param="model"),
    NoModelYetError: ErrorReply(503, "server_error", "no_model_yet", retry_after=5),
    ModelsDamagedError: ErrorReply(503, "server_error", "models_damaged"),
    ModelFolderError: ErrorReply(500, "server_error", "model_damaged", param="model"),
    QueueFullError: ErrorReply(429, "rate_limit_error", "queue_full", retry_after=5),
    EngineError: ErrorReply(503, "server_error", "engine_unavailable", retry_after=5),
}
_INTERNAL_ERROR = ErrorReply(500, "server_error", "internal_error")
_HTTP_MESSAGES = {404: "There is nothing at this address.", 405: "This address does not take this method."}


def reply_to(error: Exception) -> tuple[ErrorReply, str]:
    """The reply to an exception and its message for the client."""
    if isinstance(error, HTTPException):
        message = _HTTP_MESSAGES.get(error.status_code, error.detail)
        return ErrorReply(error.status_code, "invalid_request_error"), message
    reply = next((_ERROR_REPLIES[kind] for kind in type(error).__mro__ if kind in _ERROR_REPLIES), _INTERNAL_ERROR)
    if reply.code == "model_damaged":  # the exception's own message has paths of the server; it is logged
        return reply, "This model's folder is damaged and cannot be loaded. Choose another model."
    # Only gptbox's own messages are written for users and known to contain nothing private.
    return reply, str(error) if isinstance(error, GptboxError) else "Something went wrong on the server."


def error_object(error: Exception) -> dict[str, dict[str, str | None]]:
    """OpenAI's error object."""
    reply, message = reply_to(error)
    param = error.param if isinstance(error, RequestError) else reply.param
    return {"error": {"message": message, "type": reply.type, "param": param, "code": reply.code}}


def _has_json_errors(request: Request) -> bool:
    """Whether the path belongs to an endpoint with JSON errors, or shares its first segment with one."""
    endpoints: Sequence[Endpoint] = request.app.state.endpoints
    segment = first_segment(request.scope["path"])
    return any(endpoint.json_errors and endpoint.first_segment == segment for endpoint in endpoints)


def error_response(request: Request, error: Exception) -> Response:
    """The response to an exception: an error object or a line of text, see `Endpoint.json_errors`."""
    reply, message = reply_to(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if reply.retry_after is not None:
        headers["Retry-After"] = str(reply.retry_after)
    if reply.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if _has_json_errors(request):
        return JSONResponse(error_object(error), reply.status, headers)
    return PlainTextResponse(f"{message}\n", reply.status, headers)


async def handle_error(request: Request, error: Exception) -> Response:
    """Starlette's exception handler for GptboxError and HTTPException."""
    if isinstance(error, ModelFolderError) and not isinstance(error, ModelNotFoundError):
        log.warning("%s", error)
    return error_response(request, error)


def log_unexpected_error(error: Exception) -> None:
    """Log the type and stack of an unexpected exception, but not its message, which may contain a prompt.

    gptbox's own exceptions are expected and not logged.
    """
    if isinstance(error, GptboxError):
        return
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s in:\n%s", type(error).__name__, frames.rstrip())
