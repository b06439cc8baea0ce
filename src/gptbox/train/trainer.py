"""The training loop: steps, evaluations, snapshots, checkpoints, and an end that loses nothing."""

import math
import threading
import time
from dataclasses import replace
from typing import Any

import torch

from gptbox import model_folder
from gptbox.cpus import cgroup_quota
from gptbox.datasets.prepared import PreparedDataset
from gptbox.errors import DiskFullError, DivergedError, ModelFolderError, RunError
from gptbox.run_folder import RunFolder, Status, begin_anew
from gptbox.train import overfitting, selection
from gptbox.train.budget import Budget, Instant
from gptbox.train.checkpoint import Checkpoint, Progress, differences
from gptbox.train.config import Stage, TrainConfig
from gptbox.train.cpu_share import CpuShare
from gptbox.train.dataloader import DataLoader
from gptbox.train.disk import Disk
from gptbox.train.evaluate import Interrupted
from gptbox.train.evaluation_schedule import Cost, EvaluationSchedule
from gptbox.train.evaluator import Evaluator
from gptbox.train.fused import Dropout, sites
from gptbox.train.gpt import GPT
from gptbox.train.optim import OPTIMIZERS
from gptbox.train.progress import Reporter, duration
from gptbox.train.publish import Publisher
from gptbox.train.shards import Shards, assign_gradient
from gptbox.train.status_writer import StatusWriter, device_name
from gptbox.train.world import World

CHECKPOINT_EVERY_S = 30.0
STATUS_EVERY_S = 1.0

_STEP, _END = 1.0, 0.0
"""What a leader announces."""


