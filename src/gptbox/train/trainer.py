"""The training loop: steps, evaluations, checkpoints and snapshots, and a stop that loses nothing."""

import math
import threading
import time
from dataclasses import replace
from typing import Any

import torch

from gptbox.datasets.prepared import PreparedDataset
from gptbox.errors import DiskFullError, DivergedError, ModelFolderError, RunError
from gptbox.models import folder as model_folder
from gptbox.models.runs import RunFolder, Status, start_over_advice
from gptbox.system.cpus import cgroup_quota
from gptbox.train import best_snapshot, early_stopping
from gptbox.train.budget import Budget, Timestamp
from gptbox.train.checkpoint import Checkpoint, differences
from gptbox.train.config import Stage, TrainConfig
from gptbox.train.cpu_share import CpuShare
from gptbox.train.data_parallel import DataParallel, assign_gradient
from gptbox.train.dataloader import DataLoader
from gptbox.train.disk import DiskFullGuard
from gptbox.train.distributed import Distributed
from gptbox.train.evaluation import Evaluator, Interrupted
from gptbox.train.evaluation_schedule import EvaluationCost, EvaluationSchedule
from gptbox.train.gpt import GPT
from gptbox.train.ops import Dropout, dropout_sites
from gptbox.train.optim import OPTIMIZERS
from gptbox.train.publish import Publisher
from gptbox.train.reporter import Reporter, duration
from gptbox.train.status_writer import StatusWriter, device_name
from gptbox.train.train_state import TrainState

CHECKPOINT_EVERY_S = 30.0
STATUS_EVERY_S = 1.0

_STEP, _END = 1.0, 0.0
"""Commands of the main process to the others: the first number of a broadcast of five."""


