"""The model that is served: the best snapshot of the newest run that has any, exchanged for each better one."""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from anyio import CapacityLimiter, to_thread

from gptbox.engine import native
from gptbox.errors import EngineError, ModelFolderError, ModelNotFoundError, ModelsDamagedError, NoModelYetError
from gptbox.run_folder import find_run, find_snapshot, newest_published_run, published_runs, unreadable
from gptbox.web.model_cache import LoadedModel, ModelCache, SnapshotKey, snapshot_key
from gptbox.web.no_model import models_damaged, no_model_yet

log = logging.getLogger(__name__)

COMPILING = "The engine is being compiled for this processor, which takes about half a minute, once."
COMPILE_AGAIN_S = 600.0
"""After a compilation that failed: it may have been short of memory."""
RETRY_S = 60.0
"""A damaged folder stays damaged, but memory that was short may be there again."""


class LiveModel:
    """Watches the models folder on a thread of its own. `current` is replaced in one assignment; whoever holds the
    former one goes on with it. A snapshot that cannot be loaded changes nothing but the log.
    """

    def __init__(self, models: Path, poll_s: float = 1.0, quantize: bool = False) -> None:
        self.models = models
        self.poll_s = poll_s
        self.current: LoadedModel | None = None
        self.damaged: str | None = None
        """What to say where there are snapshots, but none that can be loaded."""
        self.no_engine: str | None = None
        """What to say until the engine is compiled."""
        self.cache = ModelCache(quantize=quantize)
        self._retry_at: dict[SnapshotKey, float] = {}
        self._unreadable: set[Path] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        # Requests that wait for a load must not use up the threads that everybody shares.
        self._loads = CapacityLimiter(2)

    @property
    def problem(self) -> str | None:
        """Why no model can be served, where that is not for want of one."""
        return self.no_engine or self.damaged

    @property
    def loaded(self) -> int:
        """Snapshots in memory."""
        live = self.current
        return len(self.cache) + (live is not None and self.cache.get(live.key) is None)

    def start(self) -> None:
        """Look once, so that a server with a model is ready from its first request; then watch.

        Where the engine has to be compiled first, that is done meanwhile.
        """
        self._stop.clear()
        if self._load_engine(compile_too=False):
            self.look()
        self._thread = threading.Thread(target=self._watch, name="live-model", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self) -> None:
        while not self._load_engine():
            if self._stop.wait(COMPILE_AGAIN_S):
                return
        self.look()
        while not self._stop.wait(self.poll_s):
            self.look()

    def _load_engine(self, compile_too: bool = True) -> bool:
        try:
            loaded = native.load(compile_too, wanted=lambda: not self._stop.is_set())
        except EngineError as error:
            self.no_engine = str(error)
            if not self._stop.is_set():
                log.error("%s", error)
            return False
        self.no_engine = None if loaded else COMPILING
        return loaded

    def look(self) -> None:
        """Serve what is best now. Never raises: the server lives on with what it has."""
        try:
            self._tell_unreadable()
            for path in self._candidates():
                if self._take(path) or self.current is not None:
                    self.damaged = None
                    return
            run = newest_published_run(self.models)
            self.damaged = None if run is None or self.current is not None else models_damaged(run)
        except Exception:
            log.exception("looking for a better model failed")

    def _tell_unreadable(self) -> None:
        found = set(unreadable(self.models))
        for path in sorted(found - self._unreadable):
            log.warning("%s is passed over: this process may not read it", path)
        self._unreadable = found

    def _candidates(self) -> Iterator[Path]:
        """Of each run, the newest first: its best snapshot, then its others, newest first."""
        for run in published_runs(self.models):
            best = run.resolve("best")
            yield best
            yield from (path for path in reversed(run.snapshots()) if path != best)

    def _take(self, path: Path) -> bool:
        """Serve a snapshot, loading it unless it is served already; False where it is damaged, which is logged once."""
        try:
            key = snapshot_key(path)
        except ModelFolderError:
            return False  # it was removed between listing and reading, or may not be read
        if self.current is not None and self.current.key == key:
            return True
        if time.monotonic() < self._retry_at.get(key, 0):
            return False
        try:
            model = self.cache.load(path, keep=False)
        except ModelFolderError as error:
            if key not in self._retry_at:
                kept = "there is no model to serve" if self.current is None else f"still serving {self.current.name}"
                log.warning("%s (%s)", error, kept)
            self._retry_at[key] = time.monotonic() + RETRY_S
            return False
        # Each better snapshot of a run is told by training, which has just published it.
        news = self.current is None or self.current.run != model.run
        self.current = model
        log.log(logging.INFO if news else logging.DEBUG, "serving %s", model.name)
        return True

    async def resolve(self, name: str | None = None) -> LoadedModel:
        """The model of `RUN`, `RUN@best`, `RUN@latest` or `RUN@step-000250`; None is the live one.

        Raises NoModelYetError, ModelNotFoundError, ModelFolderError where the snapshot is damaged, ModelsDamagedError
        where all are, EngineError until the engine is compiled.
        """
        if self.no_engine is not None:
            raise EngineError(f"{self.no_engine} Try again in a moment.")
        live = self.current
        if name is None:
            if live is None:
                raise await to_thread.run_sync(self._nothing_to_serve)
            return live
        try:
            path = await to_thread.run_sync(self._find, name)
            if live is not None and live.path == path:
                return live
            return await to_thread.run_sync(self.cache.load, path, limiter=self._loads)
        except ModelFolderError as error:
            # A best snapshot that is damaged or was removed: its predecessor goes on under the run's name.
            if live is not None and name in (live.run, f"{live.run}@best", live.name):
                return live
            if self.damaged is not None and not isinstance(error, ModelNotFoundError):
                raise ModelsDamagedError(self.damaged) from None  # there is no other one to ask for
            raise

    def _nothing_to_serve(self) -> NoModelYetError:
        return no_model_yet(self.models) if self.damaged is None else ModelsDamagedError(self.damaged)

    def _find(self, name: str) -> Path:
        try:
            return find_snapshot(self.models, name)
        except NoModelYetError:
            raise no_model_yet(self.models, find_run(self.models, name.partition("@")[0])) from None
        except ModelNotFoundError:
            if self.current is None and newest_published_run(self.models) is None:
                raise no_model_yet(self.models) from None
            shown = name if len(name) <= 100 else f"{name[:100]}..."
            raise ModelNotFoundError(
                f"The model {shown!r} does not exist. GET /v1/models lists those there are."
            ) from None
