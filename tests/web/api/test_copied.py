"""/api/copied: spans of a text that stand in the training text."""

import asyncio
import logging
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.models.indexed_text import copied_spans, index_of

from gptbox.errors import QueueFullError
from gptbox.models.ngram_index import FILE_NAME
from gptbox.models.runs import RunFolder
from gptbox.web import text_index
from gptbox.web.text_index import TextIndex

TRAIN = "".join(f"{n} green bottles hanging on the wall, café 🐎\n" for n in range(2000))


@pytest.fixture
def indexed_run(tiny_run: Path) -> Path:
    """A models folder with the run `tiny`, which has an index."""
    dataset = RunFolder(tiny_run, "tiny").dataset
    dataset.mkdir()
    index_of(TRAIN, dataset)
    return tiny_run


@pytest.fixture
def client(indexed_run: Path, client_for: Callable[..., TestClient]) -> TestClient:
    return client_for(indexed_run)


def copied(client: TestClient, text: str, **body: Any) -> dict[str, Any]:
    response = client.post("/api/copied", json={"text": text, **body})
    assert response.status_code == 200, response.text
    return dict(response.json())


def error(client: TestClient, status: int, **body: Any) -> dict[str, Any]:
    response = client.post("/api/copied", json=body)
    assert response.status_code == status, response.text
    return dict(response.json()["error"])


def has_index(client: TestClient) -> bool:
    return bool(client.get("/api/history?run=tiny").json()["has_index"])


def test_spans_have_their_place_in_the_training_text(client: TestClient) -> None:
    start = TRAIN.index("1234 green")
    passage = TRAIN[start : start + 42]
    reply = copied(client, f"🐎 {passage}--")
    assert reply == {
        "object": "copied",
        "run": "tiny",
        "min_characters": 20,
        "characters": 46,
        "copied_characters": 42,
        "share": 42 / 46,
        "spans": [
            {
                "start": 2,
                "end": 44,
                "source": {
                    "position": start,
                    "line": 1235,
                    "before": TRAIN[start - 40 : start],
                    "after": TRAIN[start + 42 : start + 82],
                },
            }
        ],
    }


@pytest.mark.parametrize("model", [None, "tiny", "tiny@best", "tiny@latest", "tiny@step-000250"])
def test_every_name_of_a_model_is_that_of_its_run(client: TestClient, model: str | None) -> None:
    assert copied(client, TRAIN[:40], model=model)["run"] == "tiny"


def test_a_text_that_is_not_copied(client: TestClient) -> None:
    reply = copied(client, "Shall I compare thee to a summer's day?")
    assert (reply["spans"], reply["copied_characters"], reply["share"]) == ([], 0, 0)
    assert copied(client, "") == reply | {"characters": 0}


def test_a_long_text_of_many_passages(client: TestClient) -> None:
    text = "".join(TRAIN[n * 31 : n * 31 + 15 + n % 30] for n in range(2000))[:3000]
    reply = copied(client, text)
    assert [(span["start"], span["end"]) for span in reply["spans"]] == copied_spans(TRAIN, text)
    for span in reply["spans"]:
        position = span["source"]["position"]
        assert TRAIN[position:].startswith(text[span["start"] : span["end"]])


def test_lone_surrogates_are_other_characters(client: TestClient) -> None:
    response = client.post("/api/copied", content=b'{"text": "\\ud800' + TRAIN[:30].encode() + b'"}')
    assert response.json()["characters"] == 31
    assert [(span["start"], span["end"]) for span in response.json()["spans"]] == [(1, 31)]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "text"), ({"text": None}, "text"), ({"text": ["a"]}, "text"), ({"text": "x" * 65_537}, "text"),
        ({"text": "é" * 40_000}, "text"), ({"text": "a", "model": 1}, "model"),
    ],
)  # fmt: skip
def test_an_invalid_field_is_named(client: TestClient, body: dict[str, Any], param: str) -> None:
    assert error(client, 400, **body)["param"] == param


