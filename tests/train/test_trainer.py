"""A run from its first step to its end, and the ways it can end early."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.tiny_runs import CONFIG, stop_at

from gptbox.datasets.prepared import prepare
from gptbox.engine.evaluate import evaluate
from gptbox.engine.gpt import GPT
from gptbox.errors import DatasetError, DivergedError, RunError
from gptbox.models import folder as model_folder
from gptbox.models.runs import RunFolder, Status
from gptbox.train import evaluation_schedule
from gptbox.train.budget import Timestamp
from gptbox.train.config import TrainConfig, with_changes
from gptbox.train.evaluation import Estimate
from gptbox.train.predictions import Predictions
from gptbox.train.reporter import LogReporter
from gptbox.train.trainer import Trainer


def losses(run: RunFolder) -> list[tuple[int, float, float | None, float]]:
    return [(row["step"], row["train_loss"], row["val_loss"], row["lr"]) for row in run.read_rows("metrics")]


def test_a_run_learns_publishes_and_finishes(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(replace(CONFIG, steps=200, eval_every=100))
    status = trainer.train()
    run = trainer.run
    assert status == run.status()
    assert (status.phase, status.step, status.steps, status.eta_s) == ("finished", 200, 200, 0.0)
    assert status.tokens == 200 * 4 * 32
    assert (status.token_unit, status.characters_per_token, status.letters_per_token) == ("character", 1.0, 1.0)
    assert [path.name for path in run.snapshots()] == ["step-000100", "step-000200"]
    assert run.resolve("latest").name == run.resolve("best").name == status.best_snapshot == "step-000200"
    assert status.best_val_loss is not None
    assert status.best_val_loss < 2.0, "most of so simple a text can be learned"

    samples = run.read_rows("samples")
    assert [row["step"] for row in samples] == [100, 200]
    assert set(samples[0]) == {"step", "val_loss", "val_loss_estimate", "prompt", "seed", "text", "learned"}
    assert samples[0]["learned"]["accuracy"] < samples[1]["learned"]["accuracy"]
    assert 0 <= samples[1]["learned"]["real_words"] <= 1
    assert set(samples[1]["learned"]["confusion"]) == {"expected", "predicted", "share"}
    assert samples[0]["learned"]["line"] != samples[1]["learned"]["line"]
    assert set(run.read_rows("metrics")[0]) == {
        "step", "elapsed_s", "train_loss", "val_loss", "val_loss_estimate", "lr", "tokens_per_s"
    }  # fmt: skip


def test_the_published_loss_equals_the_engine_s(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer()
    trainer.train()
    folder = model_folder.load(trainer.run.resolve("best"))
    assert folder.info is not None
    measured = evaluate(GPT(folder.config, folder.weights), np.asarray(trainer.dataset.val))
    assert folder.info.val_loss == pytest.approx(measured, abs=1e-5)
    assert folder.info.val_bpb == pytest.approx(measured / np.log(2), abs=1e-4)  # ASCII: one byte per character


def test_the_same_seed_gives_the_same_losses_and_another_seed_does_not(make_trainer: Callable[..., Trainer]) -> None:
    runs = [make_trainer(replace(CONFIG, seed=seed), name) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    for trainer in runs:
        trainer.train()
    assert losses(runs[0].run) == losses(runs[1].run)
    assert losses(runs[0].run) != losses(runs[2].run)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("step", [7, 20, 33])
def test_an_interrupted_run_equals_an_uninterrupted_one(
    make_trainer: Callable[..., Trainer], step: int, dropout: float
) -> None:
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
    assert second.run.read_rows("samples") == whole.run.read_rows("samples")
    assert [path.name for path in second.run.snapshots()] == [path.name for path in whole.run.snapshots()]
    ours, expected = (model_folder.load(trainer.run.resolve("latest")).weights for trainer in (second, whole))
    for name, weight in expected.items():
        np.testing.assert_array_equal(ours[name], weight)


def test_training_from_a_model_begins_at_its_loss(make_trainer: Callable[..., Trainer]) -> None:
    first = make_trainer()
    first.train()
    model = model_folder.load(first.run.resolve("best"))
    assert model.info is not None
    still = replace(CONFIG, steps=1, eval_every=1, learning_rate=1e-12, min_learning_rate=0.0, init="bottles")
    second = make_trainer(still, "second", initial_weights=model.weights)
    assert second.train().val_loss == pytest.approx(model.info.val_loss, abs=1e-6)
    assert second.optimizer.state_dict()[0]["step"] == 1, "the optimizer begins anew"


def test_a_run_from_a_model_resumes_from_its_own_weights(make_trainer: Callable[..., Trainer]) -> None:
    first = make_trainer()
    first.train()
    weights = model_folder.load(first.run.resolve("best")).weights
    config = replace(CONFIG, init="bottles")
    whole = make_trainer(config, "whole", initial_weights=weights)
    whole.train()
    parts = make_trainer(config, "parts", initial_weights=weights)
    stop_at(parts, 33)
    parts.train()
    again = make_trainer(config, "parts")
    assert again.train().phase == "finished"
    assert losses(again.run) == losses(whole.run)
    with pytest.raises(RunError, match="init was 'bottles' and is now 'second'"):
        make_trainer(replace(config, init="second"), "parts").train()


def test_a_run_killed_between_checkpoint_and_snapshot_publishes_on_resuming(
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
    assert again.state.step == 60
    assert "is complete" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_a_finished_run_continues_with_more_steps(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().train()
    longer = make_trainer(replace(CONFIG, steps=80))
    assert longer.train().step == 80
    assert [row["step"] for row in longer.run.read_rows("samples")] == [20, 40, 60, 80]
    assert make_trainer().train().step == 80, "with fewer steps again, nothing is left to do"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_layer": 3}, "n_layer was 2 and is now 3"),
        ({"seed": 5}, "seed was 1337 and is now 5"),
        ({"preset": "lesson"}, "preset was 'test' and is now 'lesson'"),
    ],
)
def test_other_settings_under_the_same_run_name_are_refused(
    make_trainer: Callable[..., Trainer], change: dict[str, Any], said: str
) -> None:
    make_trainer().train()
    with pytest.raises(RunError, match=said):
        make_trainer(with_changes(CONFIG, **change)).train()


def test_a_diverged_training_loss_stops_the_run_and_is_never_published(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(replace(CONFIG, learning_rate=1e18, min_learning_rate=1e18))
    with pytest.raises(DivergedError, match=r"loss became (nan|inf) at step \d+ .*lower --learning-rate"):
        trainer.train()
    for path in trainer.run.snapshots():
        assert all(np.isfinite(weight).all() for weight in model_folder.load(path).weights.values())
    assert not any(row["val_loss"] != row["val_loss"] for row in trainer.run.read_rows("metrics"))


def test_a_diverged_validation_loss_is_never_published(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer()
    original = trainer._step

    def poisoned() -> None:
        original()
        if trainer.state.step == 40:
            with torch.no_grad():
                trainer.model.embedding.weight.fill_(float("nan"))

    trainer._step = poisoned  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match="validation loss became nan at step 40"):
        trainer.train()
    assert [path.name for path in trainer.run.snapshots()] == ["step-000020"]
    assert trainer.checkpoint.read()[0]["progress"]["step"] == 20


def test_target_loss_ends_the_run(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(replace(CONFIG, steps=10_000, target_loss=3.0))
    status = trainer.train()
    assert status.phase == "finished"
    assert status.best_val_loss is not None
    assert status.best_val_loss <= 3.0
    assert status.step < 10_000
    assert status.step % 20 == 0


def test_minutes_include_evaluation_and_publishing(make_trainer: Callable[..., Trainer]) -> None:
    began = time.monotonic()
    config = replace(CONFIG, steps=None, eval_every=None, minutes=12 / 60)
    trainer = make_trainer(config, started=Timestamp(began, time.process_time()))
    status = trainer.train()
    assert status.phase == "finished"
    assert time.monotonic() - began == pytest.approx(12, abs=1.5)
    assert status.steps == status.step
    assert len(trainer.run.snapshots()) >= 2
    rates = [row["lr"] for row in trainer.run.read_rows("metrics")]
    assert min(rates) < 0.2 * CONFIG.learning_rate, "the learning rate decays with time"
    assert trainer.run.resolve("latest").name == f"step-{status.step:06d}"


def test_the_status_has_an_eta(make_trainer: Callable[..., Trainer]) -> None:
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
        make_trainer(with_changes(CONFIG, context_length=100_000))


LONG = "".join(f"{n} green bottles hanging on the wall, and if {n % 7} should fall\n" for n in range(4000))
"""Its validation split has more tokens than an estimate measures."""


@pytest.fixture
def long_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trainer]:
    # As many evaluations as in a longer run, and on a busy machine too.
    monkeypatch.setattr(evaluation_schedule, "_FULL_RUN_S", 20.0)
    monkeypatch.setattr(evaluation_schedule, "_MAX_CONTENDED_CPU_SHARE", 1.0)
    (tmp_path / "data" / "long").mkdir(parents=True)
    (tmp_path / "data" / "long" / "text.txt").write_text(LONG)

    def make(config: TrainConfig = CONFIG, **options: Any) -> Trainer:
        run = RunFolder(tmp_path / "models", "long")
        return Trainer(run, prepare("long", run, tmp_path / "data"), config, reporter=LogReporter(), **options)

    return make


TIMED = replace(CONFIG, steps=None, eval_every=None, minutes=10 / 60)


def test_a_timed_run_estimates_losses_and_measures_its_best_exactly(
    long_trainer: Callable[..., Trainer],
) -> None:
    trainer = long_trainer(TIMED)
    status = trainer.train()
    run, val = trainer.run, np.asarray(trainer.dataset.val)
    assert len(val) > 20_000
    samples = run.read_rows("samples")
    assert len(samples) >= 3
    assert all(row["val_loss"] is None for row in samples[:-1])
    rows = [row for row in run.read_rows("metrics") if row["val_loss_estimate"] is not None]
    assert [row["val_loss_estimate"] for row in rows] == [row["val_loss_estimate"] for row in samples]

    best = model_folder.load(run.resolve("best"))
    assert best.info is not None
    exact = evaluate(GPT(best.config, best.weights), val)
    assert best.info.val_loss == pytest.approx(exact, abs=1e-5)
    assert status.best_val_loss == best.info.val_loss
    assert f"{best.info.val_loss:.4f} nats per token" in (best.path / "README.md").read_text()
    first = model_folder.load(run.snapshots()[0])
    assert first.info is not None
    assert (first.info.val_loss, first.info.val_bpb) == (None, None)
    estimated = evaluate(GPT(first.config, first.weights), val, limit=20_000)
    assert first.info.val_loss_estimate == pytest.approx(estimated, abs=1e-5)
    assert "estimated on a part of the validation split" in (first.path / "README.md").read_text()


def estimate(loss: float) -> Estimate:
    """An estimate that no model made."""
    return Estimate(loss, Predictions.concatenate([]))


def test_the_best_is_chosen_by_the_exact_loss_not_by_the_estimate(
    long_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Estimates and exact losses rank the snapshots differently, within the margin of error."""
    trainer = long_trainer(replace(CONFIG, steps=90, eval_every=30))
    estimates = {30: 1.000, 60: 1.009, 90: 1.005}
    exact = {30: 1.20, 60: 1.10, 90: 1.30}
    monkeypatch.setattr(trainer.evaluator, "estimate", lambda _: estimate(estimates[trainer.state.step]))
    monkeypatch.setattr(trainer.evaluator, "exact", lambda _: exact[trainer.state.step])
    seen = []
    trainer.reporter.evaluated = seen.append  # type: ignore[method-assign, assignment]
    status = trainer.train()
    assert [each.best_snapshot for each in seen] == ["step-000030"] * 3
    assert (status.best_snapshot, status.best_val_loss) == ("step-000060", 1.10)
    assert trainer.run.resolve("best").name == "step-000060"


