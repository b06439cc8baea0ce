"""All of gptbox's exceptions. Each is raised for a fault that the user or the client can correct.

    GptboxError
    ├── SettingError            an environment variable or option has an invalid value
    ├── DatasetError            a text cannot be found, read or used for training
    │   └── DownloadError       a text could not be downloaded
    ├── ModelFolderError        a published model folder is incomplete, damaged or of an unsupported kind
    │   └── ModelNotFoundError  there is no run or snapshot of that name
    │       ├── RunNotFoundError  there is no run of that name
    │       └── NoModelYetError the run exists but has not published a snapshot yet
    │           └── ModelsDamagedError  the run has snapshots, but none of them can be loaded
    ├── NoIndexError            a run has no index of its training text
    │   └── DamagedIndexError   the index is damaged, or of another version
    ├── RunError                a run cannot be started or continued
    │   ├── RunBusyError        another trainer is working on the run
    │   ├── DivergedError       the training loss became infinite or NaN
    │   ├── DoesNotFitError     the run needs more memory or disk space than there is
    │   └── DiskFullError       a run ended and its last state could not be saved
    ├── EngineError             the engine cannot accept or finish a request
    │   └── QueueFullError      the queue is full
    └── RequestError            an HTTP request cannot be fulfilled
        ├── RequestTooLargeError  the request body exceeds the limit
        ├── AccessDeniedError   the API key is missing or wrong
        ├── CrossSiteError      the request was sent by a page of another site
        └── DownloadsOffError   the server offers no models for download

Each message is one or two plain sentences: what is wrong, with the value, and what to do. The command line prints only
the message; the web app maps each class to a status code.
"""


class GptboxError(Exception):
    """Base class of all gptbox exceptions."""


class SettingError(GptboxError):
    """An environment variable or option has an invalid value."""


class DatasetError(GptboxError):
    """A text cannot be found, read or used for training."""


class DownloadError(DatasetError):
    """A text could not be downloaded, or the download is not the expected text."""

    def __init__(self, message: str, is_permanent: bool = False) -> None:
        """`is_permanent` is whether a later attempt would fail in the same way, such as for a wrong address."""
        super().__init__(message)
        self.is_permanent = is_permanent


class ModelFolderError(GptboxError):
    """A published model folder is incomplete, damaged or of an unsupported kind."""


class ModelNotFoundError(ModelFolderError):
    """There is no run or snapshot of that name."""


class RunNotFoundError(ModelNotFoundError):
    """There is no run of that name."""


class NoModelYetError(ModelNotFoundError):
    """The run exists but has not published a snapshot yet."""


class ModelsDamagedError(NoModelYetError):
    """The run has snapshots, but none of them can be loaded."""


class NoIndexError(GptboxError):
    """A run has no index of its training text."""


class DamagedIndexError(NoIndexError):
    """A run's index of its training text is damaged, or of another version."""


class RunError(GptboxError):
    """A training run cannot be started or continued."""


class RunBusyError(RunError):
    """Another trainer is working on the run."""


class DivergedError(RunError):
    """The training loss became infinite or NaN."""


class DoesNotFitError(RunError):
    """The run needs more memory or disk space than there is."""


class DiskFullError(RunError):
    """A run ended and its last state could not be saved."""


class EngineError(GptboxError):
    """The engine cannot accept or finish a request."""


class QueueFullError(EngineError):
    """The queue is full."""


class RequestError(GptboxError):
    """An HTTP request cannot be fulfilled."""

    def __init__(self, message: str, param: str | None = None) -> None:
        """`param` is the name of the field at fault; None if it is not a single field."""
        super().__init__(message)
        self.param = param


class RequestTooLargeError(RequestError):
    """The request body exceeds the limit."""


class AccessDeniedError(RequestError):
    """The API key is missing or wrong."""


class CrossSiteError(RequestError):
    """The request was sent by a page of another site."""


class DownloadsOffError(RequestError):
    """The server offers no models for download."""
