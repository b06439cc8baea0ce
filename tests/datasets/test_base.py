"""The summary of a corpus does not depend on its blocks."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from gptbox.datasets.base import CorpusSummary, Document

blocks = st.lists(st.text(max_size=5).filter(lambda text: text.isprintable() or "\n" in text), max_size=20)


@given(documents=st.lists(blocks, max_size=4))
def test_the_summary_is_that_of_the_whole_text(documents: list[list[str]]) -> None:
    text = "".join(map("".join, documents))
    summary = CorpusSummary.of(Document("", blocks) for blocks in documents)
    assert summary.documents == len(documents)
    assert summary.characters == len(text)
    assert summary.bytes == len(text.encode())
    assert summary.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert summary.alphabet == tuple(sorted(set(text)))
