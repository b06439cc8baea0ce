"""Bytes as printable characters, the form in which a `tokenizer.json` of byte-level BPE stores its tokens."""


def _symbols() -> list[str]:
    """The character that stands for each byte, as in GPT-2's `bytes_to_unicode`."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


SYMBOLS = _symbols()
"""The symbol of each byte."""
_BYTES = {ord(symbol): byte for byte, symbol in enumerate(SYMBOLS)}
_TO_SYMBOLS = dict(enumerate(SYMBOLS))


def to_symbols(content: bytes) -> str:
    """Bytes as symbols, one character per byte."""
    return content.decode("latin-1").translate(_TO_SYMBOLS)


def from_symbols(symbols: str) -> bytes:
    """The bytes that symbols stand for. Raises ValueError for any other character."""
    try:
        return bytes([_BYTES[ord(symbol)] for symbol in symbols])
    except KeyError:
        raise ValueError(f"{symbols!r} has a character that stands for no byte") from None


def without_surrogates(text: str) -> str:
    """The text with "?" for each lone surrogate, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


def surrogates(text: str) -> dict[str, str]:
    """The characters that `without_surrogates` replaces, mapped to "?", in order of first appearance."""
    return {character: "?" for character in dict.fromkeys(text) if "\ud800" <= character <= "\udfff"}
