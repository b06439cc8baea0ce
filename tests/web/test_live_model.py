"""The live model while training publishes, and while files are damaged or deleted."""

import asyncio
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio import to_thread
from starlette.testclient import TestClient
from tests.web.helpers import damage, resolve, served

from gptbox.errors import ModelFolderError, ModelNotFoundError, NoModelYetError
from gptbox.models.runs import RunFolder, Status
from gptbox.web import model_cache
from gptbox.web.live_model import LiveModel

Publish = Callable[..., Path]


def test_the_best_snapshot_of_the_newest_run_is_served(live: LiveModel, publish: Publish) -> None:
    assert served(live) is None
    publish(100)
    assert served(live) == "tiny@step-000100"
    publish(200, best=False)
    assert served(live) == "tiny@step-000100"
    publish(300)
    assert served(live) == "tiny@step-000300"
    time.sleep(0.02)
    publish(50, run="other")
    assert served(live) == "other@step-000050"


def test_the_run_is_known_before_its_model_is_loaded(live: LiveModel, publish: Publish) -> None:
    with pytest.raises(NoModelYetError):
        asyncio.run(live.find_run())
    publish(100)
    assert live.current is None
    assert asyncio.run(live.find_run()).name == "tiny"
    assert served(live) == "tiny@step-000100"
    assert asyncio.run(live.find_run()).name == "tiny"


