"""`gptbox sample`: the output of the lesson's sample.py, seeds and prompts."""

from pathlib import Path

from tests.cli.process import gptbox


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
