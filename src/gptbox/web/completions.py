"""/v1/completions: OpenAI's completions."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gptbox.engine.request import Logprobs
from gptbox.web.body import read_json_object
from gptbox.web.completion_request import DEFAULT_MAX_TOKENS, CompletionRequest
from gptbox.web.generation import Finish, Generation, Piece, Prompt, Token
from gptbox.web.model_cache import LoadedModel
from gptbox.web.reply import Reply, Text, encode, respond, with_own
from gptbox.web.service import service_of


class Completion(Reply):
    prefix = "cmpl"
    kind = chunk_kind = "text_completion"
    request: CompletionRequest

    def __init__(self, request: CompletionRequest, model: LoadedModel, max_tokens: int) -> None:
        """Raises RequestError where the prompt does not fit the model."""
        ids = [encode(prompt, model) for prompt in request.prompt]
        super().__init__(request, model, request.prompt, ids)
        self._length = min(DEFAULT_MAX_TOKENS, max_tokens) if request.max_tokens is None else request.max_tokens
        vocabulary, self._written = model.gpt.config.vocab_size, request.written
        self._echoes = [
            "" if not request.echo else prompt if isinstance(prompt, str) else model.tokenizer.decode(prompt)
            for prompt in request.prompt
        ]
        ranked = self._written > (request.n or 1)
        logprobs = request.logprobs if request.logprobs is not None else 0 if ranked else None
        self.prompts = [
            Prompt(
                ids[i // self._written],
                request.params(i, self._length, vocabulary, logprobs),
                logprobs=bool(request.echo) and request.logprobs is not None,
            )
            for i in range(self._written * len(ids))
        ]

    def _echo(self, index: int) -> str:
        return self._echoes[index // self._written]

    def choice(self, index: int, text: Text, generation: Generation) -> dict[str, Any]:
        echo = self._echo(index)
        told = None
        if self.request.logprobs is not None:
            told = self._logprobs(text.tokens, len(echo))
            if echo:
                of_prompt = self._logprobs_of_prompt(index, generation)
                told = {key: of_prompt[key] + told[key] for key in told}
        return _choice(index, echo + text.text, told, text.finish)

    @property
    def _opens_with_echo(self) -> bool:
        """Whether a stream sends the prompt in an event of its own, before the first token.

        Not with log-probabilities, which come with the first token; nor with max_tokens 0, where one event has all.
        """
        return self.request.logprobs is None and self._length > 0

    def opening(self, index: int) -> dict[str, Any] | None:
        echo = self._echo(index)
        return _choice(index, echo, None, None) if echo and self._opens_with_echo else None

    def piece(self, piece: Piece, generation: Generation) -> dict[str, Any]:
        echo = self._echo(piece.index)
        text = echo + piece.text if piece.first and not self._opens_with_echo else piece.text
        told = None
        if self.request.logprobs is not None:
            told = self._logprobs(piece.tokens, len(echo))
            if echo and piece.first:
                of_prompt = self._logprobs_of_prompt(piece.index, generation)
                told = {key: of_prompt[key] + told[key] for key in told}
            if not told["tokens"]:
                told = None  # text without a new token: a stop string's beginning that was none, or an end
        return _choice(piece.index, text, told, piece.finish)

    def chosen(self, texts: list[Text], generation: Generation) -> list[int]:
        written, wanted = self._written, self.request.n or 1
        groups = [range(first, first + written) for first in range(0, len(texts), written)]
        if written == wanted:
            return [i for group in groups for i in group]
        return [i for group in groups for i in sorted(group, key=generation.mean_logprob, reverse=True)[:wanted]]

    def _logprobs(self, tokens: list[Token], offset: int) -> dict[str, list[Any]]:
        decode = self.model.tokenizer.decode
        return {
            "tokens": [decode((token.id,)) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [self._top(token.id, token.logprob, token.alternatives) for token in tokens],
            "text_offset": [offset + token.offset for token in tokens],
        }

    def _top(self, token: int, logprob: float, alternatives: list[tuple[int, float]]) -> dict[str, float]:
        """Log-probabilities by text: of the most probable tokens, and of `token`, the text's own.

        Where several ids have the same text, `token` gets the key, else the most probable id; the others get
        `token_id:ID`.
        """
        decode = self.model.tokenizer.decode
        own = decode((token,))
        found: dict[str, float] = {}
        for i, value in with_own(token, logprob, alternatives):
            text = decode((i,))
            taken = i != token and (text == own or text in found)
            found[f"token_id:{i}" if taken else text] = value
        return found

    def _logprobs_of_prompt(self, index: int, generation: Generation) -> dict[str, list[Any]]:
        """None for the first token that the model saw, and for those before it."""
        ids = self.prompts[index].ids.tolist()
        told = generation.prompt_logprobs(index) or Logprobs([], [])
        unseen = len(ids) - len(told.chosen)
        decode = self.model.tokenizer.decode
        texts = [decode((i,)) for i in ids]
        offsets, at = [], 0
        for text in texts:
            offsets.append(at)
            at += len(text)
        seen = zip(ids[unseen:], told.chosen, told.alternatives, strict=True)
        return {
            "tokens": texts,
            "token_logprobs": [None] * unseen + told.chosen,
            "top_logprobs": [None] * unseen + [self._top(*each) for each in seen],
            "text_offset": offsets,
        }


def _choice(index: int, text: str, logprobs: dict[str, Any] | None, finish: Finish | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}


async def completions(request: Request) -> Response:
    service = service_of(request)
    max_tokens = service.settings.max_tokens
    asked = CompletionRequest.parse(await read_json_object(request), max_tokens)
    model = await service.models.resolve(asked.model)
    return await respond(request, service, Completion(asked, model, max_tokens))
