"""The command line as a person uses it: real processes, real output, real exit codes."""

import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gptbox.run_folder import RunFolder, Status

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


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A folder with five runs below models/: each way in which one can be."""
    models = tmp_path / "models"
    states: list[tuple[str, Status | None, int, int]] = [
        ("bottles", Status(run="bottles", phase="finished", step=2957, val_loss_estimate=1.41, best_val_loss=1.40123),
         3, 300),
        ("broken", Status(run="broken", phase="failed", message="Too short."), 0, 400),
        ("interrupted", Status(run="interrupted", phase="training", step=80, val_loss_estimate=2.5, best_val_loss=2.46),
         1, 200),
        ("of-before", Status(run="of-before", phase="stopped", step=5000, val_loss=1.5, best_val_loss=1.4967), 2, 100),
        ("prepared", None, 0, 0),
    ]  # fmt: skip
    for name, status, snapshots, time_ in states:
        run = RunFolder(models, name)
        run.dataset.mkdir(parents=True)
        for step in range(snapshots):
            run.snapshot(step).mkdir(parents=True)
            (run.snapshot(step) / "model.safetensors").write_bytes(bytes(1_000_000))
        if status is not None:
            with run.lock():
                run.write_status(status)
            os.utime(run.path / "status.json", (time_, time_))
        if snapshots:
            os.utime(run.path / "snapshots", (time_, time_))
    return tmp_path


def test_runs_lists_them_in_columns(full: Path) -> None:
    done = gptbox(full, "runs", TZ="UTC")
    assert done.returncode == 0, done.stderr
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert [line.split()[0] for line in lines] == ["run", "bottles", "broken", "interrupted", "of-before", "prepared"]
    assert lines[0].split() == ["run", "phase", "step", "best", "loss", "size", "written"]
    assert lines[1].split() == ["bottles", "finished", "2,957", "1.4012", "3.0", "MB", "1970-01-01", "00:05", "served"]
    assert lines[3].split()[1:5] == ["stopped", "80", "about", "2.46"], "nobody trains it any more"
    assert lines[4].split()[1:4] == ["stopped", "5,000", "1.4967"]
    assert lines[5].split() == ["prepared", "prepared", "-", "-", "0", "bytes", "-"]
    assert not any("served" in line for line in lines[2:])
    # Aligned: each column ends, or begins, at the same place in every line; and no colour goes into a pipe.
    phases = ("phase", "finished", "failed", "stopped", "stopped", "prepared")
    assert len({line.rindex(phase) for line, phase in zip(lines, phases, strict=True)}) == 1
    losses = {0: "best loss", 1: "1.4012", 3: "about 2.46", 4: "1.4967"}
    assert len({lines[i].index(loss) + len(loss) for i, loss in losses.items()}) == 1
    assert "\x1b" not in done.stdout


def test_a_run_is_training_as_long_as_its_trainer_holds_it(full: Path) -> None:
    with RunFolder(full / "models", "interrupted").lock():
        assert "\ninterrupted  training" in gptbox(full, "runs").stdout


def test_without_a_run_there_is_a_word_on_how_to_begin(tmp_path: Path) -> None:
    done = gptbox(tmp_path, "runs")
    assert done.returncode == 0
    assert done.stdout == "There is no run in models yet; begin one with: gptbox train\n"


@pytest.mark.parametrize("name", ["bottles", "broken", "prepared"])
def test_delete_deletes_one_run(full: Path, name: str) -> None:
    done = gptbox(full, "delete", name, "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Deleted models/{name} (")
    left = sorted(path.name for path in (full / "models").iterdir())
    assert left == sorted({"bottles", "broken", "interrupted", "of-before", "prepared"} - {name})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bottles",), "no terminal to ask on; --yes deletes without asking"),
        (("nobody", "--yes"), "There is no run 'nobody' in models (there: bottles, broken, interrupted, "),
        (("../models", "--yes"), "There is no run '../models'"),
        (("interrupted", "--yes"), "The run 'interrupted' is being trained. Stop that first"),
    ],
)
def test_delete_refuses_in_one_line(full: Path, arguments: tuple[str, ...], said: str) -> None:
    with RunFolder(full / "models", "interrupted").lock():
        done = subprocess.run(
            [sys.executable, "-m", "gptbox", "delete", *arguments], cwd=full, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("gptbox: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert len(list((full / "models").iterdir())) == 5


@pytest.mark.parametrize(("answer", "deleted"), [("y", True), ("n", False), ("", False)])
def test_delete_asks_on_a_terminal_and_says_what_is_lost(full: Path, answer: str, deleted: bool) -> None:
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "gptbox", "delete", "bottles"], cwd=full, stdin=theirs, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            os.write(ours, f"{answer}\n".encode())
            output, _ = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    asked = "Delete models/bottles for good (3.0 MB, 3 snapshots, the best with a loss of 1.4012)? [y/N]: "
    assert output.startswith(asked)
    assert ("Nothing was deleted." in output) == (not deleted)
    assert process.returncode == (0 if deleted else 1)
    assert (full / "models" / "bottles").exists() == (not deleted)


def test_version_and_help() -> None:
    home = Path.cwd()
    assert gptbox(home, "--version").stdout.startswith("gptbox ")
    shown = gptbox(home, "--help").stdout
    assert all(verb in shown for verb in ("prepare", "train", "sample", "eval", "runs", "delete", "serve", "up"))


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
