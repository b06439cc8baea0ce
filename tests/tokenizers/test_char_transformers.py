"""transformers.AutoTokenizer reads our folders and gives the same ids and the same text."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tokenizers.published import load, publish

from gptbox.models.config import Architecture
from gptbox.tokenizers.char import CharTokenizer

TINY = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
MIXED = "\x00\t\n\x0b\x0c\r\x1c\x85\u2028 ab\"'#\\_<|>é\u0301\u200b\u200d\u00adİ\u0131ßﬁ日本🐎\ue000\ufffd\U0010ffff"
VOCABULARIES = {"tiny": TINY, "mixed": MIXED, "no space": "abc", "special": "<|endoftext|>[UNK]"}

architectures = pytest.mark.parametrize("architecture", get_args(Architecture))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[CharTokenizer, Any]]:
    """Our tokenizer and transformers', for each architecture and vocabulary."""
    result = {}
    for architecture in get_args(Architecture):
        for name, vocabulary in VOCABULARIES.items():
            ours = CharTokenizer.train([vocabulary])
            folder = publish(tmp_path_factory.mktemp("model"), architecture, ours)
            result[architecture, name] = (ours, load(folder))
    return result


@architectures
@pytest.mark.parametrize("name", VOCABULARIES)
class TestTheSame:
    @settings(deadline=None)
    @given(data=st.data())
    def test_ids_and_text(self, pairs: Any, architecture: str, name: str, data: st.DataObject) -> None:
        ours, theirs = pairs[architecture, name]
        text = data.draw(st.text(st.sampled_from(VOCABULARIES[name])))
        ids = ours.encode(text).tolist()
        assert theirs.encode(text) == ids
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text
        assert theirs.decode(ids, skip_special_tokens=True) == text

    @settings(deadline=None)
    @given(text=st.text(st.characters(codec="utf-8") | st.sampled_from("\u2018\u201c\u2014\u2026\u00a0\t\r")))
    def test_ids_of_unknown_characters(self, pairs: Any, architecture: str, name: str, text: str) -> None:
        ours, theirs = pairs[architecture, name]
        assert theirs.encode(text) == ours.encode(text).tolist()

    def test_the_vocabulary(self, pairs: Any, architecture: str, name: str) -> None:
        ours, theirs = pairs[architecture, name]
        assert len(theirs) == theirs.vocab_size == ours.vocab_size
        assert [theirs.decode([i]) for i in range(ours.vocab_size)] == ours.characters
        assert theirs.all_special_tokens == []
        assert theirs.model_max_length == 16

    def test_white_space_is_kept(self, pairs: Any, architecture: str, name: str) -> None:
        ours, theirs = pairs[architecture, name]
        for text in (" a  b   .", "\n\na\n \n", "a , b ! 'b n't", "", " "):
            known = "".join(character for character in text if character in ours.ids)
            assert theirs.decode(theirs.encode(known)) == known


@architectures
def test_a_folder_saved_by_transformers_still_gives_the_same_ids(architecture: Architecture) -> None:
    with TemporaryDirectory() as folder:
        ours = CharTokenizer.train([TINY])
        load(publish(Path(folder), architecture, ours)).save_pretrained(f"{folder}/again")
        text = "First Citizen:\n\n  Before we   proceed\n"
        assert load(Path(folder) / "again").encode(text) == ours.encode(text).tolist()
