"""Many sequences at once on one engine thread: continuous batching (Yu et al., Orca, OSDI 2022).

Requests join and leave the running batch at every step. Rows of one model are decoded together; several models (a
snapshot that is being replaced and its successor) take turns.

Places, running and waiting, are shared out evenly among the clients that have any. Nobody can keep another one from
having its share; whoever has more gives way, as long as nothing of its text has been generated.
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

_CLIENTS = 1000
"""Whose turns are remembered."""

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
        self._turns: dict[str, int] = {}
        """When each of the last clients had its last turn."""
        self._turn = 0
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
        """Queue the requests of one client, all or none; they may take the places of others that still wait.

        Raises QueueFullError where they get none, EngineError where the scheduler was stopped.
        """
        if not requests:
            return
        with self._wake:
            if not self._running:
                raise EngineError("The engine is not running.")
            self._make_way(requests[0].client, len(requests))
            for request in requests:
                request.together = requests
            self._queue.extend(requests)
            self._interrupt[0] = 1
            self._wake.notify()

    def _make_way(self, client: str, count: int) -> None:
        """See to it that there are places for `count` more texts of a client.

        Within its share it always gets them: requests of clients with more than theirs give way, and where none is left
        that has not begun, the queue grows beyond its length. Beyond its share it gets one request more, into places
        that are free. Raises QueueFullError.
        """
        texts, places = self._texts_by_client(), self.max_active + self.max_queue
        clients = len(texts.keys() | {client})
        share, free = self._share(clients), places - texts.total()
        if count <= free and (texts[client] < share or texts[client] + count <= share):
            return
        waiting = self.queued
        if texts[client] + count > share:
            raise QueueFullError(
                f"{waiting} texts are waiting already; try again in a few seconds."
                if clients == 1 or texts[client] == 0
                else f"{texts[client]} texts of yours are being written or wait already, and the {places} places are "
                f"shared with {clients - 1} others; try again in a few seconds."
            )
        while count > places - texts.total():
            last = self._last_to_give_way(texts, share)
            if last is None:
                break
            for request in last:
                self._queue.remove(request)
                request.sink.end(
                    QueueFullError("Your request has made way for another visitor's; try again in a few seconds.")
                )
            texts[last[0].client] -= len(last)
        if clients > places and count > places - texts.total():
            raise QueueFullError(f"{waiting} texts are waiting already; try again in a few seconds.")

    def _last_to_give_way(self, texts: Counter[str], share: int) -> Sequence[Request] | None:
        """Of whoever has the most places, and more than a share, the last request that has not begun."""
        best: Request | None = None
        for request in reversed(self._queue):
            begun = any(each.interrupt is not None or each.cancelled for each in request.together)
            if not begun and texts[request.client] > max(share, texts[best.client] if best else 0):
                best = request
        return None if best is None else best.together

    def _texts_by_client(self) -> Counter[str]:
        """How many places each client has, running and waiting."""
        running = [row.request for batch in list(self._batches.values()) for row in list(batch.rows)]
        return Counter(request.client for request in [*running, *list(self._queue)] if not request.cancelled)

    def _share(self, clients: int) -> int:
        """Places a client may have where `clients` share them."""
        return max(1, (self.max_active + self.max_queue) // max(1, clients))

    def may_give_way(self, client: str) -> bool:
        """Whether a client has more than its share, so that what it waits for may be taken from it."""
        texts = self._texts_by_client()
        return texts[client] > self._share(len(texts))

    @property
    def active(self) -> int:
        """Sequences that are being generated."""
        return sum(len(batch.rows) for batch in list(self._batches.values()))

    @property
    def queued(self) -> int:
        """Sequences that wait for a place."""
        return len(self._queue)

    def position(self, request: Request) -> int:
        """How many get their places until a request has its own, itself included; 0 once it has.

        If nobody else comes, and nothing that runs ends before the others.
        """
        waiting: dict[str, list[int]] = {}
        queue = list(self._queue)
        for i, each in enumerate(queue):
            waiting.setdefault(each.client, []).append(i)
        try:
            mine = waiting[request.client].index(queue.index(request))
        except (KeyError, ValueError):
            return 0
        running = Counter(row.request.client for batch in list(self._batches.values()) for row in list(batch.rows))

        def rank(client: str) -> tuple[int, int, int]:
            """Who goes first among those that run equally many: who has waited while the others caught up."""
            return -running[client], self._turns.get(client, 0), waiting[client][0]

        # By then its client runs so many; the others as many, or one more.
        level, own = running[request.client] + mine, rank(request.client)
        before = [
            min(len(places), max(0, level - running[client] + (rank(client) < own)))
            for client, places in waiting.items()
            if client != request.client
        ]
        return mine + 1 + sum(before)

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
            # Whose client runs the fewest; of those whose turn was the longest ago, and then who has waited longest.
            request = min(
                self._queue, key=lambda request: (clients[request.client], self._turns.get(request.client, 0))
            )
            batch = self._batch_of(request.model, team)
            if not self._has_room(batch, request):
                return  # nobody overtakes: short texts would keep a long one waiting for ever
            clients[request.client] += 1
            self._turns.pop(request.client, None)
            self._turns[request.client] = self._turn = self._turn + 1
            if len(self._turns) > _CLIENTS:
                del self._turns[next(iter(self._turns))]
            self._queue.remove(request)
            batch.add(request)

    def _has_room(self, batch: Batch, request: Request) -> bool:
        """Whether a request's sequence fits, as long as it may become; the first of a model always does."""
        if not batch.rows:
            return True
        if batch.full:
            return False
        more = batch.more_bytes(request)
        if more and sum(each.cache_bytes for each in self._batches.values()) + more > self.cache_bytes:
            # What models without rows remember goes first.
            self._batches = {key: each for key, each in self._batches.items() if each.rows}
        return more == 0 or sum(each.cache_bytes for each in self._batches.values()) + more <= self.cache_bytes

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
