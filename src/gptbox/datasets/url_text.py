"""A text or archive from a web address."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from gptbox.datasets.download import Download, public_url
from gptbox.datasets.downloaded_text import MAX_BYTES, DownloadedText, Record
from gptbox.datasets.progress import ProgressCallback
from gptbox.datasets.text_form import SUPPORTED, TextForm, printable_name
from gptbox.errors import DatasetError, DownloadError

_MAX_NAME = 80  # characters of a stored file's name


class UrlText(DownloadedText):
    """The text at an HTTP or HTTPS address.

    The name at the end of the address, or of the one that it redirects to, tells the form: .txt, .zip and so on.
    """

    def __init__(
        self,
        name: str,
        url: str,
        models: Path,
        *,
        max_bytes: int = MAX_BYTES,
        timeout_s: float = 30.0,
        total_timeout_s: float = 3600.0,
        retry_delays_s: tuple[float, ...] = (1.0, 4.0),
    ) -> None:
        """Raises DatasetError if the address has a user name or password."""
        super().__init__(name, url, models)
        self._request = Download(
            f"The text {name}", self.url, max_bytes, self.sha256, timeout_s, total_timeout_s, retry_delays_s
        )
        if "@" in urlsplit(self.url).netloc:
            raise DatasetError(
                f"The address {self.place} has a user name or a password, which are not sent. Download the "
                "file yourself and put it into a folder in data."
            )

    @property
    def place(self) -> str:
        return public_url(self.url)

    def _source(self, path: Path) -> str:
        return f"the text {self.name} ({path.name} from {urlsplit(self.url).hostname})"

    def _download(self, folder: Path, on_progress: ProgressCallback) -> Record:
        operation = f"Downloading {self.name}"
        unnamed = folder / "download"
        with unnamed.open("wb") as file:
            downloaded = self._request.to_file(file, lambda done, total: on_progress(operation, done, total))
        name = self._file_name(downloaded.url)
        unnamed.rename(folder / name)
        return Record(name, downloaded.size, downloaded.sha256)

    def _file_name(self, redirected: str) -> str:
        """The name to store the file under, from the address or the one that it redirected to."""
        names = [printable_name(unquote(urlsplit(url).path).rpartition("/")[2]) for url in (self.url, redirected)]
        for name in names:
            if TextForm.of(name) is not None:
                return name[-_MAX_NAME:].lstrip(".")
        raise DownloadError(
            f"{self.place} is not the address of a text: its name, {names[0] or '(none)'}, is not that of "
            f"one of the {SUPPORTED}.",
            is_permanent=True,
        )
