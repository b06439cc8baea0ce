"""Decoding in compiled code gives the results of the model's forward pass."""

import pytest
import torch
from tests.train.small_models import SHAPES, make_model

from gptbox.train.decoder import CompiledDecoder
from gptbox.train.gpt import GPT


@pytest.fixture(params=SHAPES, ids=SHAPES.keys())
def model(request: pytest.FixtureRequest) -> GPT:
    return make_model(**SHAPES[request.param])


@torch.inference_mode()
def test_logits_are_those_of_the_forward_pass(model: GPT) -> None:
    ids = torch.randint(model.config.vocab_size, (1, model.config.context_length))
    expected = model(ids)[0]
    decoder = CompiledDecoder(model)
    for i, token in enumerate(ids[0].tolist()):
        torch.testing.assert_close(decoder([token]), expected[i], rtol=1e-4, atol=1e-4)
        assert decoder.length == i + 1


@torch.inference_mode()
def test_a_prompt_may_come_at_once_and_a_reset_begins_anew(model: GPT) -> None:
    decoder, other = CompiledDecoder(model), CompiledDecoder(model)
    decoder([1, 2, 3])
    decoder.reset()
    assert decoder.length == 0
    for token in (4, 5):
        other([token])
    assert torch.equal(decoder([4, 5, 6]), other([6]))


def test_greedy_texts_equal_torch_s_even_past_the_context(model: GPT) -> None:
    count = 2 * model.config.context_length
    greedy = model.generate([0], count, temperature=0)
    assert model.generate([0], count, temperature=0, decoder=CompiledDecoder(model)) == greedy


def test_a_decoder_sees_what_the_optimizer_has_changed(model: GPT) -> None:
    decoder = CompiledDecoder(model)
    before = decoder([0])
    with torch.no_grad():
        model.embedding.weight.mul_(2)
        model.final_norm.weight.mul_(2)
    decoder.reset()
    assert not torch.equal(decoder([0]), before)