def test_the_log_has_a_line_per_run_not_per_snapshot(
    live: LiveModel, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gptbox")
    for step in (100, 200, 300):
        publish(step)
        live.refresh()
    time.sleep(0.02)
    publish(50, run="other")
    live.refresh()
    assert [record.getMessage() for record in caplog.records] == [
        "serving tiny@step-000100",
        "serving other@step-000050",
    ]


def test_a_new_run_without_a_snapshot_changes_nothing(live: LiveModel, publish: Publish, models: Path) -> None:
    publish(100)
    time.sleep(0.02)
    RunFolder(models, "other").write_status(Status(run="other", phase="preparing"))
    assert served(live) == "tiny@step-000100"


def test_a_new_run_that_fails_changes_nothing(live: LiveModel, publish: Publish, models: Path) -> None:
    """The run written to last is served, whichever published last."""
    publish(100, run="shakespeare")
    publish(100, run="unrelated")
    later = time.time() + 60
    os.utime(models / "unrelated" / "snapshots" / "step-000100", (later, later))
    RunFolder(models, "shakespeare").write_status(Status(run="shakespeare", phase="finished"))
    os.utime(models / "shakespeare" / "status.json", (later, later))
    assert served(live) == "shakespeare@step-000100"
    RunFolder(models, "new").write_status(Status(run="new", phase="failed", message="Too short."))
    os.utime(models / "new" / "status.json", (later + 60, later + 60))
    assert served(live) == "shakespeare@step-000100"
    # Nor does a failed start of an existing run.
    os.utime(models / "unrelated" / "snapshots", (later - 120, later - 120))
    RunFolder(models, "unrelated").write_status(Status(run="unrelated", phase="failed", message="THREADS='none'"))
    os.utime(models / "unrelated" / "status.json", (later + 90, later + 90))
    assert served(live) == "shakespeare@step-000100"
    assert served(LiveModel(models)) == "shakespeare@step-000100"


def test_new_snapshots_are_found_by_polling(models: Path, publish: Publish, wait_until: Callable[..., None]) -> None:
    live = LiveModel(models, poll_s=0.02)
    live.start()
    try:
        assert live.current is None
        publish(100)
        wait_until(lambda: live.current is not None)
        publish(200)
        wait_until(lambda: live.current is not None and live.current.name == "tiny@step-000200")
    finally:
        live.stop()


def test_a_damaged_snapshot_does_not_replace_the_current_one_and_is_logged_once(
    live: LiveModel, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    publish(100)
    live.refresh()
    damage(publish(200))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert served(live) == "tiny@step-000100"
    [record] = caplog.records
    assert "step-000200" in record.getMessage()
    assert "still serving tiny@step-000100" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert resolve(live, "tiny") == resolve(live, "tiny@best") == "tiny@step-000100"
    with pytest.raises(ModelFolderError):
        resolve(live, "tiny@step-000200")
    publish(300)
    assert served(live) == "tiny@step-000300"


def test_a_damaged_best_snapshot_at_startup_is_skipped(live: LiveModel, publish: Publish) -> None:
    publish(100)
    publish(200)
    damage(publish(300))
    assert served(live) == "tiny@step-000200"


def test_a_run_with_only_damaged_snapshots_is_skipped(
    live: LiveModel, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    publish(100, run="before")
    time.sleep(0.02)
    damage(publish(200))
    assert served(live) == "before@step-000100"
    publish(300)
    assert served(live) == "tiny@step-000300"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_deleted_run_is_still_served(live: LiveModel, publish: Publish, models: Path) -> None:
    publish(100)
    live.refresh()
    shutil.rmtree(models / "tiny")
    assert served(live) == "tiny@step-000100"
    assert resolve(live) == resolve(live, "tiny") == resolve(live, "tiny@step-000100") == "tiny@step-000100"


def test_a_snapshot_replaced_under_the_same_name_is_reloaded(live: LiveModel, publish: Publish) -> None:
    path = publish(100)
    live.refresh()
    former = live.current
    shutil.rmtree(path)
    publish(100, seed=5)
    live.refresh()
    assert live.current is not None
    assert live.current is not former


def test_a_load_that_ran_out_of_memory_is_retried_later_and_logged_once(
    live: LiveModel, publish: Publish, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [time.monotonic()]
    monkeypatch.setattr("gptbox.web.live_model.time.monotonic", lambda: clock[0])

    def full(*_: object) -> None:
        raise MemoryError

    publish(100)
    with monkeypatch.context() as short:
        short.setattr(model_cache.model_folder, "load", full)
        assert served(live) is None
        clock[0] += 61
        assert served(live) is None
    assert served(live) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    clock[0] += 61
    assert served(live) == "tiny@step-000100"


def test_all_names_of_a_snapshot_resolve(live: LiveModel, publish: Publish) -> None:
    publish(100)
    publish(200)
    publish(300, best=False)
    live.refresh()
    names = {
        None: 200, "tiny": 200, "tiny@best": 200, "tiny@latest": 300, "tiny@step-000100": 100, "tiny@step-000200": 200
    }  # fmt: skip
    for name, step in names.items():
        assert resolve(live, name) == f"tiny@step-{step:06d}"
    for name in ("nobody", "tiny@step-000999", "tiny@worst", "", "@best", "../models/tiny"):
        with pytest.raises(ModelNotFoundError) as error:
            resolve(live, name)
        assert not isinstance(error.value, NoModelYetError)


def test_concurrent_requests_load_a_snapshot_once(
    models: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveModel(models)
    publish(100)
    publish(200)
    live.refresh()
    loads = []
    load = model_cache.load_model

    def slow(path: Path, quantize: bool) -> Any:
        loads.append(path.name)
        time.sleep(0.05)
        return load(path, quantize)

    monkeypatch.setattr(model_cache, "load_model", slow)

    async def ask() -> set[Any]:
        return set(await asyncio.gather(*(live.resolve("tiny@step-000100") for _ in range(10))))

    assert len(asyncio.run(ask())) == 1
    assert loads == ["step-000100"]


def test_requests_waiting_for_a_load_do_not_occupy_all_worker_threads(
    live: LiveModel, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    load = model_cache.load_model

    def slow(path: Path, quantize: bool) -> Any:
        assert release.wait(10)
        return load(path, quantize)

    publish(100)
    monkeypatch.setattr(model_cache, "load_model", slow)

    async def ask() -> int:
        waiting = [asyncio.create_task(live.resolve("tiny")) for _ in range(100)]
        await asyncio.sleep(0.2)
        try:
            return await asyncio.wait_for(to_thread.run_sync(lambda: 5), 5)
        finally:
            release.set()
            await asyncio.gather(*waiting)

    assert asyncio.run(ask()) == 5


def test_a_stream_keeps_its_model_while_a_better_one_is_loaded(
    tiny_run: Path,
    publish: Publish,
    server: Any,
    stream: Callable[..., Iterator[Any]],
    wait_until: Callable[..., None],
) -> None:
    body = {"prompt": "A", "max_tokens": 3000, "temperature": 0.9, "seed": 1}
    undisturbed = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).json()["choices"][0]["text"]
    events = stream(server.url, body)
    received = [next(events)]
    publish(500)
    wait_until(lambda: server.service.live_model.current.name == "tiny@step-000500")
    shutil.rmtree(tiny_run / "tiny" / "snapshots" / "step-000250")
    reply = httpx.post(f"{server.url}/v1/completions", json={"prompt": "A", "seed": 1}).json()
    assert reply["model"] == "tiny@step-000500"
    received += [event for event in events if event != "[DONE]"]
    assert {event["model"] for event in received} == {"tiny@step-000250"}
    assert "".join(event["choices"][0]["text"] for event in received) == undisturbed


def test_a_model_published_after_the_start_is_served(
    models: Path, publish: Publish, client_for: Callable[..., TestClient], wait_until: Callable[..., None]
) -> None:
    client = client_for(models)
    assert client.get("/readyz").status_code == 503
    publish(100)
    wait_until(lambda: client.get("/readyz").status_code == 200)
    assert client.post("/v1/completions", json={}).json()["model"] == "tiny@step-000100"


def test_loading_does_not_block_the_event_loop(
    server: Any, publish: Publish, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    entered, release = threading.Event(), threading.Event()
    load = model_cache.load_model

    def slow(path: Path, quantize: bool) -> Any:
        entered.set()
        assert release.wait(10)
        return load(path, quantize)

    publish(300, best=False)
    monkeypatch.setattr(model_cache, "load_model", slow)
    statuses: list[int] = []

    def ask() -> None:
        body = {"model": "tiny@step-000300"}
        statuses.append(httpx.post(f"{server.url}/v1/completions", json=body, timeout=30).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        assert entered.wait(10)
        for _ in range(3):
            assert httpx.post(f"{server.url}/v1/completions", json={}).status_code == 200
        assert statuses == []
    finally:
        release.set()
        thread.join()
    assert statuses == [200]


def test_a_request_for_a_damaged_snapshot_is_a_server_error(client: TestClient, publish: Publish) -> None:
    damage(publish(300, best=False))
    response = client.post("/v1/completions", json={"model": "tiny@latest"})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "model_damaged"
    assert os.sep not in response.json()["error"]["message"]
    assert client.post("/v1/completions", json={"model": "tiny"}).status_code == 200
