"""The training loop: steps, evaluations, checkpoints and snapshots, and a stop that loses nothing."""

import math
import threading
import time
from dataclasses import replace
from typing import Any

import torch

from gptbox.datasets.prepared import PreparedDataset
from gptbox.errors import DiskFullError, RunError
from gptbox.models.runs import RunFolder, Status, start_over_advice
from gptbox.models.weights import Weights
from gptbox.system.cpus import cgroup_quota
from gptbox.train import best_snapshot, early_stopping
from gptbox.train.best_snapshot import BestSnapshotSelector
from gptbox.train.budget import Budget, Timestamp
from gptbox.train.checkpoint import Checkpoint, differences
from gptbox.train.config import TrainConfig
from gptbox.train.cpu_share import CpuShare
from gptbox.train.data_parallel import DataParallel
from gptbox.train.disk import DiskFullGuard
from gptbox.train.distributed import Distributed
from gptbox.train.evaluation import Evaluator, Interrupted
from gptbox.train.evaluation_schedule import EvaluationCost, EvaluationSchedule
from gptbox.train.gpt import GPT
from gptbox.train.optim import OPTIMIZERS
from gptbox.train.publish import Publisher
from gptbox.train.reporter import Reporter, duration
from gptbox.train.status_writer import StatusWriter, device_name
from gptbox.train.train_state import TrainState
from gptbox.train.training_step import TrainingStep, require_finite

CHECKPOINT_EVERY_S = 30.0
STATUS_EVERY_S = 1.0
ROW_EVERY_S = 1.0
"""Seconds between rows of metrics."""


