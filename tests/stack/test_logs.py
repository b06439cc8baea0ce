"""The output of `docker compose up`: the page's URL, training progress, and a line per visit."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

Until = Callable[..., Any]


def lines(stack: Any) -> list[str]:
    """All log lines of Apache and web so far."""
    return [f"{service} {line}" for service in ("apache", "web") for line in stack.logs(service).splitlines()]


@contextmanager
def new_lines(stack: Any) -> Iterator[list[str]]:
    """The log lines of Apache and web during the block and half a second longer; filled on exit."""
    new: list[str] = []
    before = len(stack.logs("apache").splitlines()), len(stack.logs("web").splitlines())
    yield new
    time.sleep(0.5)
    for service, count in zip(("apache", "web"), before, strict=True):
        new += [f"{service} {line}" for line in stack.logs(service).splitlines()[count:]]


def test_the_first_line_has_the_url_of_the_page(serving: Any) -> None:
    first, *rest = serving.logs("apache").splitlines()
    assert first == f"The page is at http://localhost:{serving.port}/ on this machine."
    assert not any("notice" in line for line in rest)
    assert "://" not in serving.logs("web"), "no other address, least of all one that does not answer"


@pytest.mark.parametrize(
    ("port", "address"),
    [("80", "http://localhost/"), ("8080", "http://localhost:8080/"), ("192.0.2.7:8080", "http://192.0.2.7:8080/")],
)
def test_the_url_has_the_published_port(serving: Any, port: str, address: str) -> None:
    container = serving.docker.containers.run(
        f"{serving.project}-apache", detach=True, environment={"PORT": port}, network_disabled=True,
        labels={"com.docker.compose.project": serving.project},
    )  # fmt: skip
    try:
        end = time.monotonic() + 10
        while not (logged := container.logs().decode()):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert logged.splitlines()[0] == f"The page is at {address} on this machine."
    finally:
        container.remove(force=True)


def test_training_logs_its_progress(serving: Any) -> None:
    log = serving.logs("train")
    assert "Training a " in log
    assert re.search(r"^step [\d,]+/[\d,]+ · .* left · published step-\d{6}$", log, re.MULTILINE)
    assert "{" not in log


def test_a_page_view_is_one_log_line(serving: Any) -> None:
    with new_lines(serving) as logged:
        page = serving.http.get("/?secret=1")
        files = re.findall(r"(?:src|href)=\"(static/[^\"]+)", page.text)
        assert len(files) >= 3
        for path in (*files, "api/status", "api/history", "v1/models", "healthz", "readyz", "health"):
            assert serving.http.get(f"/{path}").status_code == 200
        with serving.http.stream("GET", "/api/events") as feed:
            next(feed.iter_raw())
        assert serving.inside("apache", "healthcheck")[0] == 0
        for path in ("/static/app.css", "/static/0123456789ab/app.css"):  # from web
            assert serving.http.get(path).status_code == 200
        known = {"If-None-Match": page.headers["etag"]}
    (line,) = logged
    visit = r"apache (?!127\.)[0-9a-f.:]+ GET / {} · \d+ ms · {}"
    assert re.fullmatch(visit.format(200, re.escape(page.headers["x-request-id"])), line)
    with new_lines(serving) as logged:
        assert serving.http.get("/", headers=known).status_code == 304
    (line,) = logged
    assert re.fullmatch(visit.format(304, r"\S+"), line)


def test_a_generation_is_one_log_line_with_client_and_tokens(serving: Any) -> None:
    body = {"model": "little", "prompt": "the", "max_tokens": 7, "stream": True}
    with new_lines(serving) as logged:
        reply = serving.http.post("/v1/completions", json=body, headers={"X-Request-ID": "mine"})
        other = serving.http.get("/cgi-bin/test")
    first, second = logged
    name, name_of_other = reply.headers["x-request-id"], other.headers["x-request-id"]
    assert len({name, name_of_other, "mine"}) == 3
    client = r"web (?!127\.)\d+\.\d+\.\d+\.\d+"  # neither Apache's address nor web's
    assert re.fullmatch(rf"{client} POST /v1/completions 200 · 7 tokens · \d+ ms · {re.escape(name)}", first)
    assert re.fullmatch(rf"{client} GET /cgi-bin/test 200 · 500 tokens · \d+ ms · {re.escape(name_of_other)}", second)


def test_a_failure_is_one_log_line_of_the_server_that_answered(serving: Any) -> None:
    with new_lines(serving) as logged:
        assert serving.http.get("/nothing-here?secret=1").status_code == 404
        assert serving.http.post("/v1/completions", json={"max_tokens": -1}).status_code == 400
        assert serving.http.post("/v1/completions", content=b"x" * (2**20 + 1)).status_code == 413
        assert serving.http.post("/v1/completions", content=iter([b"{}"])).status_code == 411
        assert serving.http.get("/metrics").status_code == 404
    seen = [re.fullmatch(r"(\w+) [0-9a-f.:]+ (\w+) (\S+) (\d+) · \d+ ms · \S+", line) for line in logged]
    assert [match and match.groups() for match in seen] == [
        ("apache", "POST", "/v1/completions", "413"),
        ("apache", "POST", "/v1/completions", "411"),
        ("apache", "GET", "/metrics", "404"),
        ("web", "GET", "/nothing-here", "404"),
        ("web", "POST", "/v1/completions", "400"),
    ]


@pytest.mark.acceptance
def test_an_idle_connection_is_not_logged(serving: Any) -> None:
    """Browsers open connections in advance."""
    address = ("localhost", serving.port)
    with new_lines(serving) as logged, socket.create_connection(address, timeout=90) as connection:
        assert connection.recv(1) == b"", "Apache closes it"
    assert logged == []


def test_while_web_is_down_a_visit_is_one_log_line(serving: Any, until: Until) -> None:
    serving.compose("stop", "web")
    try:
        before = len(serving.logs("apache").splitlines())
        assert serving.http.get("/?secret=1").status_code == 200
        assert serving.http.get("/cgi-bin/test?secret=1").status_code == 503
        assert serving.http.post("/v1/completions", json={"prompt": "the"}).status_code == 503
        for path in ("/static/app.css", "/api/events", "/healthz", "/readyz"):
            assert serving.http.get(path).status_code == 503
        time.sleep(0.5)
        logged = serving.logs("apache").splitlines()[before:]
    finally:
        serving.compose("up", "--detach", "--no-build", "web")
        until(lambda: serving.http.get("/readyz").status_code == 200, within=60, what="a model after the test")
    seen = [re.fullmatch(r"[0-9a-f.:]+ (\w+) (\S+) (\d+) · \d+ ms · \S+", line) for line in logged]
    assert [match and match.groups() for match in seen] == [
        ("GET", "/", "200"), ("GET", "/cgi-bin/test", "503"), ("POST", "/v1/completions", "503"),
    ]  # fmt: skip


def test_all_log_lines_of_training_and_web_can_be_json(serving: Any, until: Until) -> None:
    def run(service: str, **settings: str) -> Any:
        return serving.docker.containers.run(
            f"{serving.project}-{service}", detach=True, environment={"LOG_FORMAT": "json", **settings}, init=True,
            volumes={f"{serving.project}_models": {"bind": "/models", "mode": "rw"},
                     str(serving.data): {"bind": "/data", "mode": "ro"}},
            labels={"com.docker.compose.project": serving.project}, network_disabled=service == "train",
        )  # fmt: skip

    containers = [
        run("train", DATASET="little", RUN="in-json", TRAIN_MINUTES="0.2"),
        run("train", DATASET="little", TRAIN_MINUTES="soon"),
        run("web"),
    ]
    try:
        trained, refused, web = containers
        code = """
