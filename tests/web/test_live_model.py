"""The live model: what is served while training publishes, and while files are damaged or vanish."""

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

from gptbox.errors import ModelFolderError, ModelNotFoundError, ModelsDamagedError, NoModelYetError
from gptbox.run_folder import RunFolder, Status
from gptbox.web import model_cache
from gptbox.web.live_model import LiveModel
from gptbox.web.model_cache import ModelCache

Publish = Callable[..., Path]


@pytest.fixture
def live(models: Path) -> LiveModel:
    """A live model that looks only when it is told to."""
    return LiveModel(models)


def resolve(live: LiveModel, name: str | None = None) -> str:
    return asyncio.run(live.resolve(name)).name


def damage(snapshot: Path) -> None:
    file = snapshot / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def served(live: LiveModel) -> str | None:
    live.look()
    return None if live.current is None else live.current.name


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


def test_the_log_names_the_run_that_is_served_not_each_of_its_snapshots(
    live: LiveModel, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gptbox")
    for step in (100, 200, 300):
        publish(step)
        live.look()
    time.sleep(0.02)
    publish(50, run="other")
    live.look()
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
    """Whichever run published last: the run that was written to last is the one that is served."""
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
    # Nor does a failed start of a run that is there.
    os.utime(models / "unrelated" / "snapshots", (later - 120, later - 120))
    RunFolder(models, "unrelated").write_status(Status(run="unrelated", phase="failed", message="THREADS='none'"))
    os.utime(models / "unrelated" / "status.json", (later + 90, later + 90))
    assert served(live) == "shakespeare@step-000100"
    assert served(LiveModel(models)) == "shakespeare@step-000100"


def test_it_watches_by_itself(models: Path, publish: Publish, wait_until: Callable[..., None]) -> None:
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


def test_a_damaged_snapshot_leaves_the_old_one_serving_and_is_logged_once(
    live: LiveModel, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    publish(100)
    live.look()
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


def test_a_damaged_best_at_the_start_gives_way_to_a_sound_one(live: LiveModel, publish: Publish) -> None:
    publish(100)
    publish(200)
    damage(publish(300))
    assert served(live) == "tiny@step-000200"


def test_a_run_with_nothing_but_damaged_snapshots_gives_way_to_the_run_before(
    live: LiveModel, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    publish(100, run="before")
    time.sleep(0.02)
    damage(publish(200))
    assert served(live) == "before@step-000100"
    publish(300)
    assert served(live) == "tiny@step-000300"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("phase", "advice"),
    [
        ("finished", "Restore the run's folder from a backup, or train again after: gptbox delete tiny."),
        ("training", "Training goes on, and its next snapshot will be served."),
    ],
)
def test_nothing_but_damaged_snapshots_is_said_as_that(
    live: LiveModel, publish: Publish, models: Path, phase: Any, advice: str
) -> None:
    for step in (100, 200):
        damage(publish(step))
    RunFolder(models, "tiny").write_status(Status(run="tiny", phase=phase))
    assert served(live) is None
    for name in (None, "tiny", "tiny@latest", "tiny@step-000100"):
        with pytest.raises(ModelsDamagedError) as error:
            resolve(live, name)
        assert str(error.value).startswith("All 2 snapshots of the run 'tiny' cannot be loaded: ")
        assert advice in str(error.value)
        assert os.sep not in str(error.value)
    with pytest.raises(ModelNotFoundError) as unknown:
        resolve(live, "nobody")
    assert not isinstance(unknown.value, NoModelYetError)
    publish(300)
    assert served(live) == "tiny@step-000300"
    assert live.damaged is None


def test_clients_are_told_that_the_snapshots_are_damaged(
    models: Path, publish: Publish, client_for: Callable[..., TestClient]
) -> None:
    damage(publish(100))
    client = client_for(models)
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert ready.text.startswith("The only snapshot of the run 'tiny' cannot be loaded")
    for body in ({}, {"model": "tiny"}):
        response = client.post("/v1/completions", json=body)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "models_damaged"
        assert response.json()["error"]["message"] == ready.text.strip()
    assert client.get("/api/status").json()["server"]["problem"] == ready.text.strip()


def test_a_run_that_vanishes_goes_on_being_served(live: LiveModel, publish: Publish, models: Path) -> None:
    publish(100)
    live.look()
    shutil.rmtree(models / "tiny")
    assert served(live) == "tiny@step-000100"
    assert resolve(live) == resolve(live, "tiny") == resolve(live, "tiny@step-000100") == "tiny@step-000100"


def test_a_snapshot_that_was_replaced_under_its_name_is_loaded_anew(live: LiveModel, publish: Publish) -> None:
    path = publish(100)
    live.look()
    former = live.current
    shutil.rmtree(path)
    publish(100, seed=5)
    live.look()
    assert live.current is not None
    assert live.current is not former


def test_short_memory_is_tried_again_later_and_logged_once(
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


def test_every_name_of_a_snapshot(live: LiveModel, publish: Publish) -> None:
    publish(100)
    publish(200)
    publish(300, best=False)
    live.look()
    names = {
        None: 200, "tiny": 200, "tiny@best": 200, "tiny@latest": 300, "tiny@step-000100": 100, "tiny@step-000200": 200
    }  # fmt: skip
    for name, step in names.items():
        assert resolve(live, name) == f"tiny@step-{step:06d}"
    for name in ("nobody", "tiny@step-000999", "tiny@worst", "", "@best", "../models/tiny"):
        with pytest.raises(ModelNotFoundError) as error:
            resolve(live, name)
        assert not isinstance(error.value, NoModelYetError)


def test_a_run_without_a_snapshot_tells_how_far_it_is(live: LiveModel, publish: Publish, models: Path) -> None:
    publish(100)
    live.look()
    run = RunFolder(models, "other")
    run.write_status(Status(run="other", phase="training", step=7, steps=90))
    with pytest.raises(NoModelYetError, match="'other' is being trained and is at step 7 of 90"):
        resolve(live, "other@latest")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status(run="tiny", phase="preparing"), "the text of 'tiny' is being prepared"),
        (Status(run="tiny", phase="training", step=3), "'tiny' is being trained and is at step 3. "),
        (
            Status(run="tiny", phase="failed", message="The disk is full."),
            "training of 'tiny' failed: The disk is full.",
        ),
        (Status(run="tiny", phase="stopped"), "ended before"),
        (
            Status(run="tiny", phase="training", step=3, message="dead"),
            "ended before it published one: Training ended without a word at step 3: ",
        ),
    ],
)
def test_without_any_model_the_reason_is_given(live: LiveModel, models: Path, status: Status, words: str) -> None:
    run = RunFolder(models, "tiny")
    if status.message == "dead":
        with run.lock():  # and let go of, as the kernel does for a process that is killed
            run.write_status(status)
    else:
        run.write_status(status)
    for name in (None, "tiny", "whatever"):
        with pytest.raises(NoModelYetError, match="There is no model yet: ") as error:
            resolve(live, name)
        assert words in str(error.value)


