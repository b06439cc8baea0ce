"""curl against the real server."""

import json
import shutil
import subprocess
import time
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")


def curl(*arguments: str) -> str:
    command = ["curl", "--silent", "--show-error", "--max-time", "30", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def completion(server: Any, **body: Any) -> list[str]:
    # Not --json, which needs curl 7.82: Ubuntu 22.04 has an older one.
    sent = ["--header", "Content-Type: application/json", "--data", json.dumps({"model": "tiny", **body})]
    return [f"{server.url}/v1/completions", *sent]


def metric(server: Any, name: str) -> float:
    lines = curl(f"{server.url}/metrics").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_whole_and_streamed_texts_are_equal(server: Any) -> None:
    fields = {"prompt": "HELLO", "max_tokens": 40, "seed": 3}
    whole = json.loads(curl(*completion(server, **fields)))
    assert whole["usage"] == {"prompt_tokens": 5, "completion_tokens": 40, "total_tokens": 45}
    lines = curl("--no-buffer", *completion(server, **fields, stream=True)).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert "".join(event["choices"][0]["text"] for event in events) == whole["choices"][0]["text"]


def test_an_error_has_a_status_and_names_the_field(server: Any) -> None:
    *body, status = curl("--write-out", "\n%{http_code}", *completion(server, prompt="x", temperature=9)).splitlines()
    assert status == "400"
    assert json.loads("\n".join(body))["error"]["param"] == "temperature"


def test_terminating_curl_cancels_its_text(server: Any) -> None:
    """As with Ctrl+C."""
    command = ["curl", "--silent", "--no-buffer", *completion(server, prompt="x", max_tokens=10_000_000, stream=True)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("data: {")
        process.terminate()
    deadline = time.monotonic() + 30
    while metric(server, "gptbox_active_sequences"):
        assert time.monotonic() < deadline
    assert 0 < metric(server, "gptbox_generated_tokens_total") < 10_000_000