class Trainer:
    """One training run, new or continued."""

    def __init__(
        self,
        run: RunFolder,
        dataset: PreparedDataset,
        config: TrainConfig,
        *,
        reporter: Reporter,
        data_parallel: DataParallel | None = None,
        distributed: Distributed | None = None,
        snapshots_kept: int = 30,
        started: Timestamp | None = None,
    ) -> None:
        """`started` is the start of the command, from which `minutes` count.

        Raises DatasetError if the text is too short for the context.
        """
        dataset.require_context(config.context_length)
        self.run, self.dataset, self.config, self.reporter = run, dataset, config, reporter
        self.data_parallel, self.distributed = data_parallel or DataParallel(1), distributed or Distributed()
        self.publisher = Publisher(run, dataset, snapshots_kept)
        self.stopping = threading.Event()
        self.evaluator = Evaluator(dataset, self.data_parallel, self.stopping.is_set)
        self.checkpoint = Checkpoint(run.checkpoint)
        self.started = started or Timestamp.now()
        self.state = TrainState()
        self.identity = {**config.fixed(), "text_sha256": dataset.text_sha256}
        self.disk = DiskFullGuard(reporter)
        status = Status(run=run.name, phase="training", dataset_source=dataset.source)
        # On a GPU, the share of the CPU says nothing about the speed of training.
        on_gpu = self.distributed.device.type == "cuda"
        cpus = 0.0 if on_gpu else min(self.data_parallel.num_workers, cgroup_quota() or math.inf)
        self.writer = StatusWriter(run, status, reporter, self.disk, CpuShare(cpus))
        self._all_processes_ended = False
        """Whether every process knows by itself that the run is over, so that none waits for _END."""
        self._loaders: dict[Stage, DataLoader] = {}
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
        config = self.config
        torch.manual_seed(config.seed)
        self.model = GPT(config.model(self.dataset.vocab_size))
        self.model.initialize(config.initialization)
        self.model.to(self.distributed.device)
        self.optimizer = OPTIMIZERS[config.optimizer](self.model, config, self.data_parallel)
        self.writer.status = replace(
            self.writer.status,
            parameters=self.model.config.parameters,
            architecture=config.architecture,
            device=device_name(self.distributed, self.data_parallel.threads),
        )
        if self.checkpoint.exists() and self._resume():
            return self._finished_already()
        if not self.distributed.is_main:
            self._follow()
            return self.writer.status
        self.reporter.start(self.writer.write("training", self.budget, "Training has begun."))
        state = self.state
        try:
            ending = self._loop()
            if not self._is_evaluated():
                self._evaluate(last=True)
            self._choose_best()
        except Interrupted:
            self._save()
            message = f"Stopped at step {state.step:,}; the next start goes on from here."
            self.writer.write("stopped", self.budget, message)
        else:
            state.done = self.budget.limits()
            self._save()
            self.writer.write("finished", self.budget, f"{self.writer.summary(self.budget)}{ending}")
        finally:
            if not self._all_processes_ended:
                self.distributed.broadcast([_END] * 5)
        if self.disk.is_full:
            raise DiskFullError(
                f"The disk of {self.run.path} is full, and what was learned last could not be saved. Free some space "
                "and start again: training goes on from the last checkpoint."
            )
        self.reporter.finish(self.writer.status)
        return self.writer.status

    def _loop(self) -> str:
        """Train, evaluate and save until the end; raises Interrupted after `stop()`.

        Returns a sentence for the final message, with a leading space, or an empty string.
        """
        budget, schedule = self.budget, self.schedule
        budget.begin_training()
        schedule.begin(self.evaluator.predict_cost(self.model, budget))
        self._reserve_final_evaluation()
        if budget.reached_end() and not self.state.step:
            raise RunError(
                f"The {self.config.minutes:g} minutes were over before the first step: the start took "
                f"{duration(budget.spent_s)}, and the last evaluation needs {duration(budget.reserved_s)}. Give more "
                "minutes."
            )
        next_status = time.monotonic() + STATUS_EVERY_S
        next_checkpoint = time.monotonic() + CHECKPOINT_EVERY_S
        last_row_s = budget.elapsed_s
        while True:
            if self.stopping.is_set():
                raise Interrupted
            ended = budget.reached_end()
            # Evaluate before the step, not after it: an evaluation that a stop prevented happens on resuming.
            if self.state.step and schedule.is_due() and not self._is_evaluated():
                self._evaluate()
                next_checkpoint = time.monotonic() + CHECKPOINT_EVERY_S
                if not self._is_limited_by_steps() and early_stopping.should_stop(self.state, budget.elapsed_s):
                    return f" {early_stopping.STOPPED_MESSAGE}"
            elif self.state.loss_count and self._row_is_due(last_row_s) and not ended:
                self._write_row()  # the final evaluation writes its own
                last_row_s = budget.elapsed_s
            if time.monotonic() >= next_checkpoint:
                self._save()
                next_checkpoint = time.monotonic() + CHECKPOINT_EVERY_S
            if time.monotonic() >= next_status:
                self.writer.tick(budget)
                next_status = time.monotonic() + STATUS_EVERY_S
            if budget.reached_end():
                return ""
            self._step()

    def _row_is_due(self, last_row_s: float) -> bool:
        """Rows of metrics are due by steps if evaluations are, so that they are reproducible; else once per second."""
        if self.config.eval_every is not None:
            return self.state.step % max(1, self.config.eval_every // 25) == 0
        return self.budget.elapsed_s >= last_row_s + 1

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

    # Steps

    def _step(self) -> None:
        """Take one optimizer step in all processes."""
        began = self.budget.spent_s
        state, stage = self.state, self.budget.stage()
        state.learning_rate = self.budget.learning_rate()
        self.distributed.broadcast([_STEP, state.step, state.learning_rate, stage.batch_size, stage.context_length])
        loss = self._update(state.step, state.learning_rate, stage)
        state.step += 1
        state.tokens += stage.batch_size * stage.context_length
        state.loss_sum += loss
        state.loss_count += 1
        self.budget.record_step(self.budget.spent_s - began, stage)

    def _update(self, step: int, rate: float, stage: Stage) -> float:
        """This process's part of a step; returns the loss over the whole batch.

        Raises DivergedError if that is not finite, before the weights change.
        """
        config, rows = self.config, self.distributed.rows(stage.batch_size)
        inputs, targets = (ids[rows].to(self.distributed.device) for ids in self._loader(stage).batch(step))
        dropout = Dropout.draw(config.dropout, config.seed, step, stage.batch_size, dropout_sites(config.n_layer))
        dropout = dropout.of_rows(rows.start, rows.stop)
        loss, gradient = self.data_parallel.gradients(self.model, inputs, targets, dropout, config.accumulate)
        fraction = len(inputs) / stage.batch_size
        loss, gradient = self.distributed.sum(loss * fraction, gradient * fraction if fraction < 1 else gradient)
        if not math.isfinite(loss):
            self._all_processes_ended = True
            raise self._diverged("training", loss)
        assign_gradient(self.model, gradient)
        if config.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.optimizer.step()
        return loss

    def _follow(self) -> None:
        """Take the steps that the main process broadcasts, until it broadcasts _END."""
        while True:
            command, step, rate, batch_size, context_length = self.distributed.broadcast([_END] * 5)
            if command == _END:
                return
            self._update(int(step), rate, Stage(1.0, int(batch_size), int(context_length)))

    def _loader(self, stage: Stage) -> DataLoader:
        if stage not in self._loaders:
            self._loaders[stage] = DataLoader(
                self.dataset.train, stage.batch_size, stage.context_length, self.config.seed, self.config.sampling
            )
        return self._loaders[stage]

    def _diverged(self, kind: str, loss: float) -> DivergedError:
        state = self.state
        return DivergedError(
            f"The {kind} loss became {loss} at step {state.step:,} (learning rate {state.learning_rate:.2g}); no "
            "snapshot of it was published. Begin anew with a lower --learning-rate, after: "
            f"gptbox delete {self.run.name}"
        )

    # Evaluation

    def _is_evaluated(self) -> bool:
        """Whether the latest snapshot is of this step."""
        return self.state.latest_snapshot == self.run.snapshot(self.state.step).name

    def _require_finite(self, loss: float) -> float:
        """Return a validation loss; raises DivergedError if it is not finite."""
        if not math.isfinite(loss):
            raise self._diverged("validation", loss)
        return loss

    def _evaluate(self, last: bool = False) -> None:
        """Estimate the loss, generate a sample, save and publish.

        The exact loss is measured too for the last snapshot, and for every one if evaluations are due by steps. Raises
        Interrupted if a stop was requested meanwhile, DivergedError if the loss is not finite.
        """
        budget, state = self.budget, self.state
        began, began_cpu = budget.spent_s, time.process_time()
        estimate = self._require_finite(self.evaluator.estimate(self.model))
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
            self.run.append("samples", losses | self.evaluator.sample(self.model, self.config.seed))
            self._save()  # before publishing: a run killed in between publishes on resuming
            self._publish()
            written = True
        if not written:  # the disk is full, and the snapshot does not exist
            for name in best_snapshot.EVALUATION_FIELDS:
                setattr(state, name, getattr(before, name))
        self.schedule.record(EvaluationCost(budget.spent_s - began, time.process_time() - began_cpu, estimate_s))
        self._reserve_final_evaluation()
        self.writer.evaluated(budget, written)

    def _choose_best(self) -> None:
        """Measure the exact losses of the candidates, and link `best` to the lowest.

        Raises Interrupted if a stop was requested meanwhile.
        """
        state, exact = self.state, {}
        for name in dict.fromkeys([*best_snapshot.candidates_within_margin(state), state.latest_snapshot]):
            if name is None:
                continue
            if name == state.latest_snapshot and state.val_loss is not None:
                exact[name] = state.val_loss
                continue
            try:
                exact[name] = self._exact_loss(name)
            except ModelFolderError as error:  # damaged or deleted, so it cannot be the best
                self.reporter.say(str(error))
        if not exact:
            return
        state.val_loss = exact.get(state.latest_snapshot or "", state.val_loss)
        state.best_snapshot = min(exact, key=lambda name: exact[name])
        state.best_val_loss = exact[state.best_snapshot]
        with self.disk.suppress_full():
            self.run.update_link("best", self.run.path / "snapshots" / state.best_snapshot)

    def _exact_loss(self, name: str) -> float:
        """The exact loss of a published snapshot: stored in its folder, or else measured and stored.

        Raises ModelFolderError if the folder cannot be read.
        """
        path = self.run.path / "snapshots" / name
        folder = model_folder.load(path)
        if folder.info is not None and folder.info.val_loss is not None:
            return folder.info.val_loss
        model = GPT(folder.config)
        model.load_state_dict({key: torch.from_numpy(weight) for key, weight in folder.weights.items()})
        loss = self._require_finite(self.evaluator.exact(model.to(self.distributed.device)))
        if folder.info is not None:
            with self.disk.suppress_full():
                self.publisher.set_val_loss(path, folder.info, folder.config, loss)
        return loss

    def _is_limited_by_steps(self) -> bool:
        """Whether `steps` limits the run and `minutes` does not: then all of them are taken."""
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
