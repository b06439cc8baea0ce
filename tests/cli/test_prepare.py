"""`gptbox prepare`."""

from pathlib import Path

from tests.cli.process import gptbox


def test_prepare_describes_the_text(home: Path) -> None:
    text = (home / "data" / "bottles" / "text.txt").read_text()
    done = gptbox(home, "prepare", "bottles", "--run", "only-prepared")
    assert done.returncode == 0, done.stderr
    assert f"{len(text):,} characters" in done.stdout
    assert "vocabulary: 29 characters: " in done.stdout
    assert (home / "models" / "only-prepared" / "dataset" / "train.bin").stat().st_size == int(len(text) * 0.9) * 2


def test_prepare_with_bytes_as_tokens(home: Path, tmp_path: Path) -> None:
    models = {"GPTBOX_MODELS": str(tmp_path)}
    done = gptbox(home, "prepare", "bottles", "--tokenizer", "byte", **models)
    assert done.returncode == 0, done.stderr
    assert "vocabulary: 256 bytes, of which" in done.stdout
    again = gptbox(home, "prepare", "bottles", **models)
    assert again.stdout == done.stdout
