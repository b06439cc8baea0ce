"""Byte-level BPE: frequent sequences of bytes are tokens. Hugging Face `tokenizers` trains it, tiktoken runs it."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from gptbox.errors import DatasetError, ModelFolderError
from gptbox.system.cpus import available_cpus
from gptbox.tokenizers.base import MANY_CHARACTERS, Tokenizer
from gptbox.tokenizers.byte_level import SYMBOLS, from_symbols, surrogates, to_symbols, without_surrogates
from gptbox.tokenizers.merges import derive_merges, without_unreachable
from gptbox.tokenizers.segments import segments

if TYPE_CHECKING:
    from tiktoken import Encoding

EOS = "<|endoftext|>"
"""Name of the end-of-text token, as in GPT-2. In a text, these characters are text like any other."""

_APOSTROPHE = "\u2019"
_JOINERS = "\u200c\u200d"  # within words, as in Persian and Hindi, and between emoji
PATTERN = (
    rf"[ '{_APOSTROPHE}]?[\p{{L}}\p{{M}}][\p{{L}}\p{{M}}{_JOINERS}]*"
    r"| ?\p{N}{1,2}\p{M}*"
    r"| ?[^\s\p{L}\p{M}\p{N}][^\s\p{L}\p{N}]*"
    r"|\s+(?!\S)|\s+"
)
r"""The pieces of a text within which bytes are merged: words, numbers, symbols and white space.

GPT-2's pattern, with the changes that later ones brought. GPT-2's \p{L} ends a word at each combining mark, in the
middle of a syllable of Hindi or Thai; here marks (\p{M}) belong to words, as in OpenAI's o200k_base, and to the number
or symbol that they follow, as in emoji. A word takes the space or the apostrophe before it, as in cl100k_base, instead
of English contractions. A piece has at most two digits, as in nanochat: longer numbers would fill a small vocabulary.
"""

MIN_VOCAB_SIZE, MAX_VOCAB_SIZE = 512, 4096
"""Bounds of the vocabulary's size. A text with few repetitions has less than the minimum.

