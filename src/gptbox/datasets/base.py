"""What every dataset gives: one text, and where it came from."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Text:
    """A dataset's whole text, normalised: Unicode characters, lines ended by "\\n" alone."""

    text: str
    source: str
    """Where it came from, in one phrase for people: "Tiny Shakespeare (downloaded)"."""
    notes: tuple[str, ...] = ()
    """Each normalisation or fallback that happened, as one plain sentence."""


class Dataset(ABC):
    name: str

    @abstractmethod
    def read(self, data: Path) -> Text:
        """The whole text. `data` is the folder of the user's own texts, one folder a dataset.

        Raises DatasetError where the text cannot be found, read or used, DownloadError where it cannot be fetched.
        """

    def own_text(self, data: Path) -> Text | None:
        """What the user's own files hold at present; None where the text comes from elsewhere.

        This never uses the network, so that a run can be continued without one. Raises DatasetError.
        """
        return None
