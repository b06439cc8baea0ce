"""Replies with generated texts, whole or streamed: what completions and chat completions share."""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gptbox.engine.fingerprint import system_fingerprint
from gptbox.errors import RequestError
from gptbox.tokenizers import Tokenizer, printable
from gptbox.web.api.completion_request import PromptInput
from gptbox.web.api.sampling_fields import SamplingFields, abbreviate
from gptbox.web.errors import error_object, log_unexpected_error
from gptbox.web.generation import FinishReason, Generation, TextDelta, TextJob, Token
from gptbox.web.json import compact_json
from gptbox.web.model_cache import LoadedModel
from gptbox.web.service import Service
from gptbox.web.streaming import LiveResponse, server_sent_event, while_connected

_MAX_NAMED_CHARACTERS = 100
"""A warning names at most this many unknown characters."""
_QUEUE_POSITION_INTERVAL_S = 0.5
"""How often a queued stream tells its client the queue position."""

TokenIds = NDArray[np.integer]


def validate_ids(ids: list[int], model: LoadedModel, field: str) -> TokenIds:
    """The ids as an array, shape (tokens,).

    Raises RequestError naming `field` and the first id outside the vocabulary.
    """
    size = model.tokenizer.vocab_size
    for i in ids:
        if not 0 <= i < size:
            raise RequestError(f"{field} has the token id {abbreviate(i)}; this model's are 0 to {size - 1}.", field)
    return np.array(ids, np.int64)


def encode_prompt(prompt: PromptInput, model: LoadedModel) -> TokenIds:
    """The prompt's ids, shape (tokens,), at least one.

    Raises RequestError if it has ids outside the vocabulary.
    """
    if isinstance(prompt, str):
        return model.tokenizer.encode(prompt) if prompt else model.line_break
    return validate_ids(prompt, model, "prompt")