def test_a_snapshot_with_only_an_estimate_can_become_the_best(
    long_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = long_trainer(replace(TIMED, minutes=8 / 60))
    monkeypatch.setattr(trainer.evaluator, "estimate", lambda _: estimate(1.0 + 0.001 * len(trainer.run.snapshots())))
    measured = []

    def exact(model: Any) -> float:
        measured.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return 2.0 - 0.1 * len(measured)

    monkeypatch.setattr(trainer.evaluator, "exact", exact)
    status = trainer.train()
    assert len(measured) == 4, "the last snapshot and three candidates"
    # First of all, or with the candidates if the last step had been evaluated before the time was over.
    assert status.val_loss in (pytest.approx(1.9), pytest.approx(1.6))
    assert status.best_val_loss == pytest.approx(1.6)
    best = model_folder.load(trainer.run.resolve("best"))
    assert best.info is not None
    assert best.info.val_loss == pytest.approx(1.6)
    for name, weight in best.weights.items():
        np.testing.assert_array_equal(weight, measured[-1][name].numpy())


def test_a_run_stopped_while_choosing_the_best_chooses_it_on_resuming(long_trainer: Callable[..., Trainer]) -> None:
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


def test_a_damaged_candidate_is_skipped(
    long_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gptbox")
    trainer = long_trainer(replace(TIMED, minutes=8 / 60))
    monkeypatch.setattr(trainer.evaluator, "estimate", lambda _: estimate(1.0 + 0.001 * len(trainer.run.snapshots())))
    original = trainer._select_best

    def damaged() -> None:
        (trainer.run.snapshots()[0] / "model.safetensors").write_bytes(b"gone")
        original()

    monkeypatch.setattr(trainer, "_select_best", damaged)
    status = trainer.train()
    assert status.phase == "finished"
    assert status.best_snapshot != trainer.run.snapshots()[0].name
    assert "is not a readable model folder" in caplog.text


def test_too_few_minutes_for_a_first_step_are_refused(
    make_trainer: Callable[..., Trainer],
) -> None:
    late = Timestamp(time.monotonic() - 6, time.process_time())
    trainer = make_trainer(replace(TIMED, minutes=0.1), started=late)
    with pytest.raises(RunError, match=r"The 0.1 minutes were over before the first step: the start took 6 s"):
        trainer.train()
    assert trainer.run.snapshots() == []
