"""`gptbox sample`: texts from a trained model, printed as they are generated."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptbox.cli.common import find_model, load_engine
from gptbox.cli.options import Quantize, read_settings
from gptbox.errors import SettingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gptbox.tokenizers import Tokenizer

_MAX_BATCH_SIZE = 32
"""Maximum number of texts generated at once."""


def sample(
    start: Annotated[str, typer.Option(help="The text to continue; FILE:prompt.txt reads it from a file.")] = "\n",
    num_samples: Annotated[int, typer.Option(min=1, help="Number of texts.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the first text; each further text adds one.")] = 1337,
    max_tokens: Annotated[int, typer.Option(min=0, help="Tokens per text.")] = 500,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the most probable token.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Keep the k most probable tokens; 0 keeps all.")] = 200,
    top_p: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Keep the most probable tokens whose total probability reaches this; 1 keeps all."
        ),
    ] = 1.0,
    model: Annotated[
        str | None, typer.Option(help="RUN, RUN@latest or RUN@step-000250. Default: the newest run's best.")
    ] = None,
    quantize: Quantize = None,
) -> None:
    """Generate texts with a trained model and print them as they come."""
    from gptbox.engine.generate import generate
    from gptbox.engine.gpt import GPT
    from gptbox.engine.sampling_params import SamplingParams
    from gptbox.engine.worker_pool import WorkerPool
    from gptbox.models.folder import load
    from gptbox.tokenizers import printable

    settings = read_settings(QUANTIZE=quantize)
    if start.startswith("FILE:"):
        try:
            start = Path(start[5:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingError(f"--start {start!r} cannot be read: {error}.") from None
    folder = load(find_model(settings, model))
    print(f"number of parameters: {folder.parameters / 1e6:.2f}M")
    for character, replacement in folder.tokenizer.unknown(start).items():
        print(
            f"The model does not know {printable(character)} and reads {printable(replacement)} instead.",
            file=sys.stderr,
        )
    prompt = folder.tokenizer.encode(start or "\n")
    gpt = GPT(folder.config, folder.weights, settings.quantize == "int8", folder.tokenizer.utf8_constraint)
    pool = WorkerPool(settings.threads)
    load_engine()
    for first in range(0, num_samples, _MAX_BATCH_SIZE):
        seeds = range(seed + first, seed + min(first + _MAX_BATCH_SIZE, num_samples))
        params = [
            SamplingParams(
                max_tokens=max_tokens, eos_token_id=folder.tokenizer.eos_id, temperature=temperature, top_k=top_k,
                top_p=top_p, seed=text_seed,
            )
            for text_seed in seeds
        ]  # fmt: skip
        new_tokens = generate(gpt, [prompt] * len(params), params, pool)
        _print_in_order(folder.tokenizer, prompt, new_tokens, len(params), max_tokens)


def _print_in_order(
    tokenizer: "Tokenizer",
    prompt: "NDArray[np.integer]",
    new_tokens: Iterator[list[list[int]]],
    num_texts: int,
    max_tokens: int,
) -> None:
    """Print texts one after the other, although they are generated together. The current text is printed as it grows.

    `new_tokens` yields, per step, a list of new ids for each text. A text ends after `max_tokens`, or before its EOS.
    """
    buffers: list[list[int]] = [[] for _ in range(num_texts)]
    tokens_left = [max_tokens] * num_texts
    finished = [max_tokens == 0] * num_texts
    current = 0
    decoder = tokenizer.stream_decoder()
    print(tokenizer.decode(prompt), end="", flush=True)
    while current < num_texts:
        if not finished[current]:
            for i, tokens in enumerate(next(new_tokens)):
                ended = bool(tokens) and tokens[-1] == tokenizer.eos_id
                tokens_left[i] -= len(tokens)
                finished[i] |= ended or tokens_left[i] == 0
                buffers[i].extend(tokens[:-1] if ended else tokens)
        print(decoder.push(buffers[current]), end="", flush=True)
        buffers[current].clear()
        if finished[current]:
            print("\n---------------")
            current, decoder = current + 1, tokenizer.stream_decoder()
            if current < num_texts:
                print(tokenizer.decode(prompt), end="", flush=True)
