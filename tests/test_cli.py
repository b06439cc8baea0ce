"""The command line as a person uses it: real processes, real output, real exit codes."""

import fcntl
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pyte
import pytest

from gptbox import __version__
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
        (("train", "bottles"), {"LOG_FORMAT": "xml"}, "LOG_FORMAT='xml' is not text or json"),
        (("up", "bottles"), {"LOG_FORMAT": "xml"}, "LOG_FORMAT='xml' is not text or json"),
        (("serve",), {"LOG_FORMAT": "xml"}, "LOG_FORMAT='xml' is not text or json"),
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


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (("train", "nowhere"), {}, "nowhere"),
        (("train", "bottles"), {"THREADS": "0"}, "THREADS='0'"),
        (("serve",), {"MAX_QUEUE": "-1"}, "MAX_QUEUE='-1'"),
        (("up", "bottles"), {"PRESET": "foo"}, "PRESET 'foo' is not one of default, lesson"),
    ],
)
def test_a_mistake_is_one_line_of_json_where_the_log_is(
    trained: Path, arguments: tuple[str, ...], settings: dict[str, str], said: str
) -> None:
    done = gptbox(trained, *arguments, LOG_FORMAT="json", **settings)
    assert done.returncode == 2
    entry = json.loads(done.stdout + done.stderr)
    assert entry["level"] == "error"
    assert said in entry["message"]


def test_training_logs_nothing_but_json_where_it_was_asked_to(home: Path) -> None:
    steps = ("--preset", "lesson", "--steps", "60")
    done = gptbox(home, "train", "bottles", "--run", "in-json", *steps, LOG_FORMAT="json")
    assert done.returncode == 0
    assert done.stderr == ""
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    assert all({"time", "level", "message"} <= set(entry) for entry in entries)
    assert {entry["level"] for entry in entries} == {"info"}
    (published,) = (entry for entry in entries if "published step-000060" in entry["message"])
    assert (published["run"], published["step"], published["steps"]) == ("in-json", 60, 60)
    assert published["tokens"] == 60 * 12 * 64
    assert 0 < published["val_loss_estimate"] < 5
    assert 0 < published["train_loss"] < 5
    assert published["tokens_per_s"] > 0
    assert published["eta_s"] == 0
    assert published["elapsed_s"] > 0
    assert entries[-1]["message"].startswith("Finished after 60 steps")


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
    assert output.count("the page is at") == 1
    assert f"the page is at {address}/" in output
    assert "\x1b" not in output, "what is no terminal gets plain lines"
    status = RunFolder(tmp_path / "models", "bottles").status()
    assert status is not None
    assert status.phase == "stopped"


def test_up_says_that_the_port_is_taken_before_it_trains(home: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = gptbox(home, "up", "bottles", "--port", port, GPTBOX_MODELS=str(tmp_path / "models"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"Port {port} of 127.0.0.1 cannot be opened" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "models").exists()


COLUMNS = 60


class Terminal:
    """`gptbox up` on a terminal of 60 columns."""

    def __init__(self, home: Path, models: Path, port: int) -> None:
        self.raw = b""
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (50, COLUMNS))
        arguments = ("up", "bottles", "--preset", "lesson", "--minutes", "5", "--port", str(port))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gptbox", *arguments],
            cwd=home, env=os.environ | {"THREADS": "1", "GPTBOX_MODELS": str(models), "TERM": "xterm-256color"},
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # that is how a terminal ends
            while data := os.read(self.master, 65536):
                self.raw += data

    def screen(self) -> pyte.Screen:
        """All that was written, as it looks: every row, none scrolled away."""
        screen = pyte.Screen(COLUMNS, 1000)
        pyte.ByteStream(screen).feed(self.raw)
        return screen

    def rows(self) -> list[str]:
        """Those that are not empty."""
        return [row.rstrip() for row in self.screen().display if row.strip()]

    def end(self) -> None:
        """By Ctrl-C."""
        os.write(self.master, b"\x03")
        self.process.wait(timeout=30)
        self._reader.join(timeout=5)
        os.close(self.master)


def test_up_on_a_terminal_rewrites_one_line_and_visits_stand_above_it(home: Path, tmp_path: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    terminal = Terminal(home, tmp_path / "models", port)
    try:
        until_200(f"{address}/readyz", 90)
        visits = 0
        for _ in range(20):
            until_200(f"{address}/", 5)
            httpx.get(f"{address}/api/status")
            visits += 1
            time.sleep(0.1)
        end = time.monotonic() + 15  # it is drawn again four times a second, where the machine is not busy
        while not re.search(r"step \d+/", (rows := terminal.rows())[-1]):
            assert time.monotonic() < end, rows
            time.sleep(0.1)
        assert sum(bool(re.search(r"step \d+/", row)) for row in rows) == 1, "the line of progress is there once"
    finally:
        terminal.end()
    assert terminal.process.returncode == 0
    # The terminal itself has written ^C behind the last line.
    screen, rows = terminal.screen(), terminal.rows()
    assert rows[0] == f"gptbox {__version__}: the page is at {address}/ (Ctrl-C ends i"[:COLUMNS]
    assert sum(bool(re.fullmatch(r"127\.0\.0\.1 GET / 200 · \d+ ms · [0-9a-f]{24}", row)) for row in rows) == visits
    assert sum("/api/status" in row for row in rows) == 0
    assert terminal.raw.count(b"\r\x1b[2K") > 2 * visits, "it was rewritten"
    assert pyte.modes.DECTCEM in screen.mode, "the cursor is back"
    assert any(row.startswith("Stopped at step") for row in rows)
