"""Helpers for tests of several modules: live models, servers and streams."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from gptbox.web.live_model import LiveModel


def resolve(live: LiveModel, name: str | None = None) -> str:
    """The name of the snapshot that `name` resolves to."""
    return asyncio.run(live.resolve(name)).name


def served(live: LiveModel) -> str | None:
    """The name of the snapshot served after a refresh; None if there is none."""
    live.refresh()
    return None if live.current is None else live.current.name


def damage(snapshot: Path) -> None:
    """Truncate a snapshot's weights."""
    file = snapshot / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def complete(client: TestClient, **body: Any) -> dict[str, Any]:
    """The reply of /v1/completions through the test client."""
    response = client.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def texts(client: TestClient, **body: Any) -> list[str]:
    """The texts of `complete`."""
    return [choice["text"] for choice in complete(client, **body)["choices"]]


def whole(server: Any, **body: Any) -> Any:
    """The reply of /v1/completions from a real server, not streamed."""
    return httpx.post(f"{server.url}/v1/completions", json=body, timeout=30).json()


def joined(events: list[Any], index: int = 0) -> str:
    """Text `index` of a stream."""
    choices = [choice for event in events if event != "[DONE]" for choice in event["choices"]]
    return "".join(choice["text"] for choice in choices if choice["index"] == index)
