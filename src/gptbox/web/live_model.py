"""The served model: the best snapshot of the newest run that has any, replaced as better ones are published."""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from anyio import CapacityLimiter, to_thread

from gptbox.engine import native
from gptbox.errors import (
    EngineError,
    ModelFolderError,
    ModelNotFoundError,
    ModelsDamagedError,
    NoModelYetError,
    RunNotFoundError,
)
from gptbox.models.runs import (
    RunFolder,
    find_run,
    find_snapshot,
    inaccessible_paths,
    newest_published_run,
    published_runs,
)
from gptbox.web.model_cache import LoadedModel, ModelCache, SnapshotKey, snapshot_key
from gptbox.web.no_model import models_damaged_message, no_model_error

log = logging.getLogger(__name__)

COMPILING = "The engine is being compiled for this processor, which takes about half a minute, once."
COMPILE_RETRY_S = 600.0
"""Wait after a failed compilation, which may have run out of memory."""
LOAD_RETRY_S = 60.0
"""Wait after a failed load: a damaged folder stays damaged, but memory may be free again."""


class LiveModel:
    """Polls the models folder on its own thread.

    `current` is replaced in one assignment, and running requests keep the model they started with. A snapshot that
    cannot be loaded is logged and changes nothing else.
    """

    def __init__(self, models: Path, poll_s: float = 1.0, quantize: bool = False) -> None:
        self.models = models
        self.poll_s = poll_s
        self.current: LoadedModel | None = None
        self.models_problem: str | None = None
        """A message for users if there are snapshots but none can be loaded."""
        self.engine_problem: str | None = None
        """A message for users until the engine is compiled."""
        self.cache = ModelCache(quantize=quantize)
        self._retry_at: dict[SnapshotKey, float] = {}
        self._unreadable: set[Path] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        # Requests waiting for a load must not occupy all of anyio's shared worker threads.
        self._load_limiter = CapacityLimiter(2)

    @property
    def problem(self) -> str | None:
        """Why no model can be served, if one has been published."""
        return self.engine_problem or self.models_problem

    @property
    def num_loaded(self) -> int:
        """The number of snapshots in memory."""
        model = self.current
        return len(self.cache) + (model is not None and self.cache.get(model.key) is None)

    def start(self) -> None:
        """Load the best model, so that the first request is served, and start to poll.

        If the engine must be compiled first, that happens in the background.
        """
        self._stop.clear()
        if self._load_engine(compile_too=False):
            self.refresh()
        self._thread = threading.Thread(target=self._poll_forever, name="live-model", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop polling."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _poll_forever(self) -> None:
        while not self._load_engine():
            if self._stop.wait(COMPILE_RETRY_S):
                return
        self.refresh()
        while not self._stop.wait(self.poll_s):
            self.refresh()

    def _load_engine(self, compile_too: bool = True) -> bool:
        try:
            is_loaded = native.load(compile_too, wanted=lambda: not self._stop.is_set())
        except EngineError as error:
            self.engine_problem = str(error)
            if not self._stop.is_set():
                log.error("%s", error)
            return False
        self.engine_problem = None if is_loaded else COMPILING
        return is_loaded

    def refresh(self) -> None:
        """Switch to the best model there is now. Never raises: on failure the server keeps its current model."""
        try:
            self._log_unreadable()
            for path in self._candidates():
                if self._switch_to(path) or self.current is not None:
                    self.models_problem = None
                    return
            run = newest_published_run(self.models)
            self.models_problem = None if run is None or self.current is not None else models_damaged_message(run)
        except Exception:
            log.exception("looking for a better model failed")

    def _log_unreadable(self) -> None:
        found = set(inaccessible_paths(self.models))
        for path in sorted(found - self._unreadable):
            log.warning("%s is skipped: this process has no permission to read it", path)
        self._unreadable = found

    def _candidates(self) -> Iterator[Path]:
        """Snapshots by preference: newest run first; of a run its best, then the others, newest first."""
        for run in published_runs(self.models):
            best = run.resolve("best")
            yield best
            yield from (path for path in reversed(run.snapshots()) if path != best)

    def _switch_to(self, path: Path) -> bool:
        """Serve a snapshot, loading it if need be; False if that fails, which is logged once per snapshot."""
        try:
            key = snapshot_key(path)
        except ModelFolderError:
            return False  # deleted since it was listed, or not readable
        if self.current is not None and self.current.key == key:
            return True
        if time.monotonic() < self._retry_at.get(key, 0):
            return False
        try:
            model = self.cache.load(path, keep=False)
        except ModelFolderError as error:
            if key not in self._retry_at:
                served = "there is no model to serve" if self.current is None else f"still serving {self.current.name}"
                log.warning("%s (%s)", error, served)
            self._retry_at[key] = time.monotonic() + LOAD_RETRY_S
            return False
        # Training has already logged each snapshot of its run, so only a change of run is logged at INFO.
        is_new_run = self.current is None or self.current.run != model.run
        self.current = model
        log.log(logging.INFO if is_new_run else logging.DEBUG, "serving %s", model.name)
        return True

    async def resolve(self, name: str | None = None) -> LoadedModel:
        """The model named `RUN`, `RUN@best`, `RUN@latest` or `RUN@step-000250`; None means the current one.

        Raises NoModelYetError, ModelNotFoundError, ModelFolderError if the snapshot is damaged, ModelsDamagedError if
        all are, EngineError until the engine is compiled.
        """
        if self.engine_problem is not None:
            raise EngineError(f"{self.engine_problem} Try again in a moment.")
        current = self.current
        if name is None:
            if current is None:
                raise await to_thread.run_sync(self._no_current_model_error)
            return current
        try:
            path = await to_thread.run_sync(self.find_snapshot, name)
            if current is not None and current.path == path:
                return current
            return await to_thread.run_sync(self.cache.load, path, limiter=self._load_limiter)
        except ModelFolderError as error:
            # The best snapshot is damaged or deleted: its predecessor, still in memory, serves the run's name.
            if current is not None and name in (current.run, f"{current.run}@best", current.name):
                return current
            if self.models_problem is not None and not isinstance(error, ModelNotFoundError):
                raise ModelsDamagedError(self.models_problem) from None  # no other snapshot can be suggested
            raise

    def _no_current_model_error(self) -> NoModelYetError:
        return no_model_error(self.models) if self.models_problem is None else ModelsDamagedError(self.models_problem)

    async def find_run(self, name: str | None = None) -> RunFolder:
        """The run of the model that `resolve` would return, without loading it or waiting until it is loaded.

        Raises NoModelYetError, ModelNotFoundError, ModelsDamagedError.
        """
        current = self.current
        if name is not None:
            path = await to_thread.run_sync(self.find_snapshot, name)
            return RunFolder(self.models, path.parent.parent.name)
        if current is not None:
            return RunFolder(self.models, current.run)
        run = await to_thread.run_sync(newest_published_run, self.models)
        if run is None:
            raise await to_thread.run_sync(self._no_current_model_error)
        return run

    def find_snapshot(self, name: str) -> Path:
        """The folder of the snapshot that a request's `model` names. Reads files.

        Raises NoModelYetError, or ModelNotFoundError, which names the nearest snapshot.
        """
        try:
            return find_snapshot(self.models, name)
        except NoModelYetError:
            raise no_model_error(self.models, find_run(self.models, name.partition("@")[0])) from None
        except ModelNotFoundError as error:
            if self.current is None and newest_published_run(self.models) is None:
                raise no_model_error(self.models) from None
            why = str(error)
            if isinstance(error, RunNotFoundError):  # its message names the models folder
                abbreviated = name if len(name) <= 100 else f"{name[:100]}..."
                why = f"The model {abbreviated!r} does not exist."
            raise ModelNotFoundError(f"{why} GET /v1/models lists all models.") from None
