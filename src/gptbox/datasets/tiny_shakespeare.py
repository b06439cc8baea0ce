"""Tiny Shakespeare, the text of nanoGPT's character lesson: the user's copy, else a download, else the plays."""

import io
from dataclasses import replace
from pathlib import Path

from gptbox.datasets.base import Corpus, Dataset, FileStat
from gptbox.datasets.download import Download
from gptbox.datasets.plays import Plays
from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.datasets.text_file import read_files, stat_files
from gptbox.datasets.text_folder import dataset_folder, text_files
from gptbox.errors import DatasetError, DownloadError
from gptbox.tokenizers.char import CharTokenizer

# Pinned to a commit, because a branch may move.
URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
    "/data/tinyshakespeare/input.txt"
)
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

_MAX_BYTES = 8 * 1024 * 1024  # seven times the size of the text


class TinyShakespeare(Dataset):
    name = "shakespeare_char"

    def __init__(
        self,
        url: str = URL,
        fallback: Dataset | None = None,
        timeout_s: float = 10.0,
        total_timeout_s: float = 30.0,
        retry_delays_s: tuple[float, ...] = (0.5, 1.5),
    ) -> None:
        """`timeout_s` bounds each connect and read, `total_timeout_s` the whole download with its retries."""
        self.url = url
        self.fallback = fallback or Plays()
        self.timeout_s = timeout_s
        self.total_timeout_s = total_timeout_s
        self.retry_delays_s = retry_delays_s

    def read(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus:
        """`input.txt` in the dataset's folder; without it, the download; if that fails, the plays."""
        if corpus := self.read_user_files(data, on_progress):
            return corpus
        file = dataset_folder(data, self.name) / "input.txt"
        unused = text_files(file.parent)
        notes = [f"Only a file named {file} would be used, not {unused[0].name} beside it."] if unused else []
        try:
            return Corpus.from_text(self.download(), "Tiny Shakespeare (downloaded)", tuple(notes))
        except DownloadError as failure:
            advice = f"To train on it, save {self.url} as {file} and start a new run."
            try:
                plays = self.fallback.read(data, on_progress)
            except DatasetError as error:
                raise DownloadError(f"{failure} {advice} The plays cannot replace it: {error}") from None
            return replace(
                plays,
                source=f"{plays.source} (Tiny Shakespeare could not be downloaded)",
                notes=(*notes, str(failure), f"It is replaced by {plays.source}. {advice}", *plays.notes),
                tokenizer=CharTokenizer.name,  # as for Tiny Shakespeare itself
            )

    def _user_files(self, data: Path) -> list[Path]:
        file = dataset_folder(data, self.name) / "input.txt"
        return [file] if file in text_files(file.parent) else []

    def user_files(self, data: Path) -> tuple[FileStat, ...]:
        return stat_files(self._user_files(data))

    def read_user_files(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus | None:
        if not (files := self._user_files(data)):
            return None
        [file] = files
        corpus = read_files(self.name, files, f"Tiny Shakespeare ({file.name})", on_progress)
        if (sha256 := corpus.summary.sha256) == SHA256:
            return corpus
        note = f"{file} is not Tiny Shakespeare: its SHA-256 is {sha256}, not {SHA256}. It is used anyway."
        return replace(corpus, source=f"the text {self.name} ({file.name})", notes=(*corpus.notes, note))

    def download(self) -> str:
        """The text from `url`, verified by its SHA-256. Raises DownloadError."""
        content = io.BytesIO()
        Download(
            "Tiny Shakespeare", self.url, _MAX_BYTES, SHA256, self.timeout_s, self.total_timeout_s, self.retry_delays_s
        ).to_file(content)
        return content.getvalue().decode("utf-8")
