"""The `llm` command line against the real server."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

MODELS = """\
- model_id: plain
  model_name: tiny
  api_base: {url}/v1
  completion: true
- model_id: chat
  model_name: tiny@latest
  api_base: {url}/v1
"""


@pytest.fixture
def llm(server: Any, tmp_path: Path) -> Any:
    folder = tmp_path / "llm"
    folder.mkdir()
    (folder / "extra-openai-models.yaml").write_text(MODELS.format(url=server.url))
    environment = os.environ | {"LLM_USER_PATH": str(folder), "OPENAI_API_KEY": "none"}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "llm", *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout

    return run


@pytest.mark.parametrize("stream", [True, False])
def test_a_text_is_completed(server: Any, llm: Any, stream: bool) -> None:
    options = ["-o", "seed", "4", "-o", "max_tokens", "40", "-o", "temperature", "0.7"]
    output = llm("HELLO", "-m", "plain", *options, *([] if stream else ["--no-stream"]))
    body = {"model": "tiny", "prompt": "HELLO", "seed": 4, "max_tokens": 40, "temperature": 0.7}
    expected = httpx.post(f"{server.url}/v1/completions", json=body).json()["choices"][0]["text"]
    assert output.removesuffix("\n") == expected.removesuffix("\n")


def test_a_chat_with_a_system_prompt(server: Any, llm: Any) -> None:
    output = llm("Who goes there?", "-m", "chat", "-s", "A street.", "-o", "seed", "4", "-o", "max_tokens", "40")
    messages = [{"role": "system", "content": "A street."}, {"role": "user", "content": "Who goes there?"}]
    body = {"model": "tiny", "messages": messages, "seed": 4, "max_tokens": 40}
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=body).json()
    assert output.removesuffix("\n") == reply["choices"][0]["message"]["content"].removesuffix("\n")