from urllib.request import urlopen
from urllib.error import HTTPError
urlopen("http://127.0.0.1:8000/").read()
try:
    urlopen("http://127.0.0.1:8000/%0Agone")
except HTTPError:
    pass
"""
        until(lambda: web.exec_run(["python", "-c", code]).exit_code == 0, within=30, what="web's answer")
        web.stop(timeout=10)
        assert trained.wait(timeout=120)["StatusCode"] == 0
        assert refused.wait(timeout=60)["StatusCode"] == 2
        entries = [[json.loads(line) for line in each.logs().decode().splitlines()] for each in containers]
    finally:
        for container in containers:
            container.remove(force=True)
        serving.docker.containers.run(
            f"{serving.project}-train", ["rm", "-r", "/models/in-json"], remove=True, network_disabled=True,
            volumes={f"{serving.project}_models": {"bind": "/models", "mode": "rw"}},
        )  # fmt: skip
    assert all({"time", "level", "message"} <= set(entry) for each in entries for entry in each)
    of_trained, of_refused, of_web = entries
    published = [entry for entry in of_trained if "published" in entry["message"]]
    assert published
    assert all(entry["step"] and entry["tokens_per_s"] and entry["train_loss"] for entry in published)
    (mistake,) = of_refused
    assert mistake["level"] == "error"
    assert "TRAIN_MINUTES='soon'" in mistake["message"]
    requests = [entry for entry in of_web if "request_id" in entry]
    assert {(entry["path"], entry["status"]) for entry in requests} == {("/", 200), ("/%0Agone", 404)}


def test_an_invalid_log_format_stops_the_start_with_one_line(serving: Any) -> None:
    for service in ("train", "web"):
        container = serving.docker.containers.run(
            f"{serving.project}-{service}", detach=True, environment={"LOG_FORMAT": "xml"}, network_disabled=True,
            labels={"com.docker.compose.project": serving.project},
        )  # fmt: skip
        try:
            assert container.wait(timeout=60)["StatusCode"] == 2
            assert container.logs().decode() == "gptbox: LOG_FORMAT='xml' is not text or json.\n"
        finally:
            container.remove(force=True)


def test_clients_cannot_choose_request_ids(serving: Any) -> None:
    with httpx.Client(base_url=serving.url, timeout=10) as client:
        names = {
            client.get(path, headers={"X-Request-ID": "mine"}).headers["x-request-id"]
            for path in ("/", "/", "/healthz", "/healthz")
        }
    assert len(names) == 4
    assert "mine" not in names
    assert "mine" not in serving.logs("web")
