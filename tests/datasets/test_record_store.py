"""Records are kept in order, those with the same hash in the same part, in memory or in a file."""

from io import BytesIO

import numpy as np
import pytest

from gptbox.datasets import record_store
from gptbox.datasets.record_store import RecordStore

RECORD = np.dtype([("number", np.int64), ("hash", np.uint64)])


def records(count: int) -> np.ndarray:
    made = np.empty(count, RECORD)
    made["number"] = np.arange(count)
    made["hash"] = np.random.default_rng(0).integers(0, 1 << 64, 50, np.uint64)[np.arange(count) % 50]
    return made


@pytest.mark.parametrize("flush", [1, 7, 1000])
def test_each_part_has_its_records_in_order(flush: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_store, "_FLUSH", flush)
    file = BytesIO(b"before")
    store = RecordStore(file, 3, "hash")
    expected = records(200)
    for start in range(0, 200, 10):
        file.seek(0)  # others may read in between
        store.add(expected[start : start + 10])
    parts = [store.take(part) for part in range(3)]
    hashes = [set(part["hash"].tolist()) for part in parts]
    assert all(hashes)
    assert sum(map(len, hashes)) == len(set.union(*hashes)) == 50
    for part in parts:
        assert (np.diff(part["number"]) > 0).all()
    assert np.array_equal(np.sort(np.concatenate(parts), order="number"), expected)
    assert len(file.getvalue()) == len(b"before") + expected.nbytes
    store.close()
    assert file.getvalue() == b"before"


def test_a_single_part_stays_in_memory() -> None:
    file = BytesIO(b"before")
    store = RecordStore(file, 1, "hash")
    expected = records(100)
    store.add(expected[:60])
    store.add(expected[60:])
    assert np.array_equal(store.take(0), expected)
    store.close()
    assert file.getvalue() == b"before"
