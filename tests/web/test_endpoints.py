"""The table of endpoints: the application routes, counts, logs, describes and protects each row as the row says."""

import logging
import re
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient

from gptbox.settings import Settings
from gptbox.web import create_app
from gptbox.web.endpoint import Endpoint, Operation
from gptbox.web.endpoints import ENDPOINTS

HTTPD_CONF = (Path(__file__).parents[2] / "apache" / "httpd.conf").read_text(encoding="utf-8")
each_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)


def make_client(models: Path, api_key: str | None = None) -> TestClient:
    """A client of the application without its lifespan: neither an engine nor a model is needed here."""
    return TestClient(create_app(Settings(models=models, api_key=api_key)))


@pytest.fixture
def client(models: Path) -> TestClient:
    return make_client(models)


def address(endpoint: Endpoint) -> str:
    """A path that the endpoint serves."""
    return "/static/main.js" if endpoint.path == "/static/" else re.sub("{.+?}", "none", endpoint.path)


def without_body(endpoint: Endpoint) -> str:
    """A method that the endpoint accepts. HEAD instead of GET, because the event stream has no end."""
    return "HEAD" if endpoint.method == "GET" else endpoint.method


def has_json_error(response: httpx.Response) -> bool:
    """Whether an error response is an error object. Otherwise it must be a line of text."""
    if response.headers["content-type"] == "application/json":
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        return True
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert re.fullmatch(r".+\n", response.text)
    return False


@each_endpoint
def test_an_endpoint_accepts_its_method_only(client: TestClient, endpoint: Endpoint) -> None:
    assert client.request(without_body(endpoint), address(endpoint)).status_code != 405
    refused = client.patch(address(endpoint))
    assert refused.status_code == 405
    if endpoint.path != "/static/":  # StaticFiles sends no Allow header
        assert set(refused.headers["allow"].split(", ")) == {endpoint.method, without_body(endpoint)}


@each_endpoint
def test_errors_of_an_endpoint_and_unknown_paths_below_have_its_shape(client: TestClient, endpoint: Endpoint) -> None:
    assert has_json_error(client.patch(address(endpoint))) is endpoint.json_errors
    if endpoint.first_segment:
        unknown = client.get(f"/{endpoint.first_segment}/no/such/path")
        assert unknown.status_code == 404
        assert has_json_error(unknown) is endpoint.json_errors


@each_endpoint
def test_requests_are_counted_under_the_path_or_as_other(client: TestClient, endpoint: Endpoint) -> None:
    client.patch(address(endpoint))
    label = endpoint.path if endpoint.has_metric_label else "other"
    assert f'gptbox_requests_total{{path="{label}",status="405"}} 1.0' in client.get("/metrics").text


@each_endpoint
def test_the_key_is_required_where_the_row_says_so(models: Path, endpoint: Endpoint) -> None:
    client = make_client(models, api_key="sesame")
    status = client.request(without_body(endpoint), address(endpoint)).status_code
    assert (status == 401) is endpoint.requires_key
    headers = {"Authorization": "Bearer sesame"}
    assert client.request(without_body(endpoint), address(endpoint), headers=headers).status_code != 401


@each_endpoint
def test_requests_are_logged_as_the_row_says(
    client: TestClient, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gptbox.requests")
    for method in ("PATCH", without_body(endpoint)):
        caplog.clear()
        status = client.request(method, address(endpoint)).status_code
        logged = [record for record in caplog.records if record.name == "gptbox.requests"]
        assert bool(logged) is (endpoint.log == "visits" or (endpoint.log == "failures" and status >= 400))


def test_the_described_endpoints_are_in_the_openapi_document(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    described = [
        (endpoint, endpoint.operation, paths[re.sub(r":\w+}", "}", endpoint.path)].pop(endpoint.method.lower()))
        for endpoint in ENDPOINTS
        if endpoint.operation is not None
    ]
    assert not any(paths.values())
    for endpoint, operation, found in described:
        assert found["summary"] == operation.summary
        assert ("security" in found) is ("401" in found["responses"]) is endpoint.requires_key
        assert found["responses"]["200"]["content"][operation.media_type]["schema"] == operation.reply
        assert ("text/event-stream" in found["responses"]["200"]["content"]) is operation.streams
        assert {str(status) for status in operation.errors} <= set(found["responses"])
        assert ("requestBody" in found) is (operation.request is not None)


def test_endpoints_with_the_same_first_segment_agree_on_errors() -> None:
    agreed = {endpoint.first_segment: endpoint.json_errors for endpoint in ENDPOINTS}
    for endpoint in ENDPOINTS:
        assert endpoint.json_errors == agreed[endpoint.first_segment], endpoint.path


@pytest.mark.parametrize(("path", "needs_key"), [("/v1/no/such/path", True), ("/api/no/such/path", False)])
def test_unknown_paths_need_the_key_where_all_endpoints_beside_them_do(
    models: Path, path: str, needs_key: bool
) -> None:
    assert make_client(models, api_key="sesame").get(path).status_code == (401 if needs_key else 404)


@each_endpoint
def test_the_proxy_agrees_on_unlogged_paths_and_json_errors(endpoint: Endpoint) -> None:
    (unlogged,) = re.findall(r"%\{REQUEST_URI\} !~ m#(.+?)#", HTTPD_CONF)
    (json_errors,) = re.findall(r'<LocationMatch "(.+)">', HTTPD_CONF)
    assert bool(re.match(json_errors, address(endpoint))) is endpoint.json_errors
    if f'Redirect 404 "{endpoint.path}"' not in HTTPD_CONF:  # not for visitors
        assert bool(re.match(unlogged, address(endpoint))) is (endpoint.log == "never")


async def repeat(request: Request) -> Response:
    return JSONResponse({"word": request.path_params["word"]})


def test_a_new_endpoint_is_a_handler_and_a_row(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reply = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    new = [
        Endpoint(
            "GET", "/v1/repeat/{word}", repeat, requires_key=True, json_errors=True, has_metric_label=False,
            operation=Operation("Repeat a word", "The word.", reply),
        ),
        Endpoint("GET", "/repeat/{word}", repeat, has_metric_label=False),
    ]  # fmt: skip
    monkeypatch.setattr("gptbox.web.app.ENDPOINTS", (*ENDPOINTS, *new))
    client = make_client(models, api_key="sesame")
    assert client.get("/repeat/echo").json() == {"word": "echo"}
    assert client.get("/v1/repeat/echo").json()["error"]["code"] == "invalid_api_key"
    headers = {"Authorization": "Bearer sesame"}
    assert client.get("/v1/repeat/echo", headers=headers).json() == {"word": "echo"}
    assert client.get("/v1/models", headers=headers).status_code == 200
    paths = client.get("/openapi.json").json()["paths"]
    assert paths["/v1/repeat/{word}"]["get"]["parameters"][0]["name"] == "word"
    assert "/repeat/{word}" not in paths
