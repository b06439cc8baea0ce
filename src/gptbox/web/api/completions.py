"""/v1/completions: OpenAI's completions."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gptbox.engine.request import Logprobs
from gptbox.web.api.completion_request import DEFAULT_MAX_TOKENS, CompletionRequest
from gptbox.web.api.reply import CompletedText, Reply, encode_prompt, respond, text_offsets, with_sampled_token
from gptbox.web.generation import Generation, TextDelta, TextJob, Token
from gptbox.web.json import read_json_object
from gptbox.web.model_cache import LoadedModel
from gptbox.web.service import get_service


class CompletionReply(Reply):
    id_prefix = "cmpl"
    object_name = chunk_object_name = "text_completion"
    fields: CompletionRequest

    def __init__(self, fields: CompletionRequest, model: LoadedModel, server_max_tokens: int) -> None:
        """Raises RequestError if a prompt has an id outside the vocabulary; see also SamplingFields.sampling_params."""
        ids = [encode_prompt(prompt, model) for prompt in fields.prompt]
        super().__init__(fields, model, fields.prompt, ids)
        self._max_tokens = (
            min(DEFAULT_MAX_TOKENS, server_max_tokens) if fields.max_tokens is None else fields.max_tokens
        )
        vocab_size, self._texts_per_prompt = model.gpt.config.vocab_size, fields.texts_per_prompt
        # Without an incomplete character at the prompt's end: the generated text begins with that character.
        self._echoes = [
            "" if not fields.echo
            else prompt if isinstance(prompt, str)
            else model.tokenizer.stream_decoder().push(prompt)
            for prompt in fields.prompt
        ]  # fmt: skip
        is_ranked = self._texts_per_prompt > (fields.n or 1)
        logprobs = fields.logprobs if fields.logprobs is not None else 0 if is_ranked else None
        self.jobs = [
            TextJob(
                ids[i // self._texts_per_prompt],
                fields.sampling_params(i, self._max_tokens, vocab_size, model.tokenizer.eos_id, logprobs),
                prompt_logprobs=bool(fields.echo) and fields.logprobs is not None,
            )
            for i in range(self._texts_per_prompt * len(ids))
        ]

    def _echo(self, index: int) -> str:
        return self._echoes[index // self._texts_per_prompt]

    def choice(self, index: int, text: CompletedText, generation: Generation) -> dict[str, Any]:
        echo = self._echo(index)
        logprobs = None
        if self.fields.logprobs is not None:
            logprobs = self._logprobs(text.tokens, len(echo))
            if echo:
                of_prompt = self._prompt_logprobs(index, generation)
                logprobs = {key: of_prompt[key] + logprobs[key] for key in logprobs}
        return _choice(index, echo + text.text, logprobs, self.ending(text))

    @property
    def _echoes_before_first_token(self) -> bool:
        """Whether a stream sends the prompt in an event of its own, before the first token.

        Not with log-probabilities, which come with the first token; nor with max_tokens 0, where one event is enough.
        """
        return self.fields.logprobs is None and self._max_tokens > 0

    def opening_choice(self, index: int) -> dict[str, Any] | None:
        echo = self._echo(index)
        return _choice(index, echo, None, {"finish_reason": None}) if echo and self._echoes_before_first_token else None

    def chunk_choice(self, delta: TextDelta, generation: Generation) -> dict[str, Any]:
        echo = self._echo(delta.index)
        text = echo + delta.text if delta.is_first and not self._echoes_before_first_token else delta.text
        logprobs = None
        if self.fields.logprobs is not None:
            logprobs = self._logprobs(delta.tokens, len(echo))
            if echo and delta.is_first:
                of_prompt = self._prompt_logprobs(delta.index, generation)
                logprobs = {key: of_prompt[key] + logprobs[key] for key in logprobs}
            if not logprobs["tokens"]:
                logprobs = None  # no new token: text that had been held back, or only the finish reason
        return _choice(delta.index, text, logprobs, self.ending(delta))

    def select_texts(self, texts: list[CompletedText], generation: Generation) -> list[int]:
        best_of, n = self._texts_per_prompt, self.fields.n or 1
        groups = [range(first, first + best_of) for first in range(0, len(texts), best_of)]
        if best_of == n:
            return [i for group in groups for i in group]
        return [i for group in groups for i in sorted(group, key=generation.mean_logprob, reverse=True)[:n]]

    def _logprobs(self, tokens: list[Token], echo_length: int) -> dict[str, list[Any]]:
        return {
            "tokens": [self.model.tokenizer.token_text(token.id) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [self._top_logprobs(token.id, token.logprob, token.alternatives) for token in tokens],
            "text_offset": [echo_length + token.text_offset for token in tokens],
        }

    def _top_logprobs(self, token_id: int, logprob: float, alternatives: list[tuple[int, float]]) -> dict[str, float]:
        """Log-probabilities of the most probable tokens and of the sampled token, by their text.

        If several ids have the same text, the sampled token gets the key, or else the most probable id; the other ids
        get the key `token_id:ID`.
        """
        token_text = self.model.tokenizer.token_text
        sampled_text = token_text(token_id)
        logprobs: dict[str, float] = {}
        for i, value in with_sampled_token(token_id, logprob, alternatives):
            text = token_text(i)
            is_taken = i != token_id and (text == sampled_text or text in logprobs)
            logprobs[f"token_id:{i}" if is_taken else text] = value
        return logprobs

    def _prompt_logprobs(self, index: int, generation: Generation) -> dict[str, list[Any]]:
        """The log-probabilities of the prompt's tokens, in OpenAI's four lists.

        None for the first token in the model's context and those before it.
        """
        ids = self.jobs[index].prompt_ids.tolist()
        scored = generation.prompt_logprobs(index) or Logprobs([], [])
        num_unscored = len(ids) - len(scored.chosen)
        tokenizer = self.model.tokenizer
        rows = zip(ids[num_unscored:], scored.chosen, scored.alternatives, strict=True)
        return {
            "tokens": [tokenizer.token_text(i) for i in ids],
            "token_logprobs": [None] * num_unscored + scored.chosen,
            "top_logprobs": [None] * num_unscored + [self._top_logprobs(*row) for row in rows],
            "text_offset": text_offsets(ids, tokenizer),
        }


def _choice(index: int, text: str, logprobs: dict[str, Any] | None, ending: dict[str, Any]) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": logprobs} | ending


async def completions(request: Request) -> Response:
    service = get_service(request)
    max_tokens = service.settings.max_tokens
    fields = CompletionRequest.parse(await read_json_object(request), max_tokens)
    model = await service.live_model.resolve(fields.model)
    return await respond(request, service, CompletionReply(fields, model, max_tokens))