def test_requests_for_one_snapshot_at_the_same_time_load_it_once(
    models: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveModel(models)
    publish(100)
    publish(200)
    live.look()
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


def test_requests_that_wait_for_a_load_leave_threads_to_others(
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


def test_the_cache_is_bounded_by_number_and_by_memory(publish: Publish) -> None:
    paths = [publish(step) for step in range(1, 7)]
    cache = ModelCache(max_count=3)
    models = [cache.load(path) for path in paths]
    assert len(cache) == 3
    assert cache.load(paths[5]) is models[5]
    assert cache.load(paths[0]) is not models[0]
    small = ModelCache(max_bytes=models[0].gpt.size)
    for path in paths[:3]:
        assert small.load(path).path == path
        assert len(small) == 1
    assert models[0].gpt.size > 50_000


def test_the_least_recently_used_snapshot_goes_first(publish: Publish) -> None:
    paths = [publish(step) for step in (1, 2, 3)]
    cache = ModelCache(max_count=2)
    first, second = cache.load(paths[0]), cache.load(paths[1])
    assert cache.load(paths[0]) is first
    cache.load(paths[2])
    assert cache.load(paths[0]) is first
    assert cache.load(paths[1]) is not second


def test_a_stream_goes_on_with_its_model_while_a_better_one_is_put_in(
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
    wait_until(lambda: server.service.models.current.name == "tiny@step-000500")
    shutil.rmtree(tiny_run / "tiny" / "snapshots" / "step-000250")
    reply = httpx.post(f"{server.url}/v1/completions", json={"prompt": "A", "seed": 1}).json()
    assert reply["model"] == "tiny@step-000500"
    received += [event for event in events if event != "[DONE]"]
    assert {event["model"] for event in received} == {"tiny@step-000250"}
    assert "".join(event["choices"][0]["text"] for event in received) == undisturbed


def test_a_model_that_appears_after_the_start_is_served(
    models: Path, publish: Publish, client_for: Callable[..., TestClient], wait_until: Callable[..., None]
) -> None:
    client = client_for(models)
    assert client.get("/readyz").status_code == 503
    publish(100)
    wait_until(lambda: client.get("/readyz").status_code == 200)
    assert client.post("/v1/completions", json={}).json()["model"] == "tiny@step-000100"


def test_loading_does_not_hold_the_event_loop(
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
    answers: list[int] = []

    def ask() -> None:
        body = {"model": "tiny@step-000300"}
        answers.append(httpx.post(f"{server.url}/v1/completions", json=body, timeout=30).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        assert entered.wait(10)
        for _ in range(3):
            assert httpx.post(f"{server.url}/v1/completions", json={}).status_code == 200
        assert answers == []
    finally:
        release.set()
        thread.join()
    assert answers == [200]


def test_a_damaged_snapshot_that_is_asked_for_is_a_servers_error(client: TestClient, publish: Publish) -> None:
    damage(publish(300, best=False))
    response = client.post("/v1/completions", json={"model": "tiny@latest"})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "model_damaged"
    assert os.sep not in response.json()["error"]["message"]
    assert client.post("/v1/completions", json={"model": "tiny"}).status_code == 200
