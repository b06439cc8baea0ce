"""A BPE model trained on short documents ends its texts itself, as the `openai` package sees it."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import openai
import pytest

from gptbox.models import folder as model_folder
from gptbox.models.runs import find_snapshot

DOCUMENTS = [
    f"The {animal} {verb} {place}."
    for animal, verb, place in product(
        ("cat", "horse", "old dog", "rabbit", "crow", "fish", "träge Käfer", "马"),
        ("sleeps", "sings loudly", "waits", "dreams of apples", "dances", "hides"),
        ("in the garden", "under the table", "at night", "on the roof", "beside the river", "for ever and ever"),
    )
]
random.Random(1).shuffle(DOCUMENTS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models folder after a short run on DOCUMENTS, from the command line."""
    home = tmp_path_factory.mktemp("home")
    (home / "data" / "animals").mkdir(parents=True)
    lines = [json.dumps({"text": document}, ensure_ascii=False) for document in DOCUMENTS]
    (home / "data" / "animals" / "animals.jsonl").write_text("\n".join(lines), encoding="utf-8")
    environment = os.environ | {"GPTBOX_MODELS": str(home / "models"), "GPTBOX_DATA": str(home / "data")}
    command = "train animals --tokenizer bpe --steps 200 --n-layer 2 --n-head 2 --n-embd 64 --context-length 32"
    subprocess.run([sys.executable, "-m", "gptbox", *command.split()], env=environment, check=True)
    return home / "models"


@pytest.fixture
def eos_id(trained: Path) -> int:
    eos_id = model_folder.load(find_snapshot(trained, "animals")).tokenizer.eos_id
    assert eos_id is not None
    return eos_id


@pytest.fixture
def client(trained: Path, server_for: Callable[..., Any]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server_for(trained).url}/v1", api_key="none", max_retries=0) as client:
        yield client


BODY: dict[str, Any] = {"model": "animals", "prompt": "The horse", "max_tokens": 100, "n": 8, "seed": 1}


def test_texts_end_by_themselves(client: openai.OpenAI) -> None:
    """Most of them are documents."""
    reply = client.completions.create(**BODY)
    assert {choice.finish_reason for choice in reply.choices} == {"stop"}
    assert all(choice.stop_reason is None for choice in reply.choices)
    texts = [BODY["prompt"] + choice.text.removesuffix("\n") for choice in reply.choices]
    assert len(set(texts)) > 2
    assert sum(text in DOCUMENTS for text in texts) > 4
    assert not any("<|endoftext|>" in text for text in texts)
    assert reply.usage is not None
    assert reply.usage.completion_tokens < 8 * 30


def test_a_stream_is_the_same(client: openai.OpenAI) -> None:
    expected = client.completions.create(**BODY)
    texts, reasons = [""] * 8, [""] * 8
    for chunk in client.completions.create(**BODY, stream=True):
        [choice] = chunk.choices
        texts[choice.index] += choice.text
        reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.text for choice in expected.choices]
    assert reasons == ["stop"] * 8


def test_a_chat_ends_by_itself(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="animals", messages=[{"role": "user", "content": "Hello."}], max_tokens=100, n=4, seed=1
    )
    assert {choice.finish_reason for choice in reply.choices} == {"stop"}


def content_of(token: str) -> bytes:
    """The bytes of a token as `logprobs` write it."""
    if token.startswith("bytes:"):
        return token.removeprefix("bytes:").encode().decode("unicode_escape").encode("latin-1")
    return token.encode()


def test_the_end_can_be_ignored(client: openai.OpenAI, eos_id: int) -> None:
    """The next document follows without a word between them."""
    stopped = client.completions.create(**BODY)
    reply = client.completions.create(**BODY, logprobs=0, extra_body={"ignore_eos": True})
    for before, choice in zip(stopped.choices, reply.choices, strict=True):
        assert choice.finish_reason == "length"
        assert choice.text.startswith(before.text)
        assert choice.logprobs is not None
        tokens = choice.logprobs.tokens
        assert tokens is not None
        assert len(tokens) == 100
        assert "<|endoftext|>" in tokens
        content = b"".join(content_of(token) for token in tokens if token != "<|endoftext|>")
        assert choice.text == content.decode("utf-8", "ignore")  # without a last character that the length cuts off
    ended = client.completions.create(**BODY, extra_body={"ignore_eos": True, "stop_token_ids": [eos_id]})
    assert [choice.text for choice in ended.choices] == [choice.text for choice in stopped.choices]
    assert {choice.stop_reason for choice in ended.choices} == {eos_id}


def test_no_text_ends_before_min_tokens(client: openai.OpenAI) -> None:
    reply = client.completions.create(**BODY, logprobs=0, extra_body={"min_tokens": 60})
    for choice in reply.choices:
        assert choice.logprobs is not None
        tokens = choice.logprobs.tokens
        assert tokens is not None
        assert "<|endoftext|>" not in tokens[:60]
        assert len(tokens) > 60
        assert (choice.finish_reason == "stop") == (tokens[-1] == "<|endoftext|>")
    assert "stop" in {choice.finish_reason for choice in reply.choices}


def test_any_token_can_end_a_text(client: openai.OpenAI, trained: Path) -> None:
    tokenizer = model_folder.load(find_snapshot(trained, "animals")).tokenizer
    [dot] = tokenizer.encode(".").tolist()
    stopped = client.completions.create(**BODY)
    reply = client.completions.create(**BODY, extra_body={"stop_token_ids": [dot]})
    for before, choice in zip(stopped.choices, reply.choices, strict=True):
        assert choice.text == before.text.partition(".")[0]
        assert (choice.finish_reason, choice.stop_reason) == ("stop", dot)