class Trainer:
    """One training run, new or continued."""

    def __init__(
        self,
        run: RunFolder,
        dataset: PreparedDataset,
        config: TrainConfig,
        *,
        reporter: Reporter,
        shards: Shards | None = None,
        world: World | None = None,
        snapshots_kept: int = 30,
        started: Instant | None = None,
    ) -> None:
        """`started` is when the command began, from which `minutes` count.

        Raises DatasetError where the text is too short for the context.
        """
        dataset.require_context(config.context_length)
        self.run, self.dataset, self.config, self.reporter = run, dataset, config, reporter
        self.shards, self.world = shards or Shards(1), world or World()
        self.publisher = Publisher(run, dataset, snapshots_kept)
        self.stopping = threading.Event()
        self.evaluator = Evaluator(dataset, self.shards, self.stopping.is_set)
        self.checkpoint = Checkpoint(run.checkpoint)
        self.started = started or Instant.now()
        self.progress = Progress()
        self.identity = {**config.fixed(), "text_sha256": dataset.text_sha256}
        self.disk = Disk(reporter)
        status = Status(run=run.name, phase="training", dataset_source=dataset.source)
        # On a GPU the processor's share says nothing of how fast it goes.
        cpus = 0.0 if self.world.device.type == "cuda" else min(self.shards.count, cgroup_quota() or math.inf)
        self.writer = StatusWriter(run, status, reporter, self.disk, CpuShare(cpus))
        self._all_know = False
        """That the run is over: every process has found it out by itself."""
        self._loaders: dict[Stage, DataLoader] = {}
        self._plan()

    def _plan(self) -> None:
        """Budget and evaluations, of the progress as it is now."""
        self.budget = Budget(self.config, self.progress, self.started, self.shards.threads)
        exact_ratio = self.evaluator.exact_tokens / self.evaluator.estimate_tokens
        self.evaluations = EvaluationSchedule(self.budget, exact_ratio)

    # the run

    def stop(self) -> None:
        """Save and end soon. Safe from a signal handler and from any thread."""
        self.stopping.set()

    def train(self) -> Status:
        """Train to the end, or until `stop()`; returns the last status.

        Raises RunError where the run cannot be continued or its time is over before the first step, DivergedError
        where the loss is no longer a number, DiskFullError where the run has ended and could not be saved.
        """
        config = self.config
        torch.manual_seed(config.seed)
        self.model = GPT(config.model(self.dataset.vocab_size))
        self.model.initialize(config.initialization)
        self.model.to(self.world.device)
        self.optimizer = OPTIMIZERS[config.optimizer](self.model, config, self.shards)
        self.writer.status = replace(
            self.writer.status,
            parameters=self.model.config.parameters,
            architecture=config.architecture,
            device=device_name(self.world, self.shards.threads),
        )
        if self.checkpoint.exists() and self._resume():
            return self._finished_already()
        if not self.world.leads:
            self._follow()
            return self.writer.status
        self.reporter.start(self.writer.write("training", self.budget, "Training has begun."))
        progress = self.progress
        try:
            ending = self._loop()
            if not self._evaluated_here():
                self._evaluate(last=True)
            self._choose_best()
        except Interrupted:
            self._save()
            message = f"Stopped at step {progress.step:,}; the next start goes on from here."
            self.writer.write("stopped", self.budget, message)
        else:
            progress.done = self.budget.limits()
            self._save()
            self.writer.write("finished", self.budget, f"{self.writer.summary(self.budget)}{ending}")
        finally:
            if not self._all_know:
                self.world.announce([_END] * 5)
        if self.disk.is_full:
            raise DiskFullError(
                f"The disk of {self.run.path} is full, and what was learned last could not be saved. Free some space "
                "and start again: training goes on from the last checkpoint."
            )
        self.reporter.finish(self.writer.status)
        return self.writer.status

    def _loop(self) -> str:
        """Steps, and what happens between them, up to the end; raises Interrupted after `stop()`.

        Returns what is to be said of the end.
        """
        budget, evaluations = self.budget, self.evaluations
        budget.begin()
        evaluations.begin(self.evaluator.guess_cost(self.model, budget))
        self._reserve()
        if budget.reached_end() and not self.progress.step:
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
            # Before the step, not after it: what a stop prevented is made up for when the run goes on.
            if self.progress.step and evaluations.is_due() and not self._evaluated_here():
                self._evaluate()
                next_checkpoint = time.monotonic() + CHECKPOINT_EVERY_S
                if not self._measured_in_steps() and overfitting.is_for_good(self.progress, budget.elapsed_s):
                    return f" {overfitting.LAST_WORDS}"
            elif self.progress.loss_count and self._row_is_due(last_row_s) and not ended:  # the end has its own row
                self._write_row()
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
        """A row of metrics: by steps where evaluations are, so that the same steps tell the same, else each second."""
        if self.config.eval_every is not None:
            return self.progress.step % max(1, self.config.eval_every // 25) == 0
        return self.budget.elapsed_s >= last_row_s + 1

    def _reserve(self) -> None:
        """Keep time for what follows the last step: its evaluation, and the exact losses of the finalists."""
        finalists = min(selection.MAX_CANDIDATES, len(selection.finalists(self.progress)) + 1)
        exact_s = 0.0 if self.evaluator.estimate_is_exact else self.evaluations.exact_s(finalists)
        self.budget.reserved_s = self.evaluations.expected.seconds + exact_s

    def _resume(self) -> bool:
        """Go back to the checkpoint; returns whether the run had finished and has nothing left to do."""
        state, complaint = self.checkpoint.read()
        if changed := differences(state["identity"], self.identity):
            raise RunError(f"The run {self.run.name!r} was begun otherwise: {changed}. {begin_anew(self.run.name)}")
        self.progress = progress = Checkpoint.restore(state, self.model, self.optimizer)
        self._plan()
        if self.budget.already_done():
            return True
        progress.done, progress.worse = None, 0
        if not self.world.leads:
            return False
        if complaint:
            self.reporter.say(complaint)
        self.run.truncate_rows(progress.step)
        if self._evaluated_here():
            self._publish()  # where the process was killed between the checkpoint and the snapshot
        self.reporter.say(f"Going on from step {progress.step:,}.")
        return False

    def _finished_already(self) -> Status:
        last = self.run.status()
        if not self.world.leads:
            return last or self.writer.status
        summary = self.writer.summary(self.budget)
        if last is None or last.phase != "finished":
            last = self.writer.write("finished", self.budget, summary)
        self.reporter.say(
            f"The run {self.run.name!r} is complete: {summary} To train it longer, raise its minutes or steps."
        )
        return last

    # a step

    def _step(self) -> None:
        """One update of the weights, announced to all processes."""
        began = self.budget.spent_s
        p, stage = self.progress, self.budget.stage()
        p.learning_rate = self.budget.learning_rate()
        self.world.announce([_STEP, p.step, p.learning_rate, stage.batch_size, stage.context_length])
        value = self._update(p.step, p.learning_rate, stage)
        p.step += 1
        p.tokens += stage.batch_size * stage.context_length
        p.loss_sum += value
        p.loss_count += 1
        self.budget.step_took(self.budget.spent_s - began, stage)

    def _update(self, step: int, rate: float, stage: Stage) -> float:
        """Every process's part of a step; returns the loss over the whole batch.

        Raises DivergedError before anything has changed.
        """
        config, rows = self.config, self.world.part(stage.batch_size)
        inputs, targets = (ids[rows].to(self.world.device) for ids in self._loader(stage).batch(step))
        dropout = Dropout.draw(config.dropout, config.seed, step, stage.batch_size, sites(config.n_layer))
        dropout = dropout.of_rows(rows.start, rows.stop)
        loss, gradient = self.shards.gradients(self.model, inputs, targets, dropout, config.accumulate)
        share = len(inputs) / stage.batch_size
        loss, gradient = self.world.sum(loss * share, gradient * share if share < 1 else gradient)
        if not math.isfinite(loss):
            self._all_know = True
            raise self._diverged("training", loss)
        assign_gradient(self.model, gradient)
        if config.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.optimizer.step()
        return loss

    def _follow(self) -> None:
        """Take the steps that the leader announces, until it announces the end."""
        while True:
            what, step, rate, batch_size, context_length = self.world.announce([_END] * 5)
            if what == _END:
                return
            self._update(int(step), rate, Stage(1.0, int(batch_size), int(context_length)))

    def _loader(self, stage: Stage) -> DataLoader:
        if stage not in self._loaders:
            self._loaders[stage] = DataLoader(
                self.dataset.train, stage.batch_size, stage.context_length, self.config.seed, self.config.sampling
            )
        return self._loaders[stage]

    def _diverged(self, which: str, value: float) -> DivergedError:
        p = self.progress
        return DivergedError(
            f"The {which} loss became {value} at step {p.step:,} (learning rate {p.learning_rate:.2g}); nothing of it "
            f"was published. Begin anew with a lower --learning-rate, after: gptbox delete {self.run.name}"
        )

    # evaluation

    def _evaluated_here(self) -> bool:
        return self.progress.latest_snapshot == self.run.snapshot(self.progress.step).name

    def _checked(self, loss: float) -> float:
        """Raises DivergedError where a validation loss is not a number."""
        if not math.isfinite(loss):
            raise self._diverged("validation", loss)
        return loss

    def _evaluate(self, last: bool = False) -> None:
        """Estimate the loss, write a sample, save and publish.

        The exact loss is measured, too, of the last snapshot and in runs that are measured in steps. Raises Interrupted
        where a stop was asked for meanwhile, DivergedError where the loss is not a number.
        """
        budget, p = self.budget, self.progress
        began, began_cpu = budget.spent_s, time.process_time()
        estimate = self._checked(self.evaluator.estimate(self.model))
        estimate_s = budget.spent_s - began
        val_loss = estimate if self.evaluator.estimate_is_exact else None
        if val_loss is None and (last or self.config.eval_every is not None):
            val_loss = self._checked(self.evaluator.exact(self.model))
        before = replace(p)
        selection.record(p, self.run.snapshot(p.step).name, estimate, val_loss, budget.elapsed_s)
        written = False
        with self.disk.writing():
            self._write_row(estimate, val_loss)
            losses = {"step": p.step, "val_loss": val_loss, "val_loss_estimate": estimate}
            self.run.append("samples", losses | self.evaluator.sample(self.model, self.config.seed))
            self._save()  # before the snapshot: a run that is killed in between publishes it when it goes on
            self._publish()
            written = True
        if not written:  # the disk is full: there is no such snapshot
            for name in selection.JUDGED:
                setattr(p, name, getattr(before, name))
        self.evaluations.took(Cost(budget.spent_s - began, time.process_time() - began_cpu, estimate_s))
        self._reserve()
        self.writer.evaluated(budget, written)

    def _choose_best(self) -> None:
        """Measure the finalists exactly, and let `best` be the one with the lowest loss.

        Raises Interrupted where a stop was asked for meanwhile.
        """
        p, exact = self.progress, {}
        for name in dict.fromkeys([*selection.finalists(p), p.latest_snapshot]):
            if name is None:
                continue
            if name == p.latest_snapshot and p.val_loss is not None:
                exact[name] = p.val_loss
                continue
            try:
                exact[name] = self._exact_loss(name)
            except ModelFolderError as error:  # damaged, or deleted by hand: it cannot be the best
                self.reporter.say(str(error))
        if not exact:
            return
        p.val_loss = exact.get(p.latest_snapshot or "", p.val_loss)
        p.best_snapshot = min(exact, key=lambda name: exact[name])
        p.best_val_loss = exact[p.best_snapshot]
        with self.disk.writing():
            self.run.point("best", self.run.path / "snapshots" / p.best_snapshot)

    def _exact_loss(self, name: str) -> float:
        """Of a published snapshot, measured unless its folder says it.

        Raises ModelFolderError where it cannot be read.
        """
        path = self.run.path / "snapshots" / name
        folder = model_folder.load(path)
        if folder.info is not None and folder.info.val_loss is not None:
            return folder.info.val_loss
        model = GPT(folder.config)
        model.load_state_dict({key: torch.from_numpy(weight) for key, weight in folder.weights.items()})
        loss = self._checked(self.evaluator.exact(model.to(self.world.device)))
        if folder.info is not None:
            with self.disk.writing():
                self.publisher.tell_loss(path, folder.info, folder.config, loss)
        return loss

    def _measured_in_steps(self) -> bool:
        """Whether so many steps were asked for, and nothing else: these are taken."""
        return self.config.steps is not None and self.config.minutes is None

    def _publish(self) -> None:
        self.publisher.publish(self.model, self.progress)

    def _save(self) -> None:
        self.budget.keep()
        with self.disk.writing():
            self.checkpoint.save(self.model, self.optimizer, self.progress, self.identity)
            self.disk.is_full = False

    def _write_row(self, estimate: float | None = None, val_loss: float | None = None) -> None:
        """A row of metrics; its training loss is the mean over the batches since the row before."""
        p = self.progress
        if p.loss_count:
            p.train_loss, p.loss_sum, p.loss_count = p.loss_sum / p.loss_count, 0.0, 0
        row: dict[str, Any] = {
            "step": p.step,
            "elapsed_s": round(self.budget.elapsed_s, 3),
            "train_loss": p.train_loss,
            "val_loss": val_loss,
            "val_loss_estimate": estimate,
            "lr": p.learning_rate,
            "tokens_per_s": round(self.budget.tokens_per_s) or None,
        }
        with self.disk.writing():
            self.run.append("metrics", row)
