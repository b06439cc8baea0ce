"""From exceptions to HTTP: the only place that knows status codes, and the last that sees what nobody caught."""

import logging
import traceback
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptbox.errors import (
    AccessDeniedError,
    CrossSiteError,
    EngineError,
    GptboxError,
    ModelFolderError,
    ModelNotFoundError,
    ModelsDamagedError,
    NoModelYetError,
    QueueFullError,
    RequestError,
    RequestTooLargeError,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """How a class of errors is told to clients: OpenAI's type and code, and seconds after which to try again."""

    status: int
    type: str
    code: str | None = None
    retry_after: int | None = None
    param: str | None = None


_ANSWERS: dict[type[Exception], Answer] = {
    RequestError: Answer(400, "invalid_request_error"),
    RequestTooLargeError: Answer(413, "invalid_request_error", "request_too_large"),
    AccessDeniedError: Answer(401, "invalid_request_error", "invalid_api_key"),
    CrossSiteError: Answer(403, "invalid_request_error", "cross_site_request"),
    ModelNotFoundError: Answer(404, "invalid_request_error", "model_not_found", param="model"),
    NoModelYetError: Answer(503, "server_error", "no_model_yet", retry_after=5),
    ModelsDamagedError: Answer(503, "server_error", "models_damaged"),
    ModelFolderError: Answer(500, "server_error", "model_damaged", param="model"),
    QueueFullError: Answer(429, "rate_limit_error", "queue_full", retry_after=5),
    EngineError: Answer(503, "server_error", "engine_unavailable", retry_after=5),
}
_FOR_PROGRAMS = {"v1", "api", "tokenize", "detokenize"}
"""First parts of addresses whose errors are objects; elsewhere they are a line of text."""
_UNFORESEEN = Answer(500, "server_error", "internal_error")
_HTTP_MESSAGES = {404: "There is nothing at this address.", 405: "This address does not take this method."}


def answer_to(error: Exception) -> tuple[Answer, str]:
    """How to answer an error, and its message for the client."""
    if isinstance(error, HTTPException):
        return Answer(error.status_code, "invalid_request_error"), _HTTP_MESSAGES.get(error.status_code, error.detail)
    answer = next((_ANSWERS[kind] for kind in type(error).__mro__ if kind in _ANSWERS), _UNFORESEEN)
    if answer.code == "model_damaged":  # the exact message names files of the server; it is in the log
        return answer, "This model's folder is damaged and cannot be loaded. Ask for another one."
    # Only gptbox's own messages are written for people, and known to hold nothing private.
    return answer, str(error) if isinstance(error, GptboxError) else "Something went wrong on the server."


def error_object(error: Exception) -> dict[str, dict[str, str | None]]:
    """OpenAI's error object."""
    answer, message = answer_to(error)
    param = error.param if isinstance(error, RequestError) else answer.param
    return {"error": {"message": message, "type": answer.type, "param": param, "code": answer.code}}


def error_response(request: Request, error: Exception) -> Response:
    """A whole reply: an error object for programs, one line of text elsewhere."""
    answer, message = answer_to(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if answer.retry_after is not None:
        headers["Retry-After"] = str(answer.retry_after)
    if answer.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    path: str = request.scope["path"]
    if path.lstrip("/").partition("/")[0] in _FOR_PROGRAMS:
        return JSONResponse(error_object(error), answer.status, headers)
    return PlainTextResponse(f"{message}\n", answer.status, headers)


async def handle_error(request: Request, error: Exception) -> Response:
    """Starlette's exception handler for GptboxError and HTTPException."""
    if isinstance(error, ModelFolderError) and not isinstance(error, ModelNotFoundError):
        log.warning("%s", error)
    return error_response(request, error)


def log_failure(error: Exception) -> None:
    """Log where an error that nobody foresaw came from, but not its message, which may quote a prompt."""
    if isinstance(error, GptboxError):
        return
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s in:\n%s", type(error).__name__, frames.rstrip())


class ErrorBoundary:
    """The outermost layer: what nobody foresaw becomes a 500 and a log entry without its message."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except ClientDisconnect:
            pass  # nobody is left to answer
        except Exception as error:
            log_failure(error)
            if not started:
                await error_response(Request(scope), error)(scope, receive, send)
