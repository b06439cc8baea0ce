"""/api/scores: the log-probabilities of a text's tokens, by one snapshot of a run or by several.

Each token sees what generation would have shown the model in its place: `gptbox.models.context_window`. One window of
one snapshot is in the engine at a time, so that a request takes one place, and memory holds one snapshot more than the
cache of models.
"""

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from gptbox.engine.fingerprint import system_fingerprint
from gptbox.engine.request import Logprobs
from gptbox.engine.sampling_params import SamplingParams
from gptbox.errors import ModelFolderError, ModelNotFoundError
from gptbox.models.context_window import prediction_windows
from gptbox.models.runs import RunFolder
from gptbox.web.api.reply import (
    TokenIds,
    encode_prompt,
    text_offsets,
    unknown_character_warnings,
    with_sampled_token,
)
from gptbox.web.api.scores_request import ScoresRequest
from gptbox.web.errors import error_object, log_unexpected_error
from gptbox.web.generation import TextJob
from gptbox.web.json import compact_json, read_json_object, validate
from gptbox.web.model_cache import LoadedModel
from gptbox.web.service import Service, get_service
from gptbox.web.streaming import LiveResponse, server_sent_event, while_connected

MAX_BYTES_FOR_ALL = 50 * 10**6
"""Of a model with more bytes of weights, "all" snapshots are a selection: loading takes too long."""
NUM_EVENLY_SPACED = 8
"""Snapshots of that selection beside the best and the latest."""


