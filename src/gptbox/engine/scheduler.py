"""Schedules requests on one engine thread: continuous batching (Yu et al., Orca, OSDI 2022).

Requests join and leave the running batch at every step. Each model has a batch of its own; the batches of several
models (a snapshot that is being replaced, and its successor) alternate.

Clients share the capacity for running and waiting requests equally. A client within its fair share is always accepted,
unless there are more clients than capacity: for it, waiting requests of clients above their share are evicted, except
those of a group that has begun to run.
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
from gptbox.engine.worker_pool import WorkerPool
from gptbox.errors import EngineError, QueueFullError

log = logging.getLogger(__name__)

CACHE_BYTES = 96 * 2**20
"""Bytes for the KV caches of all models together: the longer the sequences, the fewer run at once."""

_MAX_CLIENTS = 1000
"""Clients whose last admission is remembered."""

IDLE_S = 10.0
"""Time without a request after which the KV caches, and the prefixes in them, are freed."""


class Scheduler:
    """Owns the engine's thread, its batches and the queue of waiting requests."""

    def __init__(
        self, threads: int = 1, max_active: int = 64, max_queue: int = 64, cache_bytes: int = CACHE_BYTES
    ) -> None:
        """Up to `max_active` requests run at once, and up to `max_queue` more wait."""
        self.threads = threads
        self.max_active = max_active
        self.max_queue = max_queue
        self.cache_bytes = cache_bytes
        self.tokens = 0
        """Tokens generated since the start."""
        self.steps = 0
        """Steps run since the start; each decodes a token, or prefills a chunk, for every running request."""
        self._queue: list[Request] = []
        """In order of arrival."""
        self._last_admission: dict[str, int] = {}
        """Per recent client, the value of _admissions at its last admission; least recent first."""
        self._admissions = 0
        """Requests admitted since the start."""
        self._batches: dict[int, Batch] = {}
        self._interrupt = np.zeros(1, np.int64)
        self._wake = threading.Condition()
        self._running = False
        self._thread: threading.Thread | None = None
        self._recent: deque[tuple[float, int]] = deque()
        """Time and tokens of each step of the last five seconds."""

    def start(self) -> None:
        """Start the engine's thread."""
        self._running = True
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End every request with an EngineError, and wait for the thread to end."""
        with self._wake:
            self._running = False
            self._interrupt[0] = 1
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue a group of requests of one client, all or none; waiting requests of others may be evicted for them.

        Raises QueueFullError if they are refused, EngineError if the scheduler is not running.
        """
        if not requests:
            return
        with self._wake:
            if not self._running:
                raise EngineError("The engine is not running.")
            self._make_room(requests[0].client, len(requests))
            for request in requests:
                request.group = requests
            self._queue.extend(requests)
            self._interrupt[0] = 1
            self._wake.notify()

    def _make_room(self, client: str, count: int) -> None:
        """Ensure capacity for `count` more requests of a client.

        A client that stays within its fair share always gets it: waiting groups of clients above theirs are evicted,
        and if all that are left have begun, the queue exceeds max_queue. A client below its share may exceed it by one
        group while capacity is free. Raises QueueFullError otherwise, and if there are more clients than capacity.
        """
        requests, capacity = self._requests_by_client(), self.max_active + self.max_queue
        clients = len(requests.keys() | {client})
        share, free = self._fair_share(clients), capacity - requests.total()
        if count <= free and (requests[client] < share or requests[client] + count <= share):
            return
        waiting = "1 text is" if self.queued == 1 else f"{self.queued} texts are"
        queue_is_full = f"{waiting} waiting already; try again in a few seconds."
        if requests[client] + count > share:
            raise QueueFullError(
                queue_is_full
                if clients == 1 or requests[client] == 0
                else f"Your texts already take {requests[client]} of the {capacity} places, which {clients} visitors "
                "share; try again in a few seconds."
            )
        while count > capacity - requests.total():
            evicted = self._group_to_evict(requests, share)
            if evicted is None:
                break
            for request in evicted:
                self._queue.remove(request)
                request.sink.end(
                    QueueFullError("Your request has made way for another visitor's; try again in a few seconds.")
                )
            requests[evicted[0].client] -= len(evicted)
        if clients > capacity and count > capacity - requests.total():
            raise QueueFullError(queue_is_full)

    def _group_to_evict(self, requests: Counter[str], share: int) -> Sequence[Request] | None:
        """The last group that has not begun of the client with the most requests, if more than `share`; else None."""
        best: Request | None = None
        for request in reversed(self._queue):
            begun = any(each.interrupt is not None or each.cancelled for each in request.group)
            if not begun and requests[request.client] > max(share, requests[best.client] if best else 0):
                best = request
        return None if best is None else best.group

    def _requests_by_client(self) -> Counter[str]:
        """Number of requests of each client, running and waiting; cancelled ones do not count."""
        running = [row.request for batch in list(self._batches.values()) for row in list(batch.rows)]
        return Counter(request.client for request in [*running, *list(self._queue)] if not request.cancelled)

    def _fair_share(self, clients: int) -> int:
        """Requests per client, running and waiting, where `clients` share the capacity; at least 1."""
        return max(1, (self.max_active + self.max_queue) // max(1, clients))

    def may_be_evicted(self, client: str) -> bool:
        """Whether a client has more than its fair share, so that its waiting requests may be evicted."""
        requests = self._requests_by_client()
        return requests[client] > self._fair_share(len(requests))

    @property
    def active(self) -> int:
        """Running requests."""
        return sum(len(batch.rows) for batch in list(self._batches.values()))

    @property
    def queued(self) -> int:
        """Waiting requests."""
        return len(self._queue)

    def queue_position(self, request: Request) -> int:
        """A request's place in the order of admission, from 1; 0 once it is admitted.

        Assumes that no further request arrives, and ignores which clients' running requests finish.
        """
        waiting: dict[str, list[int]] = {}
        queue = list(self._queue)
        for i, each in enumerate(queue):
            waiting.setdefault(each.client, []).append(i)
        try:
            own_index = waiting[request.client].index(queue.index(request))
        except (KeyError, ValueError):
            return 0
        running = Counter(row.request.client for batch in list(self._batches.values()) for row in list(batch.rows))

        def priority(client: str) -> tuple[int, int, int]:
            """Sort key of clients that run equally many by then: one that runs more now has waited longer."""
            return -running[client], self._last_admission.get(client, 0), waiting[client][0]

        # When this request is admitted, its client runs `level` requests; every other client as many, or one more.
        level, own = running[request.client] + own_index, priority(request.client)
        before = [
            min(len(indices), max(0, level - running[client] + (priority(client) < own)))
            for client, indices in waiting.items()
            if client != request.client
        ]
        return own_index + 1 + sum(before)

    @property
    def tokens_per_s(self) -> float:
        """Throughput of all requests together, averaged over the last five seconds."""
        now = time.monotonic()
        return sum(count for moment, count in list(self._recent) if moment > now - 5) / 5

    def _run(self) -> None:
        pool = WorkerPool(self.threads)
        while True:
            with self._wake:
                while self._running and not self._queue and not self.active:
                    if not self._wake.wait(IDLE_S if self._batches else None):
                        self._batches.clear()
                if not self._running:
                    break
                self._interrupt[0] = 0
                self._admit(pool)
            self._step()
        for batch in self._batches.values():
            self._fail(batch, EngineError("The server is stopping."))
        for request in self._queue:
            request.sink.end(EngineError("The server is stopping."))
        self._queue.clear()
        pool.close()

    def _admit(self, pool: WorkerPool) -> None:
        """Move waiting requests into batches while there is room.

        The caller holds the lock: others always see a request as queued or active.
        """
        for request in [request for request in self._queue if request.cancelled]:
            self._queue.remove(request)
            request.sink.end(None)
        if not self._queue:
            return
        running = Counter(row.request.client for batch in self._batches.values() for row in batch.rows)
        while self._queue and self.active < self.max_active:
            # From the client that runs the fewest; of several, the one admitted longest ago; then in order of arrival.
            request = min(
                self._queue, key=lambda request: (running[request.client], self._last_admission.get(request.client, 0))
            )
            batch = self._batch_of(request.model, pool)
            if not self._has_room(batch, request):
                return  # head-of-line blocking on purpose: short requests would starve a long one
            running[request.client] += 1
            self._last_admission.pop(request.client, None)
            self._last_admission[request.client] = self._admissions = self._admissions + 1
            if len(self._last_admission) > _MAX_CLIENTS:
                del self._last_admission[next(iter(self._last_admission))]
            self._queue.remove(request)
            batch.add(request)

    def _has_room(self, batch: Batch, request: Request) -> bool:
        """Whether a request fits the batch and the cache memory at its full length; a model's first always does.

        Frees the caches of idle models if it does not fit beside them.
        """
        if not batch.rows:
            return True
        if batch.full:
            return False
        extra = batch.additional_bytes(request)
        if extra and sum(each.cache_bytes for each in self._batches.values()) + extra > self.cache_bytes:
            self._batches = {key: each for key, each in self._batches.items() if each.rows}
        return extra == 0 or sum(each.cache_bytes for each in self._batches.values()) + extra <= self.cache_bytes

    def _batch_of(self, model: GPT, pool: WorkerPool) -> Batch:
        if id(model) not in self._batches:
            # An idle model's batch, and the prefixes in its cache, live only until another model is used.
            self._batches = {key: batch for key, batch in self._batches.items() if batch.rows}
            context_pages = KVCache.pages_for(model.config)
            max_pages = self.cache_bytes // KVCache.page_bytes(model.config)
            total_pages = min(max(max_pages, context_pages), self.max_active * context_pages)
            self._batches[id(model)] = Batch(model, self.max_active, pool, self._interrupt, total_pages)
        return self._batches[id(model)]

    def _step(self) -> None:
        for batch in list(self._batches.values()):
            self._step_batch(batch)

    def _step_batch(self, batch: Batch) -> None:
        batch.remove_finished()
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
        """End all requests of a batch with an error."""
        for request in batch.clear():
            request.sink.end(error)
