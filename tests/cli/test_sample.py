"""`gptbox sample`: the output of the lesson's sample.py, seeds and prompts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli.process import gptbox
from tests.conftest import TINY
from tests.eos_tokenizer import load_with_eos

from gptbox.cli.sample import sample
from gptbox.models.runs import RunFolder
from gptbox.tokenizers.byte import ByteTokenizer


def test_sample_prints_in_the_format_of_nanogpts_sample_py(trained: Path) -> None:
    done = gptbox(trained, "sample", "--start", "7 green", "--num-samples", "2", "--max-tokens", "60")
    assert done.returncode == 0, done.stderr
    first, *texts = done.stdout.split("\n", 1)
    assert first == "number of parameters: 0.80M"
    samples = texts[0].split("\n---------------\n")
    assert len(samples) == 3
    assert samples[2] == ""
    assert all(sample.startswith("7 green") and len(sample) == 7 + 60 for sample in samples[:2])
    assert samples[0] != samples[1]


def test_sample_repeats_with_the_same_seed(trained: Path) -> None:
    options = ("sample", "--num-samples", "1", "--max-tokens", "80", "--model", "bottles@step-000100")
    assert gptbox(trained, *options, "--seed", "5").stdout == gptbox(trained, *options, "--seed", "5").stdout
    assert gptbox(trained, *options, "--seed", "5").stdout != gptbox(trained, *options, "--seed", "6").stdout


def test_sample_reads_its_start_from_a_file_and_names_unknown_characters(trained: Path) -> None:
    (trained / "prompt.txt").write_text("1 grün", encoding="utf-8")
    done = gptbox(trained, "sample", "--start", "FILE:prompt.txt", "--num-samples", "1", "--max-tokens", "5")
    assert done.returncode == 0, done.stderr
    assert "\n1 gr n" in done.stdout
    assert done.stderr == "The model does not know ü and reads (space) instead.\n"


def test_sample_prints_whole_characters(tmp_path: Path, write_model: Callable[..., Path]) -> None:
    """Of a model that has learned nothing, and whose tokens are bytes."""
    run = RunFolder(tmp_path / "models", "bytes")
    path = write_model(run.snapshot(1), replace(TINY["qwen3"], vocab_size=256), tokenizer=ByteTokenizer())
    run.update_link("best", path)
    done = gptbox(tmp_path, "sample", "--temperature", "2", "--num-samples", "8", "--max-tokens", "101")
    assert done.returncode == 0, done.stderr
    texts = done.stdout.split("\n", 1)[1].split("\n---------------\n")[:-1]
    assert len(texts) == 8
    assert not any("\ufffd" in text or text.isascii() for text in texts)


def test_sample_ends_a_text_at_the_eos(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, where a test can give the model an EOS."""
    monkeypatch.chdir(trained)

    def texts() -> list[str]:
        sample(
            start="7 green", num_samples=4, seed=1, max_tokens=60, temperature=0.8, top_k=200, top_p=1.0, model=None,
            quantize=None,
        )  # fmt: skip
        _, out = capsys.readouterr().out.split("\n", 1)
        *samples, rest = out.split("\n---------------\n")
        assert rest == ""
        return samples

    whole = texts()
    eos = next(character for character in whole[2][30:] if character not in "7 green")
    load_with_eos(monkeypatch, eos)
    ended = texts()
    assert ended == [text.partition(eos)[0] for text in whole]
    assert len({len(text) for text in ended}) > 1
