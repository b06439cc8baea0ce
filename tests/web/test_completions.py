"""/v1/completions, whole replies: what comes back for what is asked."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from gptbox import model_folder
from gptbox.engine.gpt import GPT
from gptbox.engine.request import Logprobs, Request
from gptbox.engine.sampling import SamplingParams
from gptbox.engine.scheduler import Scheduler
from gptbox.model_config import ModelConfig
from gptbox.tokenizers.char import CharTokenizer


def complete(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def texts(client: TestClient, **body: Any) -> list[str]:
    return [choice["text"] for choice in complete(client, **body)["choices"]]


def refusal(client: TestClient, status: int, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/completions", json=body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return dict(error)


def test_a_reply_has_openais_shape_and_names_the_snapshot_used(client: TestClient) -> None:
    reply = complete(client, prompt="HELLO", seed=1)
    assert reply["id"].startswith("cmpl-")
    assert reply["object"] == "text_completion"
    assert abs(reply["created"] - time.time()) < 60
    assert reply["model"] == "tiny@step-000250"
    [choice] = reply["choices"]
    assert len(choice.pop("text")) == 16
    assert choice == {"index": 0, "logprobs": None, "finish_reason": "length"}
    assert reply["usage"] == {"prompt_tokens": 5, "completion_tokens": 16, "total_tokens": 21}
    assert reply["warnings"] == []


def test_the_text_is_the_engines(client: TestClient, tiny_run: Path) -> None:
    folder = model_folder.load(tiny_run / "tiny" / "best")
    tokens: list[int] = []

    class Sink:
        ended = False

        def prompt(self, logprobs: Logprobs) -> None:
            raise AssertionError("nobody asked for them")

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


def test_the_same_seed_gives_the_same_text_and_no_seed_a_fresh_one(client: TestClient) -> None:
    once, again = (texts(client, prompt="A", max_tokens=40, seed=7) for _ in range(2))
    assert once == again
    assert len({texts(client, prompt="A", max_tokens=40)[0] for _ in range(4)}) == 4


def test_text_i_is_drawn_with_seed_plus_i(client: TestClient) -> None:
    four = texts(client, prompt=["A", "B"], n=2, max_tokens=30, seed=100)
    prompts = ["A", "A", "B", "B"]
    single = [texts(client, prompt=p, max_tokens=30, seed=100 + i)[0] for i, p in enumerate(prompts)]
    assert four == single
    assert len(set(four)) == 4


def test_seeds_may_be_negative_and_at_the_edge(client: TestClient) -> None:
    assert len(set(texts(client, prompt="A", n=2, seed=-1, max_tokens=30))) == 2
    assert len(set(texts(client, prompt="A", n=2, seed=2**63 - 1, max_tokens=30))) == 2


def test_the_choices_are_numbered_over_all_prompts(client: TestClient) -> None:
    reply = complete(client, prompt=["A", "B", "C"], n=2, max_tokens=3)
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3, 4, 5]
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 18, "total_tokens": 21}


def test_greedy_texts_are_alike(client: TestClient) -> None:
    assert len(set(texts(client, prompt="A", n=3, temperature=0, max_tokens=20))) == 1
    assert texts(client, prompt="A", top_k=1, max_tokens=20) == texts(client, prompt="A", temperature=0, max_tokens=20)


def test_a_prompt_in_ids_is_the_prompt(client: TestClient, tiny_run: Path) -> None:
    ids = model_folder.load(tiny_run / "tiny" / "best").tokenizer.encode("HELLO").tolist()
    assert texts(client, prompt=ids, seed=3) == texts(client, prompt="HELLO", seed=3)
    two = texts(client, prompt=[ids, ids[:2]], seed=3, echo=True)
    assert [text[:2] for text in two] == ["HE", "HE"]
    assert two[0].startswith("HELLO")


@pytest.mark.parametrize("prompt", [[65], [-1], [[0], [99]], [10**400]])
def test_ids_that_the_model_lacks_are_refused(client: TestClient, prompt: Any) -> None:
    error = refusal(client, 400, prompt=prompt)
    assert error["param"] == "prompt"
    assert "0 to 64" in error["message"]


def test_an_empty_prompt_starts_from_a_line_break(client: TestClient) -> None:
    expected = texts(client, prompt="\n", seed=1)
    assert texts(client, prompt="", seed=1) == texts(client, prompt=None, seed=1) == texts(client, seed=1) == expected
    assert complete(client, prompt="")["usage"]["prompt_tokens"] == 1


def test_a_model_without_a_line_break_starts_from_its_first_id(
    tiny_run: Path, client_for: Callable[..., TestClient], make_weights: Callable[..., Any]
) -> None:
    source = model_folder.load(tiny_run / "tiny" / "best")
    assert source.info is not None
    target = tiny_run / "plain" / "snapshots" / "step-000001"
    tokenizer = CharTokenizer(["b", "a"])
    model_folder.write(target, source.config, source.weights, tokenizer, source.info, "# a test\n")
    client = client_for(tiny_run)
    answers = [
        texts(client, model="plain", prompt=prompt, temperature=0, max_tokens=1, echo=True) for prompt in ("", [0])
    ]
    assert answers[1] == [f"b{answers[0][0]}"]


def test_echo_puts_the_prompt_first(client: TestClient) -> None:
    [plain] = texts(client, prompt="HELLO", seed=1)
    assert texts(client, prompt="HELLO", seed=1, echo=True) == [f"HELLO{plain}"]
    assert texts(client, prompt="HELLO", max_tokens=0, echo=True) == ["HELLO"]


def test_no_tokens_may_be_asked_for(client: TestClient) -> None:
    reply = complete(client, prompt="HELLO", max_tokens=0)
    assert reply["choices"] == [{"text": "", "index": 0, "logprobs": None, "finish_reason": "length"}]
    assert reply["usage"]["completion_tokens"] == 0


def test_a_stop_string_ends_the_text_before_it(client: TestClient) -> None:
    [whole] = texts(client, prompt="A", seed=4, max_tokens=60)
    stop = whole[20:23]
    reply = complete(client, prompt="A", seed=4, max_tokens=60, stop=["never in it", stop])
    [choice] = reply["choices"]
    assert choice["text"] == whole[: whole.find(stop)]
    assert choice["finish_reason"] == "stop"
    assert reply["usage"]["completion_tokens"] == whole.find(stop) + len(stop)


def test_what_looked_like_a_stop_string_comes_in_the_end(client: TestClient) -> None:
    [whole] = texts(client, prompt="A", seed=4, max_tokens=20)
    reply = complete(client, prompt="A", seed=4, max_tokens=20, stop=whole[-3:] + "more")
    assert reply["choices"][0]["text"] == whole
    assert reply["choices"][0]["finish_reason"] == "length"


def test_a_stop_string_in_the_prompt_is_none(client: TestClient) -> None:
    [text] = texts(client, prompt="AB\x7eQQ", echo=True, stop="B\x7eQ", max_tokens=3)
    assert text.startswith("AB\x7eQQ")


def test_unknown_characters_are_replaced_and_named(client: TestClient) -> None:
    reply = complete(client, prompt="café \U0001f600 na\u2019ve", seed=1)
    [warning] = reply["warnings"]
    for named in ("(space) for é", "(space) for \U0001f600", "' for \u2019"):
        assert named in warning
    assert reply["choices"][0]["text"] == texts(client, prompt="caf    na've", seed=1)[0]
    assert texts(client, prompt="café", echo=True, max_tokens=0) == ["café"]


def test_half_a_surrogate_pair_is_an_unknown_character(client: TestClient) -> None:
    body = json.dumps({"prompt": "x\ud800", "echo": True, "max_tokens": 1})
    response = client.post("/v1/completions", content=body)
    assert response.status_code == 200
    assert response.json()["choices"][0]["text"].startswith("x\ufffd")
    assert "(space) for \ufffd" in response.json()["warnings"][0]


def test_hundreds_of_unknown_characters_make_one_short_warning(client: TestClient) -> None:
    [warning] = complete(client, prompt="".join(map(chr, range(0x4E00, 0x5000))))["warnings"][:1]
    assert "(space) for \u4e00" in warning
    assert "and 412 more" in warning


def test_a_prompt_longer_than_the_context_is_accepted_and_the_model_sees_its_end(client: TestClient) -> None:
    assert complete(client, prompt="A" * 32)["warnings"] == []
    reply = complete(client, prompt="B" * 100 + "A" * 32, seed=2)
    [warning] = reply["warnings"]
    assert "132" in warning
    assert "32 at once" in warning
    assert reply["usage"]["prompt_tokens"] == 132
    assert reply["choices"][0]["text"] == texts(client, prompt="A" * 32, seed=2)[0]
    complete(client, prompt="x" * 65_536, max_tokens=1)


def test_the_default_length_bows_to_the_servers_limit(tiny_run: Path, client_for: Callable[..., TestClient]) -> None:
    client = client_for(tiny_run, max_tokens=5)
    assert len(texts(client, prompt="A")[0]) == 5
    assert refusal(client, 400, max_tokens=6)["param"] == "max_tokens"


def test_bodies_that_are_no_json_object_are_refused(client: TestClient) -> None:
    for body in (
        b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe\xfa", b'{"temperature": NaN}', b'{"a": Infinity}', b"[" * 100_000,
        b"prompt=x", b'{"prompt": "\xe9"}', b'{"seed": ' + b"9" * 5000 + b"}",
    ):  # fmt: skip
        response = client.post("/v1/completions", content=body)
        assert response.status_code == 400, body[:50]
        assert response.json()["error"]["type"] == "invalid_request_error"


def test_a_body_above_one_mebibyte_is_refused(client: TestClient) -> None:
    body = json.dumps({"prompt": "x", "user": "y" * 2**20}).encode()
    response = client.post("/v1/completions", content=body)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"
    assert client.post("/v1/completions", content=b'{"user": "' + b"y" * (2**20 - 12) + b'"}').status_code == 200


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


def test_without_a_model_it_is_503_and_tells_of_training(models: Path, client_for: Callable[..., TestClient]) -> None:
    client = client_for(models)
    for name in (None, "tiny", "tiny@latest"):
        response = client.post("/v1/completions", json={"model": name})
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert response.json()["error"]["code"] == "no_model_yet"
        assert "no training has been started" in response.json()["error"]["message"]


def test_ids_beyond_the_tokenizer_become_replacement_characters(
    tiny_run: Path, client_for: Callable[..., TestClient], config: ModelConfig, make_weights: Callable[..., Any]
) -> None:
    """A vocabulary may have been padded for speed: the model then has ids that its tokenizer lacks."""
    info = model_folder.load(tiny_run / "tiny" / "best").info
    assert info is not None
    target = tiny_run / "padded" / "snapshots" / "step-000001"
    model_folder.write(target, config, make_weights(config), CharTokenizer(list("\nab")), info, "# a test\n")
    [text] = texts(client_for(tiny_run), model="padded", max_tokens=60, temperature=2, seed=1)
    assert len(text) == 60
    assert "\ufffd" in text


def test_other_methods_are_405_and_other_addresses_404(client: TestClient) -> None:
    for method, path, status in (("GET", "/v1/completions", 405), ("PUT", "/v1/models", 405), ("GET", "/v1/x", 404),
                                 ("POST", "/v1", 404), ("POST", "/v1/completions/", 404)):  # fmt: skip
        response = client.request(method, path)
        assert response.status_code == status
        assert response.json()["error"]["type"] == "invalid_request_error"
    assert "POST" in client.get("/v1/completions").headers["allow"]
