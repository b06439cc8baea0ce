"""Restarts and crashes of web: what visitors see meanwhile, and how soon it recovers."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

Until = Callable[..., Any]


@pytest.fixture(autouse=True)
def _stack_serves_afterwards(serving: Any, until: Until) -> Iterator[None]:
    yield
    serving.compose("up", "--detach", "--no-build", "web", "apache")
    until(lambda: serving.http.get("/readyz").status_code == 200, within=60, what="a model after the test")


def ready(stack: Any) -> bool:
    return bool(stack.http.get("/readyz").status_code == 200)


def address(stack: Any) -> str:
    (network,) = stack.container("web").attrs["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def web_itself_is_ready(stack: Any) -> bool:
    """Probed from inside its container, not through Apache."""
    code = "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=5)"
    return bool(stack.inside("web", "python", "-c", code)[0] == 0)


def concurrent_statuses(stack: Any) -> set[int]:
    """The statuses of 24 concurrent requests of several kinds."""

    def ask(client: httpx.Client, i: int) -> int:
        if i % 3 == 0:
            return client.post(
                "/v1/completions", json={"model": "little", "prompt": "the", "max_tokens": 1}
            ).status_code
        return client.get("/readyz" if i % 3 == 1 else "/cgi-bin/test").status_code

    with ExitStack() as end, ThreadPoolExecutor(24) as pool:
        clients = [end.enter_context(httpx.Client(base_url=stack.url, timeout=20)) for _ in range(24)]
        return set(pool.map(ask, clients, range(24)))


def test_requests_fail_only_while_web_is_down(serving: Any, until: Until) -> None:
    """Apache reuses its connections to web, and must notice which of them a restart has closed."""
    seen: list[tuple[float, int | str]] = []
    over = threading.Event()

    def visit(method: str, path: str, body: Any, pause: float) -> None:
        with httpx.Client(base_url=serving.url, timeout=20) as client:
            while not over.wait(pause):
                sent_at = time.monotonic()
                try:
                    seen.append((sent_at, client.request(method, path, json=body).status_code))
                except httpx.TransportError as error:
                    seen.append((sent_at, repr(error)))

    body = {"model": "little", "prompt": "the", "max_tokens": 1}
    with ThreadPoolExecutor(5) as pool:
        try:
            for pause in (0.02, 0.2):
                pool.submit(visit, "GET", "/healthz", None, pause)
                pool.submit(visit, "POST", "/v1/completions", body, pause)
            pool.submit(visit, "GET", "/cgi-bin/test", None, 0.5)
            time.sleep(2)
            stopped = time.monotonic()
            serving.compose("restart", "web")
            until(lambda: web_itself_is_ready(serving), within=30, what="web's return")
            back = time.monotonic()
            time.sleep(3)
        finally:
            over.set()
    assert len([status for sent_at, status in seen if sent_at > back]) > 50
    # A request sent just before the stop may have failed.
    outside = [(sent_at, status) for sent_at, status in seen if not stopped - 0.5 < sent_at < back]
    assert [(sent_at - back, status) for sent_at, status in outside if status != 200] == []


def test_web_killed_and_restarted(serving: Any, until: Until) -> None:
    serving.compose("kill", "web")
    started = time.monotonic()
    page, sample = serving.http.get("/"), serving.http.get("/cgi-bin/test")
    api = serving.http.post("/v1/completions", json={"prompt": "the"})
    assert time.monotonic() - started < 5, "Apache must not wait for a web that is down"
    assert (page.status_code, sample.status_code, api.status_code) == (200, 503, 503)
    assert "gptbox is starting" in sample.text
    assert api.json()["error"]["code"] == "unavailable"

    serving.compose("start", "web")
    until(lambda: ready(serving), within=30, what="the recovery")
    reply = serving.http.post("/v1/completions", json={"model": "little", "prompt": "the", "max_tokens": 5})
    assert reply.status_code == 200


@pytest.mark.parametrize("inherited", [True, False])
def test_web_recreated_at_another_address(serving: Any, until: Until, inherited: bool) -> None:
    before = address(serving)
    serving.compose("rm", "--stop", "--force", "web")
    # Another container gets web's former address. If it is removed again, connections to it are not even refused.
    (network,) = serving.docker.networks.list(names=[f"{serving.project}_inside"])
    others = []
    try:
        while before not in [each.attrs["NetworkSettings"]["Networks"][network.name]["IPAddress"] for each in others]:
            assert len(others) < 5
            other = serving.docker.containers.run(
                f"{serving.project}-apache", ["sleep", "60"], detach=True, network=network.name,
                labels={"com.docker.compose.project": serving.project},
            )  # fmt: skip
            other.reload()
            others.append(other)
        serving.compose("up", "--detach", "--no-build", "web")
        assert address(serving) != before
        while not inherited and others:
            others.pop().remove(force=True)
        until(lambda: web_itself_is_ready(serving), within=30, what="web's return")
        started = time.monotonic()
        assert serving.http.get("/healthz").status_code == 200
        assert time.monotonic() - started < 0.9, "Apache waits one second for a host that does not answer"
        assert concurrent_statuses(serving) == {200}
    finally:
        for other in others:
            other.remove(force=True)


def test_docker_restarts_web_after_a_crash(serving: Any, until: Until) -> None:
    before = serving.container("web").attrs["RestartCount"]
    # From inside, like a crash: the signal reaches all processes but init and the sender.
    serving.inside("web", "python", "-c", "import os; os.kill(-1, 9)")
    until(lambda: serving.container("web").attrs["RestartCount"] > before, within=20, what="the restart")
    until(lambda: ready(serving), within=30, what="the recovery")


def test_a_truncated_stream_has_no_done_event(serving: Any) -> None:
    body = {"model": "little", "prompt": "the", "max_tokens": 2000, "n": 4, "stream": True}
    text = b""
    try:
        with serving.http.stream("POST", "/v1/completions", json=body) as response:
            for piece in response.iter_raw():
                if not text:
                    serving.container("web").kill()
                text += piece
    except httpx.TransportError:
        pass
    assert text
    assert b"[DONE]" not in text


def test_apache_can_be_restarted_alone(serving: Any, until: Until) -> None:
    with serving.http.stream("GET", "/api/events") as response:
        next(response.iter_raw())
        started = time.monotonic()
        serving.compose("restart", "apache")
        assert time.monotonic() - started < 12, "an open page must not delay it"
    until(lambda: ready(serving), within=20, what="the recovery")


@pytest.mark.acceptance
def test_if_web_hangs_apache_answers_502(serving: Any) -> None:
    container = serving.container("web")
    container.pause()
    try:
        page, description = serving.http.get("/"), serving.http.get("/openapi.json")
    finally:
        container.unpause()
    assert page.status_code == 200
    assert description.status_code == 502
    assert "gptbox is busy" in description.text
    assert int(description.headers["retry-after"]) > 0


def test_web_stops_cleanly_with_a_page_open(serving: Any) -> None:
    with serving.http.stream("GET", "/api/events") as response:
        next(response.iter_raw())
        serving.compose("stop", "web")
    assert serving.state("web")["ExitCode"] == 0


def test_a_wrong_setting_stops_the_start_with_one_line(serving: Any) -> None:
    output = serving.docker.containers.run(
        f"{serving.project}-train", detach=True, environment={"TRAIN_MINUTES": "soon"}, network_disabled=True,
        labels={"com.docker.compose.project": serving.project},
    )  # fmt: skip
    try:
        assert output.wait(timeout=60)["StatusCode"] == 2
        (line,) = output.logs().decode().splitlines()
        assert "TRAIN_MINUTES" in line
        assert "soon" in line
    finally:
        output.remove(force=True)
