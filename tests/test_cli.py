"""The command line as a person uses it: real processes, real output, real exit codes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gptbox.run_folder import RunFolder

TEXT = "".join(f"{n} green bottles hanging on the wall, and if {n % 7} should fall\n" for n in range(400))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/bottles, as a person would have it."""
    home = tmp_path_factory.mktemp("home")
    (home / "data" / "bottles").mkdir(parents=True)
    (home / "data" / "bottles" / "text.txt").write_text(TEXT)
    return home


def gptbox(home: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "gptbox", *arguments],
        cwd=home, env=os.environ | {"THREADS": "1"} | settings, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(home: Path) -> Path:
    done = gptbox(home, "train", "bottles", "--preset", "lesson", "--steps", "100")
    assert done.returncode == 0, done.stderr
    return home


def test_prepare_reports_what_it_found(home: Path) -> None:
    done = gptbox(home, "prepare", "bottles", "--run", "only-prepared")
    assert done.returncode == 0, done.stderr
    assert f"{len(TEXT):,} characters" in done.stdout
    assert (home / "models" / "only-prepared" / "dataset" / "train.bin").stat().st_size == int(len(TEXT) * 0.9) * 2


def test_training_tells_what_it_does_and_how_long_it_takes(trained: Path) -> None:
    done = gptbox(trained, "train", "bottles", "--preset", "lesson", "--steps", "100")
    assert done.returncode == 0
    assert "is complete" in done.stdout
    log = gptbox(trained, "train", "bottles", "--run", "other", "--preset", "lesson", "--steps", "100").stdout
    assert "Training a gpt2 with" in log
    assert "left · published step-000100" in log
    assert "Finished after 100 steps" in log


def test_sample_prints_what_the_lesson_s_sample_py_does(trained: Path) -> None:
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


def test_eval_measures_the_published_loss(trained: Path) -> None:
    status = RunFolder(trained / "models", "bottles").status()
    assert status is not None
    done = gptbox(trained, "eval", "bottles")
    assert f"step-000100: val_loss {status.best_val_loss:.4f} nats a token" in done.stdout
    assert "(windows of 64 tokens)" in done.stdout
    assert "(windows of 16 tokens)" in gptbox(trained, "eval", "bottles@latest", "--window", "16").stdout


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (("train", "nowhere"), {}, "nowhere"),
        (("train", "bottles", "--run", "../up"), {}, "'../up' cannot name a run"),
        (("train", "bottles", "--minutes", "0"), {}, "--minutes 0.0 is not a number of minutes above 0"),
        (("train", "bottles", "--minutes", "-1"), {}, "--minutes -1.0 is not a number of minutes above 0"),
        (("train", "bottles", "--preset", "huge"), {}, "--preset 'huge' is not one of default, lesson"),
        (("train", "bottles"), {"TRAIN_CLOCK": "sun"}, "TRAIN_CLOCK='sun' is not wall or cpu"),
        (("train", "bottles"), {"RUN": "../up"}, "'../up' cannot name a run"),
        (("train", "bottles", "--run", "new", "--n-embd", "100", "--n-head", "3"), {}, "which 3 heads do not divide"),
        (("up", "nowhere"), {}, "There is no dataset 'nowhere'"),
        (("up", "bottles"), {"PRESET": "foo"}, "PRESET 'foo' is not one of default, lesson"),
        (("up", "bottles", "--minutes", "-1"), {}, "--minutes -1.0 is not a number of minutes above 0"),
        (("train", "bottles"), {"TRAIN_MINUTES": "soon"}, "TRAIN_MINUTES='soon' is not a number of minutes"),
        (("train", "bottles"), {"THREADS": "0"}, "THREADS='0'"),
        (("train", "bottles"), {"PRESET": "huge"}, "PRESET 'huge' is not one of default, lesson"),
        (("serve",), {"MAX_QUEUE": "-1"}, "MAX_QUEUE='-1'"),
        (("sample", "--model", "nobody"), {}, "There is no run 'nobody'"),
        (("sample", "--model", "bottles@step-000001"), {}, "no snapshot 'step-000001'"),
        (("sample",), {"GPTBOX_MODELS": "empty"}, "train one with: gptbox train"),
        (("sample", "--start", "FILE:none.txt"), {}, "none.txt"),
        (("eval", "nobody"), {}, "There is no run 'nobody'"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    trained: Path, arguments: tuple[str, ...], settings: dict[str, str], said: str
) -> None:
    before = sorted((trained / "models").iterdir())
    done = gptbox(trained, *arguments, **settings)
    assert done.returncode == 2
    assert done.stderr.startswith("gptbox: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted((trained / "models").iterdir()) == before, "nothing is left behind"


def test_version_and_help() -> None:
    home = Path.cwd()
    assert gptbox(home, "--version").stdout.startswith("gptbox ")
    shown = gptbox(home, "--help").stdout
    assert all(verb in shown for verb in ("prepare", "train", "sample", "eval", "serve", "up"))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def box(home: Path, tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """`gptbox up` on a new models folder."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gptbox", "up", "bottles", "--preset", "lesson", "--minutes", "5", "--port", str(port)],
        cwd=home, env=os.environ | {"THREADS": "1", "GPTBOX_MODELS": str(tmp_path / "models")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    yield f"http://127.0.0.1:{port}", process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until_200(url: str, seconds: float) -> httpx.Response:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if (response := httpx.get(url, timeout=5)).status_code == 200:
                return response
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{url} did not answer 200 within {seconds} s")


def test_up_serves_the_page_at_once_then_the_model_and_ends_both_on_ctrl_c(
    box: tuple[str, "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    address, process = box
    assert "<html" in until_200(f"{address}/", 30).text
    assert httpx.get(f"{address}/readyz").status_code in (200, 503)
    until_200(f"{address}/readyz", 90)
    body = {"model": "bottles", "prompt": "7 green", "max_tokens": 20}
    reply = httpx.post(f"{address}/v1/completions", json=body, timeout=30).json()
    assert len(reply["choices"][0]["text"]) == 20
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to both processes
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    status = RunFolder(tmp_path / "models", "bottles").status()
    assert status is not None
    assert status.phase == "stopped"
