"""A reply to a request for texts, whole or as a stream: what completions and chats have in common."""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gptbox import __version__
from gptbox.errors import RequestError
from gptbox.tokenizers import shown as visible
from gptbox.web.completion_request import Prompt as PromptText
from gptbox.web.errors import error_object, log_failure
from gptbox.web.generation import Finish, Generation, Piece, Prompt, Token
from gptbox.web.model_cache import LoadedModel
from gptbox.web.sampling_fields import SamplingFields, shown
from gptbox.web.service import Service
from gptbox.web.streaming import LiveResponse, compact_json, server_sent_event, while_connected

_NAMED_CHARACTERS = 100
"""How many unknown characters a warning names one by one."""
_QUEUE_NEWS_S = 0.5
"""How often one who waits is told how many are before."""

Ids = NDArray[np.integer]


def checked_ids(tokens: list[int], model: LoadedModel, field: str) -> Ids:
    """The ids as an array, shape (tokens,).

    Raises RequestError naming `field` and the id where the model lacks one.
    """
    size = model.tokenizer.vocab_size
    for token in tokens:
        if not 0 <= token < size:
            raise RequestError(f"{field} has the token id {shown(token)}; this model's are 0 to {size - 1}.", field)
    return np.array(tokens, np.int64)


def encode(prompt: PromptText, model: LoadedModel) -> Ids:
    """The ids to start from, shape (tokens,), at least one.

    Raises RequestError where ids were given that the model lacks.
    """
    if isinstance(prompt, str):
        return model.tokenizer.encode(prompt) if prompt else model.line_break
    return checked_ids(prompt, model, "prompt")


def unknown_characters(text: str, model: LoadedModel) -> list[str]:
    """A warning that names the characters that the model does not know; none where it knows all."""
    unknown = model.tokenizer.unknown(text)
    if not unknown:
        return []
    pairs = [
        f"{visible(known)} for {visible(character)}" for character, known in list(unknown.items())[:_NAMED_CHARACTERS]
    ]
    if more := len(unknown) - len(pairs):
        pairs.append(f"and {more:,} more")
    return [f"The model does not know every character of this and reads others instead: {', '.join(pairs)}."]


def warnings(prompts: list[PromptText], ids: list[Ids], model: LoadedModel) -> list[str]:
    """What the model does not see as it was sent, in sentences."""
    found = unknown_characters("".join(prompt for prompt in prompts if isinstance(prompt, str)), model)
    context = model.gpt.config.context_length
    if (longest := max(map(len, ids))) > context:
        found.append(
            f"A prompt has {longest} tokens and the model sees {context} at once: it began from the last {context}."
        )
    return found


