"""What is known of a text before training on it: its size, odd characters and repeated passages, and what to expect."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.datasets.repeats import find_repeats
from gptbox.datasets.squeezed_text import SqueezedText
from gptbox.tokenizers import printable

PASSAGE = 200
"""Characters, white space not counted, of the shortest passage that is reported if it occurs twice."""
CONTEXT_LENGTH = 256
"""The context of all recipes for a minute or more."""
RUN_TOKENS = 8_000_000
"""Tokens that a run of five minutes reads on two cores, about."""

_BY_HEART = 40  # a text that a run reads more often is mostly memorised
_FOR_HOURS = 3  # a text that five minutes read less often is new to a longer and larger run, too
_MAX_ODD = 20  # characters named


@dataclass(frozen=True)
class OddCharacter:
    """A control, invisible, private or unassigned character, or U+FFFD."""

    character: str
    count: int
    document: str
    line: int
    """Line of the document in which it occurs first, from 1."""


@dataclass(frozen=True)
class RepeatedPassage:
    """A passage of the text that occurs again."""

    document: str
    line: int
    """Line of the document in which it begins, from 1."""
    again_document: str
    again_line: int
    length: int
    """Characters, white space not counted."""
    words: str
    """The beginning of the passage."""


@dataclass(frozen=True)
class HealthReport:
    """Facts about a text. White space is ignored where passages are compared and their characters counted."""

    characters: int
    bytes: int
    """Size in UTF-8."""
    documents: int
    distinct_characters: int
    odd_characters: int
    """Number of distinct odd characters."""
    odd: tuple[OddCharacter, ...]
    """The first of them, in order of first occurrence."""
    visible: int
    """Characters that are not white space."""
    copied: int
    """Visible characters in passages of at least PASSAGE characters that equal an earlier passage."""
    val_visible: int
    """Visible characters of the validation split."""
    val_in_train: int
    """Visible characters of the validation split in passages that are also in the training split."""
    first_repeat: RepeatedPassage | None
    """The first passage that equals an earlier one."""

    @classmethod
    def of(cls, text: SqueezedText, name: str, on_progress: ProgressCallback = no_progress) -> Self:
        """The report on the text of the dataset `name`, whose corpus has been read through `text`.

        Raises OSError if the file of symbols cannot be read or written, DatasetError if the corpus cannot be read.
        """
        symbols = text.symbols()
        repeats = find_repeats(symbols, PASSAGE, on_progress, name)
        first = None
        if repeats.first is not None:
            (place, words), (again, _) = text.locate(repeats.first.earlier, repeats.first.later)
            first = RepeatedPassage(*place, *again, repeats.first.length, words)
        summary = text.corpus.summary
        odd = [OddCharacter(character, each.count, *each.first) for character, each in text.odd.items()]
        return cls(
            characters=summary.characters,
            bytes=summary.bytes,
            documents=summary.documents,
            distinct_characters=len(summary.alphabet),
            odd_characters=len(odd),
            odd=tuple(odd[:_MAX_ODD]),
            visible=symbols.num_symbols,
            copied=repeats.copied,
            val_visible=symbols.num_symbols - symbols.num_train,
            val_in_train=repeats.val_in_train,
            first_repeat=first,
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read what `asdict` gave; ignores fields of later versions. Raises TypeError or KeyError."""
        known = {field.name: content[field.name] for field in fields(cls)}
        first = known["first_repeat"]
        return cls(
            **known
            | {
                "odd": tuple(OddCharacter(**odd) for odd in known["odd"]),
                "first_repeat": None if first is None else RepeatedPassage(**first),
            }
        )

    def lines(self) -> list[str]:
        """The report in lines for people."""
        documents = f", {self.documents:,} documents" if self.documents > 1 else ""
        return [
            f"size: {self.characters:,} characters, {self.bytes:,} bytes{documents}",
            f"alphabet: {self.distinct_characters:,} different characters",
            *self.findings(),
        ]

    def findings(self) -> list[str]:
        """The lines on odd characters and repeated passages."""
        return [*self._odd_lines(), *self._repeat_lines()]

    def _odd_lines(self) -> Iterator[str]:
        if self.odd:
            items = [
                f"{printable(odd.character)} ({odd.count:,} x, first in {_place(odd.document, odd.line)})"
                for odd in self.odd
            ]
            more = f" and {self.odd_characters - len(self.odd):,} more" if self.odd_characters > len(self.odd) else ""
            yield f"odd characters: {', '.join(items)}{more}"

    def _repeat_lines(self) -> Iterator[str]:
        if not self.copied:
            yield f"repeated passages: none of {PASSAGE} characters or more, white space ignored"
            return
        yield (
            f"repeated passages: {_share(self.copied, self.visible)} of the text has occurred before, "
            f"{self.copied:,} characters in passages of {PASSAGE} or more, white space ignored"
        )
        if (first := self.first_repeat) is not None:
            yield (
                f"first repeated passage: {first.length:,} characters from {_place(first.document, first.line)}, "
                f"again from {_place(first.again_document, first.again_line)}: {first.words}"
            )
        if self.val_in_train:
            share = _share(self.val_in_train, self.val_visible)
            yield (
                f"validation text: {share} of it is in the training text, too, in such passages; "
                "the validation loss will be lower than on new text"
            )
        else:
            yield "validation text: no such passage of it is in the training text"


def _place(document: str, line: int) -> str:
    return f"line {line:,} of {document}"  # of a document that may itself be "a.jsonl, line 7"


def _share(part: int, whole: int) -> str:
    percent = 100 * part / whole
    if percent < 0.1:
        return "less than 0.1 %" if part else "0 %"
    return f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def outlook(
    train_tokens: int,
    val_tokens: int,
    unit: str,
    context_length: int = CONTEXT_LENGTH,
    run_tokens: int = RUN_TOKENS,
) -> list[str]:
    """What to expect of training on splits of these sizes, in lines for people.

    `unit` is what a token is, `context_length` the context that a run would like to have, and `run_tokens` the number
    of tokens that a run of five minutes reads.
    """
    lines = []
    longest = max(0, min(train_tokens, val_tokens) - 1)  # see PreparedDataset.require_context
    if longest < context_length:
        lines.append(
            f"too short for a context of {context_length:,} {unit}s: the validation text has {val_tokens:,}, enough "
            f"for a context of {longest:,}"
        )
    epochs = run_tokens / max(1, train_tokens)
    if epochs > _BY_HEART:
        expectation = "too small to learn more than by heart"
    elif epochs > _FOR_HOURS:
        expectation = "good for a model of five minutes, too small for one of hours"
    else:
        expectation = "large enough for a model of hours"
    if epochs >= 1.5:
        reading = f"reads it about {epochs:,.0f} times"
    else:
        reading = f"reads about {_share(run_tokens, train_tokens)} of it"
    lines.append(f"outlook: {expectation}; a run of five minutes on two cores {reading}")
    return lines
