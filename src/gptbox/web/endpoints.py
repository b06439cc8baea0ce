"""The table of endpoints. A new endpoint is a handler and a row here.

Routes, API key, error shapes, metric labels, request log and the OpenAPI document are derived from it. The document
lists endpoints in the order of the rows.
"""

from gptbox.web.api.chat import chat
from gptbox.web.api.chat_request import ChatRequest
from gptbox.web.api.completion_request import CompletionRequest
from gptbox.web.api.completions import completions
from gptbox.web.api.copied import CopiedRequest, copied
from gptbox.web.api.model_archive import model_archive
from gptbox.web.api.models import model, models
from gptbox.web.api.openapi import BINARY_SCHEMA, array_schema, object_schema, openapi, schema_ref
from gptbox.web.api.scores import scores
from gptbox.web.api.scores_request import ScoresRequest
from gptbox.web.api.tokenization import DetokenizeRequest, TokenizeRequest, detokenize, tokenize
from gptbox.web.endpoint import Endpoint, Operation
from gptbox.web.metrics import metrics
from gptbox.web.page.cgi_sample import cgi_sample
from gptbox.web.page.files import files, page
from gptbox.web.page.history import history
from gptbox.web.page.qr import QrRequest, qr
from gptbox.web.page.status import events, healthz, readyz, status

_GENERATION_DESCRIPTION = "The texts; with `stream` as server-sent events that end with [DONE]."
_MODEL_ERRORS = (404, 500, 503)
"""Errors of every endpoint that loads the requested model."""

ENDPOINTS = (
    Endpoint("GET", "/", page, log="visits"),
    Endpoint("GET", "/static/", files, has_metric_label=False, log="never"),
    Endpoint(
        "POST", "/v1/completions", completions, requires_key=True, json_errors=True,
        operation=Operation(
            "Complete texts", _GENERATION_DESCRIPTION, schema_ref("Completion"),
            request=CompletionRequest, streams=True, errors=(429, *_MODEL_ERRORS),
        ),
    ),
    Endpoint(
        "POST", "/v1/chat/completions", chat, requires_key=True, json_errors=True,
        operation=Operation(
            "Complete a chat, written as a play", _GENERATION_DESCRIPTION, schema_ref("ChatCompletion"),
            request=ChatRequest, streams=True, errors=(429, *_MODEL_ERRORS),
        ),
    ),
    Endpoint(
        "POST", "/tokenize", tokenize, requires_key=True, json_errors=True,
        operation=Operation(
            "Convert text to token ids", "The tokens.", schema_ref("Tokens"),
            request=TokenizeRequest, errors=_MODEL_ERRORS,
        ),
    ),
    Endpoint(
        "POST", "/detokenize", detokenize, requires_key=True, json_errors=True,
        operation=Operation(
            "Convert token ids to text", "The text.", schema_ref("Detokenized"),
            request=DetokenizeRequest, errors=_MODEL_ERRORS,
        ),
    ),
    Endpoint(
        "GET", "/v1/models", models, requires_key=True, json_errors=True,
        operation=Operation(
            "List every run and snapshot", "The models.",
            object_schema({"object": {"const": "list"}, "data": array_schema(schema_ref("Model"))}),
        ),
    ),
    Endpoint(
        "GET", "/v1/models/{model:path}", model, requires_key=True, json_errors=True, has_metric_label=False,
        operation=Operation("Look up a model", "The model.", schema_ref("Model"), errors=(404,)),
    ),
    Endpoint(
        "POST", "/api/scores", scores, requires_key=True, json_errors=True,
        operation=Operation(
            "Score a text with one snapshot or several",
            "The log-probabilities; with `stream` as server-sent events, one per snapshot, that end with [DONE].",
            schema_ref("Scores"), request=ScoresRequest, streams=True, errors=(429, *_MODEL_ERRORS),
        ),
    ),
    Endpoint(
        "GET", "/api/models/{model}.zip", model_archive, requires_key=True, json_errors=True, has_metric_label=False,
        operation=Operation(
            "Download a model folder", "The folder as a ZIP file.", BINARY_SCHEMA, media_type="application/zip",
            errors=(403, 404, 429, 503),
        ),
    ),
    Endpoint(
        "POST", "/api/qr", qr, json_errors=True,
        operation=Operation(
            "Draw a QR code", "The image.", {"type": "string"}, request=QrRequest, media_type="image/svg+xml"
        ),
    ),
    Endpoint(
        "POST", "/api/copied", copied, requires_key=True, json_errors=True,
        operation=Operation(
            "Find what a text has in common with the training text", "The copied spans.", schema_ref("Copied"),
            request=CopiedRequest, errors=(404, 429, 503),
        ),
    ),
    Endpoint("GET", "/api/status", status, json_errors=True),
    Endpoint("GET", "/api/history", history, json_errors=True),
    Endpoint("GET", "/api/events", events, json_errors=True, log="never"),
    Endpoint("GET", "/cgi-bin/test", cgi_sample),
    Endpoint("GET", "/health", healthz, has_metric_label=False, log="never"),
    Endpoint("GET", "/healthz", healthz, has_metric_label=False, log="never"),
    Endpoint("GET", "/readyz", readyz, has_metric_label=False, log="never"),
    Endpoint("GET", "/metrics", metrics, has_metric_label=False, log="never"),
    Endpoint("GET", "/openapi.json", openapi),
)  # fmt: skip
