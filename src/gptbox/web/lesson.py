"""/cgi-bin/test, the lesson's address: what its CGI script printed, with a fresh sample at every visit."""

import secrets
from collections.abc import AsyncIterator

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from gptbox.engine.sampling import SamplingParams
from gptbox.errors import RequestError
from gptbox.tokenizers import Tokenizer
from gptbox.web.errors import answer_to, log_failure
from gptbox.web.generation import Generation, Prompt
from gptbox.web.reply import begin, encode
from gptbox.web.sampling_fields import MAX_TEXTS
from gptbox.web.service import service_of
from gptbox.web.streaming import LiveResponse

GREETING = "Generating shakespeare...\n"
SEPARATOR = "\n---------------\n"
START = "wherefore art thou"
"""What the lesson's script starts from."""
# sample.py's own defaults.
LENGTH, TEMPERATURE, TOP_K = 500, 0.8, 200


def whole_number(query: QueryParams, name: str, default: int, low: int, high: int) -> int:
    """A number from the query.

    Raises RequestError where it is none, or out of bounds.
    """
    text = query.get(name, "").strip()
    if not text:
        return default
    digits = text.removeprefix("-")
    value = int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else None
    if value is None or not low <= value <= high:
        raise RequestError(f"{name} must be a whole number from {low} to {high}.", name)
    return value


def default_start(tokenizer: Tokenizer) -> str:
    """The lesson's start, or a line break for a model that does not know its characters."""
    return "\n" if tokenizer.unknown(START) else START


async def write(generation: Generation, start: str, count: int) -> AsyncIterator[bytes]:
    """The samples as sample.py prints them, one after the other, the first one while it is being written."""
    printed = 0
    waiting = [start] * count
    ended = [False] * count
    async for _ in generation.waiting(1.0):
        pass  # a reply that has not begun can become a 429
    yield (GREETING + waiting[0]).encode()
    waiting[0] = ""
    try:
        async for pieces in generation.pieces():
            for piece in pieces:
                waiting[piece.index] += piece.text
                ended[piece.index] = piece.finish is not None
            text = ""
            while printed < count:
                text, waiting[printed] = text + waiting[printed], ""
                if not ended[printed]:
                    break
                text += SEPARATOR
                printed += 1
            if text:
                yield text.encode()
    except Exception as error:  # the reply has begun: a line is all that can tell of it
        log_failure(error)
        yield f"\n{answer_to(error)[1]}\n".encode()


async def lesson(request: Request) -> Response:
    service = service_of(request)
    query = request.query_params
    count = whole_number(query, "num_samples", 1, 1, MAX_TEXTS)
    seed = whole_number(query, "seed", secrets.randbits(32), -(2**63), 2**63 - 1)
    model = await service.models.resolve()
    start = query.get("start") or default_start(model.tokenizer)
    texts = [
        Prompt(
            encode(start, model),
            SamplingParams(
                max_tokens=min(LENGTH, service.settings.max_tokens), temperature=TEMPERATURE, top_k=TOP_K, seed=seed + k
            ),
        )
        for k in range(count)
    ]
    generation, finish = begin(request, service, model, texts)
    return LiveResponse(write(generation, start, count), "text/plain", on_close=finish)
