"""Texts of a byte-level model: whichever rows, threads, drafts and parameters, no character is broken."""

import codecs
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.engine.helpers import alone, generate_all, request, run, sink

from gptbox.engine.autotune import Strategy, StrategyTuner
from gptbox.engine.batch import Batch
from gptbox.engine.gpt import GPT
from gptbox.engine.sampling_params import SamplingParams
from gptbox.engine.worker_pool import WorkerPool
from gptbox.models.config import ModelConfig
from gptbox.models.weights import Weights
from gptbox.tokenizers.byte import ByteTokenizer

CONSTRAINT = ByteTokenizer().utf8_constraint
PROMPTS: list[list[int]] = [[10], [*b"a\xe2"], [*b"\xe2\x82"], [*b"ab\xf0\x9f\x90"], [*b"\xed"], [*b"\x80\xff"]]
"""Some end within a character."""
PARAMS = [
    SamplingParams(max_tokens=150, seed=i, **more)
    for i, more in enumerate(
        [
            {"temperature": 2.0}, {"temperature": 0}, {"logit_bias": {0xFF: 100, 0xED: 50, 0x41: 40}},
            {"top_k": 3, "repetition_penalty": 1.5}, {"top_p": 0.3, "frequency_penalty": 1.0}, {"min_p": 0.5},
        ]
    )
]  # fmt: skip


@pytest.fixture
def bytes_model(config: ModelConfig, make_weights: Callable[..., Weights]) -> GPT:
    """With 44 more ids than the tokenizer, and a bias for none: nearly every pair of tokens breaks a character."""
    padded = replace(config, vocab_size=300)
    return GPT(padded, make_weights(padded), constraint=CONSTRAINT)


def text(tokens: list[int]) -> str:
    """Without a character that the end breaks off; raises UnicodeDecodeError for any other that is broken."""
    return codecs.getincrementaldecoder("utf-8")("strict").decode(bytes(tokens))


def unfinished(prompt: list[int]) -> list[int]:
    """The beginning of the character that the prompt leaves incomplete."""
    whole = codecs.getincrementaldecoder("utf-8")("replace")
    whole.decode(bytes(prompt))
    return [*whole.getstate()[0]]


def test_no_character_is_broken(bytes_model: GPT, pool: WorkerPool) -> None:
    prompts = PROMPTS
    for tokens, prompt in zip(generate_all(bytes_model, prompts, PARAMS, pool), prompts, strict=True):
        assert len(tokens) == 150
        assert max(tokens) < 256
        assert text(unfinished(prompt) + tokens)
    bytes_model.constraint = None
    with pytest.raises((UnicodeDecodeError, ValueError)):
        text(alone(bytes_model, [10], PARAMS[0]))


@pytest.mark.parametrize("strategy", [Strategy(False, 5), Strategy(True, 5), Strategy(True, 0)])
def test_threads_and_drafts_change_no_token(
    bytes_model: GPT, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch, strategy: Strategy
) -> None:
    expected = generate_all(bytes_model, PROMPTS, PARAMS)
    monkeypatch.setattr(StrategyTuner, "choose", lambda self, rows: (strategy, 1.0))
    for prompt, params, tokens in zip(PROMPTS, PARAMS, expected, strict=True):
        assert generate_all(bytes_model, [prompt], [params], pool if strategy.tensor_parallel else None) == [tokens]


def test_drafted_tokens_break_no_character_either(bytes_model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that most of them are accepted."""
    monkeypatch.setattr(StrategyTuner, "choose", lambda self, rows: (Strategy(False, 5), 1.0))
    accepted = []
    batch = Batch(bytes_model, 1, interrupt=np.ones(1, np.int64))  # one verification at a time
    three_bytes = {0xE4: 100.0}  # the first byte of every character
    batch.add(request(bytes_model, [10], max_tokens=200, temperature=0.8, seed=1, logit_bias=three_bytes))
    while batch.rows:
        tokens, _ = batch.step()
        accepted.append(tokens)
        batch.remove_finished()
    assert np.mean(accepted) > 3


def test_log_probabilities_are_those_of_the_model_without_the_constraint(
    config: ModelConfig, make_weights: Callable[..., Weights]
) -> None:
    config = replace(config, vocab_size=256)
    model = GPT(config, make_weights(config), constraint=CONSTRAINT)
    each = request(model, [0xE2], max_tokens=1, seed=3, logprobs=20)
    run(Batch(model, 1), each)
    plain = request(GPT(config, make_weights(config)), [0xE2], max_tokens=1, logprobs=20)
    run(Batch(plain.model, 1), plain)
    assert sink(each).alternatives == sink(plain).alternatives
    assert any(not 0x80 <= i < 0xC0 for i, _ in sink(each).alternatives[0])
    assert 0x80 <= sink(each).ids[0] < 0xC0


def test_what_is_left_keeps_its_probabilities(config: ModelConfig, make_weights: Callable[..., Weights]) -> None:
    config = replace(config, vocab_size=256)
    model = GPT(config, make_weights(config), constraint=CONSTRAINT)
    first, counts = request(model, [0xE2], max_tokens=1, seed=0, logprobs=0), np.zeros(256)
    run(Batch(model, 1), first)
    scores = np.zeros(256)
    for seed in range(0, 3000, 60):
        requests = [request(model, [0xE2], max_tokens=1, seed=seed + i, logprobs=0) for i in range(60)]
        run(Batch(model, 60), *requests)
        for each in requests:
            counts[sink(each).ids[0]] += 1
            scores[sink(each).ids[0]] = np.exp(sink(each).logprobs[0])
    np.testing.assert_allclose(counts / counts.sum(), scores / scores.sum(), atol=0.03)


def test_where_nothing_is_left_the_text_goes_on(bytes_model: GPT) -> None:
    """If every byte that could continue a character is a stop token, and min_tokens removes them, too."""
    params: dict[str, Any] = {"max_tokens": 20, "min_tokens": 10, "stop_token_ids": tuple(range(0x80, 0xC0)), "seed": 1}
    tokens = alone(bytes_model, [0xE2], SamplingParams(**params))
    assert len(tokens) >= 10
    assert not set(tokens[:10]) & set(range(0x80, 0xC0))
    assert tokens[0] == 0
