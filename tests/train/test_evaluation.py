"""Evaluating a model in torch; tests/engine/test_evaluate.py compares the loss with the engine's."""

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.small_models import make_model

from gptbox.datasets.prepared import PreparedDataset, prepare
from gptbox.models.config import ModelConfig
from gptbox.models.runs import RunFolder
from gptbox.models.weights import Weights
from gptbox.tokenizers.byte import ByteTokenizer
from gptbox.train.data_parallel import DataParallel
from gptbox.train.decoder import CompiledDecoder
from gptbox.train.evaluation import Evaluator, Interrupted, evaluate
from gptbox.train.gpt import GPT
from gptbox.train.predictions import Predictions


def test_an_interrupted_evaluation_leaves_the_model_in_training_mode(
    config: ModelConfig, make_weights: Callable[..., Weights]
) -> None:
    model = GPT(config)
    model.load_state_dict({name: torch.from_numpy(weight) for name, weight in make_weights(config).items()})
    model.train()
    with pytest.raises(Interrupted):
        evaluate(model, np.zeros(100, np.uint16), stop=lambda: True)
    assert model.training


@pytest.mark.parametrize("prompt", [b"\n", b"a\xf0\x9f"])
@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_no_character_is_broken_with_the_constraint(prompt: bytes, temperature: float) -> None:
    """By a model that has learned nothing, in torch and in compiled code, and with more ids than the tokenizer."""
    model, constraint = make_model(vocab_size=300), ByteTokenizer().utf8_constraint
    texts = [
        model.generate(
            [*prompt], 200, temperature=temperature, top_k=200, seed=1, decoder=decoder, constraint=constraint
        )
        for decoder in (None, CompiledDecoder(model))
    ]
    assert texts[0] == texts[1]
    assert codecs.getincrementaldecoder("utf-8")("strict").decode(prompt[prompt.find(0xF0) :] + bytes(texts[0]))
    with pytest.raises((UnicodeDecodeError, ValueError)):  # ValueError: an id is no byte
        bytes(model.generate([*prompt], 200, temperature=2.0, seed=1)).decode()


def documents(tmp_path: Path, tokenizer: str) -> PreparedDataset:
    """A text of several documents, prepared."""
    folder = tmp_path / "data" / "poems"
    folder.mkdir(parents=True)
    lines = [json.dumps({"text": f"{n} 瓶啤酒 on the wall"}, ensure_ascii=False) for n in range(300)]
    (folder / "poems.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return prepare("poems", RunFolder(tmp_path / "models", "poems"), tmp_path / "data", tokenizer=tokenizer)


@pytest.mark.parametrize("tokenizer", ["byte", "bpe", "char"])
def test_a_sample_has_whole_characters_and_ends_before_the_end_of_text(tmp_path: Path, tokenizer: str) -> None:
    dataset = documents(tmp_path, tokenizer)
    model = make_model(vocab_size=dataset.vocab_size)
    evaluator = Evaluator(dataset, DataParallel(1), lambda: False)
    samples = [evaluator.sample(model, seed)["text"] for seed in range(20)]
    assert not any("\ufffd" in text for text in samples)
    assert any(not text.isascii() for text in samples)
    if dataset.tokenizer.eos_id is not None:
        prompt, eos_id = dataset.tokenizer.encode("\n").tolist(), dataset.tokenizer.eos_id
        num_ended = 0
        for seed, text in enumerate(samples):
            ids = model.generate(
                prompt, 300, temperature=0.8, top_k=200, seed=seed, constraint=dataset.tokenizer.utf8_constraint
            )
            if eos_id in ids:
                num_ended += 1
                assert text == dataset.tokenizer.decode(ids[: ids.index(eos_id)])
        assert num_ended > 0


def test_generation_ends_with_the_first_token_for_which_until_is_true() -> None:
    model = make_model()
    whole = model.generate([0], 60, seed=1)
    last = whole[20]
    for decoder in (None, CompiledDecoder(model)):
        assert (
            model.generate([0], 60, seed=1, decoder=decoder, until=lambda token: token == last)
            == (whole[: whole.index(last) + 1])
        )
    assert model.generate([0], 60, seed=1, until=lambda _: False) == whole


def learned(dataset: PreparedDataset, text: str = "", step: int = 1, seed: int = 1) -> dict[str, Any]:
    """What a model that has learned nothing has learned."""
    model = make_model(vocab_size=dataset.vocab_size)
    evaluator = Evaluator(dataset, DataParallel(1), lambda: False)
    return evaluator.learned(model, text, evaluator.estimate(model).predictions, seed, step)


def test_what_was_learned_is_measured_on_sample_and_estimate(tmp_path: Path) -> None:
    dataset = documents(tmp_path, "char")
    model, ids = make_model(vocab_size=dataset.vocab_size), np.asarray(dataset.val)
    parts: list[Predictions] = []
    evaluate(model, ids, predictions=parts)
    expected = Predictions.concatenate(parts)
    found = learned(dataset, "the wall xx on the wall on yy the wall on the wall xx")
    assert found["real_words"] == pytest.approx(10 / 12, abs=1e-4)
    assert found["accuracy"] == pytest.approx(expected.accuracy, abs=1e-4)
    assert expected.confusion is not None
    assert found["confusion"] == {
        "expected": dataset.tokenizer.token_text(expected.confusion.expected),
        "predicted": dataset.tokenizer.token_text(expected.confusion.predicted),
        "share": pytest.approx(expected.confusion.share, abs=1e-4),
    }
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("tokenizer", ["byte", "bpe", "char"])
def test_each_step_has_a_line_of_its_own_of_whole_characters(tmp_path: Path, tokenizer: str) -> None:
    dataset = documents(tmp_path, tokenizer)
    lines = [learned(dataset, step=step)["line"] for step in range(12)]
    assert len(set(lines)) == 12
    assert learned(dataset, step=3)["line"] == lines[3]
    assert learned(dataset, step=3, seed=2)["line"] != lines[3]
    assert not any("\ufffd" in line or "\n" in line or len(line) > 80 for line in lines)
    assert any(not line.rstrip("…").isascii() for line in lines)


def test_saying_what_was_learned_draws_no_random_numbers_of_the_training(tmp_path: Path) -> None:
    dataset = documents(tmp_path, "char")
    torch.manual_seed(5)
    np.random.seed(5)
    numpy_s_next = np.random.random()
    np.random.seed(5)
    model = make_model(vocab_size=dataset.vocab_size)
    evaluator = Evaluator(dataset, DataParallel(1), lambda: False)
    before = torch.get_rng_state()
    evaluator.collect_words()
    evaluator.learned(model, "text", evaluator.estimate(model).predictions, 1, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.random() == numpy_s_next
