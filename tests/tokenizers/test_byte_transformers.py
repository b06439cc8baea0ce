"""transformers.AutoTokenizer reads a folder with the byte tokenizer and gives the same ids and the same text."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tokenizers.published import load, publish

from gptbox.models.config import Architecture
from gptbox.tokenizers import tokenizer_from_json
from gptbox.tokenizers.byte import ByteTokenizer

OURS = ByteTokenizer()
architectures = pytest.mark.parametrize("architecture", get_args(Architecture))
texts = st.text(st.characters(codec="utf-8")) | st.text(st.sampled_from(" \n\t\r'.,!<|>sS0é\u0301ﬁ日🐎\u200b\ufffd"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """transformers' tokenizer for each architecture."""
    return {name: load(publish(tmp_path_factory.mktemp("model"), name, OURS)) for name in get_args(Architecture)}


@architectures
class TestTheSame:
    @settings(deadline=None)
    @given(text=texts)
    def test_ids_and_text(self, theirs: dict[str, Any], architecture: Architecture, text: str) -> None:
        ids = OURS.encode(text).tolist()
        assert theirs[architecture].encode(text) == ids
        assert theirs[architecture](text)["input_ids"] == ids
        assert theirs[architecture].decode(ids) == text
        assert theirs[architecture].decode(ids, skip_special_tokens=True) == text

    @settings(deadline=None)
    @given(ids=st.lists(st.integers(0, 255), max_size=12))
    def test_text_of_any_bytes(self, theirs: dict[str, Any], architecture: Architecture, ids: list[int]) -> None:
        assert theirs[architecture].decode(ids) == OURS.decode(ids)

    def test_the_vocabulary(self, theirs: dict[str, Any], architecture: Architecture) -> None:
        assert len(theirs[architecture]) == theirs[architecture].vocab_size == OURS.vocab_size == 256
        assert theirs[architecture].all_special_tokens == []
        assert theirs[architecture].eos_token_id is OURS.eos_id is None
        assert theirs[architecture].model_max_length == 16

    def test_white_space_is_kept(self, theirs: dict[str, Any], architecture: Architecture) -> None:
        for text in (" a  b   .", "\n\na\n \n", "a , b ! 'b n't", "", " ", "x" * 5000):
            assert theirs[architecture].decode(theirs[architecture].encode(text)) == text


@architectures
def test_a_folder_saved_by_transformers_still_gives_the_same_ids(architecture: Architecture) -> None:
    with TemporaryDirectory() as folder:
        load(publish(Path(folder), architecture, OURS)).save_pretrained(f"{folder}/again")
        text = "Zwölf Boxkämpfer\n\n  jagen   🐎\n"
        assert load(Path(folder) / "again").encode(text) == OURS.encode(text).tolist()
        saved = json.loads((Path(folder) / "again" / "tokenizer.json").read_text(encoding="utf-8"))
        assert tokenizer_from_json(saved).encode(text).tolist() == OURS.encode(text).tolist()