def test_unknown_models_and_an_empty_server(
    client: TestClient, client_for: Callable[..., TestClient], tmp_path: Path
) -> None:
    assert error(client, 404, text="a", model="nobody")["code"] == "model_not_found"
    assert error(client, 404, text="a", model="tiny@step-000001")["code"] == "model_not_found"
    (tmp_path / "empty").mkdir()
    assert error(client_for(tmp_path / "empty"), 503, text="a")["code"] == "no_model_yet"


def test_the_key_is_required_if_one_is_set(indexed_run: Path, client_for: Callable[..., TestClient]) -> None:
    client = client_for(indexed_run, api_key="sesame")
    assert error(client, 401, text="a")["code"] == "invalid_api_key"
    headers = {"Authorization": "Bearer sesame"}
    assert client.post("/api/copied", json={"text": "a"}, headers=headers).status_code == 200
    assert client.get("/api/history").status_code == 200


def test_a_run_without_an_index_says_how_to_get_one(
    tiny_run: Path, client_for: Callable[..., TestClient], caplog: pytest.LogCaptureFixture
) -> None:
    client = client_for(tiny_run)
    assert not has_index(client)
    found = error(client, 404, text="a")
    assert (found["code"], found["param"]) == ("no_index", "model")
    assert "gptbox prepare DATASET --run tiny" in found["message"]
    assert str(tiny_run) not in found["message"]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    dataset = RunFolder(tiny_run, "tiny").dataset
    dataset.mkdir()
    index_of(TRAIN, dataset)
    assert has_index(client)
    assert copied(client, TRAIN[:40])["share"] == 1
    shutil.rmtree(dataset)
    assert not has_index(client)
    assert error(client, 404, text="a")["code"] == "no_index"


@pytest.mark.parametrize("damage", ["empty", "cut", "buckets"])
def test_a_damaged_index_is_logged_once_and_is_as_none(
    indexed_run: Path, client: TestClient, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    file = indexed_run / "tiny" / "dataset" / FILE_NAME
    assert has_index(client)
    content = bytearray(file.read_bytes())
    if damage == "buckets":
        layout = index_of(TRAIN, file.parent).layout
        offsets = np.arange((1 << layout.gram_bits) + 1, 0, -1).astype(np.uint32)
        content[layout.grams_at : layout.grams_at + offsets.nbytes] = offsets.tobytes()
    file.write_bytes({"empty": bytearray(), "cut": content[:-10], "buckets": content}[damage])
    for _ in range(3):
        assert error(client, 404, text=TRAIN[:100])["code"] == "no_index"
        assert not has_index(client)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert str(file) in warnings[0]
    assert "bottles" not in warnings[0]
    index_of(TRAIN, file.parent)
    assert copied(client, TRAIN[:100])["share"] == 1


def test_many_at_once_are_each_answered(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_index, "MAX_WAITING_PER_CLIENT", 12)
    starts = [TRAIN.index(f"{n} green") for n in range(100, 112)]
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda start: copied(client, TRAIN[start : start + 60]), starts))
    for start, reply in zip(starts, replies, strict=True):
        assert reply["share"] == 1
        assert reply["spans"][0]["source"]["position"] == start


def test_the_waiting_places_are_limited_by_client_and_in_all(
    indexed_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, run = threading.Event(), RunFolder(indexed_run, "tiny")

    def wait(*_: object) -> list[Any]:
        assert released.wait(30)
        return []

    monkeypatch.setattr(text_index, "find_copied", wait)

    async def ask() -> list[Any]:
        index = TextIndex()
        clients = [client for client in range(8) for _ in range(4)]
        tasks = [asyncio.create_task(index.find_copied(run, "text", str(client))) for client in clients[:-1]]
        await asyncio.sleep(0.05)
        with pytest.raises(QueueFullError, match="Try again"):
            await index.find_copied(run, "text", "0")
        tasks.append(asyncio.create_task(index.find_copied(run, "text", "7")))
        await asyncio.sleep(0.05)
        with pytest.raises(QueueFullError):
            await index.find_copied(run, "text", "another")
        released.set()
        replies = list(await asyncio.gather(*tasks))
        replies.append(await index.find_copied(run, "text", "0"))
        return replies

    assert [reply["run"] for reply in asyncio.run(ask())] == ["tiny"] * 33
