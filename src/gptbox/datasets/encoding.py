"""The encoding of a text that is not UTF-8: told by its byte order mark, or guessed from a sample.

Candidates are the encodings of the web (https://encoding.spec.whatwg.org) and DOS's for Western Europe.
charset-normalizer says which of them the sample can be in; for the Latin script, many remain. What decides between them
is whether the letters beyond ASCII that come out are those of one language: "ñ" beside "ó" is Spanish, "ń" is not.
"""

import codecs
import re
import unicodedata
from collections import Counter
from typing import NamedTuple

SAMPLE_BYTES = 1 << 20
"""Bytes that a guess is made from, counted from the first one that is not ASCII: English text has few of these."""
MIN_CONFIDENCE = 0.9
"""For a text to be converted."""
MIN_MENTIONED = 0.75
"""For a guess to be named in an error."""

# Longer byte order marks first: UTF-32's begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF8: ("utf-8", "UTF-8"),
    codecs.BOM_UTF32_LE: ("utf-32-le", "UTF-32"),
    codecs.BOM_UTF32_BE: ("utf-32-be", "UTF-32"),
    codecs.BOM_UTF16_LE: ("utf-16-le", "UTF-16"),
    codecs.BOM_UTF16_BE: ("utf-16-be", "UTF-16"),
}
LONGEST_MARK = max(map(len, _MARKS))

# Python's name -> that of the web and of iconv. The first is preferred where several fit equally well.
_CANDIDATES = {
    "cp1252": "WINDOWS-1252",
    "cp1250": "WINDOWS-1250",
    "cp1251": "WINDOWS-1251",
    "cp1253": "WINDOWS-1253",
    "cp1254": "WINDOWS-1254",
    "cp1255": "WINDOWS-1255",
    "cp1256": "WINDOWS-1256",
    "cp1257": "WINDOWS-1257",
    "cp1258": "WINDOWS-1258",
    "iso8859_2": "ISO-8859-2",
    "iso8859_5": "ISO-8859-5",
    "iso8859_7": "ISO-8859-7",
    "iso8859_15": "ISO-8859-15",
    "koi8_r": "KOI8-R",
    "koi8_u": "KOI8-U",
    "cp866": "CP866",
    "cp874": "CP874",
    "cp850": "CP850",
    "mac_roman": "MACINTOSH",
    "gb18030": "GB18030",
    "big5": "BIG5",
    "euc_jp": "EUC-JP",
    "cp932": "CP932",
    "euc_kr": "EUC-KR",
}
# The letters beyond ASCII of languages in the Latin script (after Unicode's CLDR, exemplar characters).
_ALPHABETS = (
    "äöüß",  # German
    "àâæçéèêëîïôœùûüÿ",  # French
    "áéíñóúüºª",  # Spanish
    "áâãàçéêíóôõúüºª",  # Portuguese
    "àèéìíîòóùú",  # Italian
    "àçéèíïóòúü",  # Catalan
    "áéíóúëïöüè",  # Dutch
    "åäöé",  # Swedish, Finnish
    "æøåéòôü",  # Danish, Norwegian
    "áæðéíóöúýþ",  # Icelandic
    "ąćęłńóśźż",  # Polish
    "áčďéěíňóřšťúůýž",  # Czech
    "áäčďéíĺľňóôŕšťúýž",  # Slovak
    "áéíóöőúüű",  # Hungarian
    "ăâîșțşţ",  # Romanian
    "čćđšž",  # Croatian, Slovene
    "ąčęėįšųūž",  # Lithuanian
    "āčēģīķļņšūž",  # Latvian
    "äõöüšž",  # Estonian
    "çğıöşüâîû",  # Turkish
    "ëç",  # Albanian
    "ăâđêôơưàáãèéìíòóùúýõ\u0300\u0301\u0303\u0309\u0323",  # Vietnamese, with its combining accents
)
_TYPOGRAPHY = frozenset("‘’‚“”„«»‹›–—…·•§°€£©®™¡¿´²³½¼†×\u00a0\u00ad")  # noqa: RUF001
_MULTIBYTE = frozenset(("gb18030", "big5", "euc_jp", "cp932", "euc_kr"))  # a text in another script is rarely valid
_MIN_LEAD = 0.12  # in charset-normalizer's coherence and chaos, for a script to win over another
_EVIDENCE_BYTES = 1 << 14  # of lines that are not ASCII; more hardly changes a guess
_NOT_ASCII_LINE = re.compile(rb"[^\n]*[\x80-\xff][^\n]*\n?")
# A byte that is never a part of a longer character, in any of the candidates.
_LAST_BOUNDARY = re.compile(rb".*[\t-\r -/]", re.DOTALL)


