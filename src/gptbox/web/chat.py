"""/v1/chat/completions: OpenAI's chats, written as a play; see `gptbox.web.chat_request`."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gptbox.web.body import read_json_object
from gptbox.web.chat_request import DEFAULT_MAX_TOKENS, END_OF_SPEECH, ChatRequest
from gptbox.web.generation import Generation, Piece, Prompt, Token
from gptbox.web.model_cache import LoadedModel
from gptbox.web.reply import Reply, Text, encode, respond, with_own
from gptbox.web.service import service_of


class Chat(Reply):
    prefix = "chatcmpl"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    request: ChatRequest

    def __init__(self, request: ChatRequest, model: LoadedModel, max_tokens: int) -> None:
        """Raises RequestError."""
        play = request.play()
        ids = encode(play, model)
        super().__init__(request, model, [play], [ids])
        length = min(DEFAULT_MAX_TOKENS, max_tokens) if request.length is None else request.length
        logprobs = (request.top_logprobs or 0) if request.logprobs else None
        vocabulary = model.gpt.config.vocab_size
        self.stop = [*request.stop, END_OF_SPEECH]
        self.prompts = [Prompt(ids, request.params(i, length, vocabulary, logprobs)) for i in range(request.n or 1)]

    def choice(self, index: int, text: Text, generation: Generation) -> dict[str, Any]:
        message = {"role": "assistant", "content": text.text, "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(text.tokens),
            "finish_reason": text.finish,
        }

    def opening(self, index: int) -> dict[str, Any] | None:
        return _delta(index, {"role": "assistant", "content": ""}, None, None)

    def piece(self, piece: Piece, generation: Generation) -> dict[str, Any]:
        delta = {"content": piece.text} if piece.text else {}
        return _delta(piece.index, delta, self._logprobs(piece.tokens) if piece.tokens else None, piece.finish)

    def _logprobs(self, tokens: list[Token]) -> dict[str, Any] | None:
        if not self.request.logprobs:
            return None
        return {
            "content": [
                self._told(token.id, token.logprob) | {"top_logprobs": [self._told(*each) for each in self._top(token)]}
                for token in tokens
            ],
            "refusal": None,
        }

    def _top(self, token: Token) -> list[tuple[int, float]]:
        """As with completions; but none where none was asked for: the token itself stands beside the list."""
        wanted = self.request.top_logprobs
        return with_own(token.id, token.logprob, token.alternatives) if wanted else []

    def _told(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.model.tokenizer.decode((token,))
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def _delta(index: int, delta: dict[str, Any], logprobs: Any, finish: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


async def chat(request: Request) -> Response:
    service = service_of(request)
    max_tokens = service.settings.max_tokens
    asked = ChatRequest.parse(await read_json_object(request), max_tokens)
    model = await service.models.resolve(asked.model)
    return await respond(request, service, Chat(asked, model, max_tokens))
