"""The OpenAPI document is correct: schemathesis generates requests from it and validates the responses."""

from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from gptbox.settings import Settings
from gptbox.web import create_app

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_responses_to_valid_and_invalid_requests_conform(server: Any, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    seen = []
    for operation in (result.ok() for result in schema.get_all_operations()):
        if mode is GenerationMode.NEGATIVE and operation.method.lower() == "get":
            continue  # any name may be that of a model
        seen.append(operation.label)

        @hypothesis.settings(
            max_examples=25, phases=[hypothesis.Phase.generate], suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            good = mode is GenerationMode.POSITIVE
            if good and isinstance(case.body, dict) and case.body.get("stream") is True:
                case.body["stream"] = False  # streams have their own tests
                case.body.pop("stream_options", None)
            response = case.call(timeout=30)
            # schemathesis does not count 413 as a rejection.
            refused = [negative_data_rejection] if response.status_code == 413 else []
            case.validate_response(response, checks=CHECKS, excluded_checks=refused)

        check()
    assert seen[:4] == ["POST /v1/completions", "POST /v1/chat/completions", "POST /tokenize", "POST /detokenize"]


def test_every_path_of_the_api_is_described(tiny_run: Path) -> None:
    app = create_app(Settings(models=tiny_run))
    with TestClient(app) as client:
        described = set(client.get("/openapi.json").json()["paths"])
    router = next(route for route in app.routes if getattr(route, "path", "") == "/v1")
    served = {f"/v1{route.path_format}" for route in router.routes}  # type: ignore[attr-defined]
    posts = {"/api/scores", "/api/models/{model}.zip", "/api/qr", "/api/copied"}
    assert described == served | {"/tokenize", "/detokenize"} | posts