At the maximum, the embeddings of a model of five minutes (128 wide) have as many parameters as its layers.
"""
_MIN_FREQUENCY = 10  # occurrences of a token in the sample; one with fewer is hardly learned
_MAX_TOKEN_BYTES = 64  # no token is a long run of dashes or spaces
_SAMPLE_BYTES = 16_000_000  # of the text, from which the tokens are learned: 4,000 for each
_SAMPLE_WORD_BYTES = 2_000_000  # of the different words in the sample: training takes a hundred bytes for each of them
_SLICE = 1 << 14  # characters of the slices in the sample

_JOB_CHARACTERS = 1 << 16  # of short documents, encoded in one call of a thread


def vocab_size_for(num_bytes: int, num_characters: int = 0) -> int:
    """Size of the vocabulary for a text of this size in UTF-8: a power of two, within the bounds.

    The number of different words in a text grows with about the square root of its length (Heaps' law). The size is
    near half of that root, or near all of it if the text has many different characters, of which most take three bytes.
    benchmarks/LOG.md has the bits per byte.
    """
    doublings = math.log2(max(1, num_bytes)) / 2 - (num_characters <= MANY_CHARACTERS)
    return min(MAX_VOCAB_SIZE, max(MIN_VOCAB_SIZE, 1 << max(0, round(doublings))))


class BPETokenizer(Tokenizer):
    """Tokens are sequences of bytes, numbered in the order in which they are merged; the last id is EOS."""

    name = "bpe"
    unit = "token"
    pattern: ClassVar[str] = PATTERN
    pre_tokenizer: ClassVar[dict[str, Any]] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }
    """The same pattern in a `tokenizer.json`."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        """`tokens` is the vocabulary by id, without EOS, with all 256 single bytes."""
        self.tokens = list(tokens)

    @classmethod
    def train(
        cls,
        blocks: Iterable[str],
        alphabet: Sequence[str] | None = None,
        num_bytes: int | None = None,
        data: Path | None = None,
    ) -> Self:
        """As `Tokenizer.train`; raises DatasetError if the package `tokenizers` is not installed."""
        try:
            from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
            from tokenizers import Tokenizer as Trained
        except ImportError:
            raise DatasetError(
                f"The tokenizer {cls.name} is trained by the Python package tokenizers, which is not installed. "
                "Install it: pip install tokenizers"
            ) from None
        if num_bytes is None:
            num_bytes = sum(len(block.encode("utf-8", "replace")) for block in blocks)
        trained = Trained(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(cls.pattern), "isolated"),
                # Training takes time with the square of a piece's length, such as a long line of dashes.
                pre_tokenizers.FixedLength(_MAX_TOKEN_BYTES),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        trained.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size_for(num_bytes, len(alphabet or ())) - 1,  # and EOS
            min_frequency=_MIN_FREQUENCY,
            max_token_length=_MAX_TOKEN_BYTES,
            initial_alphabet=SYMBOLS,
            show_progress=False,
        )
        trained.train_from_iterator(_sample(blocks, num_bytes), trainer)
        vocab = trained.get_vocab()
        return cls(without_unreachable([from_symbols(token) for token in sorted(vocab, key=vocab.__getitem__)]))

    @property
    def vocab_size(self) -> int:
        return len(self.tokens) + 1

    @property
    def eos_id(self) -> int:
        return len(self.tokens)

    @cached_property
    def _encoding(self) -> "Encoding":
        # Imported here, because programs that encode nothing need not wait for it.
        from tiktoken import Encoding

        ranks = {token: rank for rank, token in enumerate(self.tokens)}
        return Encoding(self.name, pat_str=self.pattern, mergeable_ranks=ranks, special_tokens={EOS: self.eos_id})

    @cached_property
    def _merges(self) -> list[str]:
        """The merges as in `tokenizer.json`: two tokens as symbols, with a space between them."""
        pairs = derive_merges(self.tokens)
        return [f"{to_symbols(pair[0])} {to_symbols(pair[1])}" for pair in pairs if pair is not None]

    def encode_blocks(self, blocks: Iterable[str]) -> Iterator[NDArray[np.unsignedinteger]]:
        return self.encode_documents(blocks)

    def encode_documents(self, blocks: Iterable[str | None]) -> Iterator[NDArray[np.unsignedinteger]]:
        """As `Tokenizer.encode_documents`, on all CPUs: tiktoken does not hold Python's lock."""
        jobs = _jobs(blocks)
        head = list(islice(jobs, 2))
        if len(head) < 2:  # a short text needs no threads
            yield from map(self._encode_job, head)
            return
        workers = available_cpus()
        pending: deque[Future[NDArray[np.unsignedinteger]]] = deque()
        with ThreadPoolExecutor(workers, "tokenizer") as executor:
            for job in chain(head, jobs):
                pending.append(executor.submit(self._encode_job, job))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def _encode_job(self, job: list[str | None]) -> NDArray[np.unsignedinteger]:
        """Ids of a list of segments, shape (tokens,); None becomes EOS."""
        ids = np.concatenate([self._eos if segment is None else self._encode_segment(segment) for segment in job])
        return ids.astype(self.dtype)

    @cached_property
    def _eos(self) -> NDArray[np.uint32]:
        return np.array([self.eos_id], np.uint32)

    def _encode_segment(self, segment: str) -> NDArray[np.uint32]:
        # tiktoken would make one character of two surrogates, which depends on where blocks end.
        return self._encoding.encode_to_numpy(without_surrogates(segment), disallowed_special=())

    def token_bytes(self, token: int) -> bytes:
        if token < len(self.tokens):
            return self.tokens[token]
        # A model's vocabulary may be padded beyond its tokenizer's.
        return b"" if token == self.eos_id else "\ufffd".encode()

    def token_text(self, token: int) -> str:
        return EOS if token == self.eos_id else super().token_text(token)

    def unknown(self, text: str) -> dict[str, str]:
        return surrogates(text)

    def to_json(self) -> dict[str, Any]:
        vocab = {to_symbols(token): i for i, token in enumerate(self.tokens)} | {EOS: self.eos_id}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {
                    "id": self.eos_id,
                    "content": EOS,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
            ],
            "normalizer": None,
            "pre_tokenizer": self.pre_tokenizer,
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": vocab,
                "merges": self._merges,
            },
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self | None:
        model, added = content.get("model") or {}, content.get("added_tokens") or []
        if model.get("type") != "BPE" or content.get("normalizer") or not cls._has_pattern(content):
            return None
        if [token.get("content") for token in added] != [EOS]:
            return None
        vocab = {symbols: i for symbols, i in (model.get("vocab") or {}).items() if symbols != EOS}
        if sorted(vocab.values()) != list(range(len(vocab))) or added[0].get("id") != len(vocab):
            raise ModelFolderError(f"tokenizer.json's vocabulary does not number its tokens from 0 up to {EOS}.")
        try:
            tokens = [from_symbols(symbols) for symbols in sorted(vocab, key=vocab.__getitem__)]
            merges = [_join(merge) for merge in model.get("merges") or []]
        except (ValueError, TypeError, AttributeError) as error:
            raise ModelFolderError(f"tokenizer.json's vocabulary is not in bytes: {error}.") from None
        if sorted(tokens[:256]) != [bytes((byte,)) for byte in range(256)]:
            raise ModelFolderError("tokenizer.json's vocabulary does not begin with the 256 bytes.")
        if merges != tokens[256:]:
            raise ModelFolderError("tokenizer.json's merges are not in the order of its vocabulary.")
        return cls(tokens)

    @classmethod
    def _has_pattern(cls, content: dict[str, Any]) -> bool:
        """Whether a `tokenizer.json` cuts texts with this class's pattern."""
        found = content.get("pre_tokenizer") or {}
        return bool(_essence(found) == _essence(cls.pre_tokenizer))


