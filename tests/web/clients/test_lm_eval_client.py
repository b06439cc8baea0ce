"""EleutherAI's lm-evaluation-harness against the real server, through its own client classes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.models import folder as model_folder

pytest.importorskip("lm_eval", reason="lm-eval is not installed; requirements/acceptance.txt has it")

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

Ask = Callable[..., Any]

PAIRS = [("HELLO-WORLD"[: 3 + i % 8], " AND SO ON, ALL OF IT"[: 1 + i % 20]) for i in range(70)]


def instances(kind: Any, *arguments: Any) -> list[Instance]:
    return [Instance(kind, {}, each, i) for i, each in enumerate(arguments)]


def exact(models: Path, context: str, continuation: str) -> tuple[float, bool]:
    """The log-probability of the continuation, and whether greedy decoding would have generated it."""
    folder = model_folder.load(models / "tiny" / "best")
    ids = folder.tokenizer.encode(context + continuation).astype(np.int64)[-31:]
    logits = GPT(folder.config, folder.weights).forward(ids[None, :-1], KVCache(folder.config, 1))[0].astype(np.float64)
    chosen = logits[np.arange(len(ids) - 1), ids[1:]]
    logprobs = (chosen - np.log(np.exp(logits).sum(-1)))[-len(continuation) :]
    return float(logprobs.sum()), bool((chosen == logits.max(-1))[-len(continuation) :].all())


@pytest.fixture
def connect(server: Any, tiny_run: Path) -> Callable[..., LocalCompletionsAPI]:
    def connect(**options: Any) -> LocalCompletionsAPI:
        return LocalCompletionsAPI(
            base_url=f"{server.url}/v1/completions", model="tiny", tokenizer=str(tiny_run / "tiny" / "best"),
            **{"max_length": 32, "max_retries": 1, "eos_string": "\n\n", **options},
        )  # fmt: skip

    return connect


@pytest.mark.parametrize("options", [{}, {"tokenized_requests": False}, {"num_concurrent": 2}])
@pytest.mark.parametrize("batch_size", [1, 33, 64])
def test_loglikelihoods_are_those_of_the_model(
    connect: Ask, tiny_run: Path, batch_size: int, options: dict[str, Any]
) -> None:
    greedy = connect().generate_until(instances("generate_until", ("HELLO", {"until": ["\n\n"], "max_gen_toks": 6})))
    pairs = [*PAIRS, ("HELLO", greedy[0])]
    results = connect(batch_size=batch_size, **options).loglikelihood(instances("loglikelihood", *pairs))
    expected = [exact(tiny_run, *pair) for pair in pairs]
    np.testing.assert_allclose([value for value, _ in results], [value for value, _ in expected], atol=1e-3)
    assert [is_greedy for _, is_greedy in results] == [is_greedy for _, is_greedy in expected]
    assert results[-1][1]


def test_rolling_loglikelihood_of_a_text_longer_than_the_context(connect: Ask) -> None:
    [value] = connect(batch_size=16, custom_prefix_token_id=0).loglikelihood_rolling(
        instances("loglikelihood_rolling", ("TO BE, OR NOT TO BE " * 20,))
    )
    assert -10 < value / 400 < -1


def test_the_default_max_length_fails_on_null_logprobs(connect: Ask) -> None:
    """As docs/api.md warns: the harness sums log-probabilities that are null outside the context."""
    with pytest.raises(TypeError, match="NoneType"):
        connect(max_length=2048).loglikelihood(instances("loglikelihood", ("A" * 5, "B" * 45)))


@pytest.mark.parametrize("stops", [1, 5, 31])
def test_texts_end_at_any_stop_string(connect: Ask, stops: int) -> None:
    until = ["\n", *map(chr, range(65, 65 + stops - 1))]
    contexts = [("HELLO"[:i], {"until": until, "max_gen_toks": 20}) for i in range(1, 6)]
    texts = connect(batch_size=5).generate_until(instances("generate_until", *contexts))
    assert len(texts) == 5
    assert not any(stop in text for text in texts for stop in until)


def test_chats(server: Any) -> None:
    client = LocalChatCompletion(base_url=f"{server.url}/v1/chat/completions", model="tiny", eos_string="\n\n")
    prompt = client.apply_chat_template([{"role": "user", "content": "WHO GOES THERE?"}])
    [text] = client.generate_until(instances("generate_until", (prompt, {"until": ["\n"], "max_gen_toks": 8})))
    assert isinstance(text, str)
