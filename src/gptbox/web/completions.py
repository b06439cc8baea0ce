"""/v1/completions: OpenAI's completions, whole or as a stream."""

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gptbox import __version__
from gptbox.engine.sampling import SamplingParams
from gptbox.errors import RequestError
from gptbox.tokenizers import shown as visible
from gptbox.web.body import read_json_object
from gptbox.web.completion_request import DEFAULT_MAX_TOKENS, CompletionRequest, shown
from gptbox.web.completion_request import Prompt as PromptText
from gptbox.web.errors import error_object, log_failure
from gptbox.web.generation import Finish, Generation, Prompt
from gptbox.web.model_cache import LoadedModel
from gptbox.web.service import service_of
from gptbox.web.streaming import LiveResponse, server_sent_event, while_connected

_NAMED_CHARACTERS = 100
"""How many unknown characters a warning names one by one."""

Ids = NDArray[np.integer]


def encode(prompt: PromptText, model: LoadedModel) -> Ids:
    """The ids to start from, shape (tokens,), at least one.

    Raises RequestError where ids were given that the model lacks.
    """
    if isinstance(prompt, str):
        return model.tokenizer.encode(prompt) if prompt else model.line_break
    size = model.tokenizer.vocab_size
    for token in prompt:
        if not 0 <= token < size:
            raise RequestError(f"prompt has the token id {shown(token)}; this model's are 0 to {size - 1}.", "prompt")
    return np.array(prompt, np.int64)


def warnings(prompts: list[PromptText], ids: list[Ids], model: LoadedModel) -> list[str]:
    """What the model does not see as it was sent, in sentences."""
    found = []
    text = "".join(prompt for prompt in prompts if isinstance(prompt, str))
    if unknown := model.tokenizer.unknown(text):
        named = list(unknown.items())[:_NAMED_CHARACTERS]
        pairs = [f"{visible(known)} for {visible(character)}" for character, known in named]
        if more := len(unknown) - len(pairs):
            pairs.append(f"and {more:,} more")
        found.append(f"The model does not know every character of this and reads others instead: {', '.join(pairs)}.")
    context = model.gpt.config.context_length
    if (longest := max(map(len, ids))) > context:
        found.append(
            f"A prompt has {longest} tokens and the model sees {context} at once: it began from the last {context}."
        )
    return found


class Completion:
    """One request's reply: the parts that its whole and its streamed form have in common."""

    def __init__(self, request: CompletionRequest, model: LoadedModel, max_tokens: int) -> None:
        """Raises RequestError where the prompt does not fit the model."""
        self.request = request
        self.model = model
        ids = [encode(prompt, model) for prompt in request.prompt]
        self.warnings = warnings(request.prompt, ids, model)
        self.prompt_tokens = sum(map(len, ids))
        n = request.n or 1
        self.texts = [
            Prompt(ids[i // n], self._params(i, min(DEFAULT_MAX_TOKENS, max_tokens))) for i in range(request.choices)
        ]
        self.echoes = [self._echo(request.prompt[i // n]) for i in range(request.choices)]
        self._envelope: dict[str, Any] = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model.name,
            "system_fingerprint": f"gptbox-{__version__}",
        }

    def _params(self, i: int, default_max_tokens: int) -> SamplingParams:
        request = self.request
        return SamplingParams(
            max_tokens=default_max_tokens if request.max_tokens is None else request.max_tokens,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_k=min(request.top_k or 0, self.model.gpt.config.vocab_size),
            top_p=1.0 if request.top_p is None else request.top_p,
            seed=None if request.seed is None else request.seed + i,
        )

    def _echo(self, prompt: PromptText) -> str:
        if not self.request.echo:
            return ""
        return prompt if isinstance(prompt, str) else self.model.tokenizer.decode(prompt)

    def envelope(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._envelope, "choices": choices}

    def usage(self, generation: Generation) -> dict[str, int]:
        tokens = generation.tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": self.prompt_tokens + tokens,
        }

    async def whole(self, generation: Generation) -> dict[str, Any]:
        """The reply as one object."""
        texts = list(self.echoes)
        finishes: list[Finish | None] = [None] * len(texts)
        async for pieces in generation.pieces():
            for piece in pieces:
                texts[piece.index] += piece.text
                finishes[piece.index] = piece.finish
        choices = [_choice(i, text, finishes[i]) for i, text in enumerate(texts)]
        return {**self.envelope(choices), "usage": self.usage(generation), "warnings": self.warnings}

    async def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The reply as server-sent events; what is new in one write, one event a text."""
        # The first chunk alone has the warnings.
        extra: dict[str, Any] = {"warnings": self.warnings}
        usage: dict[str, Any] = {"usage": None} if self.request.include_usage else {}

        def events(choices: list[dict[str, Any]]) -> bytes:
            chunks = [{**self.envelope([choice]), **usage} for choice in choices]
            chunks[0] |= extra
            extra.clear()
            return b"".join(map(server_sent_event, chunks))

        if any(self.echoes):
            yield events([_choice(i, text, None) for i, text in enumerate(self.echoes)])
        try:
            async for pieces in generation.pieces():
                yield events([_choice(piece.index, piece.text, piece.finish) for piece in pieces])
        except Exception as error:  # the reply has begun: an event is all that can tell of it
            log_failure(error)
            yield server_sent_event(error_object(error))
            return
        if self.request.include_usage:
            yield server_sent_event({**self.envelope([]), "usage": self.usage(generation)})
        yield b"data: [DONE]\n\n"


def _choice(index: int, text: str, finish: Finish | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


async def completions(request: Request) -> Response:
    service = service_of(request)
    max_tokens = service.settings.max_tokens
    asked = CompletionRequest.parse(await read_json_object(request), max_tokens)
    model = await service.models.resolve(asked.model)
    completion = Completion(asked, model, max_tokens)
    eager = bool(asked.stream or asked.stop)
    generation = service.generate(model, completion.texts, asked.stop, eager)
    if asked.stream:
        return LiveResponse(completion.stream(generation), on_close=lambda: service.finish(generation))
    try:
        return JSONResponse(await while_connected(request.receive, completion.whole(generation)))
    finally:
        service.finish(generation)