class Encoding(NamedTuple):
    codec: str
    """Python's name."""
    name: str
    """The name that people and iconv use."""
    confidence: float = 1.0
    """1 for a byte order mark; below it for a guess."""


class _Fit(NamedTuple):
    """How well a decoded text resembles one that people write; a better one is larger."""

    explained: float
    """Share of the characters beyond ASCII that are letters of one language or signs of typography."""
    is_typical: bool = False
    """Whether most of the letters beyond ASCII of that language occur."""
    script: bool = False
    """Whether the text is in another script than the Latin one."""


def by_mark(head: bytes) -> tuple[Encoding, int] | None:
    """The encoding that a byte order mark at the beginning names, and the length of the mark; None without a mark."""
    for mark, (codec, name) in _MARKS.items():
        if head.startswith(mark):
            return Encoding(codec, name), len(mark)
    return None


def is_mostly_utf8(sample: bytes) -> bool:
    """Whether a sample is UTF-8, perhaps with a few damaged bytes, and not another encoding."""
    try:
        codecs.utf_8_decode(sample, "strict", False)  # the sample may end within a character
    except UnicodeDecodeError:
        beyond_ascii = [character for character in sample.decode("utf-8", "replace") if character >= "\x80"]
        damaged = beyond_ascii.count("\ufffd") - sample.count("\ufffd".encode())
        return len(beyond_ascii) > 2 * damaged
    return True


def guess(sample: bytes) -> Encoding | None:
    """The most probable encoding of a sample that is not UTF-8, with its confidence; None if no candidate fits.

    The confidence is the share of the characters beyond ASCII that one language or one script explains, times n / (n+2)
    for n bytes beyond ASCII, n / (n+10) for other scripts than the Latin one; half of that if another script explains
    as much and its language is nearly as probable.
    """
    # Imported here, because few texts need it.
    from charset_normalizer import from_bytes

    evidence = _evidence(sample)
    fits = []
    for match in from_bytes(evidence, cp_isolation=list(_CANDIDATES)):  # the most probable ones first
        same = {match.encoding, *match.could_be_from_charset}
        if codec := next((codec for codec in _CANDIDATES if codec in same), None):
            fits.append((_fit(str(match)), codec, match))
    if not fits:
        return None
    fit, codec, best = max(fits, key=lambda each: (each[0], each[1] == next(iter(_CANDIDATES))))
    num_bytes = len(evidence.translate(None, bytes(range(128))))
    confidence = fit.explained * num_bytes / (num_bytes + (10 if fit.script else 2))
    if fit.script and codec not in _MULTIBYTE:
        others = [match for other, _, match in fits if other == fit and match is not best]
        lead = min((best.coherence - other.coherence + other.chaos - best.chaos for other in others), default=1)
        confidence *= 1 if lead >= _MIN_LEAD else 0.5
    return Encoding(codec, _CANDIDATES[codec], confidence)


def _evidence(sample: bytes) -> bytes:
    """The first lines of a sample that are not ASCII, not cut within a character."""
    evidence, is_cut = b"", False
    for line in _NOT_ASCII_LINE.finditer(sample):
        is_cut = len(sample) >= SAMPLE_BYTES and not line[0].endswith(b"\n")
        if evidence and (is_cut or len(evidence) + len(line[0]) > _EVIDENCE_BYTES):
            return evidence
        evidence += line[0]
    if (is_cut or len(evidence) > _EVIDENCE_BYTES) and (cut := _LAST_BOUNDARY.match(evidence[:_EVIDENCE_BYTES])):
        return cut[0]
    return evidence


def _fit(text: str) -> _Fit:
    beyond_ascii = Counter(character for character in text.lower() if character >= "\x80")
    letters = Counter({character: n for character, n in beyond_ascii.items() if character.isalpha()})
    ascii_letters = sum(character.isascii() and character.isalpha() for character in text)
    # Texts in the Latin script have more ASCII letters than others; texts in other scripts hardly have any.
    ascii_share = ascii_letters / max(1, ascii_letters + letters.total())
    latin = sum(n for character, n in letters.items() if unicodedata.name(character, "").startswith("LATIN"))
    if 2 * latin < letters.total():
        return _Fit(round(min(1, 2 * (1 - ascii_share)), 6), script=True)
    marks = sum(n for character, n in beyond_ascii.items() if character in _TYPOGRAPHY)
    if not letters:
        return _Fit(0.0 if "".join(beyond_ascii).isspace() else marks / beyond_ascii.total())
    explained, is_typical = max(
        (
            sum(beyond_ascii[letter] for letter in alphabet),
            2 * sum(letter in beyond_ascii for letter in alphabet) > len(alphabet),
        )
        for alphabet in _ALPHABETS
    )
    share = (explained + marks) / beyond_ascii.total() * min(1, 2 * ascii_share)
    return _Fit(round(share, 6), is_typical)
