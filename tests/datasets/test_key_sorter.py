"""Keys come back in order, in parts by their highest bits, from memory or from the disk."""

from pathlib import Path

import numpy as np
import pytest

from gptbox.datasets import key_sorter
from gptbox.datasets.key_sorter import KeySorter
from gptbox.models.ngram_index import Hashes


def random_keys(count: int) -> Hashes:
    return np.random.default_rng(1).integers(0, 1 << 64, count, np.uint64)


def keep(keys: Hashes) -> Hashes:
    return keys


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 20_000])
def test_the_parts_are_all_keys_in_order(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_sorter, "RUN", 1000)
    keys = random_keys(count)
    sorter = KeySorter(tmp_path, count, keep)
    for some in np.array_split(keys, 37):
        sorter.add(some)
    sorter.finish()
    assert sorter.num_keys == count
    parts = list(sorter.parts())
    assert len(parts) == 1 << sorter.part_bits
    for part, some in enumerate(parts):
        assert sorter.part_bits == 0 or (some >> np.uint64(64 - sorter.part_bits) == part).all()
    assert np.array_equal(np.concatenate(parts), np.sort(keys))
    assert max(map(len, parts)) <= 1200
    sorter.close()
    assert list(tmp_path.iterdir()) == []


def test_keys_are_thinned_in_each_run_and_in_each_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_sorter, "RUN", 1000)
    sorter = KeySorter(tmp_path, 20_000, np.unique)
    keys = random_keys(100)
    for _ in range(200):
        sorter.add(keys)
    sorter.finish()
    assert sorter.num_keys == 20 * 100
    assert np.array_equal(np.concatenate(list(sorter.parts())), np.sort(keys))
    sorter.close()
