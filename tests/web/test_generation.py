"""Deltas of a text: whole characters, and a complete last delta whenever the engine calls `end`."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gptbox.engine.request import Logprobs, Request
from gptbox.engine.sampling_params import SamplingParams
from gptbox.errors import EngineError
from gptbox.tokenizers import StreamDecoder
from gptbox.tokenizers.byte import ByteTokenizer
from gptbox.web.generation import Generation, TextDelta, TextJob


class Pairs(StreamDecoder):
    """Decodes two ids to one character, as UTF-8 does with bytes."""

    def __init__(self) -> None:
        self.held: list[int] = []

    def push(self, tokens: Sequence[int]) -> str:
        ids = [*self.held, *tokens]
        whole = len(ids) // 2 * 2
        self.held = ids[whole:]
        return "".join(chr(97 + ids[i]) for i in range(0, whole, 2))


class FakeScheduler:
    """A fake scheduler: the test calls the sinks itself."""

    def submit(self, requests: Sequence[Request]) -> None:
        self.requests = requests


PAIRS = SimpleNamespace(stream_decoder=lambda prompt: Pairs())


def start(
    max_tokens: int = 3, stop: Sequence[str] = (), texts: int = 1, tokenizer: Any = PAIRS, prompt: Sequence[int] = (0,),
    **params: Any,
) -> tuple[FakeScheduler, Generation]:  # fmt: skip
    engine = FakeScheduler()
    model: Any = SimpleNamespace(gpt=SimpleNamespace(config=SimpleNamespace(vocab_size=256)), tokenizer=tokenizer)
    job = TextJob(np.array(prompt, np.int64), SamplingParams(max_tokens=max_tokens, **params))
    return engine, Generation(engine, model, [job] * texts, stop)  # type: ignore[arg-type]


async def next_deltas(generation: Generation) -> list[TextDelta]:
    return await asyncio.wait_for(anext(generation.deltas()), 5)


def deltas_of_bytes(*pieces: Sequence[int], prompt: Sequence[int] = (0,)) -> list[TextDelta]:
    """The deltas of a text whose tokens are bytes. The reader gets each piece before the engine delivers the next."""

    async def run() -> list[TextDelta]:
        engine, generation = start(sum(map(len, pieces)), tokenizer=ByteTokenizer(), prompt=prompt)
        received: list[TextDelta] = []

        async def read() -> None:
            async for deltas in generation.deltas():
                received.extend(deltas)

        reader = asyncio.create_task(read())
        for ids in pieces:
            engine.requests[0].sink.tokens(list(ids), Logprobs([-1.0] * len(ids), [[]] * len(ids)))
            for _ in range(10):  # more rounds of the event loop than the reader needs
                await asyncio.sleep(0)
        await asyncio.wait_for(reader, 5)
        return received

    return asyncio.run(run())


@pytest.mark.parametrize("logprobs", [False, True])
def test_the_last_token_ends_the_text_before_the_engine_calls_end(logprobs: bool) -> None:
    async def check() -> TextDelta:
        engine, generation = start(max_tokens=5)
        given = Logprobs([-1.0] * 5, [[]] * 5) if logprobs else None
        engine.requests[0].sink.tokens([0, 0, 1, 1, 2], given)
        [delta] = await next_deltas(generation)
        return delta

    delta = asyncio.run(check())
    assert (delta.text, delta.finish_reason) == ("ab", "length")
    assert len(delta.tokens) == (5 if logprobs else 0)


def test_text_held_back_for_a_stop_string_comes_with_the_last_token() -> None:
    async def check() -> TextDelta:
        engine, generation = start(max_tokens=4, stop=["abc"])
        engine.requests[0].sink.tokens([0, 0, 1, 1], None)
        [delta] = await next_deltas(generation)
        return delta

    delta = asyncio.run(check())
    assert (delta.text, delta.finish_reason) == ("ab", "length")


def test_a_stop_string_in_the_last_token_is_the_finish_reason() -> None:
    async def check() -> TextDelta:
        engine, generation = start(max_tokens=4, stop=["b"])
        engine.requests[0].sink.tokens([0, 0, 1, 1], None)
        [delta] = await next_deltas(generation)
        return delta

    delta = asyncio.run(check())
    assert (delta.text, delta.finish_reason) == ("a", "stop")


def one_delta(
    ids: Sequence[int], logprobs: bool = False, max_tokens: int = 9, end: Exception | None = None, **more: Any
) -> TextDelta:
    """The delta of all these tokens, which come at once; `end` is the error with which the engine then ends."""

    async def check() -> TextDelta:
        engine, generation = start(max_tokens, **more)
        given = Logprobs([-float(i) for i in range(len(ids))], [[]] * len(ids)) if logprobs else None
        engine.requests[0].sink.tokens(list(ids), given)
        if end is not None:
            engine.requests[0].sink.end(end)
        [delta] = await next_deltas(generation)
        assert generation.completion_tokens == len(ids)
        assert not engine.requests[0].cancelled  # the engine knows that the text has ended
        return delta

    return asyncio.run(check())


@pytest.mark.parametrize("logprobs", [False, True])
@pytest.mark.parametrize("end", [None, EngineError("The server is stopping.")])
def test_a_stop_token_ends_the_text_before_the_engine_calls_end(logprobs: bool, end: Exception | None) -> None:
    delta = one_delta([0, 0, 1, 1, 2, 7], logprobs, stop_token_ids=(7, 8), end=end)
    assert (delta.text, delta.finish_reason, delta.stop_reason) == ("ab", "stop", 7)
    if logprobs:  # a token that is not sent has a log-probability, and begins where the text ends
        assert [token.id for token in delta.tokens] == [0, 0, 1, 1, 2, 7]
        assert (delta.tokens[-1].text_offset, delta.tokens[-1].logprob) == (2, -5)


def test_the_eos_is_no_stop_reason_unless_it_is_ignored() -> None:
    for more, reason in (
        ({}, None), ({"stop_token_ids": (7,)}, None), ({"stop_token_ids": (7,), "ignore_eos": True}, 7)
    ):  # fmt: skip
        delta = one_delta([0, 0, 7], eos_token_id=7, **more)
        assert (delta.text, delta.finish_reason, delta.stop_reason) == ("a", "stop", reason)
    delta = one_delta([0, 0, 7], max_tokens=3, eos_token_id=7, ignore_eos=True)
    assert (delta.text, delta.finish_reason, delta.stop_reason) == ("a", "length", None)


def test_a_stop_token_follows_an_incomplete_character_and_text_held_back() -> None:
    for logprobs in (False, True):
        delta = one_delta([*b"ab", 0xE2, 0], logprobs, stop=["bc"], tokenizer=ByteTokenizer(), stop_token_ids=(0,))
        assert (delta.text, delta.finish_reason, delta.stop_reason) == ("ab", "stop", 0)
        assert [token.text_offset for token in delta.tokens] == ([0, 1, 2, 2] if logprobs else [])


def test_a_stop_string_before_the_stop_token_is_the_stop_reason() -> None:
    async def check(stop: str) -> TextDelta:
        engine, generation = start(9, [stop], tokenizer=ByteTokenizer(), stop_token_ids=(0,))
        engine.requests[0].sink.tokens([*b"abc", 0], Logprobs([-1.0] * 4, [[]] * 4))
        return (await next_deltas(generation))[0]

    delta = asyncio.run(check("b"))
    assert (delta.text, delta.stop_reason, len(delta.tokens)) == ("a", "b", 1)
    delta = asyncio.run(check("c\0"))  # the stop token's text is not part of the text
    assert (delta.text, delta.stop_reason, len(delta.tokens)) == ("abc", 0, 4)


def test_stop_strings_that_end_within_min_tokens_are_ignored() -> None:
    for min_tokens, text in ((0, "a"), (1, "a"), (2, "ab"), (3, "abbc"), (4, "abbc")):

        async def check(min_tokens: int = min_tokens) -> TextDelta:
            engine, generation = start(4, ["b"], tokenizer=ByteTokenizer(), min_tokens=min_tokens)
            engine.requests[0].sink.tokens([*b"abbc"], None)
            return (await next_deltas(generation))[0]

        delta = asyncio.run(check())
        assert (delta.text, delta.stop_reason) == (text, "b" if len(text) < 4 else None)


def test_an_error_is_raised_before_the_last_token_and_ignored_after_it() -> None:
    async def check(ids: list[int]) -> list[TextDelta]:
        engine, generation = start(max_tokens=2)
        engine.requests[0].sink.tokens(ids, None)
        engine.requests[0].sink.end(EngineError("The server is stopping."))
        return await next_deltas(generation)

    [delta] = asyncio.run(check([0, 0]))
    assert (delta.text, delta.finish_reason) == ("a", "length")
    with pytest.raises(EngineError):
        asyncio.run(check([0]))


def test_a_character_is_sent_once_its_last_byte_is_there() -> None:
    deltas = deltas_of_bytes([97, 0xF0, 0x9F], [0x90], [0x8E, 0xC3], [0xA9, 98], [0xE2])
    assert [delta.text for delta in deltas] == ["a", "\U0001f40e", "\u00e9b", ""]
    assert [delta.finish_reason for delta in deltas] == [None, None, None, "length"]
    assert [[token.id for token in delta.tokens] for delta in deltas] == [
        [97], [0xF0, 0x9F, 0x90, 0x8E], [0xC3, 0xA9, 98], [0xE2],
    ]  # fmt: skip
    assert [[token.text_offset for token in delta.tokens] for delta in deltas] == [[0], [1] * 4, [2, 2, 3], [4]]


def test_a_token_that_does_not_continue_a_character_begins_after_it() -> None:
    deltas = deltas_of_bytes([0xE2], [98], [0xE2, 0x82], [0xC3, 0xA9], [0xFF])
    assert [(delta.text, [(token.id, token.text_offset) for token in delta.tokens]) for delta in deltas] == [
        ("\ufffdb", [(0xE2, 0), (98, 1)]),
        ("\ufffd\u00e9", [(0xE2, 2), (0x82, 2), (0xC3, 3), (0xA9, 3)]),
        ("\ufffd", [(0xFF, 4)]),
    ]


def test_a_text_begins_with_the_character_that_its_prompt_leaves_incomplete() -> None:
    prompt = [97, *"\U0001f40e".encode()[:3]]
    [delta] = deltas_of_bytes([0x8E, 98], prompt=prompt)
    assert (delta.text, [token.text_offset for token in delta.tokens]) == ("\U0001f40eb", [0, 1])
    [delta] = deltas_of_bytes([98], prompt=prompt)
    assert (delta.text, [token.text_offset for token in delta.tokens]) == ("\ufffdb", [1])
    [delta] = deltas_of_bytes([98], prompt=[*"a\U0001f40e".encode()])
    assert (delta.text, [token.text_offset for token in delta.tokens]) == ("b", [0])


def test_a_stop_string_is_found_across_the_bytes_of_a_character() -> None:
    async def check() -> TextDelta:
        engine, generation = start(max_tokens=9, stop=["\u00e9!"], tokenizer=ByteTokenizer())
        engine.requests[0].sink.tokens([*"a\u00e9!b".encode()], None)
        [delta] = await next_deltas(generation)
        return delta

    delta = asyncio.run(check())
    assert (delta.text, delta.finish_reason) == ("a", "stop")


def test_a_prompt_that_is_only_scored_finishes_with_end() -> None:
    async def check() -> list[TextDelta]:
        engine, generation = start(max_tokens=0, texts=2)
        engine.requests[0].sink.end(None)
        return await next_deltas(generation)

    assert [(delta.index, delta.finish_reason) for delta in asyncio.run(check())] == [(0, "length")]