def _sample(blocks: Iterable[str], num_bytes: int) -> list[str]:
    """Evenly spaced slices of a text of this size, so that neither time nor memory of training grow with its length."""
    every = max(1, math.ceil(num_bytes / _SAMPLE_BYTES))
    slices = (
        segment[start : start + _SLICE]
        for segment in segments(blocks)
        if segment is not None
        for start in range(0, len(segment), _SLICE)
    )
    sample = [without_surrogates(part) for part in islice(slices, 0, None, every)]
    # The words of a text without spaces are long, and most of them different.
    words = {word for part in sample for word in part.split()}
    return sample[:: max(1, math.ceil(sum(len(word.encode()) for word in words) / _SAMPLE_WORD_BYTES))]


def _essence(pre_tokenizer: Any) -> Any:
    """A pre-tokenizer without the field that concerns offsets, not ids."""
    if isinstance(pre_tokenizer, dict):
        return {key: _essence(value) for key, value in pre_tokenizer.items() if key != "trim_offsets"}
    return [_essence(item) for item in pre_tokenizer] if isinstance(pre_tokenizer, list) else pre_tokenizer


def _join(merge: str | list[str]) -> bytes:
    """The token that a merge makes, given as "a b" or ["a", "b"]."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return from_symbols(left + right)


def _jobs(blocks: Iterable[str | None]) -> Iterator[list[str | None]]:
    """The segments of documents, each of which None ends, in lists of at least _JOB_CHARACTERS."""
    job: list[str | None] = []
    size = 0
    for segment in segments(blocks):
        job.append(segment)
        size += 1 if segment is None else len(segment)
        if size >= _JOB_CHARACTERS:
            yield job
            job, size = [], 0
    if job:
        yield job
