"""The training loop: steps, evaluations, snapshots, checkpoints, and an end that loses nothing."""

import math
import threading
import time
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from gptbox.datasets.prepared import PreparedDataset
from gptbox.errors import DivergedError, RunError
from gptbox.run_folder import Phase, RunFolder, Status
from gptbox.train.checkpoint import Checkpoint, Progress, differences
from gptbox.train.config import TrainConfig
from gptbox.train.dataloader import DataLoader
from gptbox.train.evaluate import Interrupted, evaluate
from gptbox.train.gpt import GPT
from gptbox.train.optim import OPTIMIZERS
from gptbox.train.pace import Pace
from gptbox.train.progress import Reporter
from gptbox.train.publish import publish, thin

CHECKPOINT_EVERY_S = 30.0
STATUS_EVERY_S = 1.0
SAMPLE_TOKENS = 300
SAMPLE_PROMPT = "\n"


class Trainer:
    """One training run, new or continued."""

    def __init__(
        self,
        run: RunFolder,
        dataset: PreparedDataset,
        config: TrainConfig,
        *,
        reporter: Reporter,
        snapshots_kept: int = 20,
        started: float | None = None,
    ) -> None:
        """`started` is when the command began (time.monotonic()), from which `minutes` count.

        Raises DatasetError where the text is too short for the context.
        """
        dataset.require_context(config.context_length)
        self.run, self.dataset, self.config, self.reporter = run, dataset, config, reporter
        self.snapshots_kept = snapshots_kept
        self.stopping = threading.Event()
        self.checkpoint = Checkpoint(run.checkpoint)
        self.started = time.monotonic() if started is None else started
        self.progress = Progress()
        self.pace = Pace(config, self.progress, self.started)
        self.status = Status(run=run.name, phase="training", dataset_source=dataset.source)
        self.tokens_a_step = config.batch_size * config.context_length
        self.identity = {**config.fixed(), "text_sha256": dataset.text_sha256}

    # the run

    def stop(self) -> None:
        """Save and end soon. Safe from a signal handler and from any thread."""
        self.stopping.set()

    def train(self) -> Status:
        """Train to the end, or until `stop()`; returns the last status.

        Raises RunError where the run cannot be continued, DivergedError where the loss is no longer a number.
        """
        config = self.config
        torch.manual_seed(config.seed)
        self.model = GPT(config.model(self.dataset.vocab_size), config.dropout)
        self.optimizer = OPTIMIZERS[config.optimizer](self.model, config)
        loader = DataLoader(self.dataset.train, config.batch_size, config.context_length, config.seed)
        self.status = replace(
            self.status,
            parameters=self.model.config.parameters,
            architecture=config.architecture,
            device=f"cpu, {torch.get_num_threads()} threads",
        )
        if self.checkpoint.exists() and self._resume():
            return self._finished_already()
        self._write_status("training", "Training has begun.")
        self.reporter.start(self.status)
        self.model.train()
        progress = self.progress
        try:
            self._loop(loader)
            if not self._evaluated_here():
                self._evaluate()
        except Interrupted:
            self._save()
            self._write_status("stopped", f"Stopped at step {progress.step:,}; the next start goes on from here.")
        else:
            progress.done = self.pace.limits()
            self._save()
            self._write_status("finished", self._summary())
        self.reporter.finish(self.status)
        return self.status

    def _loop(self, loader: DataLoader) -> None:
        """Steps, and what happens between them, up to the end; raises Interrupted after `stop()`."""
        pace = self.pace
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
                return
            self._step(loader)

    def _summary(self) -> str:
        best = self.progress.best_val_loss
        return f"Finished after {self.progress.step:,} steps" + ("." if best is None else f", loss {best:.4f} at best.")

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
        if complaint:
            self.reporter.say(complaint)
        if self.pace.already_done():
            return True
        progress.done = None
        self.run.truncate_rows(progress.step)
        if self._evaluated_here():
            self._publish()  # where the process was killed between the checkpoint and the snapshot
        self.reporter.say(f"Going on from step {progress.step:,}.")
        return False

    def _finished_already(self) -> Status:
        last = self.run.status()
        if last is None or last.phase != "finished":
            self._write_status("finished", self._summary())
        self.reporter.say(
            f"The run {self.run.name!r} is complete: {self._summary()} To train it longer, raise --minutes or --steps."
        )
        return self.run.status() or self.status

    # a step

    def _step(self, loader: DataLoader) -> None:
        """One update of the weights."""
        began = time.monotonic()
        inputs, targets = loader.batch(self.progress.step)
        self.progress.learning_rate = rate = self.pace.learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        logits = self.model(inputs)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.reshape(-1))
        value = loss.item()
        if not math.isfinite(value):
            raise self._diverged("training", value)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self.optimizer.step()
        self.progress.step += 1
        self.progress.loss_sum += value
        self.progress.loss_count += 1
        self.pace.step_took(time.monotonic() - began)

    def _diverged(self, which: str, value: float) -> DivergedError:
        p = self.progress
        return DivergedError(
            f"The {which} loss became {value} at step {p.step:,} (learning rate {p.learning_rate:.2g}); nothing of it "
            f"was published. Delete {self.run.path} and train anew with a lower --learning-rate."
        )

    # looking at it

    def _evaluated_here(self) -> bool:
        return self.progress.latest_snapshot == self.run.snapshot(self.progress.step).name

    def _evaluate(self) -> None:
        """Measure the loss, save, publish and write down a sample.

        Raises Interrupted where a stop was asked for meanwhile, DivergedError where the loss is not a number.
        """
        began, p = time.monotonic(), self.progress
        val_loss = evaluate(self.model, self.dataset.val, self.stopping.is_set)
        if not math.isfinite(val_loss):
            raise self._diverged("validation", val_loss)
        p.val_loss = val_loss
        name = self.run.snapshot(p.step).name
        if p.best_val_loss is None or val_loss < p.best_val_loss:
            p.best_val_loss, p.best_snapshot = val_loss, name
        p.latest_snapshot = name
        self._write_row(val_loss)
        prompt = self.dataset.tokenizer.encode(SAMPLE_PROMPT).tolist()
        self.model.eval()
        ids = self.model.generate(prompt, SAMPLE_TOKENS, temperature=0.8, top_k=200, seed=self.config.seed)
        self.model.train()
        text = self.dataset.tokenizer.decode(ids)
        row = {"step": p.step, "val_loss": val_loss, "prompt": SAMPLE_PROMPT, "seed": self.config.seed, "text": text}
        self.run.append("samples", row)
        self.pace.evaluation_took(time.monotonic() - began)
        self._save()  # before the snapshot: a run that is killed in between publishes it when it goes on
        self._publish()
        self.pace.evaluation_s = time.monotonic() - began
        self._write_status("training", f"Training: validation loss {val_loss:.4f} at step {p.step:,}.")
        self.reporter.evaluated(self.status)

    def _publish(self) -> None:
        p, data = self.progress, self.dataset
        publish(
            self.run,
            self.model,
            data.tokenizer,
            p,
            dataset=data.dataset,
            source=data.source,
            tokens=p.step * self.tokens_a_step,
            val_bpb=None if p.val_loss is None else data.bits_per_byte(p.val_loss),
        )
        thin(self.run, self.snapshots_kept, {name for name in (p.best_snapshot, p.latest_snapshot) if name})

    def _save(self) -> None:
        self.progress.elapsed_s = self.pace.elapsed_s
        self.checkpoint.save(self.model, self.optimizer, self.progress, self.identity)

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
        self.run.append("metrics", row)

    def _tokens_per_s(self) -> int | None:
        return round(self.tokens_a_step / self.pace.step_s) if self.pace.step_s else None

    def _describe(self) -> None:
        """Bring the status up to the progress."""
        p, steps, eta = self.progress, self.pace.steps, self.pace.eta_s
        self.status = replace(
            self.status,
            step=p.step,
            steps=None if math.isinf(steps) else max(p.step, round(steps)),
            tokens=p.step * self.tokens_a_step,
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
        self.status = self.run.write_status(replace(self.status, phase=phase, message=message))
