import numpy as np
from tests.engine.helpers import alone, ids

from gptbox.engine.generate import generate
from gptbox.engine.gpt import GPT
from gptbox.engine.sampling_params import SamplingParams


def test_new_tokens_of_all_prompts_are_yielded_as_they_are_generated(model: GPT) -> None:
    prompts = [ids(4 + i, i) for i in range(3)]
    params = [SamplingParams(max_tokens=count, seed=count) for count in (0, 5, 60)]
    outputs = list(generate(model, prompts, params))
    assert [len(new) for new in outputs[0]] == [0, 1, 1]
    assert all(any(new) for new in outputs)
    texts = [np.concatenate(each).astype(int).tolist() for each in zip(*outputs, strict=True)]
    assert [len(text) for text in texts] == [0, 5, 60]
    assert texts == [alone(model, prompt, each) for prompt, each in zip(prompts, params, strict=True)]
