"""A run from its first step to its end, and every way in which it can end early."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptbox import model_folder
from gptbox.datasets.prepared import prepare
from gptbox.engine.evaluate import evaluate
from gptbox.engine.gpt import GPT
from gptbox.errors import DatasetError, DivergedError, RunError
from gptbox.run_folder import RunFolder, Status
from gptbox.train import evaluation_schedule
from gptbox.train.budget import Instant
from gptbox.train.config import TrainConfig
from gptbox.train.progress import LogReporter
from gptbox.train.publish import kept_within
from gptbox.train.trainer import Trainer

CONFIG = TrainConfig(
    preset="test", architecture="qwen3", n_layer=2, n_head=2, n_embd=32, context_length=32, activation="silu",
    batch_size=4, steps=60, eval_every=20, learning_rate=3e-3, min_learning_rate=1e-4, warmup_steps=10,
)  # fmt: skip

TEXT = "".join(f"{n} green bottles hanging on the wall, and if {n % 7} should fall\n" for n in range(400))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "bottles").mkdir(parents=True)
    (tmp_path / "data" / "bottles" / "text.txt").write_text(TEXT)
    return tmp_path / "data"


@pytest.fixture
def make_trainer(tmp_path: Path, data: Path) -> Callable[..., Trainer]:
    def make(config: TrainConfig = CONFIG, name: str = "bottles", **options: Any) -> Trainer:
        run = RunFolder(tmp_path / "models", name)
        return Trainer(run, prepare("bottles", run, data), config, reporter=LogReporter(), **options)

    return make


def losses(run: RunFolder) -> list[tuple[int, float, float | None, float]]:
    return [(row["step"], row["train_loss"], row["val_loss"], row["lr"]) for row in run.rows("metrics")]


def stop_at(trainer: Trainer, step: int) -> None:
    """Ask the trainer to stop right after a step, as a signal would."""
    original = trainer._step

    def stepping() -> None:
        original()
        if trainer.progress.step == step:
            trainer.stop()

    trainer._step = stepping  # type: ignore[method-assign]


def test_a_run_learns_publishes_and_finishes(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(replace(CONFIG, steps=200, eval_every=100))
    status = trainer.train()
    run = trainer.run
    assert status == run.status()
    assert (status.phase, status.step, status.steps, status.eta_s) == ("finished", 200, 200, 0.0)
    assert status.tokens == 200 * 4 * 32
    assert [path.name for path in run.snapshots()] == ["step-000100", "step-000200"]
    assert run.resolve("latest").name == run.resolve("best").name == status.best_snapshot == "step-000200"
    assert status.best_val_loss is not None
    assert status.best_val_loss < 2.0, "it should have learned most of so simple a text"

    samples = run.rows("samples")
    assert [row["step"] for row in samples] == [100, 200]
    assert set(samples[0]) == {"step", "val_loss", "val_loss_estimate", "prompt", "seed", "text"}
    assert set(run.rows("metrics")[0]) == {
        "step", "elapsed_s", "train_loss", "val_loss", "val_loss_estimate", "lr", "tokens_per_s"
    }  # fmt: skip


def test_the_published_loss_is_the_engine_s_own_measure(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer()
    trainer.train()
    folder = model_folder.load(trainer.run.resolve("best"))
    assert folder.info is not None
    measured = evaluate(GPT(folder.config, folder.weights), np.asarray(trainer.dataset.val))
    assert folder.info.val_loss == pytest.approx(measured, abs=1e-5)
    assert folder.info.val_bpb == pytest.approx(measured / np.log(2), abs=1e-4)  # ASCII: a byte a character


def test_the_same_seed_gives_the_same_losses_and_another_does_not(make_trainer: Callable[..., Trainer]) -> None:
    runs = [make_trainer(replace(CONFIG, seed=seed), name) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    for trainer in runs:
        trainer.train()
    assert losses(runs[0].run) == losses(runs[1].run)
    assert losses(runs[0].run) != losses(runs[2].run)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("step", [7, 20, 33])
def test_interrupted_is_uninterrupted(make_trainer: Callable[..., Trainer], step: int, dropout: float) -> None:
    config = replace(CONFIG, dropout=dropout)
    whole = make_trainer(config, "whole")
    whole.train()

    first = make_trainer(config, "parts")
    stop_at(first, step)
    status = first.train()
    assert status.phase == "stopped"
    assert f"step {step}" in status.message
    second = make_trainer(config, "parts")
    assert second.train().phase == "finished"

    assert losses(second.run) == losses(whole.run)
    assert second.run.rows("samples") == whole.run.rows("samples")
    assert [path.name for path in second.run.snapshots()] == [path.name for path in whole.run.snapshots()]
    ours, expected = (model_folder.load(trainer.run.resolve("latest")).weights for trainer in (second, whole))
    for name, weight in expected.items():
        np.testing.assert_array_equal(ours[name], weight)


def test_killed_between_checkpoint_and_snapshot(
    make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer()

    def killed() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "_publish", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.run.snapshots() == []
    again = make_trainer()
    again.train()
    assert [path.name for path in again.run.snapshots()] == ["step-000020", "step-000040", "step-000060"]


def test_a_finished_run_ends_at_once_and_changes_nothing(
    make_trainer: Callable[..., Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gptbox")
    make_trainer().train()
    run = make_trainer().run
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    again = make_trainer()
    assert again.train().phase == "finished"
    assert again.progress.step == 60
    assert "is complete" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_a_finished_run_goes_on_when_asked_for_more(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().train()
    longer = make_trainer(replace(CONFIG, steps=80))
    assert longer.train().step == 80
    assert [row["step"] for row in longer.run.rows("samples")] == [20, 40, 60, 80]
    assert make_trainer().train().step == 80, "asking for less again is asking for nothing"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_layer": 3}, "n_layer was 2 and is now 3"),
        ({"seed": 5}, "seed was 1337 and is now 5"),
        ({"preset": "lesson"}, "preset was 'test' and is now 'lesson'"),
    ],
)
def test_another_kind_of_training_under_the_same_name_is_refused(
    make_trainer: Callable[..., Trainer], change: dict[str, Any], said: str
) -> None:
    make_trainer().train()
    with pytest.raises(RunError, match=said):
        make_trainer(replace(CONFIG, **change)).train()


def test_a_loss_that_is_no_number_stops_and_is_never_published(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(replace(CONFIG, learning_rate=1e18, min_learning_rate=1e18))
    with pytest.raises(DivergedError, match=r"loss became (nan|inf) at step \d+ .*lower --learning-rate"):
        trainer.train()
    for path in trainer.run.snapshots():
        assert all(np.isfinite(weight).all() for weight in model_folder.load(path).weights.values())
    assert not any(row["val_loss"] != row["val_loss"] for row in trainer.run.rows("metrics"))


def test_a_validation_loss_that_is_no_number_is_never_published(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer()
    original = trainer._step

    def poisoned() -> None:
        original()
        if trainer.progress.step == 40:
            with torch.no_grad():
                trainer.model.embedding.weight.fill_(float("nan"))

    trainer._step = poisoned  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match="validation loss became nan at step 40"):
        trainer.train()
    assert [path.name for path in trainer.run.snapshots()] == ["step-000020"]
    assert trainer.checkpoint.read()[0]["progress"]["step"] == 20


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    make_trainer: Callable[..., Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gptbox")
    trainer = make_trainer()
    stop_at(trainer, 45)  # checkpoints at 20, 40 and 45: the last two are kept
    trainer.train()
    state = trainer.checkpoint.path
    state.write_bytes(state.read_bytes()[:1000])
    assert make_trainer().train().step == 60
    said = caplog.text
    assert "is damaged" in said
    assert "Going on from step 40" in said


def test_two_damaged_checkpoints_are_refused_and_kept(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer()
    trainer.train()
    for path in (trainer.checkpoint.path, trainer.checkpoint.previous):
        path.write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match="No checkpoint can be read"):
        make_trainer(replace(CONFIG, steps=80)).train()
    assert len(trainer.run.snapshots()) == 3


def test_target_loss_ends_the_run(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(replace(CONFIG, steps=10_000, target_loss=3.0))
    status = trainer.train()
    assert status.phase == "finished"
    assert status.best_val_loss is not None
    assert status.best_val_loss <= 3.0
    assert status.step < 10_000
    assert status.step % 20 == 0


def test_minutes_are_kept_with_evaluation_and_publishing(make_trainer: Callable[..., Trainer]) -> None:
    began = time.monotonic()
    config = replace(CONFIG, steps=None, eval_every=None, minutes=12 / 60)
    trainer = make_trainer(config, started=Instant(began, time.process_time()))
    status = trainer.train()
    assert status.phase == "finished"
    assert time.monotonic() - began == pytest.approx(12, abs=1.5)
    assert status.steps == status.step
    assert len(trainer.run.snapshots()) >= 2
    rates = [row["lr"] for row in trainer.run.rows("metrics")]
    assert min(rates) < 0.2 * CONFIG.learning_rate, "the learning rate decays with the time"
    assert trainer.run.resolve("latest").name == f"step-{status.step:06d}"


def test_the_status_tells_how_long_it_will_take(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(replace(CONFIG, steps=None, eval_every=None, minutes=6 / 60))
    seen: list[Status] = []
    trainer.reporter.step = seen.append  # type: ignore[method-assign, assignment]
    trainer.train()
    assert seen[0].phase == "training"
    etas = [status.eta_s for status in seen if status.eta_s is not None]
    assert etas == sorted(etas, reverse=True)
    assert all(0 <= eta <= 6 for eta in etas)
    assert all(status.steps is None or status.steps >= status.step for status in seen)


def test_a_text_too_short_for_the_context_is_refused(tmp_path: Path, make_trainer: Callable[..., Trainer]) -> None:
    with pytest.raises(DatasetError, match="too short"):
        make_trainer(replace(CONFIG, context_length=100_000))


def test_thinning_keeps_the_best_and_the_latest(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(replace(CONFIG, steps=60, eval_every=4), snapshots_kept=5)
    trainer.train()
    steps = [int(path.name[5:]) for path in trainer.run.snapshots()]
    assert len(steps) == 5
    assert steps[0] == 4
    assert trainer.run.resolve("best").exists()
    assert steps[-1] == 60
    assert not [path for path in (trainer.run.path / "snapshots").iterdir() if path.name.startswith(".")]


# Estimates and exact losses


LONG = "".join(f"{n} green bottles hanging on the wall, and if {n % 7} should fall\n" for n in range(4000))
"""Its validation split is longer than what an estimate measures."""


@pytest.fixture
def long_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trainer]:
    # As many evaluations as in a minute and more, whatever else the machine does.
    monkeypatch.setattr(evaluation_schedule, "_FULL_RUN_S", 20.0)
    monkeypatch.setattr(evaluation_schedule, "_CONTENDED_SHARE", 1.0)
    (tmp_path / "data" / "long").mkdir(parents=True)
    (tmp_path / "data" / "long" / "text.txt").write_text(LONG)

    def make(config: TrainConfig = CONFIG, **options: Any) -> Trainer:
        run = RunFolder(tmp_path / "models", "long")
        return Trainer(run, prepare("long", run, tmp_path / "data"), config, reporter=LogReporter(), **options)

    return make


TIMED = replace(CONFIG, steps=None, eval_every=None, minutes=10 / 60)


def test_a_run_by_the_clock_is_followed_by_estimates_and_its_best_is_measured_exactly(
    long_trainer: Callable[..., Trainer],
) -> None:
    trainer = long_trainer(TIMED)
    status = trainer.train()
    run, val = trainer.run, np.asarray(trainer.dataset.val)
    assert len(val) > 20_000
    samples = run.rows("samples")
    assert len(samples) >= 3
    assert all(row["val_loss"] is None for row in samples[:-1])
    rows = [row for row in run.rows("metrics") if row["val_loss_estimate"] is not None]
    assert [row["val_loss_estimate"] for row in rows] == [row["val_loss_estimate"] for row in samples]

    best = model_folder.load(run.resolve("best"))
    assert best.info is not None
    exact = evaluate(GPT(best.config, best.weights), val)
    assert best.info.val_loss == pytest.approx(exact, abs=1e-5)
    assert status.best_val_loss == best.info.val_loss
    assert f"{best.info.val_loss:.4f} nats a token" in (best.path / "README.md").read_text()
    first = model_folder.load(run.snapshots()[0])
    assert first.info is not None
    assert (first.info.val_loss, first.info.val_bpb) == (None, None)
    estimated = evaluate(GPT(first.config, first.weights), val, limit=20_000)
    assert first.info.val_loss_estimate == pytest.approx(estimated, abs=1e-5)
    assert "estimated on a part of the validation split" in (first.path / "README.md").read_text()


def test_the_best_is_chosen_by_the_exact_loss_not_by_the_estimate(
    long_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Estimates that flatter each later snapshot by less than their error: the exact losses tell another story."""
    trainer = long_trainer(replace(CONFIG, steps=90, eval_every=30))
    estimates = {30: 1.000, 60: 1.009, 90: 1.005}
    exact = {30: 1.20, 60: 1.10, 90: 1.30}
    monkeypatch.setattr(trainer.evaluator, "estimate", lambda _: estimates[trainer.progress.step])
    monkeypatch.setattr(trainer.evaluator, "exact", lambda _: exact[trainer.progress.step])
    seen = []
    trainer.reporter.evaluated = seen.append  # type: ignore[method-assign, assignment]
    status = trainer.train()
    assert [each.best_snapshot for each in seen] == ["step-000030"] * 3
    assert (status.best_snapshot, status.best_val_loss) == ("step-000060", 1.10)
    assert trainer.run.resolve("best").name == "step-000060"


