"""Many sequences at once on one engine thread: continuous batching (Yu et al., Orca, OSDI 2022).

Requests join and leave the running batch at every step. Rows of one model are decoded together; several models (a
snapshot that is being replaced and its successor) take turns.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np

from gptbox.engine.batch import Batch
from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.request import Request
from gptbox.engine.team import Team
from gptbox.errors import EngineError, QueueFullError

log = logging.getLogger(__name__)

CACHE_BYTES = 96 * 2**20
"""What keys and values may take, of all models together; large sequences get fewer places at once."""

IDLE_S = 10.0
"""After so long without a request the memory of keys and values goes back to the system, and what they held with it."""


class Scheduler:
    """Owns the engine's thread, its batches and the queue before them."""

    def __init__(
        self, threads: int = 1, max_active: int = 64, max_queue: int = 64, cache_bytes: int = CACHE_BYTES
    ) -> None:
        """At most `max_active` sequences are generated at once; up to `max_queue` more wait."""
        self.threads = threads
        self.max_active = max_active
        self.max_queue = max_queue
        self.cache_bytes = cache_bytes
        self.tokens = 0
        """Generated since the start."""
        self.steps = 0
        """Made since the start; a step gives each running sequence a token, or reads a part of its prompt."""
        self._queue: list[Request] = []
        """Who has waited longest stands first."""
        self._batches: dict[int, Batch] = {}
        self._interrupt = np.zeros(1, np.int64)
        self._wake = threading.Condition()
        self._running = False
        self._thread: threading.Thread | None = None
        self._recent: deque[tuple[float, int]] = deque()

    def start(self) -> None:
        """Start the engine's thread."""
        self._running = True
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End every request with an error and wait for the thread to finish."""
        with self._wake:
            self._running = False
            self._interrupt[0] = 1
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests, all or none.

        Raises QueueFullError where they do not all fit, EngineError where the scheduler was stopped.
        """
        with self._wake:
            if not self._running:
                raise EngineError("The engine is not running.")
            free = self.max_active - self.active
            if len(self._queue) + len(requests) > free + self.max_queue:
                raise QueueFullError(f"{len(self._queue)} texts are waiting already; try again in a few seconds.")
            self._queue.extend(requests)
            self._interrupt[0] = 1
            self._wake.notify()

    @property
    def active(self) -> int:
        """Sequences that are being generated."""
        return sum(len(batch.rows) for batch in list(self._batches.values()))

    @property
    def queued(self) -> int:
        """Sequences that wait for a place."""
        return len(self._queue)

    def position(self, request: Request) -> int:
        """How many are before a request in the queue, itself included; 0 once it has its place."""
        try:
            return self._queue.index(request) + 1
        except ValueError:
            return 0

    @property
    def tokens_per_s(self) -> float:
        """Tokens of all sequences together, over the last five seconds."""
        now = time.monotonic()
        return sum(count for moment, count in list(self._recent) if moment > now - 5) / 5

    def _run(self) -> None:
        team = Team(self.threads)
        while True:
            with self._wake:
                while self._running and not self._queue and not self.active:
                    if not self._wake.wait(IDLE_S if self._batches else None):
                        self._batches.clear()
                if not self._running:
                    break
                self._interrupt[0] = 0
                self._admit(team)
            self._step()
        for batch in self._batches.values():
            self._fail(batch, EngineError("The server is stopping."))
        for request in self._queue:
            request.sink.end(EngineError("The server is stopping."))
        self._queue.clear()
        team.close()

    def _admit(self, team: Team) -> None:
        """Give places to those who wait. Under the lock: a request is always queued or active."""
        for request in [request for request in self._queue if request.cancelled]:
            self._queue.remove(request)
            request.sink.end(None)
        if not self._queue:
            return
        clients = Counter(row.request.client for batch in self._batches.values() for row in batch.rows)
        while self._queue and self.active < self.max_active:
            # Whose client has the fewest places; among those who has waited longest.
            free = [request for request in self._queue if self._has_room(self._batch_of(request.model, team), request)]
            if not free:
                return
            request = min(free, key=lambda request: clients[request.client])
            clients[request.client] += 1
            self._queue.remove(request)
            self._batch_of(request.model, team).add(request)

    def _has_room(self, batch: Batch, request: Request) -> bool:
        """Whether a request's sequence fits, as long as it may become; the first of a model always does."""
        used, more = sum(each.cache_bytes for each in self._batches.values()), batch.more_bytes(request)
        return not batch.rows or (not batch.full and (more == 0 or used + more <= self.cache_bytes))

    def _batch_of(self, model: GPT, team: Team) -> Batch:
        if id(model) not in self._batches:
            # A model without rows is kept only until the next one comes: its cache is reused while nothing changes.
            self._batches = {key: batch for key, batch in self._batches.items() if batch.rows}
            context = KVCache.pages_for(model.config)
            fit = self.cache_bytes // KVCache.page_bytes(model.config)
            pages = min(max(fit, context), self.max_active * context)
            self._batches[id(model)] = Batch(model, self.max_active, team, self._interrupt, pages)
        return self._batches[id(model)]

    def _step(self) -> None:
        for batch in list(self._batches.values()):
            self._step_of(batch)

    def _step_of(self, batch: Batch) -> None:
        batch.remove_ended()
        if not batch.rows:
            return
        try:
            count, steps = batch.step()
        except Exception as error:
            log.exception("the engine failed in a step")
            self._fail(batch, error)
            return
        self.steps += steps
        self.tokens += count
        now = time.monotonic()
        self._recent.append((now, count))
        while self._recent[0][0] < now - 5:
            self._recent.popleft()

    def _fail(self, batch: Batch, error: Exception) -> None:
        for request in batch.clear():
            request.sink.end(error)
