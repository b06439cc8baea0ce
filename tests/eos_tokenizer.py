"""A tokenizer with an end-of-text token, for models whose own tokenizer has none."""

import pytest

from gptbox.tokenizers.char import CharTokenizer


class EosTokenizer(CharTokenizer):
    """Reads a model of characters, one of which is the end of a text."""

    character: str

    @property
    def eos_id(self) -> int:
        return self.ids[self.character]

    def token_text(self, token: int) -> str:
        return "<|endoftext|>" if token == self.eos_id else super().token_text(token)

    def _character(self, token: int) -> str:
        return "" if token == self.eos_id else super()._character(token)


def load_with_eos(monkeypatch: pytest.MonkeyPatch, character: str) -> None:
    """Let models that are loaded from now on take this character for the end of a text."""
    monkeypatch.setattr(EosTokenizer, "character", character, raising=False)
    monkeypatch.setattr("gptbox.tokenizers.TOKENIZERS", {"char": EosTokenizer})