def text_offsets(ids: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """For each token the index of the character of the text in which it begins."""
    decoder = tokenizer.stream_decoder()
    offsets, offset = [], 0
    for i in ids:
        text, start = decoder.push_token(i)
        offsets.append(offset + start)
        offset += len(text)
    return offsets


def unknown_character_warnings(text: str, model: LoadedModel) -> list[str]:
    """A warning that names the characters outside the vocabulary and their replacements, if there are any."""
    unknown = model.tokenizer.unknown(text)
    if not unknown:
        return []
    pairs = [
        f"{printable(replacement)} for {printable(character)}"
        for character, replacement in list(unknown.items())[:_MAX_NAMED_CHARACTERS]
    ]
    if more := len(unknown) - len(pairs):
        pairs.append(f"and {more:,} more")
    return [f"The model does not know every character of the text and reads others instead: {', '.join(pairs)}."]


def prompt_warnings(prompts: list[PromptInput], ids: list[TokenIds], model: LoadedModel) -> list[str]:
    """Warnings about unknown characters and truncated prompts."""
    found = unknown_character_warnings("".join(prompt for prompt in prompts if isinstance(prompt, str)), model)
    context = model.gpt.config.context_length
    if (longest := max(map(len, ids))) > context:
        found.append(
            f"A prompt has {longest} tokens and the model sees {context} at once: it continues the last {context}."
        )
    return found


def with_sampled_token(token_id: int, logprob: float, alternatives: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The most probable ids, followed by the sampled one unless it is among them."""
    return alternatives if any(i == token_id for i, _ in alternatives) else [*alternatives, (token_id, logprob)]


class CompletedText:
    """One text of a whole reply, concatenated from its deltas."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self.tokens: list[Token] = []
        self.finish_reason: FinishReason | None = None
        self.stop_reason: int | str | None = None

    def add(self, delta: TextDelta) -> None:
        self._parts.append(delta.text)
        self.tokens += delta.tokens
        self.finish_reason = delta.finish_reason
        self.stop_reason = delta.stop_reason

    @property
    def text(self) -> str:
        return "".join(self._parts)


class Reply(ABC):
    """The reply to one request. Subclasses define the JSON of a text."""

    id_prefix: str
    object_name: str
    """OpenAI's `object` of a whole reply."""
    chunk_object_name: str
    """OpenAI's `object` of a stream's event."""

    def __init__(
        self, fields: SamplingFields, model: LoadedModel, prompts: list[PromptInput], ids: list[TokenIds]
    ) -> None:
        """`ids`: for each prompt an array of shape (tokens,)."""
        self.fields = fields
        self.model = model
        self.warnings = [*prompt_warnings(prompts, ids, model), *fields.warnings]
        self.prompt_tokens = sum(map(len, ids))
        self.jobs: list[TextJob] = []
        """The texts to generate; set by the subclass."""
        self.stop: list[str] = fields.stop
        self._envelope: dict[str, Any] = {
            "id": f"{self.id_prefix}-{secrets.token_hex(12)}",
            "object": self.object_name,
            "created": int(time.time()),
            "model": model.name,
            "system_fingerprint": system_fingerprint(model.gpt.quantized),
        }

    @abstractmethod
    def choice(self, index: int, text: CompletedText, generation: Generation) -> dict[str, Any]:
        """A completed text in a whole reply."""

    @abstractmethod
    def opening_choice(self, index: int) -> dict[str, Any] | None:
        """The choice that a stream sends before a text's first delta; None if there is none."""

    @abstractmethod
    def chunk_choice(self, delta: TextDelta, generation: Generation) -> dict[str, Any]:
        """A delta in a stream."""

    def ending(self, text: CompletedText | TextDelta) -> dict[str, Any]:
        """A choice's `finish_reason`, and, once it has one, vLLM's `stop_reason`.

        This is the one of the request's own `stop` and `stop_token_ids` that ended the text, or None.
        """
        if text.finish_reason is None:
            return {"finish_reason": None}
        is_own = isinstance(text.stop_reason, int) or text.stop_reason in self.fields.stop
        return {"finish_reason": text.finish_reason, "stop_reason": text.stop_reason if is_own else None}

    def select_texts(self, texts: list[CompletedText], generation: Generation) -> list[int]:
        """The indices of the texts that a whole reply returns, in its order."""
        return list(range(len(texts)))

    def usage(self, generation: Generation) -> dict[str, int]:
        completion_tokens = generation.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        }

    async def whole(self, generation: Generation) -> dict[str, Any]:
        """The reply as one JSON object. Raises the engine's error."""
        texts = [CompletedText() for _ in self.jobs]
        async for deltas in generation.deltas():
            for delta in deltas:
                texts[delta.index].add(delta)
        choices = [
            self.choice(i, texts[index], generation) | {"index": i}
            for i, index in enumerate(self.select_texts(texts, generation))
        ]
        return {**self._envelope, "choices": choices, "usage": self.usage(generation), "warnings": self.warnings}

    async def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The reply as server-sent events, one per delta. Deltas that are ready together are sent in one write.

        Raises the engine's error before the first event; from then on an event reports it.
        """
        envelope = self._envelope | {"object": self.chunk_object_name}
        # The common part of all events is serialised once: there are thousands of events per second.
        before = f'data: {compact_json(envelope)[:-1]},"choices":['
        after = ',"usage":null}\n\n' if self.fields.include_usage else "}\n\n"
        # Only the first event has the warnings.
        unsent_warnings = f',"warnings":{compact_json(self.warnings)}'

        def events(choices: list[dict[str, Any]]) -> bytes:
            nonlocal unsent_warnings
            warnings, unsent_warnings = unsent_warnings, ""
            parts = [f"{before}{compact_json(choice)}]{after}" for choice in choices]
            parts[0] = f"{before}{compact_json(choices[0])}]{warnings}{after}"
            return "".join(parts).encode()

        started = False
        try:
            async for position in generation.queue_positions(_QUEUE_POSITION_INTERVAL_S):
                # A request that may still be evicted sends nothing yet, so that it can become a 429.
                if started or not generation.may_be_evicted:
                    started = True
                    yield f": queued {position}\n\n".encode()  # a comment: clients ignore it, the page shows it
            openings = [opening for i in range(len(self.jobs)) if (opening := self.opening_choice(i)) is not None]
            if openings:
                started = True
                yield events(openings)
            async for deltas in generation.deltas():
                started = True
                yield events([self.chunk_choice(delta, generation) for delta in deltas])
        except Exception as error:
            if not started:
                raise
            log_unexpected_error(error)  # the response has started: only an event can report the error
            yield server_sent_event(error_object(error))
            return
        if self.fields.include_usage:
            yield server_sent_event({**envelope, "choices": [], "usage": self.usage(generation)})
        yield b"data: [DONE]\n\n"


def record_usage(request: Request, generation: Generation) -> None:
    """Add the token counts and the time to the first token to the request's log record."""
    first_token_s = generation.time_to_first_token_s
    request.scope["log_fields"] |= {
        "prompt_tokens": generation.prompt_tokens,
        "completion_tokens": generation.completion_tokens,
        "first_token_ms": None if first_token_s is None else round(1000 * first_token_s, 1),
    }


def start_generation(
    request: Request,
    service: Service,
    model: LoadedModel,
    jobs: list[TextJob],
    stop: Sequence[str] = (),
    eager: bool = True,
) -> tuple[Generation, Callable[[], None]]:
    """A generation on behalf of the request's client, and a function to call however the response ends.

    Raises QueueFullError or EngineError.
    """
    client = request.client.host if request.client is not None else ""
    generation = service.generate(model, jobs, stop, eager, client)

    def finish() -> None:
        service.finish(generation)
        record_usage(request, generation)

    return generation, finish


async def respond(request: Request, service: Service, reply: Reply) -> Response:
    """Generate the texts, and return the response or start its stream."""
    eager = bool(reply.fields.stream or reply.stop)
    generation, finish = start_generation(request, service, reply.model, reply.jobs, reply.stop, eager)
    if reply.fields.stream:
        return LiveResponse(reply.stream(generation), on_close=finish)
    try:
        return JSONResponse(await while_connected(request.receive, reply.whole(generation)))
    finally:
        finish()
