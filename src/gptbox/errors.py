"""Every exception that gptbox raises for something its user can put right.

    GptboxError
    ├── SettingError            an environment variable or option has a value that cannot be used
    ├── DatasetError            a text cannot be found, read or used
    │   └── DownloadError       a text could not be fetched
    ├── ModelFolderError        a published model folder is missing a part or cannot be understood
    │   └── ModelNotFoundError  no run or snapshot of that name
    │       └── NoModelYetError a run is there, but nothing has been published yet
    │           └── ModelsDamagedError  a run has published, but no snapshot of it can be loaded
    ├── RunError                a run cannot be started or continued
    │   ├── RunBusyError        another trainer is at work on the run
    │   ├── DivergedError       the loss stopped being a number
    │   ├── DoesNotFitError     the run would need more memory or disk than there is
    │   └── DiskFullError       a run has ended and could not be saved
    ├── EngineError             the engine cannot take or finish a request
    │   └── QueueFullError      as many requests wait as may wait
    └── RequestError            a client asked over HTTP for something that cannot be done
        ├── RequestTooLargeError  the body is longer than is read
        ├── AccessDeniedError   the API key is missing or wrong
        └── CrossSiteError      a page of another site sent the request

Each message is one or two plain sentences: what was wrong, with the value, and what to do. The command line prints
the message alone; the web app maps each class to a status code, once.
"""


class GptboxError(Exception):
    """Base of all of gptbox's own exceptions."""


class SettingError(GptboxError):
    """An environment variable or option has a value that cannot be used."""


class DatasetError(GptboxError):
    """A text cannot be found, read or used for training."""


class DownloadError(DatasetError):
    """A text could not be fetched, or what came is not what was expected."""


class ModelFolderError(GptboxError):
    """A published model folder is missing a part, is damaged or of an unknown kind."""


class ModelNotFoundError(ModelFolderError):
    """There is no run or snapshot of that name."""


class NoModelYetError(ModelNotFoundError):
    """The run is there, but it has not published a snapshot yet."""


class ModelsDamagedError(NoModelYetError):
    """There are snapshots, but none of them can be loaded."""


class RunError(GptboxError):
    """A training run cannot be started or continued."""


class RunBusyError(RunError):
    """Another trainer is at work on the run."""


class DivergedError(RunError):
    """The training loss became infinite or not a number."""


class DoesNotFitError(RunError):
    """The run would need more memory or disk than there is."""


class DiskFullError(RunError):
    """A run has ended, and what it last learned could not be saved."""


class EngineError(GptboxError):
    """The engine cannot take or finish a request."""


class QueueFullError(EngineError):
    """As many requests are waiting as are allowed to wait."""


class RequestError(GptboxError):
    """A client asked over HTTP for something that cannot be done."""

    def __init__(self, message: str, param: str | None = None) -> None:
        """`param` names the field at fault."""
        super().__init__(message)
        self.param = param


class RequestTooLargeError(RequestError):
    """A request's body is longer than is read."""


class AccessDeniedError(RequestError):
    """The API key is missing or wrong."""


class CrossSiteError(RequestError):
    """A page of another site sent the request."""
