"""The training loop: steps, evaluations, snapshots, checkpoints, and an end that loses nothing."""

import errno
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from gptbox.datasets.prepared import PreparedDataset
from gptbox.errors import DiskFullError, DivergedError, RunError
from gptbox.run_folder import Phase, RunFolder, Status
from gptbox.train import overfitting
from gptbox.train.checkpoint import Checkpoint, Progress, differences
from gptbox.train.config import Stage, TrainConfig
from gptbox.train.dataloader import DataLoader
from gptbox.train.evaluate import Interrupted, evaluate
from gptbox.train.fused import Dropout, sites
from gptbox.train.gpt import GPT
from gptbox.train.optim import OPTIMIZERS
from gptbox.train.pace import Pace
from gptbox.train.progress import Reporter
from gptbox.train.publish import publish, thin
from gptbox.train.shards import Shards, assign_gradient
from gptbox.train.world import World
from gptbox.windows import LIMIT

CHECKPOINT_EVERY_S = 30.0
STATUS_EVERY_S = 1.0
SAMPLE_TOKENS = 300
SAMPLE_PROMPT = "\n"

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
        snapshots_kept: int = 20,
        started: float | None = None,
    ) -> None:
        """`started` is when the command began (time.monotonic()), from which `minutes` count.

        Raises DatasetError where the text is too short for the context.
        """
        dataset.require_context(config.context_length)
        self.run, self.dataset, self.config, self.reporter = run, dataset, config, reporter
        self.shards, self.world = shards or Shards(1), world or World()
        self.snapshots_kept = snapshots_kept
        self.stopping = threading.Event()
        self.checkpoint = Checkpoint(run.checkpoint)
        self.started = time.monotonic() if started is None else started
        self.progress = Progress()
        self.pace = Pace(config, self.progress, self.started)
        self.status = Status(run=run.name, phase="training", dataset_source=dataset.source)
        self.identity = {**config.fixed(), "text_sha256": dataset.text_sha256}
        self.disk_is_full = False
        self._all_know = False
        """That the run is over: every process has found it out by itself."""
        self._loaders: dict[Stage, DataLoader] = {}

    # the run

    def stop(self) -> None:
        """Save and end soon. Safe from a signal handler and from any thread."""
        self.stopping.set()

    def train(self) -> Status:
        """Train to the end, or until `stop()`; returns the last status.

        Raises RunError where the run cannot be continued, DivergedError where the loss is no longer a number,
        DiskFullError where the run has ended and could not be saved.
        """
        config = self.config
        torch.manual_seed(config.seed)
        self.model = GPT(config.model(self.dataset.vocab_size))
        self.model.initialize(config.initialization)
        self.model.to(self.world.device)
        self.optimizer = OPTIMIZERS[config.optimizer](self.model, config, self.shards)
        self.status = replace(
            self.status,
            parameters=self.model.config.parameters,
            architecture=config.architecture,
            device=self._device(),
        )
        if self.checkpoint.exists() and self._resume():
            return self._finished_already()
        if not self.world.leads:
            self._follow()
            return self.status
        self._write_status("training", "Training has begun.")
        self.reporter.start(self.status)
        progress = self.progress
        try:
            ending = self._loop()
            if not self._evaluated_here():
                self._evaluate()
        except Interrupted:
            self._save()
            self._write_status("stopped", f"Stopped at step {progress.step:,}; the next start goes on from here.")
        else:
            progress.done = self.pace.limits()
            self._save()
            self._write_status("finished", f"{self._summary()}{ending}")
        finally:
            if not self._all_know:
                self.world.announce([_END] * 5)
        if self.disk_is_full:
            raise DiskFullError(
                f"The disk of {self.run.path} is full, and what was learned last could not be saved. Free some space "
                "and start again: training goes on from the last checkpoint."
            )
        self.reporter.finish(self.status)
        return self.status

    def _device(self) -> str:
        if self.world.device.type == "cuda":
            return f"{self.world.size} x {torch.cuda.get_device_name()}"
        processes = f"{self.world.size} processes of " if self.world.size > 1 else ""
        return f"cpu, {processes}{self.shards.threads} thread{'s' if self.shards.threads > 1 else ''}"

    def _loop(self) -> str:
        """Steps, and what happens between them, up to the end; raises Interrupted after `stop()`.

        Returns what is to be said of the end.
        """
        pace = self.pace
        pace.begin(self._guess_evaluation_s())
        next_status = time.monotonic() + STATUS_EVERY_S
        next_checkpoint = time.monotonic() + CHECKPOINT_EVERY_S
        last_row_s = pace.elapsed_s
        while True:
            if self.stopping.is_set():
                raise Interrupted
            ended = pace.reached_end()
            # Before the step, not after it: what a stop prevented is made up for when the run goes on.
            if self.progress.step and pace.evaluation_is_due() and not self._evaluated_here():
                self._evaluate()
                next_checkpoint = time.monotonic() + CHECKPOINT_EVERY_S
                if not self._measured_in_steps() and overfitting.is_for_good(self.progress, pace.elapsed_s):
                    return f" {overfitting.LAST_WORDS}"
            elif self.progress.loss_count and pace.row_is_due(last_row_s) and not ended:  # the end has its own row
                self._write_row()
                last_row_s = pace.elapsed_s
            if time.monotonic() >= next_checkpoint:
                self._save()
                next_checkpoint = time.monotonic() + CHECKPOINT_EVERY_S
            if time.monotonic() >= next_status:
                self._write_status("training", self.status.message)
                self.reporter.step(self.status)
                next_status = time.monotonic() + STATUS_EVERY_S
            if pace.reached_end():
                return ""
            self._step()

    def _summary(self) -> str:
        p = self.progress
        best = "." if p.best_val_loss is None else f", loss {p.best_val_loss:.4f} at best."
        if p.best_snapshot != p.latest_snapshot and p.best_snapshot is not None:
            best = f", loss {p.best_val_loss:.4f} at best, at step {int(p.best_snapshot[5:]):,}."
        return f"Finished after {p.step:,} steps{best}"

    def _resume(self) -> bool:
        """Go back to the checkpoint; returns whether the run had finished and has nothing left to do."""
        state, complaint = self.checkpoint.read()
        if changed := differences(state["identity"], self.identity):
            raise RunError(
                f"The run {self.run.name!r} was begun otherwise: {changed}. Train under another name with --run, "
                f"or delete {self.run.path} to begin anew."
            )
        self.progress = progress = Checkpoint.restore(state, self.model, self.optimizer)
        self.pace = Pace(self.config, progress, self.started)
        if self.pace.already_done():
            return True
        progress.done, progress.worse = None, 0
        progress.next_evaluation_s = None if progress.next_evaluation_s == math.inf else progress.next_evaluation_s
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
            return last or self.status
        if last is None or last.phase != "finished":
            self._write_status("finished", self._summary())
        self.reporter.say(
            f"The run {self.run.name!r} is complete: {self._summary()} To train it longer, raise --minutes or --steps."
        )
        return self.run.status() or self.status

    # a step

    def _step(self) -> None:
        """One update of the weights, announced to all processes."""
        began = time.monotonic()
        p, stage = self.progress, self.pace.stage()
        p.learning_rate = self.pace.learning_rate()
        self.world.announce([_STEP, p.step, p.learning_rate, stage.batch_size, stage.context_length])
        value = self._update(p.step, p.learning_rate, stage)
        p.step += 1
        p.tokens += stage.batch_size * stage.context_length
        p.loss_sum += value
        p.loss_count += 1
        self.pace.step_took(time.monotonic() - began, stage)

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
            f"was published. Delete {self.run.path} and train anew with a lower --learning-rate."
        )

    # looking at it

    def _evaluated_here(self) -> bool:
        return self.progress.latest_snapshot == self.run.snapshot(self.progress.step).name

    def _guess_evaluation_s(self) -> float:
        """What an evaluation may take, before there has been one: a forward pass over a part of it, in proportion."""
        some = self.dataset.val[: 2 * 2048 * self.shards.count]
        evaluate(self.model, some, self.shards)  # the first call is slower
        began = time.monotonic()
        evaluate(self.model, some, self.shards)
        return (time.monotonic() - began) * min(len(self.dataset.val), LIMIT) / len(some) + 0.3

    def _evaluate(self) -> None:
        """Measure the loss, save, publish and write down a sample.

        Raises Interrupted where a stop was asked for meanwhile, DivergedError where the loss is not a number.
        """
        began, p = time.monotonic(), self.progress
        val_loss = evaluate(self.model, self.dataset.val, self.shards, self.stopping.is_set)
        if not math.isfinite(val_loss):
            raise self._diverged("validation", val_loss)
        before = replace(p)
        p.val_loss = val_loss
        name = self.run.snapshot(p.step).name
        if p.best_val_loss is None or val_loss < p.best_val_loss:
            p.best_val_loss, p.best_snapshot, p.best_s, p.worse = val_loss, name, self.pace.elapsed_s, 0
        else:
            p.worse += 1
        p.latest_snapshot = name
        with self._disk() as written:
            self._write_row(val_loss)
            prompt = self.dataset.tokenizer.encode(SAMPLE_PROMPT).tolist()
            ids = self.model.generate(prompt, SAMPLE_TOKENS, temperature=0.8, top_k=200, seed=self.config.seed)
            text, seed = self.dataset.tokenizer.decode(ids), self.config.seed
            row = {"step": p.step, "val_loss": val_loss, "prompt": SAMPLE_PROMPT, "seed": seed, "text": text}
            self.run.append("samples", row)
            self.pace.evaluation_took(time.monotonic() - began)
            self._save()  # before the snapshot: a run that is killed in between publishes it when it goes on
            self._publish()
            written.append(True)
        if not written:  # the disk is full: there is no such snapshot
            p.best_snapshot, p.latest_snapshot = before.best_snapshot, before.latest_snapshot
            p.best_val_loss, p.best_s = before.best_val_loss, before.best_s
        self.pace.evaluation_s = time.monotonic() - began
        self._write_status("training", self._remark(val_loss))
        if written:
            self.reporter.evaluated(self.status)

    def _remark(self, val_loss: float) -> str:
        p = self.progress
        if self.disk_is_full:
            return (
                f"Training goes on at step {p.step:,}, but the disk is full: nothing can be saved or published until "
                "there is space."
            )
        if overfitting.has_begun(p) and p.best_snapshot is not None:
            return f"Training: {overfitting.remark(p)}"
        return f"Training: validation loss {val_loss:.4f} at step {p.step:,}."

    def _measured_in_steps(self) -> bool:
        """Whether so many steps were asked for, and nothing else: these are taken."""
        return self.config.steps is not None and self.config.minutes is None

    def _publish(self) -> None:
        p, data = self.progress, self.dataset
        publish(
            self.run,
            self.model,
            data.tokenizer,
            p,
            dataset=data.dataset,
            source=data.source,
            val_bpb=None if p.val_loss is None else data.bits_per_byte(p.val_loss),
        )
        thin(self.run, self.snapshots_kept, {name for name in (p.best_snapshot, p.latest_snapshot) if name})

    @contextmanager
    def _disk(self) -> Iterator[list[bool]]:
        """Around what writes: a full disk is told and remembered, and training goes on; it may be freed in time."""
        try:
            yield []
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            if not self.disk_is_full:
                self.reporter.say("The disk is full: nothing can be saved or published until there is space.")
            self.disk_is_full = True

    def _save(self) -> None:
        self.progress.elapsed_s = self.pace.elapsed_s
        with self._disk():
            self.checkpoint.save(self.model, self.optimizer, self.progress, self.identity)
            self.disk_is_full = False

    def _write_row(self, val_loss: float | None = None) -> None:
        """A row of metrics; its training loss is the mean over the batches since the row before."""
        p = self.progress
        if p.loss_count:
            p.train_loss, p.loss_sum, p.loss_count = p.loss_sum / p.loss_count, 0.0, 0
        row: dict[str, Any] = {
            "step": p.step,
            "elapsed_s": round(self.pace.elapsed_s, 3),
            "train_loss": p.train_loss,
            "val_loss": val_loss,
            "lr": p.learning_rate,
            "tokens_per_s": self._tokens_per_s(),
        }
        with self._disk():
            self.run.append("metrics", row)

    def _tokens_per_s(self) -> int | None:
        return round(self.pace.tokens_per_s) or None

    def _describe(self) -> None:
        """Bring the status up to the progress."""
        p, steps, eta = self.progress, self.pace.steps, self.pace.eta_s
        self.status = replace(
            self.status,
            step=p.step,
            steps=None if math.isinf(steps) else max(p.step, round(steps)),
            tokens=p.tokens,
            elapsed_s=round(self.pace.elapsed_s, 3),
            eta_s=None if eta is None else round(eta, 1),
            train_loss=p.train_loss,
            val_loss=p.val_loss,
            best_val_loss=p.best_val_loss,
            tokens_per_s=self._tokens_per_s(),
            latest_snapshot=p.latest_snapshot,
            best_snapshot=p.best_snapshot,
        )

    def _write_status(self, phase: Phase, message: str) -> None:
        self._describe()
        if phase == "finished":
            self.status = replace(self.status, steps=self.progress.step, eta_s=0.0)
        self.status = replace(self.status, phase=phase, message=message)
        with self._disk():
            self.status = self.run.write_status(self.status)
