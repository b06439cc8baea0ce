"""A text's last piece: whole, and with its reason, whenever the engine says that the text has ended."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gptbox.engine.request import Logprobs, Request
from gptbox.engine.sampling import SamplingParams
from gptbox.errors import EngineError
from gptbox.tokenizers import StreamDecoder
from gptbox.web.generation import Generation, Piece, Prompt


class Pairs(StreamDecoder):
    """Two ids make a character, as the bytes of one may in UTF-8."""

    def __init__(self) -> None:
        self.held: list[int] = []

    def push(self, tokens: Sequence[int]) -> str:
        ids = [*self.held, *tokens]
        whole = len(ids) // 2 * 2
        self.held = ids[whole:]
        return "".join(chr(97 + ids[i]) for i in range(0, whole, 2))

    def flush(self) -> str:
        return "\ufffd" if self.held else ""


class Engine:
    """In the scheduler's place: the test says what comes when."""

    def submit(self, requests: Sequence[Request]) -> None:
        self.requests = requests


def start(max_tokens: int = 3, stop: Sequence[str] = (), prompts: int = 1) -> tuple[Engine, Generation]:
    engine = Engine()
    model: Any = SimpleNamespace(
        gpt=SimpleNamespace(config=SimpleNamespace(vocab_size=20)), tokenizer=SimpleNamespace(stream_decoder=Pairs)
    )
    prompt = Prompt(np.zeros(1, np.int64), SamplingParams(max_tokens=max_tokens))
    return engine, Generation(engine, model, [prompt] * prompts, stop)  # type: ignore[arg-type]


async def next_pieces(generation: Generation) -> list[Piece]:
    return await asyncio.wait_for(anext(generation.pieces()), 5)


@pytest.mark.parametrize("logprobs", [False, True])
def test_the_last_token_ends_the_text_before_the_engine_says_so(logprobs: bool) -> None:
    async def check() -> Piece:
        engine, generation = start(max_tokens=5)
        told = Logprobs([-1.0] * 5, [[]] * 5) if logprobs else None
        engine.requests[0].sink.tokens([0, 0, 1, 1, 2], told)
        [piece] = await next_pieces(generation)
        return piece

    piece = asyncio.run(check())
    assert (piece.text, piece.finish) == ("ab\ufffd", "length")
    assert len(piece.tokens) == (5 if logprobs else 0)


def test_what_a_stop_string_held_back_comes_with_the_last_token() -> None:
    async def check() -> Piece:
        engine, generation = start(max_tokens=4, stop=["abc"])
        engine.requests[0].sink.tokens([0, 0, 1, 1], None)
        [piece] = await next_pieces(generation)
        return piece

    piece = asyncio.run(check())
    assert (piece.text, piece.finish) == ("ab", "length")


def test_a_stop_string_in_the_last_token_is_the_reason() -> None:
    async def check() -> Piece:
        engine, generation = start(max_tokens=4, stop=["b"])
        engine.requests[0].sink.tokens([0, 0, 1, 1], None)
        [piece] = await next_pieces(generation)
        return piece

    piece = asyncio.run(check())
    assert (piece.text, piece.finish) == ("a", "stop")


def test_an_error_after_the_last_token_takes_nothing_back_and_before_it_is_raised() -> None:
    async def check(ids: list[int]) -> list[Piece]:
        engine, generation = start(max_tokens=2)
        engine.requests[0].sink.tokens(ids, None)
        engine.requests[0].sink.end(EngineError("The server is stopping."))
        return await next_pieces(generation)

    [piece] = asyncio.run(check([0, 0]))
    assert (piece.text, piece.finish) == ("a", "length")
    with pytest.raises(EngineError):
        asyncio.run(check([0]))


def test_a_prompt_that_is_only_scored_waits_for_its_end() -> None:
    async def check() -> list[Piece]:
        engine, generation = start(max_tokens=0, prompts=2)
        engine.requests[0].sink.end(None)
        return await next_pieces(generation)

    assert [(piece.index, piece.finish) for piece in asyncio.run(check())] == [(0, "length")]
