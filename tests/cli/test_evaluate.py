"""`gptbox eval`: the exact validation loss of a snapshot."""

from pathlib import Path

from tests.cli.process import gptbox

from gptbox.models.runs import RunFolder


def test_eval_measures_the_published_loss(trained: Path) -> None:
    status = RunFolder(trained / "models", "bottles").status()
    assert status is not None
    done = gptbox(trained, "eval", "bottles")
    assert f"step-000100: val_loss {status.best_val_loss:.4f} nats per token" in done.stdout
    assert "(windows of 64 tokens)" in done.stdout
    assert "(windows of 16 tokens)" in gptbox(trained, "eval", "bottles@latest", "--window", "16").stdout