def test_a_snapshot_that_was_only_estimated_can_become_the_best(
    long_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = long_trainer(replace(TIMED, minutes=8 / 60))
    monkeypatch.setattr(trainer.evaluator, "estimate", lambda _: 1.0 + 0.001 * len(trainer.run.snapshots()))
    measured = []

    def exact(model: Any) -> float:
        measured.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return 2.0 - 0.1 * len(measured)

    monkeypatch.setattr(trainer.evaluator, "exact", exact)
    status = trainer.train()
    assert len(measured) == 4, "the last snapshot, and three candidates"
    assert status.val_loss == pytest.approx(1.9)
    assert status.best_val_loss == pytest.approx(1.6)
    best = model_folder.load(trainer.run.resolve("best"))
    assert best.info is not None
    assert best.info.val_loss == pytest.approx(1.6)
    for name, weight in best.weights.items():
        np.testing.assert_array_equal(weight, measured[-1][name].numpy())


def test_a_stop_amid_the_choice_of_the_best_is_made_up_for(long_trainer: Callable[..., Trainer]) -> None:
    first = long_trainer(TIMED)
    original = first.evaluator.exact

    def stopped(model: Any) -> float:
        first.stop()
        return original(model)

    first.evaluator.exact = stopped  # type: ignore[method-assign]
    assert first.train().phase == "stopped"
    status = long_trainer(TIMED).train()
    assert status.phase == "finished"
    best = model_folder.load(first.run.resolve("best"))
    assert best.info is not None
    assert best.info.val_loss == status.best_val_loss is not None


def test_a_damaged_candidate_is_passed_over(
    long_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gptbox")
    trainer = long_trainer(replace(TIMED, minutes=8 / 60))
    monkeypatch.setattr(trainer.evaluator, "estimate", lambda _: 1.0 + 0.001 * len(trainer.run.snapshots()))
    original = trainer._choose_best

    def damaged() -> None:
        (trainer.run.snapshots()[0] / "model.safetensors").write_bytes(b"gone")
        original()

    monkeypatch.setattr(trainer, "_choose_best", damaged)
    status = trainer.train()
    assert status.phase == "finished"
    assert status.best_snapshot != trainer.run.snapshots()[0].name
    assert "is not a readable model folder" in caplog.text


def test_the_minutes_of_a_run_that_is_over_before_its_first_step_are_refused(
    make_trainer: Callable[..., Trainer],
) -> None:
    late = Instant(time.monotonic() - 6, time.process_time())
    trainer = make_trainer(replace(TIMED, minutes=0.1), started=late)
    with pytest.raises(RunError, match=r"The 0.1 minutes were over before the first step: the start took 6 s"):
        trainer.train()
    assert trainer.run.snapshots() == []


def test_an_interrupted_run_of_the_version_before_goes_on(make_trainer: Callable[..., Trainer]) -> None:
    """Its checkpoint has exact losses, and other fields for what is planned."""
    first = make_trainer()
    stop_at(first, 45)
    first.train()
    state = torch.load(first.checkpoint.path, weights_only=True)
    new = state["progress"]
    old = {name: new[name] for name in (
        "step", "tokens", "elapsed_s", "learning_rate", "loss_sum", "loss_count", "train_loss", "val_loss",
        "best_val_loss", "best_snapshot", "latest_snapshot", "best_s", "worse", "begun_s", "done",
    )}  # fmt: skip
    torch.save(state | {"progress": old | {"looking_s": 1.0, "next_evaluation_s": None}}, first.checkpoint.path)
    again = make_trainer()
    status = again.train()
    assert (status.phase, status.step) == ("finished", 60)
    assert status.best_val_loss is not None
    assert status.best_val_loss <= old["best_val_loss"]
    assert old["best_snapshot"] in again.progress.candidates, "what was best before still competes"


@pytest.mark.parametrize(("kept", "size", "expected"), [(30, 3e6, 30), (30, 1e8, 10), (30, 3e9, 2), (1, 3e9, 1)])
def test_snapshots_take_a_gibibyte_at_most(kept: int, size: float, expected: int) -> None:
    assert kept_within(kept, int(size)) == expected


# As a process


def command(tmp_path: Path, *options: str) -> tuple[list[str], dict[str, str]]:
    settings = {"GPTBOX_MODELS": str(tmp_path / "models"), "GPTBOX_DATA": str(tmp_path / "data"), "THREADS": "1"}
    return [sys.executable, "-m", "gptbox", "train", "bottles", "--preset", "lesson", *options], os.environ | settings


def start(tmp_path: Path, *options: str) -> "subprocess.Popen[str]":
    arguments, environment = command(tmp_path, *options)
    return subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def wait_for(condition: Callable[[], Any], process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def step_of(run: RunFolder) -> int:
    status = run.status()
    return 0 if status is None else status.step


def test_sigterm_saves_and_exits_143_within_10_s(tmp_path: Path, data: Path) -> None:
    run = RunFolder(tmp_path / "models", "bottles")
    process = start(tmp_path, "--steps", "100000")
    wait_for(lambda: step_of(run) > 20, process)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    output, _ = process.communicate(timeout=15)
    assert process.returncode == 143, output
    assert time.monotonic() - began < 10
    status = run.status()
    assert status is not None
    assert status.phase == "stopped"
    assert torch.load(run.checkpoint / "state.pt", weights_only=True)["progress"]["step"] == status.step


def test_sigterm_before_training_has_begun_exits_143(tmp_path: Path, data: Path) -> None:
    process = start(tmp_path, "--steps", "100000")
    run = RunFolder(tmp_path / "models", "bottles")
    wait_for(lambda: run.status() is not None, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=15)
    assert process.returncode == 143, output
    status = run.status()
    assert status is not None
    assert status.phase == "stopped"


def test_kill_9_loses_nothing_that_was_published(tmp_path: Path, data: Path) -> None:
    run = RunFolder(tmp_path / "models", "bottles")
    process = start(tmp_path, "--steps", "300")
    wait_for(run.snapshots, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    for path in run.snapshots():
        model_folder.load(path)
    (run.path / "snapshots" / ".step-000275.0123abcd.tmp").mkdir()  # as a kill amid writing would leave it
    arguments, environment = command(tmp_path, "--steps", "300")
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Going on from step 250" in done.stdout
    assert [path.name for path in (run.path / "snapshots").iterdir() if path.name.startswith(".")] == []
    rows = run.rows("metrics")
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows}), "no step is told twice"
    assert json.loads((run.path / "status.json").read_text())["phase"] == "finished"


def test_two_trainers_on_one_run_are_refused(tmp_path: Path, data: Path) -> None:
    run = RunFolder(tmp_path / "models", "bottles")
    with run.lock():
        arguments, environment = command(tmp_path, "--steps", "10")
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "gptbox: Another trainer is at work on the run 'bottles'; wait for it, or train under another name (--run).\n"
    )  # and no traceback
