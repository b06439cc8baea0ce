"""/v1/completions: whole replies."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.web.helpers import complete, texts

from gptbox.engine.gpt import GPT
from gptbox.engine.request import Logprobs, Request
from gptbox.engine.sampling_params import SamplingParams
from gptbox.engine.scheduler import Scheduler
from gptbox.models import folder as model_folder
from gptbox.models.config import ModelConfig
from gptbox.tokenizers.char import CharTokenizer


def refusal(client: TestClient, status: int, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/completions", json=body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return dict(error)


def test_the_reply_has_the_fields_of_openai_and_names_the_snapshot(client: TestClient) -> None:
    reply = complete(client, prompt="HELLO", seed=1)
    assert reply["id"].startswith("cmpl-")
    assert reply["object"] == "text_completion"
    assert abs(reply["created"] - time.time()) < 60
    assert reply["model"] == "tiny@step-000250"
    [choice] = reply["choices"]
    assert len(choice.pop("text")) == 16
    assert choice == {"index": 0, "logprobs": None, "finish_reason": "length", "stop_reason": None}
    assert reply["usage"] == {"prompt_tokens": 5, "completion_tokens": 16, "total_tokens": 21}
    assert reply["warnings"] == []


def test_the_text_is_that_of_the_engine(client: TestClient, tiny_run: Path) -> None:
    folder = model_folder.load(tiny_run / "tiny" / "best")
    tokens: list[int] = []

    class Sink:
        ended = False

        def prompt(self, logprobs: Logprobs) -> None:
            raise AssertionError("not requested")

        def tokens(self, ids: list[int], logprobs: Logprobs | None) -> None:
            tokens.extend(ids)

        def end(self, error: Exception | None) -> None:
            self.ended = True

    scheduler, sink = Scheduler(), Sink()
    params = SamplingParams(max_tokens=50, temperature=0.7, top_k=20, top_p=0.9, seed=5)
    scheduler.start()
    prompt = folder.tokenizer.encode("HELLO").astype(np.int64)
    model = GPT(folder.config, folder.weights)
    scheduler.submit([Request(model=model, prompt=prompt, params=params, sink=sink)])
    while not sink.ended:
        time.sleep(0.005)
    scheduler.stop()
    reply = texts(client, prompt="HELLO", max_tokens=50, temperature=0.7, top_k=20, top_p=0.9, seed=5)
    assert reply == [folder.tokenizer.decode(tokens)]


def test_texts_are_reproducible_with_a_seed_and_differ_without_one(client: TestClient) -> None:
    once, again = (texts(client, prompt="A", max_tokens=40, seed=7) for _ in range(2))
    assert once == again
    assert len({texts(client, prompt="A", max_tokens=40)[0] for _ in range(4)}) == 4


def test_text_i_is_sampled_with_seed_plus_i(client: TestClient) -> None:
    four = texts(client, prompt=["A", "B"], n=2, max_tokens=30, seed=100)
    prompts = ["A", "A", "B", "B"]
    single = [texts(client, prompt=p, max_tokens=30, seed=100 + i)[0] for i, p in enumerate(prompts)]
    assert four == single
    assert len(set(four)) == 4


def test_seeds_may_be_negative_or_the_largest(client: TestClient) -> None:
    assert len(set(texts(client, prompt="A", n=2, seed=-1, max_tokens=30))) == 2
    assert len(set(texts(client, prompt="A", n=2, seed=2**63 - 1, max_tokens=30))) == 2


def test_greedy_texts_are_equal(client: TestClient) -> None:
    assert len(set(texts(client, prompt="A", n=3, temperature=0, max_tokens=20))) == 1
    assert texts(client, prompt="A", top_k=1, max_tokens=20) == texts(client, prompt="A", temperature=0, max_tokens=20)


def test_a_prompt_may_be_token_ids(client: TestClient, tiny_run: Path) -> None:
    ids = model_folder.load(tiny_run / "tiny" / "best").tokenizer.encode("HELLO").tolist()
    assert texts(client, prompt=ids, seed=3) == texts(client, prompt="HELLO", seed=3)
    two = texts(client, prompt=[ids, ids[:2]], seed=3, echo=True)
    assert [text[:2] for text in two] == ["HE", "HE"]
    assert two[0].startswith("HELLO")


@pytest.mark.parametrize("prompt", [[65], [-1], [[0], [99]], [10**400]])
def test_ids_outside_the_vocabulary_are_rejected(client: TestClient, prompt: Any) -> None:
    error = refusal(client, 400, prompt=prompt)
    assert error["param"] == "prompt"
    assert "0 to 64" in error["message"]


def test_an_empty_prompt_starts_from_a_line_break(client: TestClient) -> None:
    expected = texts(client, prompt="\n", seed=1)
    assert texts(client, prompt="", seed=1) == texts(client, prompt=None, seed=1) == texts(client, seed=1) == expected
    assert complete(client, prompt="")["usage"]["prompt_tokens"] == 1


def test_without_a_line_break_in_the_vocabulary_an_empty_prompt_is_id_0(
    tiny_run: Path, client_for: Callable[..., TestClient], make_weights: Callable[..., Any]
) -> None:
    source = model_folder.load(tiny_run / "tiny" / "best")
    assert source.info is not None
    target = tiny_run / "plain" / "snapshots" / "step-000001"
    tokenizer = CharTokenizer(["b", "a"])
    model_folder.write(target, source.config, source.weights, tokenizer, source.info, "# a test\n")
    client = client_for(tiny_run)
    results = [
        texts(client, model="plain", prompt=prompt, temperature=0, max_tokens=1, echo=True) for prompt in ("", [0])
    ]
    assert results[1] == [f"b{results[0][0]}"]


def test_echo_prepends_the_prompt(client: TestClient) -> None:
    [plain] = texts(client, prompt="HELLO", seed=1)
    assert texts(client, prompt="HELLO", seed=1, echo=True) == [f"HELLO{plain}"]
    assert texts(client, prompt="HELLO", max_tokens=0, echo=True) == ["HELLO"]


def test_max_tokens_may_be_0(client: TestClient) -> None:
    reply = complete(client, prompt="HELLO", max_tokens=0)
    [choice] = reply["choices"]
    assert choice == {"text": "", "index": 0, "logprobs": None, "finish_reason": "length", "stop_reason": None}
    assert reply["usage"]["completion_tokens"] == 0


def test_a_stop_string_ends_the_text_before_it(client: TestClient) -> None:
    [whole] = texts(client, prompt="A", seed=4, max_tokens=60)
    stop = whole[20:23]
    reply = complete(client, prompt="A", seed=4, max_tokens=60, stop=["never in it", stop])
    [choice] = reply["choices"]
    assert choice["text"] == whole[: whole.find(stop)]
    assert choice["finish_reason"] == "stop"
    assert reply["usage"]["completion_tokens"] == whole.find(stop) + len(stop)


def test_the_beginning_of_a_stop_string_at_the_end_is_not_lost(client: TestClient) -> None:
    [whole] = texts(client, prompt="A", seed=4, max_tokens=20)
    reply = complete(client, prompt="A", seed=4, max_tokens=20, stop=whole[-3:] + "more")
    assert reply["choices"][0]["text"] == whole
    assert reply["choices"][0]["finish_reason"] == "length"


def test_a_stop_string_in_the_prompt_is_ignored(client: TestClient) -> None:
    [text] = texts(client, prompt="AB\x7eQQ", echo=True, stop="B\x7eQ", max_tokens=3)
    assert text.startswith("AB\x7eQQ")


def test_the_default_max_tokens_obeys_the_limit_of_the_server(
    tiny_run: Path, client_for: Callable[..., TestClient]
) -> None:
    client = client_for(tiny_run, max_tokens=5)
    assert len(texts(client, prompt="A")[0]) == 5
    assert refusal(client, 400, max_tokens=6)["param"] == "max_tokens"


def test_an_unknown_model_is_404(client: TestClient) -> None:
    for name in ("gpt-4", "tiny@step-000999", "", "../tiny", "tiny@../../x", "\x00", "x" * 5000):
        error = refusal(client, 404, model=name)
        assert (error["code"], error["param"], error["type"]) == ("model_not_found", "model", "invalid_request_error")
        assert len(error["message"]) < 300


def test_a_full_queue_is_429_with_retry_after(tiny_run: Path, client_for: Callable[..., TestClient]) -> None:
    client = client_for(tiny_run, max_queue=0)
    scheduler = client.app.state.service.scheduler  # type: ignore[attr-defined]
    scheduler.max_active = 1
    response = client.post("/v1/completions", json={"n": 2})
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["error"]["code"] == "queue_full"
    assert client.post("/v1/completions", json={"n": 1}).status_code == 200


def test_without_a_model_the_error_is_503_with_the_training_status(
    models: Path, client_for: Callable[..., TestClient]
) -> None:
    client = client_for(models)
    for name in (None, "tiny", "tiny@latest"):
        response = client.post("/v1/completions", json={"model": name})
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert response.json()["error"]["code"] == "no_model_yet"
        assert "no training has been started" in response.json()["error"]["message"]


def test_ids_unknown_to_the_tokenizer_decode_to_replacement_characters(
    tiny_run: Path, client_for: Callable[..., TestClient], config: ModelConfig, make_weights: Callable[..., Any]
) -> None:
    """If the vocabulary was padded for speed, the model has ids that its tokenizer lacks."""
    info = model_folder.load(tiny_run / "tiny" / "best").info
    assert info is not None
    target = tiny_run / "padded" / "snapshots" / "step-000001"
    model_folder.write(target, config, make_weights(config), CharTokenizer(list("\nab")), info, "# a test\n")
    [text] = texts(client_for(tiny_run), model="padded", max_tokens=60, temperature=2, seed=1)
    assert len(text) == 60
    assert "\ufffd" in text
