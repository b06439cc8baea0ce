"""Batches: which parts of the text each step reads."""

import numpy as np
import pytest
import torch

from gptbox.train import dataloader
from gptbox.train.dataloader import DataLoader


def test_a_batch_depends_only_on_seed_and_step() -> None:
    ids = np.arange(1000, dtype=np.uint16)
    loader = DataLoader(ids, 8, 16, seed=1)
    inputs, targets = loader.batch(5)
    assert inputs.shape == targets.shape == (8, 16)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(DataLoader(ids, 8, 16, seed=1).batch(5)[0], inputs)
    assert not torch.equal(loader.batch(6)[0], inputs)
    assert not torch.equal(DataLoader(ids, 8, 16, seed=2).batch(5)[0], inputs)


def test_crops_cover_the_whole_text() -> None:
    loader = DataLoader(np.arange(20, dtype=np.uint16), 64, 16, seed=0)
    inputs, targets = loader.batch(0)
    assert set(inputs[:, 0].tolist()) == {0, 1, 2, 3}
    assert int(targets.max()) == 19


def test_the_shortest_text_that_fits() -> None:
    inputs, targets = DataLoader(np.arange(17, dtype=np.uint16), 2, 16, seed=0).batch(0)
    assert inputs[0].tolist() == list(range(16))
    assert targets[0, -1] == 16


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 40])
def test_an_epoch_reads_every_window_once(batch_size: int, long: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if long:  # the permutation for texts of gigabytes
        monkeypatch.setattr(dataloader, "_MAX_PERMUTATION", 10)
        dataloader._epoch.cache_clear()
    ids = np.arange(1000, dtype=np.uint16)
    loader = DataLoader(ids, batch_size, 16, seed=3, sampling="epochs")
    windows = (1000 - 1) // 16 - 1
    firsts = np.concatenate([loader.batch(step)[0][:, 0].numpy() for step in range(2 * windows // batch_size + 1)])
    first, second = firsts[:windows], firsts[windows : 2 * windows]
    for epoch in (first, second):
        assert len(set(epoch)) == windows
        assert len(set(epoch % 16)) == 1, "windows are adjacent"
    assert list(first) != sorted(first)
    assert set(first) != set(second) or list(first) != list(second)
    assert firsts.max() + 16 < 1000
    dataloader._epoch.cache_clear()


def test_an_epoch_depends_only_on_seed_and_step() -> None:
    ids = np.arange(5000, dtype=np.uint16)
    loader = DataLoader(ids, 8, 16, seed=1, sampling="epochs")
    late, early = loader.batch(90)[0], loader.batch(3)[0]
    again = DataLoader(ids, 8, 16, seed=1, sampling="epochs")
    assert torch.equal(again.batch(3)[0], early)
    assert torch.equal(again.batch(90)[0], late)
    assert not torch.equal(DataLoader(ids, 8, 16, seed=2, sampling="epochs").batch(3)[0], early)


def test_the_shortest_text_that_fits_an_epoch() -> None:
    inputs, targets = DataLoader(np.arange(17, dtype=np.uint16), 2, 16, seed=0, sampling="epochs").batch(0)
    assert inputs[0].tolist() == list(range(16))
    assert targets[0, -1] == 16
