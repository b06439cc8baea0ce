"""/cgi-bin/test: samples in the format of the lesson's CGI script."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from starlette.testclient import TestClient
from tests.eos_tokenizer import load_with_eos
from tests.tokenizers.texts import SENTENCES
from tests.web.conftest import CONFIG

from gptbox.models import folder as model_folder
from gptbox.models.runs import RunFolder
from gptbox.tokenizers.bpe import BPETokenizer
from gptbox.tokenizers.char import CharTokenizer

START = "wherefore art thou"
GREETING = "Generating shakespeare...\n"
LINE = "\n---------------\n"


def body(client: TestClient, query: str = "") -> str:
    response = client.get(f"/cgi-bin/test{query}")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    text = response.text
    assert text.startswith(GREETING)
    assert text.endswith(LINE)
    return text.removeprefix(GREETING)


def test_each_visit_gets_a_new_sample(client: TestClient) -> None:
    first, second = body(client), body(client)
    assert first != second
    for text in (first, second):
        sample = text.removesuffix(LINE)
        assert sample.startswith("\n")
        assert len(sample) == 501


def test_start_num_samples_and_seed_work_as_in_sample_py(client: TestClient) -> None:
    text = body(client, "?start=wherefore+art%20thou&num_samples=3&seed=7")
    samples = text.removesuffix(LINE).split(LINE)
    assert len(samples) == 3
    assert len(set(samples)) == 3
    for k, sample in enumerate(samples):
        assert sample.startswith("wherefore art thou")
        assert len(sample) == 18 + 500
        assert body(client, f"?start=wherefore+art+thou&seed={7 + k}") == sample + LINE


def test_the_sample_equals_a_completion_with_the_settings_of_sample_py(client: TestClient) -> None:
    fields = {"prompt": "HELLO", "max_tokens": 500, "temperature": 0.8, "top_k": 200, "seed": 11}
    [choice] = client.post("/v1/completions", json=fields).json()["choices"]
    assert body(client, "?start=HELLO&seed=11") == f"HELLO{choice['text']}{LINE}"


@pytest.mark.parametrize("unknown", ["", "w", " "])
def test_the_default_start_is_the_lessons_if_the_model_knows_its_characters(
    tiny_run: Path, client_for: Callable[..., TestClient], unknown: str
) -> None:
    source = model_folder.load(tiny_run / "tiny" / "best")
    assert source.info is not None
    tokenizer = CharTokenizer([c for c in "\n abcdefghijklmnopqrstuvwxyz" if c != unknown])
    target = tiny_run / "tiny" / "snapshots" / "step-000300"
    model_folder.write(target, source.config, source.weights, tokenizer, source.info, "# a test\n")
    RunFolder(tiny_run, "tiny").update_link("best", target)
    client = client_for(tiny_run)
    start = "\n" if unknown else START
    for query in ("", "?start=", "?start=&num_samples=&seed="):
        assert body(client, query).startswith(start)
    assert body(client, "?seed=3") == body(client, f"?start={quote(start)}&seed=3")
    samples = body(client, "?num_samples=3").removesuffix(LINE).split(LINE)
    assert [sample[: len(start)] for sample in samples] == [start] * 3
    assert body(client, "?start=wow").startswith("wow")


@pytest.mark.parametrize(("language", "knows"), [("English", True), ("Chinese", False)])
def test_without_a_start_a_model_of_another_alphabet_begins_with_a_line_break(
    models: Path, write_model: Callable[..., Path], client_for: Callable[..., TestClient], language: str, knows: bool
) -> None:
    tokenizer = BPETokenizer.train([SENTENCES[language] * 100])
    run = RunFolder(models, "bpe")
    path = write_model(run.snapshot(1), replace(CONFIG, vocab_size=tokenizer.vocab_size), tokenizer=tokenizer)
    run.update_link("best", path)
    start = START if knows else "\n"
    client = client_for(models)
    assert body(client, "?seed=3") == body(client, f"?start={quote(start)}&seed=3")
    assert body(client, "?start=wow").startswith("wow")


def test_a_sample_ends_at_the_eos(
    client: TestClient, tiny_run: Path, client_for: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = body(client, "?start=A&num_samples=3&seed=7").removesuffix(LINE).split(LINE)
    eos = samples[1][40]
    load_with_eos(monkeypatch, eos)
    ended = body(client_for(tiny_run), "?start=A&num_samples=3&seed=7").removesuffix(LINE).split(LINE)
    assert ended == [sample.partition(eos)[0] for sample in samples]
    assert len(ended[1]) <= 40


def test_unknown_characters_of_the_start_are_printed_unchanged(client: TestClient) -> None:
    assert body(client, "?start=caf%C3%A9+%F0%9F%98%80").startswith("caf\u00e9 \U0001f600")
    assert body(client, "?start=%ff").startswith("\ufffd")


def test_invalid_parameters_are_rejected_with_one_line(client: TestClient) -> None:
    for query in (
        "num_samples=0", "num_samples=17", "num_samples=two", "num_samples=1.5", "num_samples=-1", "seed=x",
        "seed=1e5", "seed=" + "9" * 30, "seed=%C2%B2", "seed=--1",
    ):  # fmt: skip
        response = client.get(f"/cgi-bin/test?{query}")
        assert response.status_code == 400, query
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.text.count("\n") == 1
        assert query.partition("=")[0] in response.text
        assert len(response.text) < 200


def test_seeds_may_be_negative(client: TestClient) -> None:
    assert body(client, "?seed=-5") == body(client, "?seed=-5")


def test_without_a_model_the_response_is_503_with_the_reason(
    models: Path, client_for: Callable[..., TestClient]
) -> None:
    client = client_for(models)
    response = client.get("/cgi-bin/test")
    assert response.status_code == 503
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert int(response.headers["retry-after"]) > 0
    assert response.text == "There is no model yet: no training has been started.\n"
    assert client.head("/cgi-bin/test").status_code == 503


def test_a_full_queue_is_429_as_plain_text(tiny_run: Path, client_for: Callable[..., TestClient]) -> None:
    client = client_for(tiny_run, max_queue=0)
    client.app.state.service.scheduler.max_active = 1  # type: ignore[attr-defined]
    response = client.get("/cgi-bin/test?num_samples=2")
    assert response.status_code == 429
    assert "retry-after" in response.headers
    assert response.headers["content-type"].startswith("text/plain")


def test_the_length_is_limited_by_max_tokens(tiny_run: Path, client_for: Callable[..., TestClient]) -> None:
    text = body(client_for(tiny_run, max_tokens=50), "?start=A")
    assert len(text.removesuffix(LINE)) == 51


def test_no_api_key_is_required(tiny_run: Path, client_for: Callable[..., TestClient]) -> None:
    body(client_for(tiny_run, api_key="sesame"))


def test_samples_are_streamed_and_cancelled_when_the_client_disconnects(
    server: Any, wait_until: Callable[..., None]
) -> None:
    with httpx.stream("GET", f"{server.url}/cgi-bin/test?num_samples=16") as response:
        chunks = response.iter_text()
        text = next(chunks)
        assert text.startswith(GREETING)
        while len(text) < 60:
            text += next(chunks)
        assert server.busy() > 0
    wait_until(lambda: server.busy() == 0, timeout=1)


def test_a_sample_arrives_in_many_chunks(server: Any) -> None:
    with httpx.stream("GET", f"{server.url}/cgi-bin/test?start=A") as response:
        assert response.headers["x-accel-buffering"] == "no"
        assert len(list(response.iter_raw())) > 10
