"""/v1/chat/completions: OpenAI's chat completions, written as a play; see `gptbox.web.api.chat_request`."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gptbox.web.api.chat_request import DEFAULT_MAX_TOKENS, END_OF_SPEECH, ChatRequest
from gptbox.web.api.reply import CompletedText, Reply, encode_prompt, respond, with_sampled_token
from gptbox.web.generation import Generation, TextDelta, TextJob, Token
from gptbox.web.json import read_json_object
from gptbox.web.model_cache import LoadedModel
from gptbox.web.service import get_service


class ChatReply(Reply):
    id_prefix = "chatcmpl"
    object_name = "chat.completion"
    chunk_object_name = "chat.completion.chunk"
    fields: ChatRequest

    def __init__(self, fields: ChatRequest, model: LoadedModel, server_max_tokens: int) -> None:
        """For RequestErrors see SamplingFields.sampling_params."""
        prompt = fields.prompt()
        ids = encode_prompt(prompt, model)
        super().__init__(fields, model, [prompt], [ids])
        max_tokens = fields.requested_max_tokens
        if max_tokens is None:
            max_tokens = min(DEFAULT_MAX_TOKENS, server_max_tokens)
        logprobs = (fields.top_logprobs or 0) if fields.logprobs else None
        vocab_size, eos_id = model.gpt.config.vocab_size, model.tokenizer.eos_id
        self.stop = [*fields.stop, END_OF_SPEECH]
        self.jobs = [
            TextJob(ids, fields.sampling_params(i, max_tokens, vocab_size, eos_id, logprobs))
            for i in range(fields.n or 1)
        ]

    def choice(self, index: int, text: CompletedText, generation: Generation) -> dict[str, Any]:
        message = {"role": "assistant", "content": text.text, "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(text.tokens),
            **self.ending(text),
        }

    def opening_choice(self, index: int) -> dict[str, Any] | None:
        return _chunk_choice(index, {"role": "assistant", "content": ""}, None, {"finish_reason": None})

    def chunk_choice(self, delta: TextDelta, generation: Generation) -> dict[str, Any]:
        content = {"content": delta.text} if delta.text else {}
        logprobs = self._logprobs(delta.tokens) if delta.tokens else None
        return _chunk_choice(delta.index, content, logprobs, self.ending(delta))

    def _logprobs(self, tokens: list[Token]) -> dict[str, Any] | None:
        if not self.fields.logprobs:
            return None
        return {
            "content": [
                self._token_logprob(token.id, token.logprob)
                | {"top_logprobs": [self._token_logprob(*pair) for pair in self._top_logprobs(token)]}
                for token in tokens
            ],
            "refusal": None,
        }

    def _top_logprobs(self, token: Token) -> list[tuple[int, float]]:
        """The most probable tokens and the sampled one; empty unless requested, unlike in completions."""
        if not self.fields.top_logprobs:
            return []
        return with_sampled_token(token.id, token.logprob, token.alternatives)

    def _token_logprob(self, token_id: int, logprob: float) -> dict[str, Any]:
        tokenizer = self.model.tokenizer
        text, content = tokenizer.token_text(token_id), tokenizer.token_bytes(token_id)
        return {"token": text, "logprob": logprob, "bytes": list(content)}


def _chunk_choice(index: int, delta: dict[str, Any], logprobs: Any, ending: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs} | ending


async def chat(request: Request) -> Response:
    service = get_service(request)
    max_tokens = service.settings.max_tokens
    fields = ChatRequest.parse(await read_json_object(request), max_tokens)
    model = await service.live_model.resolve(fields.model)
    return await respond(request, service, ChatReply(fields, model, max_tokens))
