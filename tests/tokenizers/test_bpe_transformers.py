"""transformers.AutoTokenizer reads a folder with BPE, trained or GPT-2's, and gives the same ids and the same text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tokenizers.published import load, publish
from tests.tokenizers.texts import LONG, SENTENCES, sample, texts

from gptbox.models.config import Architecture
from gptbox.tokenizers import tokenizer_from_json
from gptbox.tokenizers.bpe import EOS, BPETokenizer
from gptbox.tokenizers.gpt2 import GPT2Tokenizer
from tokenizers import Tokenizer as HuggingFaceTokenizer

TRAIN: dict[str, Callable[[], BPETokenizer]] = {
    "bpe": lambda: BPETokenizer.train([sample()]),
    "bpe large": lambda: BPETokenizer.train([sample()], num_bytes=10**9),  # 4,096 tokens
    "bpe without merges": lambda: BPETokenizer.train([""]),
    "gpt2": lambda: GPT2Tokenizer.train([]),
}
architectures = pytest.mark.parametrize("architecture", get_args(Architecture))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[BPETokenizer, Any]]:
    """Our tokenizer and transformers', for each architecture and vocabulary."""
    result = {}
    for name, train in TRAIN.items():
        ours = train()
        for architecture in get_args(Architecture):
            result[architecture, name] = ours, load(publish(tmp_path_factory.mktemp("model"), architecture, ours))
    return result


def check(ours: BPETokenizer, theirs: Any, text: str) -> None:
    ids = ours.encode(text).tolist()
    assert theirs.encode(text) == ids
    assert theirs.decode(ids) == theirs.decode(ids, skip_special_tokens=True) == text == ours.decode(ids)


@pytest.mark.parametrize("name", TRAIN)
class TestTheSame:
    @architectures
    @settings(max_examples=250)
    @given(text=texts)
    def test_ids_and_text(self, pairs: Any, architecture: str, name: str, text: str) -> None:
        check(*pairs[architecture, name], text)

    @pytest.mark.acceptance
    @settings(max_examples=10_000)
    @given(text=texts)
    def test_ids_and_text_of_ten_thousand_texts(self, pairs: Any, name: str, text: str) -> None:
        check(*pairs["qwen3", name], text)

    @pytest.mark.parametrize("kind", LONG)
    def test_long_runs_of_one_kind(self, pairs: Any, name: str, kind: str) -> None:
        check(*pairs["qwen3", name], f"The beginning {LONG[kind]} the end")

    def test_every_script(self, pairs: Any, name: str) -> None:
        for sentence in SENTENCES.values():
            check(*pairs["gpt2", name], sentence)

    @settings(max_examples=50)
    @given(data=st.data())
    def test_text_of_any_tokens(self, pairs: Any, name: str, data: st.DataObject) -> None:
        ours, theirs = pairs["qwen3", name]
        ids = data.draw(st.lists(st.integers(0, ours.vocab_size - 1), max_size=12))
        # transformers writes the name of the end-of-text token, if not told to skip it.
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids)

    def test_the_vocabulary(self, pairs: Any, name: str) -> None:
        ours, theirs = pairs["gpt2", name]
        assert len(theirs) == theirs.vocab_size == ours.vocab_size
        assert theirs.eos_token_id == ours.eos_id
        assert theirs.eos_token == EOS
        assert theirs.model_max_length == 16

    def test_the_name_of_the_end_of_text_token_in_a_text(self, pairs: Any, name: str) -> None:
        """It is text, as in gptbox; only a caller who asks transformers for the token gets it."""
        ours, theirs = pairs["qwen3", name]
        text = f"a{EOS}b"
        assert ours.eos_id not in theirs.encode(text)
        check(ours, theirs, text)
        assert theirs.convert_tokens_to_ids(EOS) == ours.eos_id
        assert ours.eos_id in theirs.encode(text, split_special_tokens=False)


def test_the_bare_tokenizers_library_reads_the_name_of_the_token_as_the_token(tmp_path: Path) -> None:
    """tokenizer.json has no field against it; AutoTokenizer takes it from tokenizer_config.json."""
    ours = TRAIN["bpe"]()
    folder = publish(tmp_path, "qwen3", ours)
    bare = HuggingFaceTokenizer.from_file(str(folder / "tokenizer.json"))
    assert bare.encode(f"a{EOS}b").ids == [*ours.encode("a"), ours.eos_id, *ours.encode("b")]
    bare.encode_special_tokens = True
    assert bare.encode(f"a{EOS}b").ids == ours.encode(f"a{EOS}b").tolist()


def test_published_configuration_names_the_end_of_text_token(tmp_path: Path) -> None:
    ours = TRAIN["bpe"]()
    folder = publish(tmp_path, "qwen3", ours)
    read = {name: json.loads((folder / name).read_text()) for name in ("config.json", "generation_config.json")}
    assert {name: content["eos_token_id"] for name, content in read.items()} == dict.fromkeys(read, ours.eos_id)
    assert json.loads((folder / "tokenizer_config.json").read_text())["eos_token"] == EOS


@architectures
@pytest.mark.parametrize("name", ["bpe", "gpt2"])
def test_a_folder_saved_by_transformers_still_gives_the_same_ids(
    pairs: Any, tmp_path: Path, architecture: str, name: str
) -> None:
    ours, theirs = pairs[architecture, name]
    theirs.save_pretrained(tmp_path / "again")
    saved = json.loads((tmp_path / "again" / "tokenizer.json").read_text(encoding="utf-8"))
    again = tokenizer_from_json(saved)
    assert type(again) is type(ours)
    for text in (*SENTENCES.values(), f"a{EOS}b"):
        assert load(tmp_path / "again").encode(text) == ours.encode(text).tolist() == again.encode(text).tolist()


def test_a_lone_surrogate_is_refused_by_transformers_and_replaced_by_us(pairs: Any) -> None:
    ours, theirs = pairs["qwen3", "bpe"]
    with pytest.raises((UnicodeEncodeError, TypeError)):
        theirs.encode("a\ud800")
    assert ours.encode("a\ud800").tolist() == theirs.encode("a?")
