"""What a run needs, and that it is refused where that is not there."""

from dataclasses import replace
from pathlib import Path

import pytest

from gptbox.errors import DoesNotFitError
from gptbox.train import preflight
from gptbox.train.preflight import MB, Needs, free_memory, needs, require
from gptbox.train.recipe import RECIPES


def of(**changes: object) -> Needs:
    config = replace(RECIPES[4].config, **changes)  # type: ignore[arg-type]
    return needs(config, config.model(65), shards=2, snapshots_kept=30)


def test_more_of_anything_needs_more() -> None:
    base = of()
    assert of(batch_size=32).memory > base.memory
    assert of(batch_size=32, accumulate=4).memory < of(batch_size=32).memory
    assert of(n_embd=256).memory > base.memory
    assert of(n_embd=256).disk > base.disk
    assert 300 * MB < base.memory < 700 * MB
    assert 50 * MB < base.disk < 150 * MB
    assert of(n_embd=2048, n_head=16).disk < 2**30 + 10 * 4 * RECIPES[4].config.model(65).parameters * 250


def test_what_does_not_fit_in_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFitError, match=r"need about 1,000,000,000 MB of memory, and only [\d,]+ MB more are"):
        require(Needs(10**15, 0), tmp_path)


def test_what_does_not_fit_on_the_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFitError, match=r"need about 1,000,000,000 MB on the disk of .*SNAPSHOTS_KEPT"):
        require(Needs(0, 10**15), tmp_path / "not" / "there" / "yet")


def test_what_fits_is_not(tmp_path: Path) -> None:
    require(Needs(10 * MB, 10 * MB), tmp_path)


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_s_limit_counts(tmp_path: Path, version: int) -> None:
    if version == 2:
        (tmp_path / "memory.max").write_text("1000000000\n")
        (tmp_path / "memory.current").write_text("700000000\n")
        (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 100000000\n")
    else:
        (tmp_path / "memory").mkdir()
        (tmp_path / "memory" / "memory.limit_in_bytes").write_text("1000000000\n")
        (tmp_path / "memory" / "memory.usage_in_bytes").write_text("700000000\n")
        (tmp_path / "memory" / "memory.stat").write_text("cache 5\ntotal_inactive_file 100000000\n")
    assert free_memory(tmp_path) == 400_000_000


def test_no_limit_leaves_the_machine_s(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700000000\n")
    (tmp_path / "memory.stat").write_text("inactive_file 0\n")
    free = free_memory(tmp_path)
    assert free is None or free > 100 * MB
    assert preflight.free_memory() == pytest.approx(free or 0, rel=0.2)
