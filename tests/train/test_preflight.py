"""Estimates of memory and disk space, and refusal of runs that do not fit."""

from pathlib import Path

import pytest

from gptbox.errors import DoesNotFitError
from gptbox.train import preflight
from gptbox.train.config import with_changes
from gptbox.train.optim import OPTIMIZERS
from gptbox.train.preflight import MB, Requirements, available_memory, check_requirements, estimate_requirements
from gptbox.train.recipe import RECIPES


def required(**changes: object) -> Requirements:
    config = with_changes(RECIPES[4].config, **changes)  # type: ignore[arg-type]
    return estimate_requirements(config, num_workers=2, snapshots_kept=30)


def test_larger_models_and_batches_need_more() -> None:
    base = required()
    assert required(batch_size=32).memory > base.memory
    assert required(batch_size=32, accumulate=4).memory < required(batch_size=32).memory
    assert required(n_embd=256).memory > base.memory
    assert required(n_embd=256).disk > base.disk
    assert 300 * MB < base.memory < 700 * MB
    assert 50 * MB < base.disk < 150 * MB
    assert required(n_embd=2048, n_head=16).disk < 2**30 + 10 * 4 * RECIPES[4].config.model.parameters * 250


def test_an_optimizer_s_moments_and_initial_weights_take_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    base, weights = required(), 4 * RECIPES[4].config.model.parameters
    assert required(init="first").memory == base.memory + weights
    monkeypatch.setattr(OPTIMIZERS["muon"], "moments", 3)
    assert required().memory == base.memory + 2 * weights, "beside the moment, its copy while a checkpoint is written"
    assert required().disk == base.disk + 2 * weights


def test_a_run_that_does_not_fit_in_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFitError, match=r"need about 1,000,000,000 MB of memory, and only [\d,]+ MB more are"):
        check_requirements(Requirements(10**15, 0), tmp_path)


def test_a_run_that_does_not_fit_on_the_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFitError, match=r"need about 1,000,000,000 MB on the disk of .*SNAPSHOTS_KEPT"):
        check_requirements(Requirements(0, 10**15), tmp_path / "not" / "there" / "yet")


def test_a_run_that_fits_is_accepted(tmp_path: Path) -> None:
    check_requirements(Requirements(10 * MB, 10 * MB), tmp_path)


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_s_memory_limit_counts(tmp_path: Path, version: int) -> None:
    if version == 2:
        (tmp_path / "memory.max").write_text("1000000000\n")
        (tmp_path / "memory.current").write_text("700000000\n")
        (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 100000000\n")
    else:
        (tmp_path / "memory").mkdir()
        (tmp_path / "memory" / "memory.limit_in_bytes").write_text("1000000000\n")
        (tmp_path / "memory" / "memory.usage_in_bytes").write_text("700000000\n")
        (tmp_path / "memory" / "memory.stat").write_text("cache 5\ntotal_inactive_file 100000000\n")
    assert available_memory(tmp_path) == 400_000_000


def test_without_a_limit_the_machine_s_memory_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700000000\n")
    (tmp_path / "memory.stat").write_text("inactive_file 0\n")
    free = available_memory(tmp_path)
    assert free is None or free > 100 * MB
    assert preflight.available_memory() == pytest.approx(free or 0, rel=0.2)