def choose_snapshots(run: RunFolder, wanted: list[str] | str, max_bytes: int = MAX_BYTES_FOR_ALL) -> list[str]:
    """The names of the requested snapshots, ordered by step; "all" stands for every kept one.

    Of models with more than `max_bytes` of weights, "all" are the best, the latest, and eight evenly spaced ones.
    Raises ModelNotFoundError for a name that is not kept, NoModelYetError if the run has no snapshot.
    """
    kept = run.snapshots()
    if wanted != "all":
        chosen = {run.resolve(name) for name in wanted}
    elif kept and _weights_size(best := run.resolve("best")) > max_bytes:
        spaced = {kept[i * (len(kept) - 1) // NUM_EVENLY_SPACED] for i in range(NUM_EVENLY_SPACED)}
        chosen = {best, run.resolve("latest"), *spaced}
    else:
        chosen = set(kept)
    return [path.name for path in kept if path in chosen]


def _weights_size(snapshot: Path) -> int:
    try:
        return (snapshot / "model.safetensors").stat().st_size
    except OSError:
        return 0


def validation_score(run: RunFolder, model: LoadedModel) -> dict[str, float] | None:
    """The model's loss on its run's validation text, in bits per character; None if it is unknown."""
    status = run.status()
    characters = None if status is None else status.characters_per_token
    if characters is None and model.tokenizer.unit == "character":
        characters = 1.0
    if model.loss is None or not isinstance(characters, int | float) or not characters > 0:
        return None
    bits = model.loss / characters / math.log(2)
    return {"bits_per_character": bits} if math.isfinite(bits) else None


class Scoring:
    """The work and the reply of one request."""

    def __init__(
        self, request: Request, service: Service, fields: ScoresRequest, model: LoadedModel, snapshots: list[str] | None
    ) -> None:
        """`snapshots` None scores `model` alone.

        Raises RequestError if there is too much to score.
        """
        self._request = request
        self._service = service
        self._fields = fields
        self._model = model
        self._snapshots = snapshots
        self._prompt = encode_prompt(fields.prompt, model)
        self._ids = model.tokenizer.encode(fields.text)
        self._num_scored = 0
        fields.check_size(len(self._ids), 1 if snapshots is None else len(snapshots))

    async def whole(self) -> Response:
        """The reply as one JSON object. Raises QueueFullError, EngineError and those of LiveModel.resolve."""
        reply: dict[str, Any] = {}
        async for part in self._parts():
            if not reply:
                reply = part
                continue
            reply["warnings"] += part["warnings"]
            reply["scores"] += part["scores"]
        content = await to_thread.run_sync(compact_json, reply)  # may have megabytes
        return Response(content, media_type="application/json")

    async def stream(self) -> AsyncIterator[bytes]:
        """The reply as server-sent events, one per snapshot.

        Raises as `whole` before the first event; from then on an event reports the error.
        """
        started = False
        try:
            async for part in self._parts():
                event = await to_thread.run_sync(server_sent_event, part)
                started = True
                yield event
        except Exception as error:
            if not started:
                raise
            log_unexpected_error(error)
            yield server_sent_event(error_object(error))
            return
        yield b"data: [DONE]\n\n"

    def finish(self) -> None:
        """Add what was scored to the request's log record."""
        self._request.scope["log_fields"] |= {"scored_tokens": self._num_scored}

    async def _parts(self) -> AsyncIterator[dict[str, Any]]:
        """The reply in parts, one per snapshot; the first one also has what is the same for all."""
        head = await to_thread.run_sync(self._head)
        warnings = unknown_character_warnings(self._fields.prompt + self._fields.text, self._model)
        is_first = True
        async for model in self._models(warnings):
            logprobs = await self._score(model)
            part = {
                **(head if is_first else {"object": head["object"], "run": head["run"]}),
                "warnings": list(warnings),
                "scores": [await to_thread.run_sync(self._describe, model, logprobs)],
            }
            is_first = False
            warnings.clear()
            yield part
        if is_first:
            raise ModelNotFoundError(f"None of these snapshots of {self._model.run!r} can be read any more.")
        if warnings:
            yield {"object": head["object"], "run": head["run"], "warnings": warnings, "scores": []}

    async def _models(self, warnings: list[str]) -> AsyncIterator[LoadedModel]:
        """The models to score with, one at a time.

        With "all", snapshots that training deletes during the request are skipped, and damaged ones with a warning.
        """
        if self._snapshots is None:
            yield self._model
            return
        for name in self._snapshots:
            try:
                model = await self._service.live_model.resolve(f"{self._model.run}@{name}")
            except ModelFolderError as error:
                if self._fields.snapshots != "all":
                    raise
                if not isinstance(error, ModelNotFoundError):
                    warnings.append(f"{name} is left out: its folder is damaged.")
                continue
            if model.tokenizer.encode(self._fields.text).tolist() != self._ids.tolist():
                warnings.append(f"{name} is left out: its tokenizer cuts the text into other tokens.")
                continue
            yield model

    async def _score(self, model: LoadedModel) -> Logprobs:
        """The log-probabilities of the text's tokens."""
        ids = np.concatenate([self._prompt, self._ids])
        scored = Logprobs([], [])
        for start, first, stop in prediction_windows(len(self._prompt), len(ids), model.gpt.config.context_length):
            window = await self._score_window(model, ids[start:stop])
            scored.chosen.extend(window.chosen[first - stop :])
            scored.alternatives.extend(window.alternatives[first - stop :])
        self._num_scored += len(scored.chosen)
        return scored

    async def _score_window(self, model: LoadedModel, ids: TokenIds) -> Logprobs:
        """The log-probabilities of all tokens but the first, in the queue like any text."""
        client = self._request.client.host if self._request.client is not None else ""
        params = SamplingParams(max_tokens=0, logprobs=self._fields.top_logprobs or 0)
        generation = self._service.generate(
            model, [TextJob(ids, params, prompt_logprobs=True)], eager=False, client=client
        )
        try:
            async for _ in generation.deltas():
                pass
            logprobs = generation.prompt_logprobs(0)
            assert logprobs is not None
            return logprobs
        finally:
            self._service.finish(generation)

    def _head(self) -> dict[str, Any]:
        ids, tokenizer = self._ids.tolist(), self._model.tokenizer
        return {
            "object": "scores",
            "run": self._model.run,
            "system_fingerprint": system_fingerprint(self._model.gpt.quantized),
            "tokens": [tokenizer.token_text(i) for i in ids],
            "token_ids": ids,
            "text_offset": text_offsets(ids, tokenizer),
            "validation": validation_score(RunFolder(self._service.settings.models, self._model.run), self._model),
        }

    def _describe(self, model: LoadedModel, logprobs: Logprobs) -> dict[str, Any]:
        score: dict[str, Any] = {
            "model": model.name,
            "step": int(model.path.name.removeprefix("step-")),
            "logprobs": logprobs.chosen,
            "bits_per_character": -sum(logprobs.chosen) / math.log(2) / len(self._fields.text),
        }
        if self._fields.top_logprobs:
            token_text = model.tokenizer.token_text
            rows = zip(self._ids.tolist(), logprobs.chosen, logprobs.alternatives, strict=True)
            score["top_logprobs"] = [
                [{"token": token_text(i), "id": i, "logprob": value} for i, value in with_sampled_token(*row)]
                for row in rows
            ]
        return score


async def scores(request: Request) -> Response:
    service = get_service(request)
    fields = validate(ScoresRequest, await read_json_object(request))
    model = await service.live_model.resolve(fields.model)
    snapshots = None
    if fields.snapshots is not None:
        run = RunFolder(service.settings.models, model.run)
        # None of them if the run was deleted: its model is still in memory.
        snapshots = await to_thread.run_sync(choose_snapshots, run, fields.snapshots) or None
    scoring = Scoring(request, service, fields, model, snapshots)
    if fields.stream:
        return LiveResponse(scoring.stream(), on_close=scoring.finish)
    try:
        return await while_connected(request.receive, scoring.whole())
    finally:
        scoring.finish()
