"""web goes and comes back: what visitors see meanwhile, and how soon it is over."""

import time
from collections.abc import Callable, Iterator
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


def test_made_anew_at_another_address(serving: Any, until: Until) -> None:
    before = address(serving)
    serving.compose("rm", "--stop", "--force", "web")
    # Somebody else gets the address that web had.
    (network,) = serving.docker.networks.list(names=[f"{serving.project}_inside"])
    squatter = serving.docker.containers.run(
        f"{serving.project}-apache", ["sleep", "60"], detach=True, network=network.name,
        labels={"com.docker.compose.project": serving.project},
    )  # fmt: skip
    try:
        squatter.reload()
        assert squatter.attrs["NetworkSettings"]["Networks"][network.name]["IPAddress"] == before
        serving.compose("up", "--detach", "--no-build", "web")
        assert address(serving) != before
        until(lambda: ready(serving), within=30, what="the recovery")
    finally:
        squatter.remove(force=True)


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
