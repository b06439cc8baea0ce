"""From nothing to a trained model, as a user sees it. The tests of this file depend on their order."""

import base64
import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Until = Callable[..., Any]


def test_apache_alone_says_that_gptbox_is_starting(stack: Any, until: Until) -> None:
    stack.compose("up", "--detach", "--no-build", "apache")
    until(lambda: stack.http.get("/").status_code, within=20, what="Apache's first answer")
    assert stack.http.get("/").status_code == 200, "the page itself is in Apache's image"

    page = stack.http.get("/cgi-bin/test")
    assert page.status_code == 503
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert int(page.headers["retry-after"]) > 0
    assert page.headers["cache-control"] == "no-store"
    assert "gptbox is starting" in page.text
    assert '<meta http-equiv="refresh"' in page.text
    assert not re.search(r"(src|href)=|url\(|@import", page.text), "it must load nothing"

    (style,) = re.findall(r"<style>(.*?)</style>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/v1/models", "/api/status", "/tokenize", "/detokenize"])
def test_apache_alone_answers_the_api_in_json(stack: Any, path: str) -> None:
    reply = stack.http.get(path)
    assert reply.status_code == 503
    assert reply.headers["content-type"] == "application/json"
    assert "retry-after" in reply.headers
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_the_page_is_served_before_any_model(stack: Any, until: Until) -> None:
    stack.compose("up", "--detach", "--no-build", "web")
    until(lambda: stack.http.get("/healthz").status_code == 200, within=30, what="web's first answer")

    page = stack.http.get("/")
    assert page.status_code == 200
    assert "<html" in page.text
    assert stack.http.get("/static/main.js").status_code == 200, "web has its files, too"
    assert stack.http.get("/readyz").status_code == 503
    assert stack.status()["training"] is None
    assert stack.status()["server"]["ready"] is False


def test_without_a_model_web_itself_answers_the_api(stack: Any) -> None:
    reply = stack.http.post("/v1/completions", json={"model": "little", "prompt": "the"})
    assert reply.status_code in (404, 503)
    assert reply.json()["error"]["message"]
    assert "starting" not in reply.json()["error"]["message"], "this must be web's response, not Apache's"
    assert stack.http.get("/cgi-bin/test").status_code == 503


def test_the_first_snapshot_is_served_while_training_goes_on(stack: Any, until: Until, little_text: Path) -> None:
    stack.compose("up", "--detach", "--no-build")
    until(lambda: stack.http.get("/readyz").status_code == 200, within=120, what="a first model")

    status = stack.status()
    assert status["server"]["ready"] is True
    assert status["server"]["model"].startswith("little@step-")
    assert status["training"]["run"] == "little"
    assert stack.state("train")["Running"] is True
    reply = stack.http.post("/v1/completions", json={"model": "little", "prompt": "the", "max_tokens": 5})
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["finish_reason"] == "length"


def test_a_stopped_run_is_saved_and_resumed(stack: Any, until: Until) -> None:
    until(lambda: (stack.status()["training"] or {})["step"] >= 2, within=120, what="a second step")
    started = time.monotonic()
    stack.compose("stop", "train")
    seconds = time.monotonic() - started
    assert stack.state("train")["ExitCode"] == 143, "the engine lets it go on after a reboot"
    assert seconds < 12  # ten seconds of grace, and Compose's own time
    stopped = stack.status()["training"]
    assert stopped["phase"] == "stopped"
    assert stopped["step"] >= 2

    stack.compose("up", "--detach", "--no-build")
    until(lambda: not stack.state("train")["Running"], within=180, every=0.5, what="the end of training")
    finished = stack.status()["training"]
    assert stack.state("train")["ExitCode"] == 0, stack.logs("train")
    assert finished["phase"] == "finished"
    assert finished["step"] >= stopped["step"]
    assert finished["elapsed_s"] >= stopped["elapsed_s"]
    rows = stack.http.get("/api/history").json()["metrics"]
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows}), "no step was taken twice"


def test_a_finished_run_is_not_trained_again(stack: Any, until: Until) -> None:
    before = stack.status()["training"]
    stack.compose("up", "--detach", "--no-build")
    until(lambda: not stack.state("train")["Running"], within=30, what="the second end")
    assert stack.state("train")["ExitCode"] == 0
    assert stack.container("train").attrs["RestartCount"] == 0
    after = stack.status()["training"]
    assert (after["phase"], after["step"], after["elapsed_s"]) == ("finished", before["step"], before["elapsed_s"])


def test_web_serves_the_best_snapshot(stack: Any, until: Until) -> None:
    best = stack.status()["training"]["best_snapshot"]
    until(lambda: stack.status()["server"]["model"] == f"little@{best}", within=20, what="the swap")
