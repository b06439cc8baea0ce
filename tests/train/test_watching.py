"""Default runs of five minutes, as they are: on all cores, on one, and beside a busy process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from gptbox.run_folder import RunFolder

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]


@contextmanager
def busy_process(cpu: int) -> Iterator[None]:
    """One that never waits, at normal priority, on a CPU."""
    spin = "import os\nos.sched_setaffinity(0, {int(os.environ['ON'])})\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", spin], env=os.environ | {"ON": str(cpu)})
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("cpus", "busy"), [((0, 1), None), ((0,), None), ((0, 1), 1), ((0,), 0)], ids=["two", "one", "two-busy", "one-busy"]
)
def test_a_default_run_can_be_watched_as_it_learns(
    tmp_path: Path, tiny_shakespeare: Path, cpus: tuple[int, ...], busy: int | None
) -> None:
    (tmp_path / "data" / "shakespeare_char").mkdir(parents=True)
    (tmp_path / "data" / "shakespeare_char" / "input.txt").write_bytes(tiny_shakespeare.read_bytes())

    def train() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "gptbox", "train"], cwd=tmp_path, capture_output=True, text=True, check=False,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )  # fmt: skip

    if busy is None:
        done = train()
    else:
        with busy_process(busy):
            done = train()
    assert done.returncode == 0, done.stderr
    run = RunFolder(tmp_path / "models", "shakespeare_char")
    status = run.status()
    assert status is not None
    steps = {row["step"] for row in run.rows("samples")}
    assert {f"step-{step:06d}" for step in steps} == {path.name for path in run.snapshots()}, "none was thinned out"
    at = [row["elapsed_s"] for row in run.rows("metrics") if row["step"] in steps and row["val_loss_estimate"]]
    gaps = [b - a for a, b in pairwise(at)]
    progress = torch.load(run.checkpoint / "state.pt", weights_only=True)["progress"]
    share = progress["evaluation_cpu_s"] / progress["cpu_s"]
    print(
        f"{len(at)} snapshots, at {', '.join(f'{each:.0f}' for each in at)} s; largest gap {max(gaps):.1f} s; "
        f"evaluations {100 * share:.1f} % of {progress['cpu_s']:.0f} CPU seconds; loss {status.best_val_loss:.4f}"
    )
    assert len(at) >= 24
    assert max(gaps) <= 0.1 * status.elapsed_s
    assert at[0] - progress["begun_s"] <= 10
    assert status.elapsed_s <= 303
