"""/v1/completions: OpenAI's completions."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gptbox.engine.request import Logprobs
from gptbox.web.body import read_json_object
from gptbox.web.completion_request import DEFAULT_MAX_TOKENS, CompletionRequest
from gptbox.web.generation import Finish, Generation, Piece, Prompt, Token
from gptbox.web.model_cache import LoadedModel
from gptbox.web.reply import Reply, Text, encode, respond
from gptbox.web.service import service_of


class Completion(Reply):
    prefix = "cmpl"
    kind = chunk_kind = "text_completion"
    request: CompletionRequest

    def __init__(self, request: CompletionRequest, model: LoadedModel, max_tokens: int) -> None:
        """Raises RequestError where the prompt does not fit the model."""
        ids = [encode(prompt, model) for prompt in request.prompt]
        super().__init__(request, model, request.prompt, ids)
        length = min(DEFAULT_MAX_TOKENS, max_tokens) if request.max_tokens is None else request.max_tokens
        vocabulary, self._written = model.gpt.config.vocab_size, request.written
        ranked = self._written > (request.n or 1)
        logprobs = request.logprobs if request.logprobs is not None else 0 if ranked else None
        self.prompts = [
            Prompt(
                ids[i // self._written],
                request.params(i, length, vocabulary, logprobs),
                logprobs=bool(request.echo) and request.logprobs is not None,
            )
            for i in range(self._written * len(ids))
        ]

    def _echo(self, index: int) -> str:
        if not self.request.echo:
            return ""
        prompt = self.request.prompt[index // self._written]
        return prompt if isinstance(prompt, str) else self.model.tokenizer.decode(prompt)

    def choice(self, index: int, text: Text, generation: Generation) -> dict[str, Any]:
        echo = self._echo(index)
        told = None
        if self.request.logprobs is not None:
            told = self._logprobs(text.tokens, len(echo))
            if echo:
                of_prompt = self._logprobs_of_prompt(index, generation)
                told = {key: of_prompt[key] + told[key] for key in told}
        return _choice(index, echo + text.text, told, text.finish)

    def opening(self, index: int) -> dict[str, Any] | None:
        echo = self._echo(index)
        # With log-probabilities it comes with the first piece: they are not known before.
        return _choice(index, echo, None, None) if echo and self.request.logprobs is None else None

    def piece(self, piece: Piece, generation: Generation) -> dict[str, Any]:
        if self.request.logprobs is None:
            return _choice(piece.index, piece.text, None, piece.finish)
        echo = self._echo(piece.index)
        told = self._logprobs(piece.tokens, len(echo))
        if not (echo and piece.first):
            return _choice(piece.index, piece.text, told, piece.finish)
        of_prompt = self._logprobs_of_prompt(piece.index, generation)
        return _choice(piece.index, echo + piece.text, {key: of_prompt[key] + told[key] for key in told}, piece.finish)

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
            "top_logprobs": [{decode((i,)): value for i, value in token.alternatives} for token in tokens],
            "text_offset": [offset + token.offset for token in tokens],
        }

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
        alternatives = [{decode((i,)): value for i, value in pairs} for pairs in told.alternatives]
        return {
            "tokens": texts,
            "token_logprobs": [None] * unseen + told.chosen,
            "top_logprobs": [None] * unseen + alternatives,
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