def with_own(token: int, logprob: float, alternatives: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The most probable ids, followed by the text's own token unless it is one of them."""
    return alternatives if any(i == token for i, _ in alternatives) else [*alternatives, (token, logprob)]


class Text:
    """One text of a whole reply, as its pieces come."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.tokens: list[Token] = []
        self.finish: Finish | None = None

    def add(self, piece: Piece) -> None:
        self.parts.append(piece.text)
        self.tokens += piece.tokens
        self.finish = piece.finish

    @property
    def text(self) -> str:
        return "".join(self.parts)


class Reply(ABC):
    """How one request is answered. Subclasses say how a text looks in JSON."""

    prefix: str
    """Of the reply's id."""
    kind: str
    """OpenAI's `object` of a whole reply."""
    chunk_kind: str
    """And of an event of a stream."""

    def __init__(self, request: SamplingFields, model: LoadedModel, prompts: list[PromptText], ids: list[Ids]) -> None:
        """`ids` of each prompt (tokens,)."""
        self.request = request
        self.model = model
        self.warnings = [*warnings(prompts, ids, model), *request.unsupported]
        self.prompt_tokens = sum(map(len, ids))
        self.prompts: list[Prompt] = []
        """What is to be written; set by the subclass."""
        self.stop: list[str] = request.stop
        self._envelope: dict[str, Any] = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "object": self.kind,
            "created": int(time.time()),
            "model": model.name,
            "system_fingerprint": f"gptbox-{__version__}",
        }

    @abstractmethod
    def choice(self, index: int, text: Text, generation: Generation) -> dict[str, Any]:
        """A text that is complete."""

    @abstractmethod
    def opening(self, index: int) -> dict[str, Any] | None:
        """What the stream of a text begins with, before its first piece."""

    @abstractmethod
    def piece(self, piece: Piece, generation: Generation) -> dict[str, Any]:
        """A part of a text in a stream."""

    def chosen(self, texts: list[Text], generation: Generation) -> list[int]:
        """The texts that the reply has, by their places among those that were written."""
        return list(range(len(texts)))

    def usage(self, generation: Generation) -> dict[str, int]:
        tokens = generation.tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": self.prompt_tokens + tokens,
        }

    async def whole(self, generation: Generation) -> dict[str, Any]:
        """The reply as one object."""
        texts = [Text() for _ in self.prompts]
        async for pieces in generation.pieces():
            for piece in pieces:
                texts[piece.index].add(piece)
        choices = [
            self.choice(place, texts[index], generation) | {"index": place}
            for place, index in enumerate(self.chosen(texts, generation))
        ]
        return {**self._envelope, "choices": choices, "usage": self.usage(generation), "warnings": self.warnings}

    async def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The reply as server-sent events; what is new in one write, one event a text."""
        envelope = self._envelope | {"object": self.chunk_kind}
        # What all events have in common is put into JSON once: there are thousands a second.
        before = f'data: {compact_json(envelope)[:-1]},"choices":['
        after = ',"usage":null}\n\n' if self.request.include_usage else "}\n\n"
        # The first chunk alone has the warnings.
        warned = f',"warnings":{compact_json(self.warnings)}'

        def events(choices: list[dict[str, Any]]) -> bytes:
            nonlocal warned
            first, warned = warned, ""
            parts = [f"{before}{compact_json(choice)}]{after}" for choice in choices]
            parts[0] = f"{before}{compact_json(choices[0])}]{first}{after}"
            return "".join(parts).encode()

        begun = False
        try:
            async for position in generation.waiting(_QUEUE_NEWS_S):
                # Who may have to make way is told nothing yet: only a reply that has not begun can become a 429.
                if begun or not generation.may_give_way:
                    begun = True
                    yield f": queued {position}\n\n".encode()  # a comment, which clients pass over; the page shows it
            openings = [opening for i in range(len(self.prompts)) if (opening := self.opening(i)) is not None]
            if openings:
                begun = True
                yield events(openings)
            async for pieces in generation.pieces():
                begun = True
                yield events([self.piece(piece, generation) for piece in pieces])
        except Exception as error:
            if not begun:
                raise
            log_failure(error)  # an event is all that can tell of it
            yield server_sent_event(error_object(error))
            return
        if self.request.include_usage:
            yield server_sent_event({**envelope, "choices": [], "usage": self.usage(generation)})
        yield b"data: [DONE]\n\n"


def note(request: Request, generation: Generation) -> None:
    """For the log: how much and how fast, and nothing of what."""
    first = generation.first_token_s
    request.scope["facts"] |= {
        "prompt_tokens": generation.prompt_tokens,
        "completion_tokens": generation.tokens,
        "first_token_ms": None if first is None else round(1000 * first, 1),
    }


def begin(
    request: Request,
    service: Service,
    model: LoadedModel,
    prompts: list[Prompt],
    stop: Sequence[str] = (),
    eager: bool = True,
) -> tuple[Generation, Callable[[], None]]:
    """Texts for a request's client, and what to call however the reply ends."""
    client = request.client.host if request.client is not None else ""
    generation = service.generate(model, prompts, stop, eager, client)

    def finish() -> None:
        service.finish(generation)
        note(request, generation)

    return generation, finish


async def respond(request: Request, service: Service, reply: Reply) -> Response:
    """Write the texts and send the reply."""
    eager = bool(reply.request.stream or reply.stop)
    generation, finish = begin(request, service, reply.model, reply.prompts, reply.stop, eager)
    if reply.request.stream:
        return LiveResponse(reply.stream(generation), on_close=finish)
    try:
        return JSONResponse(await while_connected(request.receive, reply.whole(generation)))
    finally:
        finish()