class _Timer:
    """A timer that is due `interval_s` seconds after its last restart."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self.restart()

    def restart(self) -> None:
        self._due_at = time.monotonic() + self._interval_s

    def restart_if_due(self) -> bool:
        """Restart if due; returns whether it was."""
        due = time.monotonic() >= self._due_at
        if due:
            self.restart()
        return due


class Trainer:
    """One training run, new or continued."""

    def __init__(
        self,
        run: RunFolder,
        dataset: PreparedDataset,
        config: TrainConfig,
        *,
        reporter: Reporter,
        initial_weights: Weights | None = None,
        data_parallel: DataParallel | None = None,
        distributed: Distributed | None = None,
        snapshots_kept: int = 30,
        started: Timestamp | None = None,
    ) -> None:
        """A new run begins with `initial_weights`, by default random ones of `config.initialization`.

        `started` is the start of the command, from which `minutes` count. Raises DatasetError if the text is too short
        for the context.
        """
        dataset.require_context(config.model.context_length)
        assert config.model.vocab_size == dataset.vocab_size, "see TrainConfig.with_vocab_size"
        self.run, self.dataset, self.config, self.reporter = run, dataset, config, reporter
        self.data_parallel, self.distributed = data_parallel or DataParallel(1), distributed or Distributed()
        self.publisher = Publisher(run, dataset, snapshots_kept)
        self.stopping = threading.Event()
        self.evaluator = Evaluator(dataset, self.data_parallel, self.stopping.is_set)
        self.checkpoint = Checkpoint(run.checkpoint)
        self.initial_weights = initial_weights
        self.started = started or Timestamp.now()
        self.state = TrainState()
        self.identity = {**config.fixed(), "text_sha256": dataset.text_sha256}
        self.disk = DiskFullGuard(reporter)
        status = Status(
            run=run.name, phase="training", dataset_source=dataset.source, dataset_health=dataset.health_lines(),
            characters_per_token=dataset.characters_per_token, letters_per_token=dataset.letters_per_token,
            token_unit=dataset.tokenizer.unit,
        )  # fmt: skip
        # On a GPU, the share of the CPU says nothing about the speed of training.
        on_gpu = self.distributed.device.type == "cuda"
        cpus = 0.0 if on_gpu else min(self.data_parallel.num_workers, cgroup_quota() or math.inf)
        self.writer = StatusWriter(run, status, reporter, self.disk, CpuShare(cpus))
        self._make_budget()

    def _make_budget(self) -> None:
        """Make the budget and the evaluation schedule from the current state."""
        self.budget = Budget(self.config, self.state, self.started, self.data_parallel.threads)
        exact_ratio = self.evaluator.exact_tokens / self.evaluator.estimate_tokens
        self.schedule = EvaluationSchedule(self.budget, exact_ratio)

    # The run

    def stop(self) -> None:
        """Request a stop: training saves and ends soon. Safe in signal handlers and from any thread."""
        self.stopping.set()

    def train(self) -> Status:
        """Train to the end or until `stop()`; returns the last status.

        Raises RunError if the run cannot be continued or its time is over before the first step, DivergedError if the
        loss is not finite, DiskFullError if the run has ended and could not be saved.
        """
        self._make_model()
        if self.checkpoint.exists() and self._resume():
            return self._finished_already()
        if not self.distributed.is_main:
            self._training_step.follow()
            return self.writer.status
        self.reporter.start(self.writer.write("training", self.budget, "Training has begun."))
        try:
            ending = self._loop()
            if not self._is_evaluated():
                self._evaluate(last=True)
            self._select_best()
        except Interrupted:
            self._save()
            message = f"Stopped at step {self.state.step:,}; the next start goes on from here."
            self.writer.write("stopped", self.budget, message)
        else:
            self.state.done = self.budget.limits()
            self._save()
            self.writer.write("finished", self.budget, f"{self.writer.summary(self.budget)}{ending}")
        finally:
            self._training_step.end()
        if self.disk.is_full:
            raise DiskFullError(
                f"The disk of {self.run.path} is full, and the latest progress could not be saved. Free some space "
                "and start again: training goes on from the last checkpoint."
            )
        self.reporter.finish(self.writer.status)
        return self.writer.status

    def _make_model(self) -> None:
        """Make the model and the optimizer."""
        config = self.config
        torch.manual_seed(config.seed)
        self.model = GPT(config.model)
        self.model.initialize(config.initialization)
        if self.initial_weights is not None:
            self.model.load_weights(self.initial_weights)
        self.model.to(self.distributed.device)
        # Processes may have loaded different initial weights, if a snapshot was published in between.
        self.distributed.broadcast_parameters(self.model)
        self.optimizer = OPTIMIZERS[config.optimizer](self.model, config, self.data_parallel)
        self._training_step = TrainingStep(
            self.run.name, self.model, self.optimizer, self.dataset, config, self.data_parallel, self.distributed
        )
        self.writer.status = replace(
            self.writer.status,
            parameters=self.model.config.parameters,
            architecture=config.model.architecture,
            device=device_name(self.distributed, self.data_parallel.threads),
        )

    def _loop(self) -> str:
        """Train, evaluate and save until the end; raises Interrupted after `stop()`.

        Returns a sentence for the final message, with a leading space, or an empty string.
        """
        self._begin()
        state, budget = self.state, self.budget
        checkpoint, status, row = _Timer(CHECKPOINT_EVERY_S), _Timer(STATUS_EVERY_S), _Timer(ROW_EVERY_S)
        while not self.stopping.is_set():
            # Evaluate before the step, not after it: an evaluation that a stop prevented happens on resuming.
            if state.step and self.schedule.is_due() and not self._is_evaluated():
                self._evaluate()
                checkpoint.restart()
                if not self._is_limited_by_steps() and early_stopping.should_stop(state, budget.elapsed_s):
                    return f" {early_stopping.STOPPED_MESSAGE}"
            if budget.reached_end():
                return ""  # the final evaluation writes the last row
            if state.loss_count and self._row_is_due(row):
                self._write_row()
            if checkpoint.restart_if_due():
                self._save()
            if status.restart_if_due():
                self.writer.tick(budget)
            self._step()
        raise Interrupted

    def _begin(self) -> None:
        """Begin to count the budget's time, and schedule the evaluations.

        Raises RunError if nothing is left for the first step.
        """
        budget = self.budget
        self.evaluator.collect_words()
        budget.begin_training()
        self.schedule.begin(self.evaluator.predict_cost(self.model, budget))
        self._reserve_final_evaluation()
        if budget.reached_end() and not self.state.step:
            raise RunError(
                f"The {self.config.minutes:g} minutes were over before the first step: the start took "
                f"{duration(budget.spent_s)}, and the last evaluation needs {duration(budget.reserved_s)}. Give more "
                "minutes."
            )

    def _row_is_due(self, timer: _Timer) -> bool:
        """Rows of metrics are due by steps if evaluations are, so that they are reproducible; else once per second."""
        if self.config.eval_every is not None:
            return self.state.step % max(1, self.config.eval_every // 25) == 0
        return timer.restart_if_due()

    def _step(self) -> None:
        """Take one optimizer step in all processes."""
        state, budget = self.state, self.budget
        began, stage = budget.spent_s, budget.stage()
        state.learning_rate = budget.learning_rate()
        loss = self._training_step.run(state.step, state.learning_rate, stage)
        state.step += 1
        state.tokens += stage.batch_size * stage.context_length
        state.loss_sum += loss
        state.loss_count += 1
        budget.record_step(budget.spent_s - began, stage)

    def _reserve_final_evaluation(self) -> None:
        """Reserve time for the evaluation after the last step and the exact losses of the candidates."""
        candidates = min(best_snapshot.MAX_CANDIDATES, len(best_snapshot.candidates_within_margin(self.state)) + 1)
        exact_s = 0.0 if self.evaluator.estimate_is_exact else self.schedule.exact_s(candidates)
        self.budget.reserved_s = self.schedule.expected_cost.seconds + exact_s

    def _resume(self) -> bool:
        """Load the checkpoint; returns whether the run is finished and has nothing left to do."""
        stored, warning = self.checkpoint.read()
        if changed := differences(stored["identity"], self.identity):
            advice = start_over_advice(self.run.name)
            raise RunError(f"The run {self.run.name!r} was started with other settings: {changed}. {advice}")
        self.state = state = Checkpoint.restore(stored, self.model, self.optimizer)
        self._make_budget()
        if self.budget.already_done():
            return True
        state.done, state.worse = None, 0
        if not self.distributed.is_main:
            return False
        if warning:
            self.reporter.say(warning)
        self.run.truncate_rows(state.step)
        if self._is_evaluated():
            self._publish()  # in case the process was killed between checkpoint and snapshot
        self.reporter.say(f"Going on from step {state.step:,}.")
        return False

    def _finished_already(self) -> Status:
        status = self.run.status()
        if not self.distributed.is_main:
            return status or self.writer.status
        summary = self.writer.summary(self.budget)
        if status is None or status.phase != "finished":
            status = self.writer.write("finished", self.budget, summary)
        self.reporter.say(
            f"The run {self.run.name!r} is complete: {summary} To train it longer, raise its minutes or steps."
        )
        return status

    # Evaluations and checkpoints

    def _is_evaluated(self) -> bool:
        """Whether the latest snapshot is of this step."""
        return self.state.latest_snapshot == self.run.snapshot(self.state.step).name

    def _require_finite(self, loss: float) -> float:
        """Return a validation loss; raises DivergedError if it is not finite."""
        return require_finite(loss, "validation", self.state.step, self.state.learning_rate, self.run.name)

    def _evaluate(self, last: bool = False) -> None:
        """Estimate the loss, generate a sample, say what was learned, save and publish.

        The exact loss is measured too for the last snapshot, and for every one if evaluations are due by steps. Raises
        Interrupted if a stop was requested meanwhile, DivergedError if the loss is not finite.
        """
        budget, state = self.budget, self.state
        began, began_cpu = budget.spent_s, time.process_time()
        estimate, predictions = self.evaluator.estimate(self.model)
        self._require_finite(estimate)
        estimate_s = budget.spent_s - began
        val_loss = estimate if self.evaluator.estimate_is_exact else None
        if val_loss is None and (last or self.config.eval_every is not None):
            val_loss = self._require_finite(self.evaluator.exact(self.model))
        before = replace(state)
        best_snapshot.record_evaluation(state, self.run.snapshot(state.step).name, estimate, val_loss, budget.elapsed_s)
        written = False
        with self.disk.suppress_full():
            self._write_row(estimate, val_loss)
            losses = {"step": state.step, "val_loss": val_loss, "val_loss_estimate": estimate}
            sample = self.evaluator.sample(self.model, self.config.seed)
            learned = self.evaluator.learned(self.model, sample["text"], predictions, self.config.seed, state.step)
            self.run.append("samples", losses | sample | {"learned": learned})
            self._save()  # before publishing: a run killed in between publishes on resuming
            self._publish()
            written = True
        if not written:  # the disk is full, and the snapshot does not exist
            for name in best_snapshot.EVALUATION_FIELDS:
                setattr(state, name, getattr(before, name))
        self.schedule.record(EvaluationCost(budget.spent_s - began, time.process_time() - began_cpu, estimate_s))
        self._reserve_final_evaluation()
        self.writer.evaluated(budget, written)

    def _select_best(self) -> None:
        """Link `best` to the snapshot with the lowest exact loss; raises Interrupted after a stop."""
        selector = BestSnapshotSelector(self.run, self.evaluator, self.publisher, self.disk, self.distributed.device)
        for warning in selector.select(self.state):
            self.reporter.say(warning)

    def _is_limited_by_steps(self) -> bool:
        """Whether `steps` limits the run and `minutes` does not: such a run never stops early for overfitting."""
        return self.config.steps is not None and self.config.minutes is None

    def _publish(self) -> None:
        self.publisher.publish(self.model, self.state)

    def _save(self) -> None:
        self.budget.update_state()
        with self.disk.suppress_full():
            self.checkpoint.save(self.model, self.optimizer, self.state, self.identity)
            self.disk.is_full = False

    def _write_row(self, estimate: float | None = None, val_loss: float | None = None) -> None:
        """Append a row of metrics; its training loss is the mean over the batches since the last row."""
        state = self.state
        if state.loss_count:
            state.train_loss, state.loss_sum, state.loss_count = state.loss_sum / state.loss_count, 0.0, 0
        row: dict[str, Any] = {
            "step": state.step,
            "elapsed_s": round(self.budget.elapsed_s, 3),
            "train_loss": state.train_loss,
            "val_loss": val_loss,
            "val_loss_estimate": estimate,
            "lr": state.learning_rate,
            "tokens_per_s": round(self.budget.tokens_per_s) or None,
        }
        with self.disk.suppress_full():
            self.run.append("metrics", row)
