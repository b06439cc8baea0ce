"""/cgi-bin/test: a new sample at every visit, as printed by the lesson's CGI script, which ran nanoGPT's sample.py."""

import secrets
from collections.abc import AsyncIterator

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from gptbox.engine.sampling_params import SamplingParams
from gptbox.errors import RequestError
from gptbox.tokenizers import Tokenizer
from gptbox.web.api.reply import encode_prompt, start_generation
from gptbox.web.api.sampling_fields import MAX_TEXTS
from gptbox.web.errors import log_unexpected_error, reply_to
from gptbox.web.generation import Generation, TextJob
from gptbox.web.service import get_service
from gptbox.web.streaming import LiveResponse

GREETING = "Generating shakespeare...\n"
SEPARATOR = "\n---------------\n"
START = "wherefore art thou"
"""The prompt of the lesson's script."""
# sample.py's defaults.
MAX_TOKENS, TEMPERATURE, TOP_K = 500, 0.8, 200


def int_param(query: QueryParams, name: str, default: int, low: int, high: int) -> int:
    """An integer query parameter; `default` if it is missing or empty.

    Raises RequestError if it is not an integer in [low, high].
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
    """The lesson's prompt, or a line break if the model does not know its characters.

    A tokenizer that was trained on words of this alphabet has tokens for parts of the prompt.
    """
    has_no_words = tokenizer.unit == "token" and len(tokenizer.encode(START)) == len(START)
    return "\n" if has_no_words or tokenizer.unknown(START) else START


async def stream_samples(generation: Generation, start: str, count: int) -> AsyncIterator[bytes]:
    """The samples in sample.py's format, one after the other. The current one is sent as it is generated."""
    current = 0
    unsent = [start] * count
    finished = [False] * count
    async for _ in generation.queue_positions(1.0):
        pass  # nothing is sent while the request is queued, so that it can still become a 429
    yield (GREETING + unsent[0]).encode()
    unsent[0] = ""
    try:
        async for deltas in generation.deltas():
            for delta in deltas:
                unsent[delta.index] += delta.text
                finished[delta.index] = delta.finish_reason is not None
            text = ""
            while current < count:
                text, unsent[current] = text + unsent[current], ""
                if not finished[current]:
                    break
                text += SEPARATOR
                current += 1
            if text:
                yield text.encode()
    except Exception as error:  # the response has started: only a line in it can report the error
        log_unexpected_error(error)
        yield f"\n{reply_to(error)[1]}\n".encode()


async def cgi_sample(request: Request) -> Response:
    service = get_service(request)
    query = request.query_params
    count = int_param(query, "num_samples", 1, 1, MAX_TEXTS)
    seed = int_param(query, "seed", secrets.randbits(32), -(2**63), 2**63 - 1)
    model = await service.live_model.resolve()
    # A form sends line breaks as CR LF.
    start = query.get("start", "").replace("\r\n", "\n") or default_start(model.tokenizer)
    max_tokens = min(MAX_TOKENS, service.settings.max_tokens)
    jobs = [
        TextJob(
            encode_prompt(start, model),
            SamplingParams(
                max_tokens=max_tokens, eos_token_id=model.tokenizer.eos_id, temperature=TEMPERATURE, top_k=TOP_K,
                seed=seed + i,
            ),
        )
        for i in range(count)
    ]  # fmt: skip
    generation, finish = start_generation(request, service, model, jobs)
    return LiveResponse(stream_samples(generation, start, count), "text/plain", on_close=finish)
