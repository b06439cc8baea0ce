"""web goes and comes back: what visitors see meanwhile, and how soon it is over."""

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
def _afterwards_it_serves(serving: Any, until: Until) -> Iterator[None]:
    yield
    serving.compose("up", "--detach", "--no-build", "web", "apache")
    until(lambda: serving.http.get("/readyz").status_code == 200, within=60, what="a model after the test")


def ready(stack: Any) -> bool:
    return bool(stack.http.get("/readyz").status_code == 200)


def address(stack: Any) -> str:
    (network,) = stack.container("web").attrs["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def web_itself_is_ready(stack: Any) -> bool:
    """Asked from inside its container, not through Apache."""
    code = "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=5)"
    return bool(stack.inside("web", "python", "-c", code)[0] == 0)


def many_at_once(stack: Any) -> set[int]:
    """The statuses of two dozen requests of all kinds that are sent at the same moment."""

    def ask(client: httpx.Client, i: int) -> int:
        if i % 3 == 0:
            return client.post(
                "/v1/completions", json={"model": "little", "prompt": "the", "max_tokens": 1}
            ).status_code
        return client.get("/readyz" if i % 3 == 1 else "/cgi-bin/test").status_code

    with ExitStack() as end, ThreadPoolExecutor(24) as pool:
        clients = [end.enter_context(httpx.Client(base_url=stack.url, timeout=20)) for _ in range(24)]
        return set(pool.map(ask, clients, range(24)))


def test_no_request_fails_but_while_web_is_down(serving: Any, until: Until) -> None:
    """Apache keeps its connections to web, and notices which of them a restart has ended."""
    seen: list[tuple[float, int | str]] = []
    over = threading.Event()

    def visit(method: str, path: str, body: Any, pause: float) -> None:
        with httpx.Client(base_url=serving.url, timeout=20) as client:
            while not over.wait(pause):
                began = time.monotonic()
                try:
                    seen.append((began, client.request(method, path, json=body).status_code))
                except httpx.TransportError as error:
                    seen.append((began, repr(error)))

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
    assert len([status for began, status in seen if began > back]) > 50
    # A request that was sent just before may have met the end.
    outside = [(began, status) for began, status in seen if not stopped - 0.5 < began < back]
    assert [(began - back, status) for began, status in outside if status != 200] == []


def test_killed_and_started_again(serving: Any, until: Until) -> None:
    serving.compose("kill", "web")
    started = time.monotonic()
    page, api = serving.http.get("/"), serving.http.post("/v1/completions", json={"prompt": "the"})
    assert time.monotonic() - started < 5, "it must not wait for what is not there"
    assert (page.status_code, api.status_code) == (503, 503)
    assert "gptbox is starting" in page.text
    assert api.json()["error"]["code"] == "unavailable"

    serving.compose("start", "web")
    until(lambda: ready(serving), within=30, what="the recovery")
    reply = serving.http.post("/v1/completions", json={"model": "little", "prompt": "the", "max_tokens": 5})
    assert reply.status_code == 200


@pytest.mark.parametrize("inherited", [True, False])
def test_made_anew_at_another_address(serving: Any, until: Until, inherited: bool) -> None:
    before = address(serving)
    serving.compose("rm", "--stop", "--force", "web")
    # Somebody else gets the address that web had, and keeps it, or goes: then nothing there so much as refuses.
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
        assert time.monotonic() - started < 0.9, "Apache waits a second for who does not answer"
        assert many_at_once(serving) == {200}
    finally:
        for other in others:
            other.remove(force=True)


def test_a_crash_is_mended_by_the_engine(serving: Any, until: Until) -> None:
    before = serving.container("web").attrs["RestartCount"]
    # From inside, as a fault would: the signal reaches all but the container's first process and the sender.
    serving.inside("web", "python", "-c", "import os; os.kill(-1, 9)")
    until(lambda: serving.container("web").attrs["RestartCount"] > before, within=20, what="the restart")
    until(lambda: ready(serving), within=30, what="the recovery")


def test_a_text_that_is_cut_off_is_not_mistaken_for_a_whole_one(serving: Any) -> None:
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


def test_apache_may_be_restarted_on_its_own(serving: Any, until: Until) -> None:
    with serving.http.stream("GET", "/api/events") as response:
        next(response.iter_raw())
        started = time.monotonic()
        serving.compose("restart", "apache")
        assert time.monotonic() - started < 12, "an open page must not hold it up"
    until(lambda: ready(serving), within=20, what="the recovery")


def test_a_web_that_hangs_is_called_busy(serving: Any) -> None:
    container = serving.container("web")
    container.pause()
    try:
        page = serving.http.get("/")
    finally:
        container.unpause()
    assert page.status_code == 502
    assert "gptbox is busy" in page.text
    assert int(page.headers["retry-after"]) > 0


def test_web_stops_in_good_time_with_a_page_open(serving: Any) -> None:
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
