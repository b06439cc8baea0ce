"""Compiling the kernels at the first start."""

import shutil
from pathlib import Path

from tests.train.commands import status_of, train


def test_the_minutes_of_the_first_start_count_after_compiling(home: Path) -> None:
    """If compiling counted, this run would finish after 0 steps."""
    kernels = home / "kernels"
    kernels.mkdir()
    done = train(home, "bottles", "--minutes", "0.15", GPTBOX_KERNELS=str(kernels))
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    compiling = next(i for i, line in enumerate(said) if line.startswith("Compiling the training kernels"))
    assert compiling < next(i for i, line in enumerate(said) if line.startswith("Plan: "))
    status = status_of(home)
    assert status.step > 50
    assert status.elapsed_s <= 9.5
    again = train(home, "bottles", "--minutes", "0.2", GPTBOX_KERNELS=str(kernels))
    assert "Compiling" not in again.stdout
    shutil.rmtree(kernels)
